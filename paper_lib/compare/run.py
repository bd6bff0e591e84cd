"""Two checkpoints in, the paper's diagnostics out: a part a matrix, resumable, and the tables they make."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib import __version__
from paper_lib.compare.clusters import run_on
from paper_lib.compare.pairing import Comparison, open_comparison
from paper_lib.errors import CompanionError
from paper_lib.files import read_json, write_json
from paper_lib.geometry.subspaces import path_gram, update_gram
from paper_lib.matrices import Matrix
from paper_lib.measure.matrix import measure_matrix, measure_nulls, path_rows
from paper_lib.parallel import completed, cores
from paper_lib.study.config import Profile, fingerprint
from paper_lib.study.tasks import seeded_generator
from paper_lib.tables import NULL_COLUMNS, TABLES, Row, read_table, table_metadata, write_table

# --- What a comparison leaves: its tables, made from the parts of its matrices, and read again.

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


# --- One matrix of a comparison: read from every snapshot, measured, and told in rows.

MEASURED = ""  # the null of rows that are none
GRAM = "path_gram"  # ⟨ΔW_s, ΔW_t⟩, step s and k = t, in parts alone


def measure_shared(work: Comparison, matrix: Matrix) -> pd.DataFrame:
    """One matrix's rows of every table, with the columns of NULL_COLUMNS; its path's inner products are rows
    of the metric `GRAM`. Raises CompanionError, naming checkpoint and tensor, where that is impossible.
    """
    weights = [_read(work, matrix, step) for step in range(len(work.snapshots))]
    try:
        rows = {MEASURED: _metrics(work, weights) + _gram_rows(work, update_gram(weights))}
        if work.nulls:
            nulls, walks = measure_nulls(
                weights, work.steps, work.config, lambda null: seeded_generator(null, "compare", matrix.name)
            )
            rows |= nulls
            rows["random_walk"] += _gram_rows(work, path_gram(walks["random_walk"]))
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CompanionError(f"{work.finetuned.file(matrix.name)}: {matrix.name}: {reason}") from error
    place = {"layer": matrix.layer, "module": matrix.module, **run_keys(work)}
    return pd.DataFrame(
        [row._asdict() | place | {"null": null} for null, found in rows.items() for row in found]
    )


def _metrics(work: Comparison, weights: list[Tensor]) -> list[Row]:
    return measure_matrix(weights, work.steps, work.config, work.learning_rates, exact=work.exact)


def _read(work: Comparison, matrix: Matrix, index: int) -> Tensor:
    source = work.snapshots[index][1]
    w_t = source.read(matrix.name)
    if bad := int((~torch.isfinite(w_t)).sum()):
        raise CompanionError(
            f"{source.file(matrix.name)}: {matrix.name} has {bad} of {w_t.numel()} entries not finite"
        )
    return w_t


def _gram_rows(work: Comparison, gram: Tensor) -> list[Row]:
    steps = work.steps
    return [Row(s, GRAM, gram[i, j].item(), t) for i, s in enumerate(steps) for j, t in enumerate(steps)]


def run_keys(work: Comparison) -> dict[str, Any]:
    """The keys of a comparison's rows in the tidy tables."""
    return {"profile": "compare", "run": work.finetuned.label, "seed": 0}


PART_BYTES, REPORT_BYTES = 60_000, 20_000_000  # generous: what a matrix and snapshot, and all else, may take
WORKER_BYTES, WIDE_COPIES = 1.5e9, 12  # what a worker may take: libraries, and float64 copies of a matrix
WORTH_A_WORKER = 2e11  # operations (about a minute) below which starting processes takes longer than it saves


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was written: the folder, how many matrices were measured, and by name why others failed."""

    out: Path
    measured: int
    failed: dict[str, str]


def compare_profile(profile: Profile, data_dir: str | Path = "data") -> Path:
    """Compare the student of a profile after it read sloppy text with itself before; returns the folder."""
    models = Path(data_dir) / profile.models
    out = Path(data_dir) / "compared" / profile.name
    compare(models / "teacher_small", models / "base", out, nulls=True)
    return out


def compare(
    base: str | Path,
    finetuned: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    timeout: float = 10,
    force: bool = False,
    **options: Any,
) -> Compared:
    """Measure every matrix that two checkpoints share; out gets `matrices.parquet`, with `nulls` and a
    trajectory `nulls.parquet` and `trajectories.parquet`, and `pairing.json`, which says what was left out.

    options: of `open_comparison`. workers: processes, of `threads` threads each (1 unless asked for); None
    takes as many as there are cores, memory and work for. backend, address, timeout: see `clusters.run_on`.
    The tables do not depend on workers or backend; they may on `threads`, in their last digits, so these are
    part of what makes a finished matrix valid. Finished matrices are kept in out/parts and not measured again
    unless `force`. A worker holds at most 1.5 GB and twelve float64 copies of its matrix, whatever the
    model's size; with nulls, a trajectory's random walk adds one a snapshot.
    Raises CompanionError where nothing could be measured; a matrix that failed alone is in `failed`.
    """
    out, work = Path(out), open_comparison(base, finetuned, **options)
    _require_space(work, out)
    parts = {matrix: out / "parts" / f"{matrix.layer}_{matrix.module}.parquet" for matrix in work.matrices}
    todo = [m for m, path in parts.items() if force or not _up_to_date(path, work.fingerprint(m))]
    if done := len(parts) - len(todo):
        print(f"[compare] {done} of {len(parts)} matrices are measured already", flush=True)
    if workers is None and backend == "loky":
        workers = _workers(work, todo)
    with run_on(backend, address=address, workers=workers, timeout=timeout) as count:
        failed = dict(_measure_all(work, todo, parts, count))
    measured = [matrix for matrix in parts if matrix.name not in failed]
    _write_account(work, out, failed)
    if not measured:
        raise CompanionError(f"no matrix could be measured: {next(iter(failed.values()))}")
    join_parts(work, {matrix: parts[matrix] for matrix in measured}, out)
    return Compared(out=out, measured=len(measured), failed=failed)


def _measure_all(
    work: Comparison, todo: list[Matrix], parts: Mapping[Matrix, Path], workers: int | None
) -> Iterator[tuple[str, str]]:
    """Measure and write part by part; yields name and reason of each that failed."""
    labels = [f"layer {m.layer} {m.module} ({m.shape[0]} × {m.shape[1]})" for m in todo]
    jobs = [(work, matrix) for matrix in todo]
    missing = {matrix.name for matrix in todo}
    results = completed(
        measure_shared, jobs, labels=labels, what="compare", workers=workers, threads_each=work.threads
    )
    stopped = ""
    try:
        for index, rows in results:
            matrix = todo[index]
            if isinstance(rows, CompanionError):
                yield matrix.name, str(rows)
            elif stopped := _write_part(rows, parts[matrix], work.fingerprint(matrix)):
                break
            missing.discard(matrix.name)
    except CompanionError as error:
        stopped = str(error)
    for name in sorted(missing):
        yield name, f"{name} was not measured: {stopped}; the same command goes on from here"


def _write_part(rows: pd.DataFrame, path: Path, mark: str) -> str:
    """Write one part; returns why that was impossible, "" where it was not."""
    try:
        write_table(rows, path, columns=NULL_COLUMNS, fingerprint=mark, seed=0)
    except OSError as error:
        return f"{path} could not be written ({error.strerror or error}): make room"
    return ""


def _write_account(work: Comparison, out: Path, failed: Mapping[str, str]) -> None:
    measured = [asdict(matrix) for matrix in work.matrices if matrix.name not in failed]
    account = {
        "version": __version__,
        "base": work.base.label,
        "finetuned": work.finetuned.label,
        "steps": list(work.steps),
        "width": work.width,
        "sizes": asdict(work.config) | {"null_runs": None},
        "measured": measured,
        "left_out": {kind: names for kind, names in work.left_out.items() if names},
        "failed": dict(failed),
    }
    write_json(out / "pairing.json", account)


def _up_to_date(path: Path, mark: str) -> bool:
    try:
        return table_metadata(path)["fingerprint"] == mark
    except CompanionError:
        return False


def _require_space(work: Comparison, out: Path) -> None:
    """Refuse early what could not be written in the end."""
    needed = REPORT_BYTES + PART_BYTES * len(work.matrices) * (len(work.steps) - 1) * (3 if work.nulls else 1)
    out.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out).free) < needed:
        raise CompanionError(f"{out} has {free / 1e6:.0f} MB free and needs about {needed / 1e6:.0f} MB")


def _workers(work: Comparison, todo: list[Matrix]) -> int:
    """Processes that pay off and fit the memory of this machine."""
    sizes = [m.shape[0] * m.shape[1] for m in todo]
    operations = sum(20 * size * min(m.shape) for m, size in zip(todo, sizes, strict=True)) * len(work.steps)
    if operations < WORTH_A_WORKER:
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fitting = int(memory / (WORKER_BYTES + WIDE_COPIES * 8 * max(sizes)))
    return max(1, min(cores() // work.threads, fitting))
