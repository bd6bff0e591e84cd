"""Two checkpoints in, the paper's diagnostics out: a part a matrix, resumable, and the tables they make."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from paper_lib import __version__
from paper_lib.clusters import run_on
from paper_lib.compare_matrix import measure_shared
from paper_lib.compared import join_parts
from paper_lib.comparison import Comparison, open_comparison
from paper_lib.config import Profile
from paper_lib.errors import CompanionError
from paper_lib.files import write_json
from paper_lib.matrices import Matrix
from paper_lib.parallel import completed, cores
from paper_lib.tables import NULL_COLUMNS, table_metadata, write_table

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
