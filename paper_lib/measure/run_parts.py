"""Parts made of trained runs: a run by itself, runs of one seed that share their start, two runs entry by
entry, a few weights followed through several runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.decompositions import weight_spectrum
from paper_lib.geometry.sparsity import half_ulp
from paper_lib.geometry.subspaces import path_gram, path_pca, update_gram
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import Matrix
from paper_lib.ground.parallel import told
from paper_lib.ground.tables import Row
from paper_lib.measure import matrix as matrix_rows
from paper_lib.measure import probes
from paper_lib.measure.merging import merge_rows
from paper_lib.measure.parts import EVERYWHERE, Frames, Part
from paper_lib.study.config import DiagnosticsConfig, ModelProbes
from paper_lib.study.run_config import RunConfig
from paper_lib.training.checkpoints import Trajectory, pictured_matrix, projection_matrices, read_matrix
from paper_lib.training.manifest import FOLLOWED, FOLLOWED_IN, JOINT_RUNS, RESCALED_FROM, RESCALED_TO, Key
from paper_lib.training.starts import Study, load_snapshot, snapshot_model, with_teacher


@dataclass(frozen=True, kw_only=True)
class StudyPart(Part):
    """A part of a study, with the trajectories behind it."""

    study: Study
    members: dict[Key, Trajectory]

    @property
    def config(self) -> DiagnosticsConfig:
        """The sizes of the profile's diagnostics."""
        return self.study.profile.diagnostics

    @property
    def trajectories(self) -> dict[str, Trajectory]:
        """Those of one seed, by the run's name."""
        return {name: trajectory for (name, _), trajectory in self.members.items()}

    def matrices(self) -> list[Matrix]:
        """The projection matrices of the first trajectory."""
        return projection_matrices(next(iter(self.members.values())).path(0))


class RunPart(StudyPart):
    """A run of one seed by itself: its matrices, its path, its drift, and where asked its nulls and mask
    picture."""

    @property
    def trajectory(self) -> Trajectory:
        """The run's own."""
        return next(iter(self.members.values()))

    @property
    def run(self) -> RunConfig:
        """Its settings."""
        return self.study.profile.run(next(iter(self.trajectories)))

    def path(self, table: str) -> Path:
        return self.trajectory.directory / "curve.parquet" if table == "curves" else super().path(table)

    def measure(self) -> Frames:
        run, trajectory, matrices = self.run, self.trajectory, self.matrices()
        name, steps, rates = run.name, trajectory.steps, run.learning_rates()
        frames: Frames = defaultdict(list)
        sums: dict[str, list[Tensor]] = defaultdict(list)  # a term a matrix
        for matrix in told(matrices, self.label):
            weights, keys = snapshots(trajectory, matrix), matrix_keys(matrix)
            rows = matrix_rows.measure_matrix(weights, steps, self.config, rates)
            rows += matrix_rows.measure_end(weights[0], weights[-1], steps[-1], self.config)
            frames["matrices"].append(self.keyed(name, rows, **keys))
            sums["path"].append(update_gram(weights))
            sums["unchanged"].append(matrix_rows.unchanged_counts(weights[0], weights[-1], self.config))
            if "nulls" in self.tables:
                seeds = (name, self.seed, matrix.name)
                nulls, walks = matrix_rows.measure_nulls(weights, steps, self.config, seeds, rates)
                frames["nulls"].append(self.keyed_nulls(name, nulls, **keys))
                for null, walk in walks.items():
                    sums[null].append(path_gram(walk))
            if "masks" in self.tables and matrix == pictured_matrix(matrices):
                picture = matrix_rows.mask_picture(weights[0], weights[-1], self.config)
                frames["masks"].append(self.keyed(name, picture, **keys))
        totals = {of: reduce(torch.add, terms) for of, terms in sums.items()}
        rows = matrix_rows.path_rows(totals["path"], steps)
        rows += matrix_rows.unchanged_rows(totals["unchanged"], steps[-1], self.config)
        if self.config.model_probes is not None:
            rows += self._probed(self.config.model_probes)
        frames["trajectories"] = [self.keyed(name, rows)]
        grams = {null: gram for null, gram in totals.items() if null.endswith("_walk")}
        walked = {null: matrix_rows.path_rows(gram, steps) for null, gram in grams.items()}
        frames["nulls"].append(self.keyed_nulls(name, walked, **EVERYWHERE))
        return frames

    def _probed(self, sizes: ModelProbes) -> list[Row]:
        """How far the policy has drifted from its start, and where asked what one step moves."""
        run, trajectory = self.run, self.trajectory
        steps = trajectory.steps[1:] if run.name in sizes.drift_runs else trajectory.steps[-1:]
        start, tokenizer = snapshot_model(self.study.models_folder, trajectory, 0)
        now, _ = snapshot_model(self.study.models_folder, trajectory, 0)
        prompts, rows = probes.validation_prompts(run, sizes.drift_prompts), list[Row]()
        options = {"samples": sizes.samples, "max_new_tokens": run.max_new_tokens, "seed": self.seed}
        for step in steps:
            load_snapshot(now, trajectory, step)
            drift = probes.policy_drift(start, now, tokenizer, prompts, **options)
            rows += [Row(step, metric, value) for metric, value in drift.items()]
        if run.name in self.study.profile.stepped_runs:
            paths = sorted(trajectory.directory.glob("state_*.safetensors"))
            states = {int(path.stem.removeprefix("state_")): path for path in paths}
            states.pop(run.steps, None)  # at its end, where no step follows
            policy = with_teacher(now, tokenizer, run, self.study.models_folder)
            rows += probes.step_rows(policy, run, states, self.seed)
        return rows


def matrix_keys(matrix: Matrix) -> dict[str, Any]:
    """The keys of one matrix's rows."""
    return {"layer": matrix.layer, "module": matrix.module}


def snapshots(trajectory: Trajectory, matrix: Matrix, steps: Sequence[int] | None = None) -> list[Tensor]:
    """W_0, …, W_T of one matrix (at `steps` alone, where given), mapped from their files.

    Returns (m, n) for each step, in the stored dtype. Raises CompanionError where one is not finite.
    """
    steps = trajectory.steps if steps is None else steps
    weights = [read_matrix(trajectory.path(step), matrix.name) for step in steps]
    for step, w_t in zip(steps, weights, strict=True):
        if not torch.isfinite(w_t).all():
            path = trajectory.path(step)
            diverged = "the run diverged, train it at a lower rate"
            raise CompanionError(f"{path}: {matrix.name} is not finite: {diverged}")
    return weights


class JointPart(StudyPart):
    """Runs of one seed, compared: one PCA of those that share W_0, SFT's update at the others' norm, and the
    curvature at W_0 along their updates."""

    @property
    def joint_runs(self) -> tuple[str, ...]:
        """The runs of the joint PCA, in its order."""
        return tuple(name for name in JOINT_RUNS if name in self.trajectories)

    def measure(self) -> Frames:
        frames: Frames = {"nulls": [], "trajectories": []}
        grams = []
        for matrix in told(self.matrices(), self.label):
            weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
            rescaled = [(a, b) for a in RESCALED_FROM for b in RESCALED_TO if a in weights and b in weights]
            frames["nulls"] += [self._rescaled(matrix, weights, *pair) for pair in rescaled]
            starts = [weights[name][0] for name in self.joint_runs]
            if len(starts) > 1 and all(torch.equal(starts[0], w_0) for w_0 in starts):
                updates = [w.double() - starts[0].double() for name in self.joint_runs for w in weights[name]]
                grams.append(path_gram(updates))
        if len(grams) == len(self.matrices()):  # else their updates have no common origin
            frames["trajectories"] = self._joint_path(reduce(torch.add, grams))
        if "curvature" in self.tables:
            frames["curvature"] = self._curvature()
        return frames

    def _rescaled(
        self, matrix: Matrix, weights: dict[str, list[Tensor]], source: str, target: str
    ) -> pd.DataFrame:
        other_delta_w = weights[source][-1].double() - weights[source][0].double()
        w_0, w_t = weights[target][0], weights[target][-1]
        fits = other_delta_w.shape == w_0.shape
        step = self.trajectories[target].steps[-1]
        rows = matrix_rows.measure_rescaled(w_0, w_t, other_delta_w, step, self.config) if fits else []
        return self.keyed(target, rows, null=f"rescaled_{source}", **matrix_keys(matrix))

    def _curvature(self) -> list[pd.DataFrame]:
        """The curvature at W_0, along updates and random directions."""
        sizes, known = self.config.model_probes, self.trajectories
        assert sizes is not None
        members = {member: known[member] for member in sizes.curvature_runs if member in known}
        first, rank = next(iter(members.values())), self.config.principal_rank
        weights, updates = {}, {member: dict[str, Tensor]() for member in members}
        for matrix in self.matrices():
            w_0 = snapshots(first, matrix, (0,))[0]
            weights[matrix.name] = weight_spectrum(w_0, rank).decomposition
            for member, trajectory in members.items():
                start, end = snapshots(trajectory, matrix, (0, trajectory.steps[-1]))
                updates[member][matrix.name] = end.double() - start.double()
        model, tokenizer = snapshot_model(self.study.models_folder, first, 0)
        run = self.study.profile.run(next(iter(members)))
        directions = probes.named_directions(weights, updates, rank, sizes.draws, self.seed)
        rows = probes.curvature_rows(model, tokenizer, run, directions, sizes, self.seed)
        return [self.keyed(name, [row], direction=direction) for name, direction, row in rows]

    def _joint_path(self, gram: Tensor) -> list[pd.DataFrame]:
        """One PCA of all paths, from the inner products of their updates."""
        points = [(name, step) for name in self.joint_runs for step in self.trajectories[name].steps]
        coordinates, ratios = path_pca(gram)
        last = max(step for _, step in points)
        shares = matrix_rows.point_rows(last, ratios, "explained_variance_ratio")
        frames = [self.keyed("joint:" + "+".join(self.joint_runs), shares)]
        for (name, step), point in zip(points, coordinates, strict=True):
            frames.append(self.keyed(name, matrix_rows.point_rows(step, point, "joint_pca_coordinate")))
        return frames


class PairPart(StudyPart):
    """Two runs, or two seeds of one, compared at their ends matrix by matrix; their W_0 may differ, but not
    where they are merged and what the merged models can do comes with it."""

    def measure(self) -> Frames:
        (one, other), (a, b) = self.members, self.members.values()
        keys, frames = {"other": other[0], "other_seed": other[1]}, []
        for matrix in self.matrices():
            w_0, w_t = snapshots(a, matrix, (0, a.steps[-1]))
            w_0_other, w_t_other = snapshots(b, matrix, (0, b.steps[-1]))
            rows = matrix_rows.measure_pair((w_0, w_t), (w_0_other, w_t_other), a.steps[-1], self.config)
            frames.append(self.keyed(one[0], rows, **keys, **matrix_keys(matrix)))
        merges = self.study.profile.merges
        if merges is not None and (one[0], other[0]) in merges.pairs:
            rows = merge_rows(self.study, one[0], a, b, self.seed)
            frames.append(self.keyed(one[0], rows, **keys, **EVERYWHERE))
        return {"pairs": frames}


def followed_entries(w_0: Tensor, w_t: Tensor, quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """(row, column) of the entries at these quantiles of |ΔW_ij| / ½ ULP(W_0,ij), the lower one of two.

    w_0, w_t: (m, n); quantiles: in [0, 1]. A quotient above 1 shows in bf16 (Gate III, App. D). Of equal
    ones the first in row order comes first.
    """
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


class JourneyPart(StudyPart):
    """The same entries of one matrix in several runs of one seed; OPD's update chooses which."""

    def measure(self) -> Frames:
        matrix = pictured_matrix(self.matrices())
        weights = {name: snapshots(trajectory, matrix) for name, trajectory in self.trajectories.items()}
        chosen = weights[FOLLOWED_IN]
        followed = followed_entries(chosen[0], chosen[-1], FOLLOWED)
        entries = dict(zip(FOLLOWED, followed, strict=True))
        frames = [
            self.keyed(name, journey(weights[name], trajectory.steps, entries), **matrix_keys(matrix))
            for name, trajectory in self.trajectories.items()
            if weights[name][0].shape == chosen[0].shape
        ]
        return {"journeys": frames}
