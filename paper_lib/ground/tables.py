"""The tidy tables: one schema, one row a value, the same bytes for the same rows."""

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from paper_lib import __version__
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import sha256, whole_file

_RUN = ("profile", "run", "seed", "step")
_MATRIX = (*_RUN, "layer", "module")
TABLES = {  # the columns of each
    "matrices": (*_MATRIX, "metric", "k", "value"),
    "nulls": ("null", *_MATRIX, "metric", "k", "value"),
    "trajectories": (*_RUN, "metric", "k", "value"),
    "curves": (*_RUN, "metric", "value"),
    "masks": (
        *("profile", "run", "seed", "layer", "module", "row", "column"),
        *("update", "principal", "low_magnitude"),
    ),
    "pairs": (
        *("profile", "run", "other", "seed", "other_seed"),
        *("step", "layer", "module", "metric", "k", "value"),
    ),
    "curvature": (*_RUN, "direction", "metric", "k", "value"),
    "journeys": (*_MATRIX, "row", "column", "k", "value", "stored"),
}
START = "start"  # in the place of a run's name in `curvature`: directions that are W_0's own

_TYPES = {
    **dict.fromkeys(("profile", "run", "other", "module", "metric", "null", "direction"), pa.string()),
    **dict.fromkeys(("seed", "other_seed", "step", "layer", "row", "column"), pa.int64()),
    **dict.fromkeys(("k", "value", "stored"), pa.float64()),
    **dict.fromkeys(("update", "principal", "low_magnitude"), pa.bool_()),
}
_MEASURED = ("value", "stored", "update", "principal", "low_magnitude")
_MAY_BE_NAN = ("k", "value")
_PACKAGES = ("torch", "transformers", "numpy", "pandas", "pyarrow", "scikit-learn")


class Row(NamedTuple):
    """One value of a tidy table; what it is a value of (run, matrix) is added by the caller."""

    step: int
    metric: str
    value: float
    k: float = math.nan


@cache
def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a table's numbers, read without importing them."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def write_table(
    frame: pd.DataFrame,
    path: str | Path,
    *,
    columns: Sequence[str],
    fingerprint: str,
    seed: int | None = None,
    libraries: Mapping[str, str] | None = None,
    parts: Any = None,
) -> None:
    """Write `frame` to `path` as parquet, sorted by its keys: the same rows in any order give the same bytes.

    columns: one of `TABLES`; `frame` holds exactly these, in any order. fingerprint: of the
    configuration the rows were computed from; it, `seed` and the versions (`libraries`, those in use where
    None) go into the file's metadata. parts: what `table_parts` gives back, as JSON.
    Raises ValueError where a column is missing, unknown or of the wrong type, where a key (all but `k`) is
    empty, and where two rows share all keys. The file appears whole or not at all.
    """
    path = Path(path)
    if set(frame) != set(columns):
        raise ValueError(f"{path.name}: the columns are {list(frame)}, expected {list(columns)}")
    for column in (name for name in columns if name not in _MAY_BE_NAN):
        if empty := int(frame[column].isna().sum()):
            raise ValueError(f"{path.name}: column {column!r} has {empty} empty entries")
    keys = [name for name in columns if name not in _MEASURED]
    frame = frame.loc[:, list(columns)].sort_values(keys, kind="stable", ignore_index=True)
    if (twice := frame.duplicated(keys)).any():
        row = frame.loc[twice, keys].iloc[0].to_dict()
        raise ValueError(f"{path.name}: {int(twice.sum())} rows repeat the keys of another, the first {row}")
    schema = pa.schema([pa.field(name, _TYPES[name], nullable=name in _MAY_BE_NAN) for name in columns])
    try:
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    used = library_versions() if libraries is None else dict(libraries)
    said = {"version": __version__, "fingerprint": fingerprint, "seed": seed, "libraries": used}
    about = {"paper_lib": json.dumps(said, sort_keys=True)}
    if parts is not None:
        about["parts"] = json.dumps(parts, sort_keys=True)
    about["digest"] = _digest(schema, about["paper_lib"].encode(), about.get("parts", "").encode())
    table = table.replace_schema_metadata(about)
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd", write_page_checksum=True)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table written by `write_table`, rows in their stored order.

    Raises CompanionError where the file is missing (it names the command that makes it), truncated, not
    parquet, or damaged: a page does not have the checksum that was written with it.
    """
    _metadata(path)
    with _readable(Path(path)):
        return pq.ParquetFile(path, page_checksum_verification=True).read().to_pandas()


def table_metadata(path: str | Path) -> dict[str, Any]:
    """What a table says of itself: `version`, `fingerprint`, `seed`, `libraries`; raises as `read_table`."""
    about = _metadata(path)
    if b"paper_lib" not in about:
        raise CompanionError(f"{path} was not written by this project: nothing says what made it, rebuild it")
    return _parsed(about[b"paper_lib"], path)


def table_parts(path: str | Path) -> Any:
    """What was given to `write_table` as `parts`, None where nothing was; raises as `read_table`."""
    return _parsed(_metadata(path).get(b"parts", b"null"), path)


def _parsed(text: bytes, path: str | Path) -> Any:
    with _readable(Path(path)):
        return json.loads(text)


def _metadata(path: str | Path) -> dict[bytes, bytes]:
    """The metadata, whose digest is that of what was written; tables of earlier versions have no digest and
    no page checksums: their bytes have the SHA-256 in the README.md beside them, where there is one."""
    with _readable(Path(path)):
        schema = pq.read_schema(path)
        about = schema.metadata or {}
        texts = (about.get(b"paper_lib", b""), about.get(b"parts", b""))
        if about.get(b"digest", b"").decode() not in ("", _digest(schema, *texts)):
            raise ValueError("its columns or its metadata are not those that were written")
        card = Path(path).with_name("README.md")
        if b"digest" not in about and card.is_file() and sha256(path) not in card.read_text("utf-8"):
            raise ValueError("its SHA-256 is not in the README.md beside it; `git restore` brings it back")
        return about


def _digest(schema: pa.Schema, *texts: bytes) -> str:
    columns = " ".join(f"{field.name}:{field.type}:{field.nullable}" for field in schema)
    return hashlib.sha256(b"\n".join((columns.encode(), *texts))).hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    command = f"`make figures PROFILE={path.parent.name} ARGS=--train`"
    remake = f"{command} makes it (notebooks 01_train and 02_extract)"
    if not path.is_file():
        raise CompanionError(f"{path} does not exist: {remake}")
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise CompanionError(f"{path} is not a readable parquet file ({why}): delete it, {remake}") from error
