"""Training curves of a study: from the tables where they hold a run, from its folder otherwise."""

from pathlib import Path

import pandas as pd

from paper_lib.errors import CompanionError
from paper_lib.manifest import planned_parts, read_manifest, rows_of
from paper_lib.starts import Study
from paper_lib.tables import read_table


def training_curves(study: Study) -> tuple[pd.DataFrame, list[Path]]:
    """Rows of the table `curves` for every planned run that is measured or finished, and their files.

    Raises CompanionError where there is none.
    """
    manifest = read_manifest(study.results)
    models = study.known_models(manifest.models)
    planned = study.fingerprints(models)
    parts = planned_parts(study.profile, planned)
    held = {key for key in planned if manifest.holds(key, parts[key])}
    joined = study.results / "curves.parquet"
    frames = [rows_of("curves", read_table(joined), held)] if held else []
    files = [joined] if held else []
    for name, seed in (key for key in planned if key not in held):
        place = study.place(study.profile.run(name), seed, models)
        if place.finished():
            files.append(place.directory / "curve.parquet")
            frames.append(read_table(files[-1]))
    if not frames:
        raise CompanionError(
            f"no run of profile {study.profile.name} is trained or measured: "
            f"`python -m paper_lib figures --profile {study.profile.name} --train` trains them"
        )
    return pd.concat(frames, ignore_index=True).sort_values(["run", "seed", "step", "metric"]), files
