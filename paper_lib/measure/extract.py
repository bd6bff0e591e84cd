"""Trajectories in, tidy tables out: every matrix of every run, in parallel, continued where it stopped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from paper_lib.errors import CompanionError
from paper_lib.files import write_text
from paper_lib.measure.join import write_joined
from paper_lib.measure.parts import JointPart, JourneyPart, Measured, PairPart, Part, RunPart, Unit
from paper_lib.parallel import completed, one_thread, roughly
from paper_lib.study.config import Profile
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.tables import TABLES, table_metadata
from paper_lib.training.checkpoints import (
    MatrixName,
    Trajectory,
    matrix_names,
    matrix_shape,
    open_trajectory,
    pictured_matrix,
)
from paper_lib.training.manifest import (
    JOINT,
    JOURNEY,
    Key,
    Manifest,
    PlannedPart,
    part_directory,
    planned_parts,
    read_manifest,
    spoken,
)
from paper_lib.training.models import models_directory
from paper_lib.training.starts import Study

# --- Which runs of a study are there to be measured: on disk with the profile's settings, or in the
# --- tables.


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of the planned runs: those on disk, and in planned order the fingerprints of all that are there or
    measured."""

    trajectories: dict[Key, Trajectory] = field(default_factory=dict)
    fingerprints: dict[Key, str] = field(default_factory=dict)
    missing: list[Key] = field(default_factory=list)


def find_runs(study: Study, manifest: Manifest, planned: Mapping[Key, str]) -> Found:
    """Look for every planned run on disk, then in the tables; a line says which are in neither.

    planned: fingerprints of the runs as the profile plans them now. Raises CompanionError where no run is in
    either, and for one on disk that is damaged or was trained with other settings.
    """
    profile, found, parts = study.profile, Found(), planned_parts(study.profile, planned)
    for run, seed in profile.planned():
        key, directory = (run.name, seed), study.directory(run, seed)
        held = key in parts and manifest.holds(key, parts[key])
        trajectory = open_trajectory(directory) if (directory / "run.json").is_file() else None
        if trajectory is not None and not (held and trajectory.fingerprint != planned[key]):
            _require_planned(run, trajectory, planned.get(key))
            _require_curve(trajectory)
            found.trajectories[key] = trajectory
            found.fingerprints[key] = trajectory.fingerprint
        elif held:
            found.fingerprints[key] = planned[key]
        else:
            found.missing.append(key)
    train = f"`python -m paper_lib train --profile {profile.name}` trains what is missing"
    if not found.fingerprints:
        runs = study.data_dir / "runs" / profile.name
        raise CompanionError(f"no trained run in {runs}, and no rows that match in {study.results}: {train}")
    if found.missing:
        count = f"{len(found.missing)} of {len(profile.planned())} planned runs"
        names = spoken(found.missing)
        print(f"[extract] {count} are neither trained nor measured: {names}; {train}", flush=True)
    return found


def _require_planned(run: RunConfig, trajectory: Trajectory, fingerprint: str | None) -> None:
    """Refuse a trajectory that was trained with other settings than the profile now has, or from others."""
    again = "train it again (notebook 01_train, or `python -m paper_lib train`)"
    planned = json.loads(json.dumps(asdict(run)))
    for name, value in planned.items():
        if (trained := trajectory.config.get(name)) != value:
            raise CompanionError(
                f"{trajectory.directory} was trained with {name} = {trained}, the profile now has {value}: "
                f"{again}"
            )
    if fingerprint not in (None, trajectory.fingerprint):
        raise CompanionError(
            f"{trajectory.directory} was trained from other models or runs, or evaluated otherwise, than the "
            f"profile now has: {again}"
        )


def _require_curve(trajectory: Trajectory) -> None:
    folder = trajectory.directory
    try:
        table_metadata(folder / "curve.parquet")
    except CompanionError:
        raise CompanionError(
            f"{folder / 'curve.parquet'} is missing or damaged: delete the folder {folder}, then train this "
            "run again (notebook 01_train, or `python -m paper_lib train`)"
        ) from None


# --- Parts measured in parallel, all their matrices in one queue; what is up to date is not measured
# --- again.


def measure_parts(parts: Sequence[Part], *, workers: int | None, force: bool) -> int:
    """Compute what is missing, its matrices in one queue, and say how many parts that were.

    Each part is written when its last matrix is done. Raises CompanionError, when all else is written, for
    the parts that failed.
    """
    todo = [part for part in parts if force or not part.up_to_date()]
    done = len(parts) - len(todo)
    if done:
        print(f"[extract] {done} of {len(parts)} parts are up to date", flush=True)
    tasks = [(number, unit) for number, part in enumerate(todo) for unit in part.units]
    results: list[dict[Unit, Measured]] = [{} for _ in todo]
    failures: dict[str, str] = {}
    began = monotonic()
    jobs = [(todo[number], unit) for number, unit in tasks]
    labels = [f"{part.label}, {unit}" for part, unit in jobs]
    outcomes = completed(
        *(_measure, jobs), labels=labels, what="extract", workers=workers, report=lambda line: None
    )
    for ready, (index, outcome) in enumerate(outcomes, start=1):
        number, unit = tasks[index]
        part = todo[number]
        if isinstance(outcome, CompanionError):
            failures.setdefault(part.label, str(outcome))
            continue
        results[number][unit] = outcome
        if len(results[number]) < len(part.units):
            continue
        with one_thread():
            part.write([results[number][unit] for unit in part.units])
        results[number] = {}  # its frames are on disk now
        done, left = done + 1, (monotonic() - began) / ready * (len(tasks) - ready)
        count = f"{len(part.matrices)} matrices"
        print(f"[extract {done}/{len(parts)}] {part.label}: {count}, {roughly(left)} left", flush=True)
    if failures:
        told = "; ".join(f"{label}: {reason}" for label, reason in failures.items())
        raise CompanionError(f"{told} (all other parts are measured and kept)")
    return len(todo)


def _measure(part: Part, unit: Unit) -> Measured:
    return part.measure(unit) if isinstance(unit, MatrixName) else part.measure_whole(unit)


def extract_study(
    profile_name: str, *, data_dir: str | Path = "data", workers: int | None = None, force: bool = False
) -> list[Path]:
    """Measure every trained run of a profile; returns the tables, in data_dir/results/profile/.

    workers: processes, one a core where None; each computes on one thread, so the tables do not depend on it.
    Parts (a run of one seed) that match their configuration and trajectory are reused unless `force`. A run
    that is not on disk keeps the rows that the tables hold of it, where they were computed from what the
    profile plans now; other rows are dropped, and runs without any are left out, each told in a line. Raises
    CompanionError where nothing is trained or measured, where a snapshot is missing, truncated, not finite or
    of other settings (parts that are done are kept), and where a size exceeds a matrix.
    """
    study = Study(profile=get_profile(profile_name), data_dir=Path(data_dir))
    manifest = read_manifest(study.results)
    models = study.known_models(manifest.models)
    found = find_runs(study, manifest, study.fingerprints(models))
    wanted, parts = _parts(study, found, manifest)
    write_text(study.results / "parts" / ".gitignore", "*\n")
    computed = measure_parts(list(parts.values()), workers=workers, force=force)
    if dropped := [key for key in manifest.parts() if key not in wanted]:
        said = f"[extract] rows dropped, as the profile plans them no more or otherwise: {spoken(dropped)}"
        print(said, flush=True)
    if computed or not manifest.describes(wanted, models):
        write_joined(study.results, wanted, {key: _files(part) for key, part in parts.items()}, models)
    return [study.results / f"{table}.parquet" for table in TABLES]


def _parts(study: Study, found: Found, manifest: Manifest) -> tuple[dict[Key, PlannedPart], dict[Key, Part]]:
    """All parts that the tables will hold, and of these the ones to be measured from what is on disk."""
    wanted, parts = planned_parts(study.profile, found.fingerprints), dict[Key, Part]()
    left_out, gone = list[Key](), dict[Key, None]()
    for key, plan in list(wanted.items()):
        members = {run: found.trajectories[run] for run in plan.compared if run in found.trajectories}
        if key in found.trajectories:
            parts[key] = _run_part(study, key, plan, found.trajectories[key])
        elif members and len(members) == len(plan.compared):
            parts[key] = _comparison(study, key, plan, members)
        elif not manifest.holds(key, plan):
            del wanted[key]
            left_out.append(key)
            gone |= dict.fromkeys(run for run in plan.compared if run not in members)
    if left_out:
        seeds = ",".join(str(seed) for seed in sorted({seed for _, seed in gone}))
        print(
            f"[extract] left out: {spoken(left_out)}; needed are the weights of {spoken(list(gone))}, which "
            f"are measured but not on disk; `python -m paper_lib train --profile {study.profile.name} "
            f"--seeds {seeds}` trains them again",
            flush=True,
        )
    return wanted, parts


def _common(study: Study, key: Key, plan: PlannedPart) -> dict[str, Any]:
    """What every part has."""
    return {
        "profile": study.profile.name,
        "seed": key[1],
        "config": study.profile.diagnostics,
        "tables": plan.tables,
        "directory": part_directory(study.results, key),
        "models": models_directory(study.profile, study.data_dir),
        "fingerprint": plan.fingerprint,
    }


def _run_part(study: Study, key: Key, plan: PlannedPart, trajectory: Trajectory) -> RunPart:
    matrices = _matrices(study.profile, trajectory)
    return RunPart(
        label=f"{key[0]} seed {key[1]}",
        matrices=tuple(matrices),
        run=study.profile.run(key[0]),
        trajectory=trajectory,
        pictured=pictured_matrix(matrices),
        **_common(study, key, plan),
    )


def _comparison(study: Study, key: Key, plan: PlannedPart, members: dict[Key, Trajectory]) -> Part:
    matrices = tuple(matrix_names(next(iter(members.values())).path(0)))
    common, by_name = _common(study, key, plan), {name: each for (name, _), each in members.items()}
    if key[0] == JOURNEY:
        label, shown = (
            f"weights of {', '.join(by_name)} followed, seed {key[1]}",
            (pictured_matrix(matrices),),
        )
        return JourneyPart(label=label, matrices=shown, trajectories=by_name, **common)
    if key[0] != JOINT:
        seeds = " and ".join(dict.fromkeys(str(seed) for _, seed in members))
        return PairPart(label=f"{key[0]}, seed {seeds}", matrices=matrices, trajectories=members, **common)
    return JointPart(
        label=f"{', '.join(by_name)} compared, seed {key[1]}",
        matrices=matrices,
        trajectories=by_name,
        runs={name: study.profile.run(name) for name in by_name},
        **common,
    )


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


def _files(part: Part) -> dict[str, Path]:
    """Where the rows of a part are, by table."""
    files = {table: part.path(table) for table in part.tables}
    if isinstance(part, RunPart):
        files["curves"] = part.trajectory.directory / "curve.parquet"
    return files
