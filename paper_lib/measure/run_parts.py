"""Parts made of trained runs: a run by itself, runs of one seed that share their start, two runs entry by
entry, a few weights followed through several runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.geometry.certified import weight_spectrum
from paper_lib.geometry.sparsity import half_ulp
from paper_lib.geometry.subspaces import path_gram, path_pca, update_gram
from paper_lib.ground.errors import CompanionError
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
from paper_lib.measure.merging import Merging, merge_rows
from paper_lib.measure.parts import EVERYWHERE, Frames, Part, Share, Unit, matrix_keys
from paper_lib.measure.probes import curvature_rows, drift_rows, named_directions, step_rows
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import seeded_generator
from paper_lib.training.checkpoints import MatrixName, Trajectory, read_matrix
from paper_lib.training.manifest import FOLLOWED, FOLLOWED_IN, JOINT_RUNS, RESCALED_FROM, RESCALED_TO, Key
from paper_lib.training.starts import load_snapshot, snapshot_model, with_teacher


@dataclass(frozen=True, kw_only=True)
class RunPart(Part):
    """A run of one seed by itself: its matrices, its path, its drift, and where asked its nulls and mask
    picture."""

    run: RunConfig
    trajectory: Trajectory
    pictured: MatrixName
    models: Path  # folder with the models that W_0 comes from
    stepped: bool = False

    @property
    def units(self) -> tuple[Unit, ...]:
        return self.matrices if self.config.model_probes is None else (*self.matrices, None)

    def measure(self, matrix: MatrixName) -> Share:
        name, steps, weights = self.run.name, self.trajectory.steps, snapshots(self.trajectory, matrix)
        keys = matrix_keys(matrix)
        rates = self.run.learning_rates()
        rows = measure_matrix(weights, steps, self.config, rates)
        rows += measure_end(weights[0], weights[-1], steps[-1], self.config)
        frames = {"matrices": [self.keyed(name, rows, **keys)]}
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
            frames["nulls"] = [self.keyed_nulls(name, nulls, **keys)]
            sums |= {null: path_gram(walk) for null, walk in walks.items()}
        if "masks" in self.tables and matrix == self.pictured:
            picture = mask_picture(weights[0], weights[-1], self.config)
            frames["masks"] = [self.keyed(name, picture, **keys)]
        return Share(frames=frames, sums=sums)

    def measure_model(self) -> Share:
        """How far the policy has drifted from its start, and where asked what one step moves."""
        probes = self.config.model_probes
        assert probes is not None
        run, trajectory = self.run, self.trajectory
        steps = trajectory.steps[1:] if run.name in probes.drift_runs else trajectory.steps[-1:]
        start, tokenizer = snapshot_model(self.models, trajectory, 0)
        now, _ = snapshot_model(self.models, trajectory, 0)

        def models() -> Iterator[tuple[int, PreTrainedModel]]:
            for step in steps:
                load_snapshot(now, trajectory, step)
                yield step, now

        rows = drift_rows(start, models(), tokenizer, run, probes, self.seed)
        if self.stepped:
            paths = sorted(trajectory.directory.glob("state_*.safetensors"))
            states = {int(path.stem.removeprefix("state_")): path for path in paths}
            policy = with_teacher(now, tokenizer, run, self.models)
            rows += step_rows(policy, run, {s: p for s, p in states.items() if s < run.steps}, self.seed)
        return Share(frames={"trajectories": [self.keyed(run.name, rows)]}, sums={})

    def paths(self, sums: dict[str, Tensor]) -> Frames:
        name, steps = self.run.name, self.trajectory.steps
        rows = path_rows(sums["path"], steps) + unchanged_rows(sums["unchanged"], steps[-1], self.config)
        walks = {null: path_rows(gram, steps) for null, gram in sums.items() if null.endswith("_walk")}
        nulls = self.keyed_nulls(name, walks, **EVERYWHERE)
        return {"trajectories": [self.keyed(name, rows)], "nulls": [nulls]}

    def path(self, table: str) -> Path:
        return self.trajectory.directory / "curve.parquet" if table == "curves" else super().path(table)


def snapshots(trajectory: Trajectory, matrix: MatrixName, steps: Sequence[int] | None = None) -> list[Tensor]:
    """W_0, …, W_T of one matrix (at `steps` alone, where given), mapped from their files.

    Returns (m, n) for each step, in the stored dtype. Raises CompanionError where one is not finite.
    """
    steps = trajectory.steps if steps is None else steps
    weights = [read_matrix(trajectory.path(step), matrix) for step in steps]
    for step, w_t in zip(steps, weights, strict=True):
        if not torch.isfinite(w_t).all():
            path = trajectory.path(step)
            diverged = "the run diverged, train it at a lower rate"
            raise CompanionError(f"{path}: {matrix.name} is not finite: {diverged}")
    return weights


@dataclass(frozen=True, kw_only=True)
class JointPart(Part):
    """Runs of one seed, compared: one PCA of those that share W_0, SFT's update at the others' norm, and the
    curvature at W_0 along their updates."""

    trajectories: dict[str, Trajectory]
    runs: dict[str, RunConfig]
    models: Path

    @property
    def units(self) -> tuple[Unit, ...]:
        return (*self.matrices, None) if "curvature" in self.tables else self.matrices

    @property
    def joint_runs(self) -> tuple[str, ...]:
        """The runs of the joint PCA, in its order."""
        return tuple(name for name in JOINT_RUNS if name in self.trajectories)

    def measure(self, matrix: MatrixName) -> Share:
        weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
        rescaled = [(a, b) for a in RESCALED_FROM for b in RESCALED_TO if a in weights and b in weights]
        frames = {"nulls": [self._rescaled(matrix, weights, *pair) for pair in rescaled]}
        starts = [weights[name][0] for name in self.joint_runs]
        if len(starts) < 2 or not all(torch.equal(starts[0], w_0) for w_0 in starts):
            return Share(frames=frames, sums={})
        updates = [w.double() - starts[0].double() for name in self.joint_runs for w in weights[name]]
        return Share(frames=frames, sums={"joint": path_gram(updates)})

    def _rescaled(
        self, matrix: MatrixName, weights: dict[str, list[Tensor]], source: str, target: str
    ) -> pd.DataFrame:
        other_delta_w = weights[source][-1].double() - weights[source][0].double()
        w_0, w_t = weights[target][0], weights[target][-1]
        fits = other_delta_w.shape == w_0.shape
        step = self.trajectories[target].steps[-1]
        rows = measure_rescaled(w_0, w_t, other_delta_w, step, self.config) if fits else []
        return self.keyed(target, rows, null=f"rescaled_{source}", **matrix_keys(matrix))

    def measure_model(self) -> Share:
        """The curvature at W_0, along updates and random directions."""
        probes, known = self.config.model_probes, self.trajectories
        assert probes is not None
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
        directions = named_directions(weights, updates, rank, probes.draws, self.seed)
        rows = curvature_rows(model, tokenizer, run, directions, probes, self.seed)
        frames = [self.keyed(name, [row], direction=direction) for name, direction, row in rows]
        return Share(frames={"curvature": frames}, sums={})

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
    """Two runs, or two seeds of one, compared at their ends matrix by matrix; their W_0 may differ, but not
    where they are merged and what the merged models can do comes with it."""

    trajectories: dict[Key, Trajectory]
    merging: Merging | None = None

    @property
    def units(self) -> tuple[Unit, ...]:
        return self.matrices if self.merging is None else (*self.matrices, None)

    def measure(self, matrix: MatrixName) -> Share:
        (one, other), (a, b) = self.trajectories, self.trajectories.values()
        w_0, w_t = snapshots(a, matrix, (0, a.steps[-1]))
        w_0_other, w_t_other = snapshots(b, matrix, (0, b.steps[-1]))
        rows = measure_pair((w_0, w_t), (w_0_other, w_t_other), a.steps[-1], self.config)
        frame = self.keyed(one[0], rows, other=other[0], other_seed=other[1], **matrix_keys(matrix))
        return Share(frames={"pairs": [frame]}, sums={})

    def measure_model(self) -> Share:
        assert self.merging is not None
        (one, other), (a, b) = self.trajectories, self.trajectories.values()
        rows = merge_rows(self.merging, a, b, self.seed)
        frame = self.keyed(one[0], rows, other=other[0], other_seed=other[1], **EVERYWHERE)
        return Share(frames={"pairs": [frame]}, sums={})


def followed_entries(w_0: Tensor, w_t: Tensor, quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """(row, column) of the entries at these quantiles of |ΔW_ij| / ½ ULP(W_0,ij), the lower one of two.

    w_0, w_t: (m, n). A quotient above 1 shows in bf16 (Gate III, App. D). Of equal ones the first in row
    order comes first. Raises ValueError for a quantile outside [0, 1].
    """
    if not all(0 <= quantile <= 1 for quantile in quantiles):
        raise ValueError(f"quantiles must lie in [0, 1], got {tuple(quantiles)}")
    reach = ((w_t.double() - w_0.double()).abs() / half_ulp(w_0)).flatten()
    order = reach.argsort(stable=True)
    entries = [int(order[int(quantile * (len(order) - 1))]) for quantile in quantiles]
    return [divmod(entry, w_0.shape[1]) for entry in entries]


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

    def measure(self, matrix: MatrixName) -> Share:
        weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
        chosen = weights[FOLLOWED_IN]
        followed = followed_entries(chosen[0], chosen[-1], FOLLOWED)
        entries = dict(zip(FOLLOWED, followed, strict=True))
        frames = [
            self.keyed(name, journey(weights[name], trajectory.steps, entries), **matrix_keys(matrix))
            for name, trajectory in self.trajectories.items()
            if weights[name][0].shape == chosen[0].shape
        ]
        return Share(frames={"journeys": frames}, sums={})
