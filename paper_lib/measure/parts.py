"""A few weights all along training: the float32 value that the optimizer moves, and what bf16 shows of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.errors import CompanionError
from paper_lib.geometry.certified import weight_spectrum
from paper_lib.geometry.sparsity import half_ulp
from paper_lib.geometry.subspaces import path_gram, path_pca, update_gram
from paper_lib.measure.matrix import (
    mask_picture,
    measure_end,
    measure_matrix,
    measure_nulls,
    measure_pair,
    measure_rescaled,
    path_rows,
    point_rows,
    unchanged_counts,
    unchanged_rows,
)
from paper_lib.measure.probes import curvature_rows, drift_rows, named_directions
from paper_lib.study.config import DiagnosticsConfig
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import seeded_generator
from paper_lib.tables import TABLES, Row, table_metadata, write_table
from paper_lib.training.checkpoints import MatrixName, Trajectory, read_matrix
from paper_lib.training.manifest import FOLLOWED, FOLLOWED_IN, JOINT_RUNS, RESCALED_FROM, RESCALED_TO, Key
from paper_lib.training.starts import load_snapshot, snapshot_model

# --- What is extracted, and resumed, as one: a part of the tables; here a run of one seed by itself.

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


# --- Parts that compare runs: all runs of one seed that share their start, or two runs entry by entry.

CURVATURE = "curvature"


@dataclass(frozen=True, kw_only=True)
class JointPart(Part):
    """Runs of one seed, compared: one PCA of those that share W_0, SFT's update at the others' norm, and the
    curvature at W_0 along their updates."""

    trajectories: dict[str, Trajectory]
    runs: dict[str, RunConfig]

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
            return Measured(frames=frames, sums={})
        updates = [w.double() - starts[0].double() for name in self.joint_runs for w in weights[name]]
        return Measured(frames=frames, sums={"joint": path_gram(updates)})

    def _rescaled(
        self, matrix: MatrixName, weights: dict[str, list[Tensor]], source: str, target: str
    ) -> pd.DataFrame:
        other_delta_w = weights[source][-1].double() - weights[source][0].double()
        w_0, w_t = weights[target][0], weights[target][-1]
        fits = other_delta_w.shape == w_0.shape
        step = self.trajectories[target].steps[-1]
        rows = measure_rescaled(w_0, w_t, other_delta_w, step, self.config) if fits else []
        return self.keyed(target, rows, null=f"rescaled_{source}", layer=matrix.layer, module=matrix.module)

    def wholes(self) -> tuple[str, ...]:
        return (CURVATURE,) if CURVATURE in self.tables else ()

    def measure_whole(self, name: str) -> Measured:
        probes = self.config.model_probes
        if name != CURVATURE or probes is None:
            return super().measure_whole(name)
        known = self.trajectories
        members = {member: known[member] for member in probes.curvature_runs if member in known}
        first, rank = next(iter(members.values())), self.config.principal_rank
        weights, updates = {}, {member: dict[str, Tensor]() for member in members}
        for matrix in self.matrices:
            w_0 = snapshots(first, matrix, (0,))[0]
            weights[matrix.name] = weight_spectrum(w_0, rank).decomposition
            for member, trajectory in members.items():
                start, end = snapshots(trajectory, matrix, (0, trajectory.steps[-1]))
                updates[member][matrix.name] = end.double() - start.double()
        model, tokenizer = snapshot_model(self.models, first, 0)
        run = self.runs[next(iter(members))]
        rows = curvature_rows(
            *(model, tokenizer, run.tasks[0]),
            named_directions(weights, updates, rank, probes.draws, self.seed),
            probes,
            max_new_tokens=run.max_new_tokens,
            seed=self.seed,
        )
        frames = [self.keyed(name, [row], direction=direction) for name, direction, row in rows]
        return Measured(frames={"curvature": frames}, sums={})

    def paths(self, sums: dict[str, Tensor]) -> Frames:
        if "joint" not in sums:  # the runs start from different weights: their updates have no common origin
            return {}
        points = [(name, step) for name in self.joint_runs for step in self.trajectories[name].steps]
        coordinates, ratios = path_pca(sums["joint"])
        last = max(step for _, step in points)
        shares = point_rows(last, ratios, "explained_variance_ratio")
        frames = [self.keyed("joint:" + "+".join(self.joint_runs), shares)]
        for (name, step), point in zip(points, coordinates, strict=True):
            frames.append(self.keyed(name, point_rows(step, point, "joint_pca_coordinate")))
        return {"trajectories": frames}


@dataclass(frozen=True, kw_only=True)
class PairPart(Part):
    """Two runs, or two seeds of one, compared at their ends matrix by matrix; their W_0 may differ."""

    trajectories: dict[Key, Trajectory]

    def measure(self, matrix: MatrixName) -> Measured:
        (one, other), (a, b) = self.trajectories, self.trajectories.values()
        ends = [snapshots(each, matrix, (0, each.steps[-1])) for each in (a, b)]
        (w_0, w_t), (w_0_other, w_t_other) = ends
        rows = measure_pair((w_0, w_t), (w_0_other, w_t_other), a.steps[-1], self.config)
        place = {"layer": matrix.layer, "module": matrix.module}
        frame = self.keyed(one[0], rows, other=other[0], other_seed=other[1], **place)
        return Measured(frames={"pairs": [frame]}, sums={})


def followed_entries(w_0: Tensor, w_t: Tensor, quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """(row, column) of the entries at these quantiles of |ΔW_ij| / ½ ULP(W_0,ij), the lower one of two.

    w_0, w_t: (m, n). A quotient above 1 shows in bf16 (Gate III, App. D). Of equal ones the first in row
    order comes first. Raises ValueError for a quantile outside [0, 1].
    """
    if not all(0 <= quantile <= 1 for quantile in quantiles):
        raise ValueError(f"quantiles must lie in [0, 1], got {tuple(quantiles)}")
    reach = ((w_t.double() - w_0.double()).abs() / half_ulp(w_0)).flatten()
    order = reach.argsort(stable=True)
    places = [int(order[int(quantile * (len(order) - 1))]) for quantile in quantiles]
    return [divmod(place, w_0.shape[1]) for place in places]


def journey(
    weights: Sequence[Tensor], steps: Sequence[int], entries: Mapping[float, tuple[int, int]]
) -> pd.DataFrame:
    """Columns step, row, column, k (the entry's quantile), value (as trained), stored (as bf16 shows it)."""
    records = [
        (step, *entry, k, float(w_t[entry]), float(w_t[entry].to(torch.bfloat16)))
        for step, w_t in zip(steps, weights, strict=True)
        for k, entry in entries.items()
    ]
    return pd.DataFrame(records, columns=["step", "row", "column", "k", "value", "stored"])


@dataclass(frozen=True, kw_only=True)
class JourneyPart(Part):
    """The same entries of one matrix in several runs of one seed; OPD's update chooses which."""

    trajectories: dict[str, Trajectory]

    def measure(self, matrix: MatrixName) -> Measured:
        weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
        chosen = weights[FOLLOWED_IN]
        found = followed_entries(chosen[0], chosen[-1], FOLLOWED)
        entries = dict(zip(FOLLOWED, found, strict=True))
        place: dict[str, Any] = {"layer": matrix.layer, "module": matrix.module}
        frames = [
            journey(weights[name], trajectory.steps, entries).assign(
                profile=self.profile, run=name, seed=self.seed, **place
            )
            for name, trajectory in self.trajectories.items()
            if weights[name][0].shape == chosen[0].shape
        ]
        return Measured(frames={"journeys": frames}, sums={})
