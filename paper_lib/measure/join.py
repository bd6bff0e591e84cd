"""The joined tables of a study: written from its parts, forgotten in part, and its training curves."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from shutil import rmtree

import pandas as pd
from filelock import FileLock

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import TABLES, read_table, table_metadata, write_table
from paper_lib.measure.parts import Part, concatenated
from paper_lib.study.config import fingerprint
from paper_lib.study.profiles import get_profile
from paper_lib.training import manifest
from paper_lib.training.manifest import JOURNEY, Key, PlannedPart, spoken
from paper_lib.training.starts import Study
from paper_lib.training.study import selected

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
    rules = {"rules": json.loads(frozen.read_text("utf-8"))} if frozen.is_file() else {}
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
        fingerprints = [[*key, part.fingerprint] for key, part in mine.items()]
        write_table(
            concatenated(table, frames),
            path,
            columns=columns,
            fingerprint=combined,
            libraries=_libraries([*files.values(), *([path] if held else [])]) or None,
            parts={"fingerprints": fingerprints, "models": dict(models), **rules},
        )


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
        raise CompanionError(
            f"no run of profile {study.profile.name} is trained or measured: "
            f"`python -m paper_lib figures --profile {study.profile.name} --train` trains them"
        )
    rows = pd.concat(curves.values(), ignore_index=True)
    return rows.sort_values(["run", "seed", "step", "metric"]), list(curves)
