"""Parts that compare runs: all runs of one seed that share their start, or two runs entry by entry."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from paper_lib.certified import weight_spectrum
from paper_lib.checkpoints import MatrixName, Trajectory
from paper_lib.config import RunConfig
from paper_lib.manifest import JOINT_RUNS, RESCALED_FROM, RESCALED_TO, Key
from paper_lib.measure import measure_rescaled
from paper_lib.pairs import measure_pair
from paper_lib.parts import Frames, Measured, Part, snapshots
from paper_lib.pca import path_gram, path_pca, point_rows
from paper_lib.probing import curvature_rows, named_directions, snapshot_model

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
