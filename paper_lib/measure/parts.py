"""Parts: what is measured, written and resumed as one, matrix by matrix in one queue."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.parallel import completed, roughly, threads
from paper_lib.ground.tables import TABLES, Row, table_metadata, write_table
from paper_lib.study.config import DiagnosticsConfig
from paper_lib.training.checkpoints import MatrixName
from paper_lib.training.manifest import PlannedPart

EVERYWHERE: dict[str, Any] = {"layer": -1, "module": "all"}  # keys of a null's path through all matrices

Frames = dict[str, list[pd.DataFrame]]
Unit = MatrixName | None  # a matrix; None is the model as a whole


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one unit gives to its part: frames by table, and by name what is summed over matrices."""

    frames: Frames
    sums: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Part(PlannedPart, ABC):
    """A planned part whose weights are on disk: its matrices are measured one by one, and give its tables."""

    label: str
    profile: str
    seed: int
    config: DiagnosticsConfig
    matrices: tuple[MatrixName, ...]
    directory: Path

    @property
    def units(self) -> tuple[Unit, ...]:
        """What is measured by itself, in any order and process."""
        return self.matrices

    @abstractmethod
    def measure(self, matrix: MatrixName) -> Share:
        """One matrix's share of the tables."""

    def measure_model(self) -> Share:
        """The share of the model as a whole."""
        raise NotImplementedError(f"{self.label} measures matrices alone")

    def paths(self, sums: dict[str, Tensor]) -> Frames:
        """What only all matrices together give, from the sums over them."""
        return {}

    def path(self, table: str) -> Path:
        """Where the part keeps its rows of a table."""
        return self.directory / f"{table}.parquet"

    def up_to_date(self) -> bool:
        """Whether its tables are there and were computed from this configuration and these weights."""
        try:
            return all(table_metadata(self.path(t))["fingerprint"] == self.fingerprint for t in self.tables)
        except CompanionError:
            return False

    def write(self, shares: Sequence[Share]) -> None:
        """Write its tables from the shares of all its units, in their order.

        Raises CompanionError where the disk does not take them.
        """
        sums = [share.sums for share in shares[: len(self.matrices)]]
        names = sorted(set.intersection(*map(set, sums)))
        whole = self.paths({name: reduce(torch.add, [of_one[name] for of_one in sums]) for name in names})
        for table in self.tables:
            frames = [frame for share in shares for frame in share.frames.get(table, [])]
            rows = concatenated(table, [*frames, *whole.get(table, [])])
            path, columns = self.path(table), TABLES[table]
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


def matrix_keys(matrix: MatrixName) -> dict[str, Any]:
    """The keys of one matrix's rows."""
    return {"layer": matrix.layer, "module": matrix.module}


def concatenated(table: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of a table; no frame, or empty ones alone, give a table without rows."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(TABLES[table]))


P = TypeVar("P", bound=Part)


def outdated(parts: Sequence[P], *, what: str, force: bool) -> list[P]:
    """The parts to be measured, which are all where `force`; a line says how many are not."""
    todo = [part for part in parts if force or not part.up_to_date()]
    if done := len(parts) - len(todo):
        print(f"[{what}] {done} of {len(parts)} parts are up to date", flush=True)
    return todo


def measure_parts(
    parts: Sequence[P], *, what: str, workers: int | None, threads_each: int = 1
) -> Iterator[tuple[P, CompanionError | None]]:
    """Measure parts, their units in one queue, and write each part when its last unit is done.

    Yields every part, in any order, with None when it is written or else with its first failure, after a line
    of progress. what, workers, threads_each: as for `completed`. Raises CompanionError where nothing goes on,
    since a worker died or the disk is full; what was written is kept.
    """
    units = [(number, unit) for number, part in enumerate(parts) for unit in part.units]
    waiting: dict[int, dict[Unit, Share]] = {number: {} for number in range(len(parts))}
    outcomes = completed(
        *(_measure, [(parts[number], unit) for number, unit in units]),
        labels=[parts[number].label for number, _ in units],
        what=what,
        workers=workers,
        threads_each=threads_each,
        report=lambda line: None,
    )
    began = monotonic()
    for ready, (index, outcome) in enumerate(outcomes, start=1):
        number, unit = units[index]
        part, shares = parts[number], waiting.get(number)
        if shares is None:  # another of its units failed
            continue
        failure = outcome if isinstance(outcome, CompanionError) else None
        if failure is None:
            shares[unit] = outcome
            if len(shares) < len(part.units):
                continue
            with threads(1):
                part.write([shares[unit] for unit in part.units])
        del waiting[number]
        done, left = len(parts) - len(waiting), (monotonic() - began) / ready * (len(units) - ready)
        told = "measured" if failure is None else f"failed: {failure}"
        print(f"[{what} {done}/{len(parts)}] {part.label}: {told}, {roughly(left)} left", flush=True)
        yield part, failure


def _measure(part: Part, unit: Unit) -> Share:
    return part.measure_model() if unit is None else part.measure(unit)
