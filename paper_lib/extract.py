"""Trajectories in, tidy tables out: every matrix of every run, in parallel, continued where it stopped."""

from pathlib import Path
from typing import Any

from paper_lib.checkpoints import MatrixName, Trajectory, matrix_names, matrix_shape, pictured_matrix
from paper_lib.config import Profile
from paper_lib.errors import CompanionError
from paper_lib.files import write_text
from paper_lib.found import Found, find_runs
from paper_lib.joined import write_joined
from paper_lib.joint_parts import JointPart, PairPart
from paper_lib.journeys import JourneyPart
from paper_lib.manifest import (
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
from paper_lib.measuring import measure_parts
from paper_lib.parts import Part, RunPart
from paper_lib.pretrain import models_directory
from paper_lib.profiles import get_profile
from paper_lib.starts import Study
from paper_lib.tables import TABLES


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
