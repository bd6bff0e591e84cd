"""Trajectories in, tidy tables out: every matrix of every run, in parallel, continued where it stopped."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_text
from paper_lib.ground.tables import TABLES, table_metadata
from paper_lib.measure.join import write_joined
from paper_lib.measure.merging import Merging
from paper_lib.measure.parts import Part, measure_parts, outdated
from paper_lib.measure.run_parts import JointPart, JourneyPart, PairPart, RunPart
from paper_lib.study.config import Profile
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
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

# --- Which runs of a study are on disk with the profile's settings, or in the tables.


def find_runs(
    study: Study, manifest: Manifest, planned: Mapping[Key, str]
) -> tuple[dict[Key, Trajectory], dict[Key, str]]:
    """The planned runs on disk, and in planned order the fingerprints of all that are on disk or in the
    tables; a line says which are in neither.

    planned: fingerprints of the runs as the profile plans them now. Raises CompanionError where no run is in
    either, and for one on disk that is damaged or was trained with other settings.
    """
    profile, parts = study.profile, planned_parts(study.profile, planned)
    on_disk, fingerprints, missing = dict[Key, Trajectory](), dict[Key, str](), list[Key]()
    for run, seed in profile.planned():
        key, directory = (run.name, seed), study.directory(run, seed)
        held = key in parts and manifest.holds(key, parts[key])
        trajectory = open_trajectory(directory) if (directory / "run.json").is_file() else None
        if trajectory is not None and not (held and trajectory.fingerprint != planned[key]):
            _require_planned(run, trajectory, planned.get(key))
            _require_curve(trajectory)
            on_disk[key], fingerprints[key] = trajectory, trajectory.fingerprint
        elif held:
            fingerprints[key] = planned[key]
        else:
            missing.append(key)
    train = f"`python -m paper_lib train --profile {profile.name}` trains what is missing"
    if not fingerprints:
        runs = study.data_dir / "runs" / profile.name
        raise CompanionError(f"no trained run in {runs}, and no rows that match in {study.results}: {train}")
    if missing:
        count = f"{len(missing)} of {len(profile.planned())} planned runs"
        print(f"[extract] {count} are neither trained nor measured: {spoken(missing)}; {train}", flush=True)
    return on_disk, fingerprints


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


# --- The parts of a study, measured where they are not up to date, and joined.


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
    models = study.models(manifest.models)
    parts = _parts(study, manifest, *find_runs(study, manifest, study.fingerprints(models)))
    write_text(study.results / "parts" / ".gitignore", "*\n")
    on_disk = [part for part in parts.values() if isinstance(part, Part)]
    todo = outdated(on_disk, what="extract", force=force)
    measured = measure_parts(todo, what="extract", workers=workers)
    if failures := [f"{part.label}: {failure}" for part, failure in measured if failure]:
        raise CompanionError(f"{'; '.join(failures)} (all other parts are measured and kept)")
    if dropped := [key for key in manifest.parts() if key not in parts]:
        said = f"[extract] rows dropped, as the profile plans them no more or otherwise: {spoken(dropped)}"
        print(said, flush=True)
    if todo or not manifest.describes(parts, models):
        write_joined(study.results, parts, models)
    return [study.results / f"{table}.parquet" for table in TABLES]


def _parts(
    study: Study, manifest: Manifest, on_disk: Mapping[Key, Trajectory], fingerprints: Mapping[Key, str]
) -> dict[Key, PlannedPart]:
    """All parts that the tables will hold; a `Part` where the weights behind it are on disk."""
    parts = dict[Key, PlannedPart]()
    left_out, gone = list[Key](), dict[Key, None]()
    for key, plan in planned_parts(study.profile, fingerprints).items():
        members = {run: on_disk[run] for run in plan.compared or (key,) if run in on_disk}
        if len(members) == len(plan.compared or (key,)):
            parts[key] = _part(study, key, plan, members)
        elif manifest.holds(key, plan):
            parts[key] = plan
        else:
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
    return parts


def _part(study: Study, key: Key, plan: PlannedPart, members: dict[Key, Trajectory]) -> Part:
    """A planned part with the trajectories behind it."""
    (name, seed), profile = key, study.profile
    matrices = _matrices(profile, next(iter(members.values())))
    common: dict[str, Any] = {
        **vars(plan),
        "profile": profile.name,
        "seed": seed,
        "config": profile.diagnostics,
        "matrices": tuple(matrices),
        "directory": part_directory(study.results, key),
    }
    models = models_directory(profile, study.data_dir)
    if not plan.compared:
        return RunPart(
            label=f"{name} seed {seed}",
            run=profile.run(name),
            trajectory=members[key],
            pictured=pictured_matrix(matrices),
            models=models,
            stepped=name in profile.stepped_runs,
            **common,
        )
    by_name = {run: trajectory for (run, _), trajectory in members.items()}
    if name == JOURNEY:
        label = f"weights of {', '.join(by_name)} followed, seed {seed}"
        return JourneyPart(
            label=label, trajectories=by_name, **common | {"matrices": (pictured_matrix(matrices),)}
        )
    if name == JOINT:
        return JointPart(
            label=f"{', '.join(by_name)} compared, seed {seed}",
            trajectories=by_name,
            runs={run: profile.run(run) for run in by_name},
            models=models,
            **common,
        )
    seeds = " and ".join(dict.fromkeys(str(seed) for _, seed in members))
    merging, pair = None, tuple(by_name)
    if profile.merges and pair in profile.merges.pairs:
        run = profile.run(pair[0])
        merging = Merging(run=run, config=profile.merges, evaluation=profile.evaluation, models=models)
    return PairPart(label=f"{name}, seed {seeds}", trajectories=members, merging=merging, **common)


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
