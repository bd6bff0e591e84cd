"""Which runs of a study are there to be measured: on disk with the profile's settings, or in the tables."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from paper_lib.checkpoints import Trajectory, open_trajectory
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.manifest import Key, Manifest, planned_parts, spoken
from paper_lib.starts import Study
from paper_lib.tables import table_metadata


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
