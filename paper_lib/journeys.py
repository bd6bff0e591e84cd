"""A few weights all along training: the float32 value that the optimizer moves, and what bf16 shows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.checkpoints import MatrixName, Trajectory
from paper_lib.manifest import FOLLOWED, FOLLOWED_IN
from paper_lib.parts import Measured, Part, snapshots
from paper_lib.sparsity import half_ulp


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
