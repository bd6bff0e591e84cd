"""Two checkpoints in, the paper's diagnostics out: a part a matrix, resumable, and the tables they make."""

import importlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import parallel_config
from torch import Tensor

from paper_lib import __version__
from paper_lib.compare.adapters import NO_BASE
from paper_lib.compare.facts import beside_rows, end_rows, untouched, update_rows
from paper_lib.compare.pairing import Checkpoints, model_width, open_checkpoints
from paper_lib.compare.placing import REFERENCE
from paper_lib.compare.shards import Source
from paper_lib.compare.summary import SUMMARY, TABLE_NAMES, read_comparison, summary
from paper_lib.geometry.decompositions import Decomposition, Spectrum
from paper_lib.geometry.subspaces import path_gram, update_gram
from paper_lib.ground.errors import CompanionError, one_line
from paper_lib.ground.files import write_json
from paper_lib.ground.matrices import OUTSIDE, Matrix
from paper_lib.ground.parallel import cores, roughly
from paper_lib.ground.tables import TABLES, Row, read_table, write_table
from paper_lib.measure.matrix import measure_matrix, measure_nulls, path_rows
from paper_lib.measure.parts import EVERYWHERE, Frames, Part, measure_parts, outdated
from paper_lib.study.config import Profile, fingerprint

# --- What a comparison leaves: its tables, made from the parts of its matrices.

REPORT = ("report.html", "07_*.ipynb", "figures/fig_*")  # what `report.write_report` makes of the tables


def join_tables(parts: Sequence["MatrixPart"], out: Path) -> None:
    """The tables, from parts in the order of the matrices; a report of earlier tables goes first."""
    of = parts[0].checkpoints
    rows = pd.concat([read_table(part.path("nulls")) for part in parts], ignore_index=True)
    is_gram = rows["metric"] == GRAM
    grams, rows = rows[is_gram], rows[~is_gram]
    tables = {"matrices": rows[rows["null"] == OWN].drop(columns="null")}
    if of.other is not None:
        tables["pairs"] = rows[rows["null"] == BESIDE].drop(columns="null")
        tables["pairs"] = tables["pairs"].assign(other=of.other.label, other_seed=0)
    if of.nulls:
        tables["nulls"] = rows[~rows["null"].isin((OWN, BESIDE))]
    if len(of.steps) > 2:
        paths = {str(null): _path_rows(group, of.steps) for null, group in grams.groupby("null")}
        own = parts[0].keyed(of.finetuned.label, paths.pop(OWN)) if paths else None
        sims = tables["matrices"][tables["matrices"]["metric"].str.endswith("_alignment")]
        keys = ["profile", "run", "seed", "step", "metric", "k"]
        tables["trajectories"] = pd.concat([own, sims.groupby(keys, as_index=False)["value"].mean()])
        if paths:
            walks = parts[0].keyed_nulls(of.finetuned.label, paths, **EVERYWHERE)
            tables["nulls"] = pd.concat([tables["nulls"], walks])
    combined = fingerprint(*(part.fingerprint for part in parts))
    for old in [path for pattern in REPORT for path in out.glob(pattern)]:
        old.unlink()
    for table in TABLE_NAMES:
        path = out / f"{table}.parquet"
        if table in tables:
            write_table(tables[table], path, columns=TABLES[table], fingerprint=combined, seed=0)
        else:
            path.unlink(missing_ok=True)  # of an earlier call with other options


def _path_rows(grams: pd.DataFrame, steps: Sequence[int]) -> list[Row]:
    total = grams.groupby(["step", "k"], sort=True)["value"].sum().to_numpy().reshape(len(steps), -1)
    return path_rows(torch.from_numpy(total.copy()), steps)


# --- One matrix of a comparison: read from every snapshot, measured, and told in rows.

OWN, BESIDE = "", "beside"  # in the place of a null's name: rows of the update itself, and beside another's
GRAM = "path_gram"  # ⟨ΔW_s, ΔW_t⟩, step s and k = t, in parts alone


@dataclass(frozen=True, kw_only=True)
class MatrixPart(Part):
    """One matrix of a comparison: rows for all its tables, with the columns of `nulls` and in one file; its
    path's inner products are rows of the metric `GRAM`."""

    matrix: Matrix
    checkpoints: Checkpoints

    def path(self, table: str) -> Path:
        return self.directory / f"{self.matrix.layer}_{self.matrix.module}.parquet"

    def measure(self) -> Frames:
        """Raises CompanionError, naming checkpoint and tensor, where that is impossible."""
        of, name = self.checkpoints, self.matrix.name
        try:
            weights = [_finite(source, name) for _, source in of.snapshots]
            rows = self._rows(weights, _finite(of.other, name) if of.other else None)
            if of.nulls:
                nulls, walks = measure_nulls(weights, of.steps, of.config, ("compare", name))
                rows |= nulls
                rows["random_walk"] += _gram_rows(path_gram(walks["random_walk"]), of.steps)
        except (ValueError, RuntimeError, MemoryError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CompanionError(f"{of.finetuned.file(name)}: {name}: {reason}") from error
        keys = {"layer": self.matrix.layer, "module": self.matrix.module}
        return {"nulls": [self.keyed_nulls(of.finetuned.label, rows, **keys)]}

    def _rows(self, weights: list[Tensor], other: Tensor | None) -> dict[str, list[Row]]:
        """Of the update itself, and beside that of W_0's other fine-tune where there is one."""
        of, last = self.checkpoints, self.checkpoints.steps[-1]
        if of.base.fingerprint == NO_BASE:  # there is no W_0 but zeros
            return {OWN: update_rows(last, of.learning_rates, weights[-1], of.config, exact=of.exact)}
        beside: list[Row] = []

        def at_end(start: Spectrum, end: Spectrum, found: Decomposition) -> list[Row]:
            if other is not None:
                three = (start.w, end.w, other)
                beside.extend(beside_rows(last, found, three, of.config, exact=of.exact))
            return end_rows(last, of.learning_rates, start, end, found)

        own = measure_matrix(
            *(weights, of.steps, of.config, of.learning_rates), exact=of.exact, at_end=at_end
        )
        if self.matrix.module.partition(".")[0] in OUTSIDE:
            own += untouched(last, weights[0], weights[-1])
        return {OWN: own + _gram_rows(update_gram(weights), of.steps), BESIDE: beside}


def _finite(source: Source, name: str) -> Tensor:
    w_t = source.read(name)
    if bad := int((~torch.isfinite(w_t)).sum()):
        raise CompanionError(f"{source.file(name)}: {name} has {bad} of {w_t.numel()} entries not finite")
    return w_t


def _gram_rows(gram: Tensor, steps: Sequence[int]) -> list[Row]:
    return [Row(s, GRAM, gram[i, j].item(), t) for i, s in enumerate(steps) for j, t in enumerate(steps)]


def matrix_parts(checkpoints: Checkpoints, out: Path) -> list[MatrixPart]:
    """A part a matrix, with its file in out/parts."""
    return [
        MatrixPart(
            label=f"layer {matrix.layer} {matrix.module} ({matrix.shape[0]} × {matrix.shape[1]})",
            profile="compare",
            seed=0,
            tables=("nulls",),
            fingerprint=checkpoints.fingerprint(matrix),
            directory=out / "parts",
            matrix=matrix,
            checkpoints=checkpoints,
        )
        for matrix in checkpoints.matrices
    ]


# --- The whole comparison.

WORKER_BYTES, WIDE_COPIES = 1.5e9, 12  # what a worker may take: libraries, and float64 copies of a matrix
WORTH_A_WORKER = 2e11  # operations (about a minute) below which starting processes takes longer than it saves


def compare_profile(profile: Profile, data_dir: str | Path = "data") -> Path:
    """Compare the student of a profile after it read sloppy text with itself before; returns the folder."""
    models = Path(data_dir) / profile.models
    out = Path(data_dir) / "compared" / profile.name
    compare(models / "teacher_small", models / "base", out, nulls=True)
    return out


def compare(
    base: str | Path,
    finetuned: str | Path | None,
    out: str | Path,
    *,
    workers: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    timeout: float = 10,
    force: bool = False,
    **options: Any,
) -> dict[str, str]:
    """Measure every matrix that two checkpoints share; out gets `matrices.parquet`, with nulls, a trajectory
    and another fine-tune `nulls`, `trajectories` and `pairs.parquet`, `pairing.json`, which says what was
    left out, and `summary.json` (`summary.summary`).
    Returns by name why matrices could not be measured; CompanionError where none could.

    options: of `open_checkpoints`. workers: processes, of `threads` threads each (1 unless asked for); None
    takes as many as there are cores, memory and work for. backend, address, timeout: see `run_on`.
    The tables do not depend on workers or backend; they may on `threads`, in their last digits, so these are
    part of what makes a finished matrix valid. Finished matrices are kept in out/parts and not measured again
    unless `force`. A worker holds at most 1.5 GB and twelve float64 copies of its matrix, whatever the
    model's size; with nulls, a trajectory's random walk adds one a snapshot.
    """
    out, checkpoints = Path(out), open_checkpoints(base, finetuned, **options)
    out.mkdir(parents=True, exist_ok=True)
    parts = matrix_parts(checkpoints, out)
    todo = outdated(parts, what="compare", force=force)
    if workers is None and backend == "loky":
        workers = _workers(checkpoints, [part.matrix.shape for part in todo])
    print(_announced(checkpoints, len(todo), workers), flush=True)
    failed, waiting = dict[str, str](), dict.fromkeys(part.matrix.name for part in todo)
    with run_on(backend, address=address, workers=workers, timeout=timeout) as count:
        try:
            for part, failure in measure_parts(
                todo, what="compare", workers=count, threads_each=checkpoints.threads
            ):
                del waiting[part.matrix.name]
                if failure:
                    failed[part.matrix.name] = str(failure)
        except CompanionError as error:
            for name in waiting:
                failed[name] = f"{name} was not measured: {error}; the same command goes on from here"
    measured = [part for part in parts if part.matrix.name not in failed]
    _write_account(checkpoints, [part.matrix for part in measured], failed, out)
    if not measured:
        raise CompanionError(f"no matrix could be measured: {next(iter(failed.values()))}")
    join_tables(measured, out)
    write_json(out / SUMMARY, summary(read_comparison(out), read_table(REFERENCE)))
    return failed


def _announced(checkpoints: Checkpoints, todo: int, workers: int | None) -> str:
    """What will be measured, what is left out and why, and how long it may take."""
    kinds = Counter(matrix.module.partition(".")[0] for matrix in checkpoints.matrices)
    left = Counter(
        why if kind in ("not asked for", "skipped") else kind
        for kind, names in checkpoints.left_out.items()
        for why in names.values()
    )
    share = todo / len(checkpoints.matrices)
    seconds = share * _operations(checkpoints) / (WORTH_A_WORKER / 60) / (workers or 1)
    measured, skipped = (", ".join(f"{kind} ({n})" for kind, n in each.items()) for each in (kinds, left))
    names = one_line(f"{checkpoints.finetuned.label} against {checkpoints.base.label}")
    number = len(checkpoints.matrices)
    return (
        f"{names}: {number} matrices, {todo} to be measured, {roughly(seconds)}: {measured}\n"
        f"left out: {one_line(skipped) or 'nothing'}"
    )


def _write_account(
    checkpoints: Checkpoints, measured: Sequence[Matrix], failed: Mapping[str, str], out: Path
) -> None:
    account = {
        "version": __version__,
        "base": checkpoints.base.label,
        "finetuned": checkpoints.finetuned.label,
        "other": checkpoints.other.label if checkpoints.other else "",
        "unmoved": _unmoved(checkpoints),
        "steps": list(checkpoints.steps),
        "width": model_width([matrix.shape for matrix in checkpoints.matrices]),
        "sizes": asdict(checkpoints.config) | {"null_runs": None},
        "measured": [asdict(matrix) for matrix in measured],
        "left_out": {kind: names for kind, names in checkpoints.left_out.items() if names},
        "failed": dict(failed),
    }
    write_json(out / "pairing.json", account)


def _unmoved(checkpoints: Checkpoints) -> dict[str, Any]:
    """Of vectors, which no diagnostic reads, and of embeddings and heads that were not asked for: `among`,
    the names of all, and `names`, of those whose every entry is the base's."""
    ends = checkpoints.base, checkpoints.finetuned
    before, after = (source.vectors() for source in ends)
    aside = [n for n, kind in checkpoints.left_out.get("not asked for", {}).items() if kind in OUTSIDE]
    shared = [name for name in before if name in after and before[name].shape == after[name].shape]
    same = [name for name in shared if bool((before[name] == after[name]).all())]
    for name in aside:
        with suppress(CompanionError, RuntimeError, ValueError):  # what cannot be read is not said to stay
            same += [name] if bool(torch.eq(*(source.read(name) for source in ends)).all()) else []
    return {"among": [*shared, *aside], "names": same}


def _operations(checkpoints: Checkpoints) -> float:
    shapes = [matrix.shape for matrix in checkpoints.matrices]
    return sum(20.0 * m * n * min(m, n) for m, n in shapes) * len(checkpoints.steps)


def _workers(checkpoints: Checkpoints, shapes: Sequence[tuple[int, int]]) -> int:
    """Processes that pay off and fit the memory of this machine."""
    if _operations(checkpoints) < WORTH_A_WORKER:
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fitting = int(memory / (WORKER_BYTES + WIDE_COPIES * 8 * max(m * n for m, n in shapes)))
    return max(1, min(cores() // checkpoints.threads, fitting))


# --- Where joblib's tasks run: this machine's processes, or an existing Dask or Ray cluster.


CLUSTERS = {"dask": ("Dask scheduler", "distributed"), "ray": ("Ray cluster", "ray")}  # and their packages


@contextmanager
def run_on(
    backend: str, *, address: str | None = None, workers: int | None = None, timeout: float = 10
) -> Iterator[int | None]:
    """Send joblib's tasks to `backend` inside the block; yields how many are in flight at once.

    backend: "loky" (processes here), "dask" (address: of its scheduler, such as tcp://host:8786) or "ray"
    (address: of its head; "auto" where None). workers: at most that many at once; None is every core there
    is, on loky left to the caller. timeout: seconds that a Dask scheduler has to answer. Tasks compute where
    this package is installed and the checkpoints lie under the same paths; give Dask workers one thread each,
    since a process has one number of threads.
    Raises CompanionError where the backend's package is missing and where nobody answers at the address.
    """
    if backend == "loky":
        if address is not None:
            raise CompanionError("--address is of a cluster: name it with --backend dask or --backend ray")
        yield workers
        return
    if backend not in CLUSTERS:
        raise CompanionError(f"no backend {backend!r}; there are loky, {', '.join(CLUSTERS)}")
    is_dask, (what, package) = backend == "dask", CLUSTERS[backend]
    if is_dask and address is None:
        raise CompanionError("--backend dask needs --address, such as tcp://127.0.0.1:8786")
    address = address or "auto"
    try:
        module = importlib.import_module(package)
        if not is_dask:
            importlib.import_module("ray.util.joblib").register_ray()
    except ImportError as error:
        needs = f"--backend {backend} needs the package {package} ({error}): pip install {package}"
        raise CompanionError(needs) from None
    try:
        if is_dask:
            cluster = module.Client(address, timeout=timeout, set_as_default=False)
        else:
            cluster = module.init(address=address, log_to_driver=False)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CompanionError(f"no {what} answers at {address}: {reason}") from error
    with cluster:
        there = sum(cluster.ncores().values()) if is_dask else module.cluster_resources().get("CPU", 1)
        if not there:
            raise CompanionError(f"the {what} at {address} has no workers: start some first")
        count = workers or int(there)
        with parallel_config(backend, **({"client": cluster} if is_dask else {"n_jobs": count})):
            yield count
