"""Trajectories in, tidy tables out: every matrix of every run, in parallel, continued where it stopped."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree

import pandas as pd
from filelock import FileLock

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_text
from paper_lib.ground.tables import TABLES, read_table, table_metadata, write_table
from paper_lib.measure.parts import Part, concatenated, measure_parts, outdated
from paper_lib.measure.run_parts import JointPart, JourneyPart, PairPart, RunPart
from paper_lib.study.config import Profile, fingerprint
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.training import manifest
from paper_lib.training.checkpoints import Trajectory, open_trajectory, projection_matrices
from paper_lib.training.manifest import JOINT, JOURNEY, Key, Manifest, PlannedPart, spoken
from paper_lib.training.starts import Study
from paper_lib.training.study import selected

# --- Which runs of a study are on disk with the profile's settings, or in the tables.


def find_runs(
    study: Study, tables: Manifest, planned: Mapping[Key, str]
) -> tuple[dict[Key, Trajectory], dict[Key, str]]:
    """The planned runs on disk, and in planned order the fingerprints of all that are on disk or in the
    tables; a line says which are in neither.

    planned: fingerprints of the runs as the profile plans them now. Raises CompanionError where no run is in
    either, and for one on disk that is damaged or was trained with other settings.
    """
    profile, parts = study.profile, manifest.planned_parts(study.profile, planned)
    on_disk, fingerprints, missing = dict[Key, Trajectory](), dict[Key, str](), list[Key]()
    for run, seed in profile.planned():
        key, directory = (run.name, seed), study.directory(run, seed)
        held = key in parts and tables.holds(key, parts[key])
        trajectory = open_trajectory(directory) if (directory / "run.json").is_file() else None
        if trajectory is not None and not (held and trajectory.fingerprint != planned[key]):
            _require_planned(run, trajectory, planned.get(key))
            _require_sizes(profile, trajectory)
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
    """Refuse a trajectory that was trained with other settings than the profile now has, or from others, or
    whose curve is damaged."""
    folder, again = trajectory.directory, "train it again (notebook 01_train, or `python -m paper_lib train`)"
    planned = json.loads(json.dumps(asdict(run)))
    if other := [name for name, value in planned.items() if trajectory.config.get(name) != value]:
        then, now = trajectory.config.get(other[0]), planned[other[0]]
        raise CompanionError(f"{folder} was trained with {other[0]} = {then}, the profile has {now}: {again}")
    if fingerprint not in (None, trajectory.fingerprint):
        changed = "from other models or runs, or evaluated otherwise, than the profile now has"
        raise CompanionError(f"{folder} was trained {changed}: {again}")
    try:
        table_metadata(folder / "curve.parquet")
    except CompanionError:
        damaged = f"{folder / 'curve.parquet'} is missing or damaged"
        raise CompanionError(f"{damaged}: delete the folder {folder}, then {again}") from None


def _require_sizes(profile: Profile, trajectory: Trajectory) -> None:
    """Refuse diagnostics that are too large for one of the trajectory's projection matrices."""
    for matrix in projection_matrices(trajectory.path(0)):
        for name in ("K", "principal_rank", "hill_k", "energy_k"):
            if (size := getattr(profile.diagnostics, name)) > (side := min(matrix.shape)):
                above = f"profile {profile.name}: {name} = {size} is above the shorter side of {matrix.name}"
                raise CompanionError(f"{above}: set it to at most {side}")


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
    tables = manifest.read_manifest(study.results)
    models = study.models(tables.models)
    parts = _parts(study, tables, *find_runs(study, tables, study.fingerprints(models)))
    write_text(study.results / "parts" / ".gitignore", "*\n")
    on_disk = [part for part in parts.values() if isinstance(part, Part)]
    todo = outdated(on_disk, what="extract", force=force)
    measured = measure_parts(todo, what="extract", workers=workers)
    if failures := [f"{part.label}: {failure}" for part, failure in measured if failure]:
        raise CompanionError(f"{'; '.join(failures)} (all other parts are measured and kept)")
    if dropped := [key for key in tables.parts if key not in parts]:
        said = f"[extract] rows dropped, as the profile plans them no more or otherwise: {spoken(dropped)}"
        print(said, flush=True)
    if todo or not tables.describes(parts, models):
        write_joined(study.results, parts, models)
    return [study.results / f"{table}.parquet" for table in TABLES]


def _parts(
    study: Study, tables: Manifest, on_disk: Mapping[Key, Trajectory], fingerprints: Mapping[Key, str]
) -> dict[Key, PlannedPart]:
    """All parts that the tables will hold; a `Part` where the weights behind it are on disk."""
    parts = dict[Key, PlannedPart]()
    left_out, gone = list[Key](), dict[Key, None]()
    for key, plan in manifest.planned_parts(study.profile, fingerprints).items():
        members = {run: on_disk[run] for run in plan.compared or (key,) if run in on_disk}
        if len(members) == len(plan.compared or (key,)):
            parts[key] = _part(study, key, plan, members)
        elif tables.holds(key, plan):
            parts[key] = plan
        else:
            left_out.append(key)
            gone |= dict.fromkeys(run for run in plan.compared if run not in members)
    if left_out:
        seeds = ",".join(str(seed) for seed in sorted({seed for _, seed in gone}))
        train = f"`python -m paper_lib train --profile {study.profile.name} --seeds {seeds}`"
        needed = f"needed are the weights of {spoken(list(gone))}, which are measured but not on disk"
        print(f"[extract] left out: {spoken(left_out)}; {needed}; {train} trains them again", flush=True)
    return parts


def _part(study: Study, key: Key, plan: PlannedPart, members: dict[Key, Trajectory]) -> Part:
    """A planned part with the trajectories behind it."""
    name, seed = key
    kind = {JOINT: JointPart, JOURNEY: JourneyPart}.get(name, PairPart if plan.compared else RunPart)
    return kind(
        **vars(plan),
        label=spoken([key]),
        profile=study.profile.name,
        seed=seed,
        directory=manifest.part_directory(study.results, key),
        study=study,
        members=members,
    )


# --- The joined tables: rows of parts that are on disk beside rows that earlier tables hold.


def write_joined(results: Path, parts: Mapping[Key, PlannedPart], models: Mapping[str, str]) -> None:
    """Write every table with the rows of `parts`, in any case the same bytes.

    The rows of a `Part` are read from its own files; one that is merely planned keeps the rows that the
    tables in `results` hold of it; CompanionError where they do no more. models: their fingerprints.
    """
    with _lock(results):
        _write(results, parts, models)


def _lock(results: Path) -> FileLock:
    """For whoever reads the tables in order to write them: one at a time, so that no rows get lost."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(results.with_name(f".{results.name}.lock"))


def _write(results: Path, parts: Mapping[Key, PlannedPart], models: Mapping[str, str]) -> None:
    tables = manifest.read_manifest(results)
    kept = {key: part for key, part in parts.items() if not isinstance(part, Part)}
    if lost := [key for key, part in kept.items() if not tables.holds(key, part)]:
        again = f"run `python -m paper_lib extract --profile {results.name}`, which says what is missing"
        raise CompanionError(f"the tables in {results} no longer hold the rows of {spoken(lost)}: {again}")
    # A journey is of runs that are all in here: it changes no other table.
    frozen = results / "rules.json"  # what judges them, where it was settled before the runs
    common = {"rules": json.loads(frozen.read_text("utf-8"))} if frozen.is_file() else {}
    common["models"] = dict(models)
    combined = fingerprint(*(part.fingerprint for key, part in parts.items() if key[0] != JOURNEY))
    for table, columns in TABLES.items():
        path = results / f"{table}.parquet"
        mine = {key: part for key, part in parts.items() if table in part.tables}
        files = {key: part.path(table) for key, part in mine.items() if isinstance(part, Part)}
        frames = []
        for key, file in files.items():
            frames.append(rows := read_table(file))
            if strange := set(manifest.owners(table, rows)) - {key}:
                raise ValueError(f"{file} holds rows of {sorted(strange)}, not of {key} alone")
        if held := mine.keys() & kept.keys():
            frames.append(manifest.rows_of(table, read_table(path), held))
        said = {"fingerprints": [[*key, part.fingerprint] for key, part in mine.items()], **common}
        libraries = _libraries([*files.values(), *([path] if held else [])]) or None
        rows = concatenated(table, frames)
        write_table(rows, path, columns=columns, fingerprint=combined, libraries=libraries, parts=said)


def _libraries(files: Iterable[Path]) -> dict[str, str]:
    """The versions behind rows that may have been measured at different times: all of each library's."""
    in_use: dict[str, set[str]] = {}
    for file in files:
        for name, versions in table_metadata(file)["libraries"].items():
            in_use.setdefault(name, set()).update(versions.split(", "))
    return {name: ", ".join(sorted(versions)) for name, versions in in_use.items()}


def forget(
    profile_name: str,
    *,
    data_dir: str | Path = "data",
    runs: list[str] | None = None,
    seeds: list[int] | None = None,
) -> list[Key]:
    """Remove the rows of these runs and seeds, and of what compares them, from the tables of a profile.

    Training and extraction bring back the same bytes. Run folders stay. Returns the parts that were removed;
    raises CompanionError where nothing is named, where nothing planned has the name and where none is held.
    """
    profile = get_profile(profile_name)
    if runs is None and seeds is None:
        raise CompanionError("say what to forget: --runs opd,rlvr or --seeds 3, or both")
    results = Path(data_dir) / "results" / profile.name
    gone = {(run.name, seed) for run, seed in selected(profile, runs, seeds)}
    with _lock(results):
        tables = manifest.read_manifest(results)
        gone |= {key for key in tables.parts if gone & set(manifest.compared_runs(key))}
        removed = [key for key in tables.parts if key in gone]
        if not removed:
            raise CompanionError(f"the tables in {results} hold no rows of these runs and seeds")
        for key in gone:
            rmtree(manifest.part_directory(results, key), ignore_errors=True)
        kept = {key: part for key, part in tables.parts.items() if key not in gone}
        _write(results, kept, tables.models)
    again = "train and extract bring them back"
    print(f"[forget] removed from {results}: {spoken(removed)}; {again}", flush=True)
    return removed


def training_curves(study: Study) -> tuple[pd.DataFrame, list[Path]]:
    """Rows of the table `curves` for every planned run that is measured or finished, and their files.

    Raises CompanionError where there is none.
    """
    tables = manifest.read_manifest(study.results)
    models = study.models(tables.models)
    planned = study.fingerprints(models)
    parts = manifest.planned_parts(study.profile, planned)
    held = {key for key in planned if tables.holds(key, parts[key])}
    joined = study.results / "curves.parquet"
    curves = {joined: manifest.rows_of("curves", read_table(joined), held)} if held else {}
    for run, seed in study.profile.planned():
        if (run.name, seed) in planned.keys() - held and study.folder(run, seed, models).finished():
            path = study.directory(run, seed) / "curve.parquet"
            curves[path] = read_table(path)
    if not curves:
        train = f"`python -m paper_lib figures --profile {study.profile.name} --train` trains them"
        raise CompanionError(f"no run of profile {study.profile.name} is trained or measured: {train}")
    rows = pd.concat(curves.values(), ignore_index=True)
    return rows.sort_values(["run", "seed", "step", "metric"]), list(curves)
