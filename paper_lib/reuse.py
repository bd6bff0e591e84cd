"""A run that another profile has already trained: its files are shared instead of trained again."""

import os
import shutil
from pathlib import Path

from paper_lib.config import RunConfig
from paper_lib.files import copy_file, read_json, write_json
from paper_lib.run_place import RunPlace


def reuse_finished(run: RunConfig, place: RunPlace, runs_dir: Path) -> bool:
    """Take over a finished run of the same fingerprint from another profile; True where there was one.

    Snapshots and kept states become hard links (copies across file systems), the curve gets this profile's
    name, and `run.json` comes last, so a copy that was stopped is not mistaken for a whole one.
    """
    for folder in sorted(runs_dir.glob(f"*/{run.name}/seed_{place.seed}")):
        other = RunPlace(
            directory=folder,
            profile=folder.parents[1].name,
            seed=place.seed,
            fingerprint=place.fingerprint,
        )
        if folder != place.directory and other.finished():
            with place.lock():
                if taken := not place.finished():  # by whoever held the lock
                    _share(other, place)
            return taken
    return False


def _share(source: RunPlace, place: RunPlace) -> None:
    rows = [{**row, "profile": place.profile} for row in source.recorded()]
    marker = read_json(source.directory / "run.json", f"delete {source.directory}, and the run starts over")
    shutil.rmtree(place.directory, ignore_errors=True)
    place.directory.mkdir(parents=True)
    for path in sorted(source.directory.glob("*.safetensors")):
        try:
            os.link(path, place.directory / path.name)
        except OSError:
            copy_file(path, place.directory / path.name)
    write_json(place.directory / "curve.json", rows)
    place.write_curve(rows)
    write_json(place.directory / "config.json", {"fingerprint": place.fingerprint})
    write_json(place.directory / "run.json", marker)
