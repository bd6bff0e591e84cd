"""Where a run lives on disk, and whether what is there is this very run."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock

from paper_lib.files import read_json_rows
from paper_lib.tables import CURVE_COLUMNS, write_table


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """Where a run lives and what it must match: everything that decides its numbers is in the fingerprint."""

    directory: Path
    profile: str
    seed: int
    fingerprint: str

    def lock(self) -> FileLock:
        """Beside the folder, for whoever trains, takes over or removes the run."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.directory.with_name(f".{self.directory.name}.lock"))

    def state_path(self, step: int) -> Path:
        """Weights and the optimizer's memory after `step` optimizer steps."""
        return self.directory / f"state_{step:06d}.safetensors"

    def finished(self, *, kept_states: tuple[int, ...] = ()) -> bool:
        """Whether this very configuration ran to its end here and left the states that other runs branch
        from."""
        kept = all(self.state_path(step).is_file() for step in kept_states)
        return kept and fingerprint_in(self.directory / "run.json") == self.fingerprint

    def recorded(self) -> list[dict]:
        """The rows of its curve so far; raises CompanionError where the file is missing or damaged."""
        remedy = f"delete the folder {self.directory}, and the run starts over"
        return read_json_rows(self.directory / "curve.json", remedy)

    def write_curve(self, rows: list[dict]) -> None:
        """The run's curve as a tidy table, curve.parquet."""
        write_table(
            pd.DataFrame(rows, columns=list(CURVE_COLUMNS)),
            self.directory / "curve.parquet",
            columns=CURVE_COLUMNS,
            fingerprint=self.fingerprint,
            seed=self.seed,
        )


def fingerprint_in(marker: Path) -> str | None:
    """The fingerprint that a marker holds; None where there is no marker, or a damaged one."""
    try:
        return json.loads(marker.read_text())["fingerprint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
