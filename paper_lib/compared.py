"""What a comparison leaves: its tables, made from the parts of its matrices, and read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from paper_lib.compare_matrix import GRAM, MEASURED, run_keys
from paper_lib.comparison import Comparison
from paper_lib.config import fingerprint
from paper_lib.errors import CompanionError
from paper_lib.files import read_json
from paper_lib.matrices import Matrix
from paper_lib.pca import path_rows
from paper_lib.tables import TABLES, read_table, write_table

TABLE_NAMES = ("matrices", "nulls", "trajectories")
REPORT = ("report.html", "07_*.ipynb", "figures/fig_*")  # what `report.write_report` makes of the tables
EVERYWHERE: dict[str, Any] = {"layer": -1, "module": "all"}


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a comparison left in its folder; `nulls` and `trajectories` are None where it has none."""

    matrices: pd.DataFrame
    nulls: pd.DataFrame | None
    trajectories: pd.DataFrame | None
    account: dict[str, Any]
    paths: tuple[Path, ...]


def read_comparison(folder: str | Path) -> Tables:
    """The tables and the account in a folder that `compare` filled; raises CompanionError where it is not."""
    folder = Path(folder)
    path, remedy = folder / "pairing.json", f"`python -m paper_lib compare … --out {folder}` makes it"
    if not (account := read_json(path, remedy)):
        raise CompanionError(f"{path} is missing or empty: {remedy}")
    found = {name: folder / f"{name}.parquet" for name in TABLE_NAMES}
    paths = tuple(path for name, path in found.items() if path.is_file() or name == "matrices")
    tables: dict[str, Any] = {
        name: read_table(path) if path in paths else None for name, path in found.items()
    }
    return Tables(paths=paths, account=account, **tables)


def join_parts(work: Comparison, parts: Mapping[Matrix, Path], out: Path) -> None:
    """The tables, from the parts in the order of the matrices; a report of earlier tables goes first."""
    rows = pd.concat([read_table(path) for path in parts.values()], ignore_index=True)
    is_gram = rows["metric"] == GRAM
    grams, rows = rows[is_gram], rows[~is_gram]
    tables = {"matrices": rows[rows["null"] == MEASURED].drop(columns="null")}
    paths = {str(null): _path(work, group) for null, group in grams.groupby("null")}
    if work.nulls:
        tables["nulls"] = rows[rows["null"] != MEASURED]
    if len(work.steps) > 2:
        sims = tables["matrices"][tables["matrices"]["metric"].str.endswith("_alignment")]
        means = sims.groupby(["step", "metric", "k"], as_index=False)["value"].mean()
        tables["trajectories"] = pd.concat([paths.pop(MEASURED), means.assign(**run_keys(work))])
        walks = [path.assign(null=null, **EVERYWHERE) for null, path in paths.items()]
        if walks:
            tables["nulls"] = pd.concat([tables["nulls"], *walks])
    combined = fingerprint(*(work.fingerprint(matrix) for matrix in parts))
    for old in [path for pattern in REPORT for path in out.glob(pattern)]:
        old.unlink()
    for table in TABLE_NAMES:
        path = out / f"{table}.parquet"
        if table in tables:
            write_table(tables[table], path, columns=TABLES[table], fingerprint=combined, seed=0)
        else:
            path.unlink(missing_ok=True)  # of an earlier call with other options


def _path(work: Comparison, grams: pd.DataFrame) -> pd.DataFrame:
    size = len(work.steps)
    total = grams.groupby(["step", "k"], sort=True)["value"].sum().to_numpy().reshape(size, size)
    found = path_rows(torch.from_numpy(total.copy()), work.steps)
    return pd.DataFrame(found).assign(**run_keys(work))
