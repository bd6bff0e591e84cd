"""Trajectories in, tidy tables out: every matrix of every run, in parallel, continued where it stopped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from paper_lib.checkpoints import MatrixName, Trajectory, matrix_names, matrix_shape, open_trajectory
from paper_lib.config import Profile, RunConfig, fingerprint
from paper_lib.errors import CompanionError
from paper_lib.files import write_text
from paper_lib.parallel import one_thread, roughly
from paper_lib.parts import JOINT_RUNS, RESCALED_FROM, JointPart, Measured, Part, RunPart, concatenated
from paper_lib.profiles import get_profile
from paper_lib.tables import TABLES, read_table, write_table

Trajectories = dict[tuple[str, int], Trajectory]


def extract_study(
    profile_name: str, *, data_dir: str | Path = "data", workers: int | None = None, force: bool = False
) -> list[Path]:
    """Measure every trained run of a profile; returns the tables written to data_dir/results/profile/.

    workers: processes, one a core where None; each computes on one thread, so the tables do not depend on it.
    Parts (a run of one seed) that match their configuration and trajectory are reused unless `force`. Planned
    runs that are not trained yet are named and left out. Raises CompanionError where none is trained, where a
    snapshot is missing, truncated, not finite or of other settings, and where a size exceeds a matrix.
    """
    profile = get_profile(profile_name)
    trajectories = _trained(profile, Path(data_dir))
    results = Path(data_dir) / "results" / profile.name
    parts = _parts(profile, trajectories, results / "parts")
    write_text(results / "parts" / ".gitignore", "*\n")
    _bring_up_to_date(parts, joblib.cpu_count() if workers is None else workers, force)
    return _write_tables(parts, list(trajectories.values()), results)


def _trained(profile: Profile, data_dir: Path) -> Trajectories:
    """The finished trajectories in planned order; a line says which planned ones there are not."""
    found: Trajectories = {}
    missing: dict[str, list[int]] = {}
    for run, seed in profile.planned():
        directory = data_dir / "runs" / profile.name / run.name / f"seed_{seed}"
        if (directory / "run.json").is_file():
            found[run.name, seed] = open_trajectory(directory)
            _require_planned(run, found[run.name, seed])
        else:
            missing.setdefault(run.name, []).append(seed)
    train = f"run notebook 01_train or `python -m paper_lib train --profile {profile.name}`"
    if not found:
        raise CompanionError(f"no trained run in {data_dir / 'runs' / profile.name}: {train}")
    if missing:
        names = ", ".join(f"{name} (seed {' '.join(map(str, seeds))})" for name, seeds in missing.items())
        count = f"{sum(map(len, missing.values()))} of {len(profile.planned())} planned runs"
        print(f"[extract] {count} are not trained yet and left out: {names}; {train}", flush=True)
    return found


def _require_planned(run: RunConfig, trajectory: Trajectory) -> None:
    """Refuse a trajectory that was trained with other settings than the profile now has."""
    planned = json.loads(json.dumps(asdict(run)))
    for name, value in planned.items():
        if (trained := trajectory.config.get(name)) != value:
            raise CompanionError(
                f"{trajectory.directory} was trained with {name} = {trained}, the profile now has {value}: "
                f"train it again (notebook 01_train, or `python -m paper_lib train`)"
            )


def _parts(profile: Profile, trajectories: Trajectories, directory: Path) -> list[Part]:
    """One part for each trajectory in planned order, then one for each seed whose runs are compared."""
    config, parts = profile.diagnostics, []
    first_seed = {run.name: seed for run, seed in reversed(profile.planned())}
    for (name, seed), trajectory in trajectories.items():
        run, matrices = profile.run(name), _matrices(profile, trajectory)
        nulls = ("nulls",) if name in config.null_runs else ()
        masks = ("masks",) if nulls and seed == first_seed[name] else ()
        tables = ("matrices", "trajectories", *nulls, *masks)
        queries = [matrix for matrix in matrices if matrix.module == "q"] or matrices
        part = RunPart(
            label=f"{name} seed {seed}",
            profile=profile.name,
            seed=seed,
            config=config,
            matrices=tuple(matrices),
            tables=tables,
            directory=directory / name / f"seed_{seed}",
            fingerprint=fingerprint(profile.name, run, seed, config, trajectory.fingerprint, tables),
            run=run,
            trajectory=trajectory,
            pictured=queries[len(queries) // 2],
        )
        parts.append(part)
    return parts + _joint_parts(profile, trajectories, directory)


def _joint_parts(profile: Profile, trajectories: Trajectories, directory: Path) -> list[Part]:
    parts: list[Part] = []
    names = dict.fromkeys((*JOINT_RUNS, *RESCALED_FROM))
    for seed in sorted({seed for _, seed in trajectories}):
        members = {name: trajectories[name, seed] for name in names if (name, seed) in trajectories}
        if len(members) < 2:
            continue
        first = next(iter(members.values()))
        behind = {name: each.fingerprint for name, each in members.items()}
        part = JointPart(
            label=f"{', '.join(members)} compared, seed {seed}",
            profile=profile.name,
            seed=seed,
            config=profile.diagnostics,
            matrices=tuple(matrix_names(first.path(0))),
            tables=("trajectories", "nulls"),
            directory=directory / "joint" / f"seed_{seed}",
            fingerprint=fingerprint(profile.name, "joint", seed, profile.diagnostics, behind),
            trajectories=members,
        )
        parts.append(part)
    return parts


def _matrices(profile: Profile, trajectory: Trajectory) -> list[MatrixName]:
    """The projection matrices of a trajectory, all large enough for the profile's diagnostics."""
    matrices = matrix_names(trajectory.path(0))
    for matrix in matrices:
        shape = matrix_shape(trajectory.path(0), matrix)
        for name in ("K", "principal_rank", "hill_k", "energy_k"):
            if (size := getattr(profile.diagnostics, name)) > min(shape):
                raise CompanionError(
                    f"profile {profile.name}: {name} = {size} is above the dimension of {matrix.name}, "
                    f"{' × '.join(map(str, shape))}: set {name} in its diagnostics to at most {min(shape)}"
                )
    return matrices


def _bring_up_to_date(parts: Sequence[Part], workers: int, force: bool) -> None:
    """Compute what is missing, its matrices in one queue; each part is written when its last one is done."""
    todo = [part for part in parts if force or not part.up_to_date()]
    done = len(parts) - len(todo)
    if done:
        print(f"[extract] {done} of {len(parts)} parts are up to date", flush=True)
    if not todo:
        return
    tasks = [(part, matrix) for part in todo for matrix in part.matrices]
    measured = joblib.Parallel(n_jobs=workers, return_as="generator")(
        joblib.delayed(_measure)(part, matrix) for part, matrix in tasks
    )
    began = before = monotonic()
    ready = 0
    try:
        for part in todo:
            results = [next(measured) for _ in part.matrices]
            with one_thread():
                part.write(results)
            done, ready, now = done + 1, ready + len(results), monotonic()
            left = (now - began) / ready * (len(tasks) - ready)
            print(
                f"[extract {done}/{len(parts)}] {part.label}: {len(results)} matrices, {now - before:.1f} s, "
                f"{roughly(left)} left",
                flush=True,
            )
            before = now
    except TerminatedWorkerError as error:
        raise CompanionError(
            f"a worker died, perhaps out of memory: use fewer than {workers} workers; finished parts are kept"
        ) from error


def _measure(part: Part, matrix: MatrixName) -> Measured:
    with one_thread():
        return part.measure(matrix)


def _write_tables(parts: Sequence[Part], trajectories: Sequence[Trajectory], results: Path) -> list[Path]:
    sources: Mapping[str, list[Path]] = {
        table: [part.path(table) for part in parts if table in part.tables] for table in TABLES
    } | {"curves": [trajectory.directory / "curve.parquet" for trajectory in trajectories]}
    combined = fingerprint(*(part.fingerprint for part in parts))
    for table, columns in TABLES.items():
        rows = concatenated(table, [read_table(path) for path in sources[table]])
        write_table(rows, results / f"{table}.parquet", columns=columns, fingerprint=combined)
    return [results / f"{table}.parquet" for table in TABLES]
