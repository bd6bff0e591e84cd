"""Parts: what is measured, written and resumed as one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.parallel import completed
from paper_lib.ground.tables import TABLES, Row, table_metadata, write_table
from paper_lib.training.manifest import PlannedPart

EVERYWHERE: dict[str, Any] = {"layer": -1, "module": "all"}  # keys of a null's path through all matrices

Frames = dict[str, list[pd.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class Part(PlannedPart, ABC):
    """A planned part whose weights are on disk: they are measured in one process, and give its tables."""

    label: str
    profile: str
    seed: int
    directory: Path

    @abstractmethod
    def measure(self) -> Frames:
        """The rows of its tables, by table."""

    @property
    def measured_tables(self) -> list[str]:
        """All but its run's curve, which was written when that was trained."""
        return [table for table in self.tables if table != "curves"]

    def path(self, table: str) -> Path:
        """Where the part keeps its rows of a table."""
        return self.directory / f"{table}.parquet"

    def up_to_date(self) -> bool:
        """Whether its tables are there and were computed from this configuration and these weights."""
        paths = map(self.path, self.measured_tables)
        try:
            return all(table_metadata(path)["fingerprint"] == self.fingerprint for path in paths)
        except CompanionError:
            return False

    def write(self, frames: Frames) -> None:
        """Write its tables; CompanionError where the disk does not take them."""
        for table in self.measured_tables:
            rows, path = concatenated(table, frames.get(table, [])), self.path(table)
            columns = TABLES[table]
            try:
                write_table(rows, path, columns=columns, fingerprint=self.fingerprint, seed=self.seed)
            except OSError as error:
                reason = error.strerror or error
                raise CompanionError(f"{path} could not be written ({reason}): make room") from error

    def keyed(self, run: str, rows: Sequence[Row] | pd.DataFrame, **keys: Any) -> pd.DataFrame:
        """Rows with the keys of a tidy table; a key is one value for all rows or a list of one a row."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows, columns=list(Row._fields))
        return frame.assign(profile=self.profile, run=run, seed=self.seed, **keys)

    def keyed_nulls(self, run: str, rows: Mapping[str, Sequence[Row]], **keys: Any) -> pd.DataFrame:
        """Rows by null, with the keys of the table `nulls`."""
        names = [null for null, of_null in rows.items() for _ in of_null]
        return self.keyed(run, [row for of_null in rows.values() for row in of_null], null=names, **keys)


def concatenated(table: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of a table; no frame, or empty ones alone, give a table without rows."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(TABLES[table]))


P = TypeVar("P", bound=Part)


def outdated(parts: Sequence[P], *, what: str, force: bool) -> list[P]:
    """The parts to be measured, which are all where `force`; a line says how many are not."""
    todo = [part for part in parts if force or not part.up_to_date()]
    print(f"[{what}] {len(parts) - len(todo)} of {len(parts)} parts are up to date", flush=True)
    return todo


def measure_parts(parts: Sequence[P], **options: Any) -> Iterator[tuple[P, CompanionError | None]]:
    """Measure parts, a process each, and write each as soon as it is measured; options: of `completed`.

    Yields every part, in any order, with None when it is written or else with its failure. Raises
    CompanionError where nothing goes on, since a worker died or the disk is full; what was written is kept.
    """
    labels, jobs = [part.label for part in parts], [(part,) for part in parts]
    for index, outcome in completed(methodcaller("measure"), jobs, labels=labels, **options):
        failure = outcome if isinstance(outcome, CompanionError) else None
        if failure is None:
            parts[index].write(outcome)
        yield parts[index], failure
