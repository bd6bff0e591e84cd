"""What is extracted, and resumed, as one: a part of the tables; here a run of one seed by itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.checkpoints import MatrixName, Trajectory, read_matrix
from paper_lib.config import DiagnosticsConfig, RunConfig
from paper_lib.errors import CompanionError
from paper_lib.measure import mask_picture, measure_matrix, measure_nulls
from paper_lib.measure_end import measure_end, unchanged_counts, unchanged_rows
from paper_lib.pca import path_gram, path_rows, update_gram
from paper_lib.probing import drift_rows, load_snapshot, snapshot_model
from paper_lib.tables import TABLES, Row, table_metadata, write_table
from paper_lib.tasks import seeded_generator

EVERYWHERE = {"layer": -1, "module": "all"}  # the place of a null's path through all projection matrices
DRIFT = "drift"

Frames = dict[str, list[pd.DataFrame]]
Unit = MatrixName | str  # what is measured by itself: a matrix, or by name the model as a whole


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one unit gives: frames by table, and by name what is summed over matrices (counts, inner products
    of paths)."""

    frames: Frames
    sums: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Part(ABC):
    """A resumable unit: each of its matrices is measured by itself, and together they become its tables."""

    label: str
    profile: str
    seed: int
    config: DiagnosticsConfig
    matrices: tuple[MatrixName, ...]
    tables: tuple[str, ...]
    directory: Path
    models: Path
    fingerprint: str

    @property
    def units(self) -> tuple[Unit, ...]:
        """The matrices, then what is measured of the model as a whole."""
        return (*self.matrices, *self.wholes())

    @abstractmethod
    def measure(self, matrix: MatrixName) -> Measured:
        """One matrix's share of the tables."""

    def wholes(self) -> tuple[str, ...]:
        """By name, what `measure_whole` can measure."""
        return ()

    def measure_whole(self, name: str) -> Measured:
        """What needs the whole model, which is built from the config of its base in `models`."""
        raise ValueError(f"{self.label} measures {name!r} of no whole model; it has {self.wholes()}")

    def paths(self, sums: dict[str, Tensor]) -> Frames:
        """What only all matrices together give, from the sums over them."""
        return {}

    def path(self, table: str) -> Path:
        """Where the part keeps its rows of a table."""
        return self.directory / f"{table}.parquet"

    def up_to_date(self) -> bool:
        """Whether its tables are there and were computed from this configuration and these trajectories."""
        try:
            found = [table_metadata(self.path(table))["fingerprint"] for table in self.tables]
        except CompanionError:
            return False
        return all(fingerprint == self.fingerprint for fingerprint in found)

    def write(self, measured: Sequence[Measured]) -> None:
        """Write its tables from what all its units gave, in their order."""
        sums = [each.sums for each in measured[: len(self.matrices)]]
        names = sorted(set.intersection(*map(set, sums)))
        whole = self.paths({name: reduce(torch.add, [each[name] for each in sums]) for name in names})
        for table in self.tables:
            frames = [frame for each in measured for frame in each.frames.get(table, [])]
            rows = concatenated(table, [*frames, *whole.get(table, [])])
            path, columns = self.path(table), TABLES[table]
            write_table(rows, path, columns=columns, fingerprint=self.fingerprint, seed=self.seed)

    def keyed(self, run: str, rows: Sequence[Row], **keys: Any) -> pd.DataFrame:
        """Rows with the keys of a tidy table; a key is one value for all rows or a list of one a row."""
        columns = zip(*rows, strict=True) if rows else ([] for _ in Row._fields)
        values = {name: list(column) for name, column in zip(Row._fields, columns, strict=True)}
        place = {"profile": self.profile, "run": run, "seed": self.seed, **keys}
        return pd.DataFrame(values | place, index=range(len(rows)))


@dataclass(frozen=True, kw_only=True)
class RunPart(Part):
    """A run of one seed by itself: its matrices, its path, its drift, and where asked its nulls and mask
    picture."""

    run: RunConfig
    trajectory: Trajectory
    pictured: MatrixName

    def measure(self, matrix: MatrixName) -> Measured:
        name, steps, weights = self.run.name, self.trajectory.steps, snapshots(self.trajectory, matrix)
        place: dict[str, Any] = {"layer": matrix.layer, "module": matrix.module}
        rates = self.run.learning_rates()
        rows = measure_matrix(weights, steps, self.config, rates)
        rows += measure_end(weights[0], weights[-1], steps[-1], self.config)
        frames = {"matrices": [self.keyed(name, rows, **place)]}
        sums = {"path": update_gram(weights)}
        sums["unchanged"] = unchanged_counts(weights[0], weights[-1], self.config)
        if "nulls" in self.tables:
            nulls, walks = measure_nulls(
                weights,
                steps,
                self.config,
                lambda null: seeded_generator(null, name, self.seed, matrix.name),
                rates,
            )
            names = [null for null, rows in nulls.items() for _ in rows]
            rows = [row for rows in nulls.values() for row in rows]
            frames["nulls"] = [self.keyed(name, rows, null=names, **place)]
            sums |= {null: path_gram(walk) for null, walk in walks.items()}
        if "masks" in self.tables and matrix == self.pictured:
            picture = mask_picture(weights[0], weights[-1], self.config)
            frames["masks"] = [picture.assign(profile=self.profile, run=name, seed=self.seed, **place)]
        return Measured(frames=frames, sums=sums)

    def wholes(self) -> tuple[str, ...]:
        return () if self.config.model_probes is None else (DRIFT,)

    def measure_whole(self, name: str) -> Measured:
        probes = self.config.model_probes
        if name != DRIFT or probes is None:
            return super().measure_whole(name)
        run, trajectory = self.run, self.trajectory
        steps = trajectory.steps[1:] if run.name in probes.drift_runs else trajectory.steps[-1:]
        start, tokenizer = snapshot_model(self.models, trajectory, 0)
        now, _ = snapshot_model(self.models, trajectory, 0)

        def models() -> Iterator[tuple[int, PreTrainedModel]]:
            for step in steps:
                load_snapshot(now, trajectory, step)
                yield step, now

        rows = drift_rows(
            *(start, models(), tokenizer, run.tasks[0], probes),
            max_new_tokens=run.max_new_tokens,
            seed=self.seed,
        )
        return Measured(frames={"trajectories": [self.keyed(run.name, rows)]}, sums={})

    def paths(self, sums: dict[str, Tensor]) -> Frames:
        name, steps = self.run.name, self.trajectory.steps
        rows = path_rows(sums["path"], steps) + unchanged_rows(sums["unchanged"], steps[-1], self.config)
        frames = {"trajectories": [self.keyed(name, rows)], "nulls": list[pd.DataFrame]()}
        for null in ("random_walk", "adam_walk"):
            if null in sums:
                rows = path_rows(sums[null], steps)
                frames["nulls"].append(self.keyed(name, rows, null=null, **EVERYWHERE))
        return frames


def snapshots(trajectory: Trajectory, matrix: MatrixName, steps: Sequence[int] | None = None) -> list[Tensor]:
    """W_0, …, W_T of one matrix (at `steps` alone, where given), mapped from their files.

    Returns (m, n) for each step, in the stored dtype. Raises CompanionError where one is not finite.
    """
    steps = trajectory.steps if steps is None else steps
    weights = [read_matrix(trajectory.path(step), matrix) for step in steps]
    for step, w_t in zip(steps, weights, strict=True):
        if not torch.isfinite(w_t).all():
            path = trajectory.path(step)
            raise CompanionError(
                f"{path}: {matrix.name} is not finite: the run diverged, train it at a lower rate"
            )
    return weights


def concatenated(table: str, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of a table; no frame, or empty ones alone, give a table without rows."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(TABLES[table]))
