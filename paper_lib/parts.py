"""What is extracted, and resumed, as one: a run of one seed, or the runs of one seed that are compared."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.checkpoints import MatrixName, Trajectory, read_matrix
from paper_lib.config import DiagnosticsConfig, RunConfig
from paper_lib.errors import CompanionError
from paper_lib.manifest import JOINT_RUNS, RESCALED_FROM, RESCALED_TO
from paper_lib.measure import mask_picture, measure_matrix, measure_nulls, measure_rescaled
from paper_lib.pca import path_gram, path_pca, path_rows, point_rows
from paper_lib.tables import TABLES, Row, table_metadata, write_table
from paper_lib.tasks import seeded_generator

EVERYWHERE = {"layer": -1, "module": "all"}  # the place of a null's path through all projection matrices

Frames = dict[str, list[pd.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one matrix gives: frames by table, and by name the inner products of paths, to be summed."""

    frames: Frames
    grams: dict[str, Tensor]


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
    fingerprint: str

    @abstractmethod
    def measure(self, matrix: MatrixName) -> Measured:
        """One matrix's share of the tables."""

    @abstractmethod
    def paths(self, grams: dict[str, Tensor]) -> Frames:
        """What only all matrices together give, from their summed inner products."""

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
        """Write its tables from what all its matrices gave, in their order."""
        names = sorted(set.intersection(*(set(each.grams) for each in measured)))
        whole = self.paths(
            {name: reduce(torch.add, [each.grams[name] for each in measured]) for name in names}
        )
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
    """A run of one seed by itself: its matrices, its path, and where asked its nulls and mask picture."""

    run: RunConfig
    trajectory: Trajectory
    pictured: MatrixName

    def measure(self, matrix: MatrixName) -> Measured:
        name, steps, weights = self.run.name, self.trajectory.steps, snapshots(self.trajectory, matrix)
        place: dict[str, Any] = {"layer": matrix.layer, "module": matrix.module}
        rows = measure_matrix(weights, steps, self.config, self.run.learning_rates())
        frames = {"matrices": [self.keyed(name, rows, **place)]}
        grams = {"path": path_gram([w.double() - weights[0].double() for w in weights])}
        if "nulls" in self.tables:
            nulls, walk = measure_nulls(
                weights,
                steps,
                self.config,
                lambda null: seeded_generator(null, name, self.seed, matrix.name),
            )
            names = [null for null, rows in nulls.items() for _ in rows]
            rows = [row for rows in nulls.values() for row in rows]
            frames["nulls"] = [self.keyed(name, rows, null=names, **place)]
            grams["walk"] = path_gram(walk)
        if "masks" in self.tables and matrix == self.pictured:
            picture = mask_picture(weights[0], weights[-1], self.config)
            frames["masks"] = [picture.assign(profile=self.profile, run=name, seed=self.seed, **place)]
        return Measured(frames=frames, grams=grams)

    def paths(self, grams: dict[str, Tensor]) -> Frames:
        name, steps = self.run.name, self.trajectory.steps
        frames = {"trajectories": [self.keyed(name, path_rows(grams["path"], steps))]}
        if "walk" in grams:
            rows = path_rows(grams["walk"], steps)
            frames["nulls"] = [self.keyed(name, rows, null="random_walk", **EVERYWHERE)]
        return frames


@dataclass(frozen=True, kw_only=True)
class JointPart(Part):
    """Runs of one seed, compared: one PCA of those that share W_0, and SFT's update at the others' norm."""

    trajectories: dict[str, Trajectory]

    @property
    def joint_runs(self) -> tuple[str, ...]:
        """The runs of the joint PCA, in its order."""
        return tuple(name for name in JOINT_RUNS if name in self.trajectories)

    @property
    def rescaled_runs(self) -> list[tuple[str, str]]:
        """(whose update, at whose norm) of every rescaled null."""
        known = self.trajectories
        return [(a, b) for a in RESCALED_FROM for b in RESCALED_TO if a in known and b in known]

    def measure(self, matrix: MatrixName) -> Measured:
        weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
        frames = {"nulls": [self._rescaled(matrix, weights, *pair) for pair in self.rescaled_runs]}
        starts = [weights[name][0] for name in self.joint_runs]
        if len(starts) < 2 or not all(torch.equal(starts[0], w_0) for w_0 in starts):
            return Measured(frames=frames, grams={})
        updates = [w.double() - starts[0].double() for name in self.joint_runs for w in weights[name]]
        return Measured(frames=frames, grams={"joint": path_gram(updates)})

    def _rescaled(
        self, matrix: MatrixName, weights: dict[str, list[Tensor]], source: str, target: str
    ) -> pd.DataFrame:
        other_delta_w = weights[source][-1].double() - weights[source][0].double()
        w_0, w_t = weights[target][0], weights[target][-1]
        fits = other_delta_w.shape == w_0.shape
        step = self.trajectories[target].steps[-1]
        rows = measure_rescaled(w_0, w_t, other_delta_w, step, self.config) if fits else []
        return self.keyed(target, rows, null=f"rescaled_{source}", layer=matrix.layer, module=matrix.module)

    def paths(self, grams: dict[str, Tensor]) -> Frames:
        if "joint" not in grams:  # the runs start from different weights: their updates have no common origin
            return {}
        points = [(name, step) for name in self.joint_runs for step in self.trajectories[name].steps]
        coordinates, ratios = path_pca(grams["joint"])
        last = max(step for _, step in points)
        shares = point_rows(last, ratios, "explained_variance_ratio")
        frames = [self.keyed("joint:" + "+".join(self.joint_runs), shares)]
        for (name, step), point in zip(points, coordinates, strict=True):
            frames.append(self.keyed(name, point_rows(step, point, "joint_pca_coordinate")))
        return {"trajectories": frames}


def snapshots(trajectory: Trajectory, matrix: MatrixName) -> list[Tensor]:
    """W_0, …, W_T of one matrix, mapped from their files. Raises CompanionError where one is not finite."""
    weights = [read_matrix(trajectory.path(step), matrix) for step in trajectory.steps]
    for step, w_t in zip(trajectory.steps, weights, strict=True):
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
