"""The exercises of 04_pca: what turns, what only seems to, and what a random walk draws."""

from collections.abc import Callable
from itertools import accumulate, count
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.nulls import random_walk_explained_variance
from paper_lib.geometry.spectra import singular_values, spectral_shift
from paper_lib.geometry.subspaces import principal_angles, top_right_singular_vectors
from paper_lib.summaries import at_end
from paper_lib.teaching import judging
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, judge_numbers, shaped_cases

SHARE = 0.9
TURNED = 89.9  # degrees


@exercise("04-1", "A walk looks low-dimensional", minutes=5)
def _components(answer: Any) -> str:
    right = _fewest(random_walk_explained_variance)
    harmonic = _fewest(lambda k: random_walk_explained_variance(1) / k)
    mistakes = {
        "one short of 90 %: add the shares up once more": right - 1,
        "fewer do: add the shares up once more": right + 1,
        "those two have 76 %: shares fall with k², not with k": harmonic,
    }
    judge_numbers(answer, right, mistakes, unit="a whole number of components", relative=0.0, absolute=1e-9)
    return "However many thousand dimensions it has: few components are no sign of a small space."


def _fewest(share: Callable[[int], float]) -> int:
    return next(k for k, total in enumerate(accumulate(map(share, count(1))), 1) if total >= SHARE)


@exercise("04-2", "The largest angle", minutes=15)
def _largest_angle(answer: Any) -> str:
    def outcomes(w_0: Tensor, w_t: Tensor, k: int) -> Outcomes:
        angles, (a, b) = _angles(w_0, w_t, k), (top_right_singular_vectors(w, k) for w in (w_0, w_t))
        right = angles.max()
        return right, {
            "radians: asked is the angle in degrees": right.deg2rad(),
            "the left singular vectors: asked are the right ones": _angles(w_0.mT, w_t.mT, k).max(),
            "the smallest of the angles, not the largest": angles.min(),
            "the mean of the angles, not the largest": angles.mean(),
            "that is the cosine of the angle": right.deg2rad().cos(),
            "vector by vector: two bases of one span would have an angle": (
                (a * b).sum(0).abs().clamp(max=1).acos().rad2deg().max()
            ),
            "the first direction alone: the angle is between two spans of k directions": (
                _angles(w_0, w_t, 1).max()
            ),
        }

    cases = judging.shaped_pairs(31, 0.2, 2)
    judge_function(answer, outcomes, cases, returns="one number, in degrees", relative=1e-5)
    return "An angle belongs to a span: within it, singular vectors may turn freely and nothing changes."


def _angles(w_0: Tensor, w_t: Tensor, k: int) -> Tensor:
    bases = (top_right_singular_vectors(w, k) for w in (w_0, w_t))
    return torch.rad2deg(principal_angles(*bases))


@exercise("04-3", "Rotation per unit of norm", minutes=15)
def _per_norm(answer: Any, matrices: pd.DataFrame) -> str:
    place = ["run", "layer", "module", "seed"]
    rows = at_end(matrices)
    angle, norm = (
        rows[rows["metric"] == metric].set_index(place)["value"]
        for metric in ("angle_u_mean", "relative_norm")
    )
    each = (angle / norm).groupby("run").mean()
    turned, moved = angle.groupby("run").mean(), norm.groupby("run").mean()
    right, of_angles, of_norms = (means["sft"] / means["opd"] for means in (each, turned, moved))
    late = of_angles / of_norms
    mistakes = {
        "angles as they are: divide each by its matrix's relative norm": of_angles,
        "that is how much farther SFT moved": of_norms,
        "the wrong way up: SFT over OPD": 1 / right,
        "averaged before dividing, as the table does: divide matrix by matrix, then take the mean": late,
    }
    judge_numbers(answer, right, mistakes, unit="one number, SFT's angle per unit of norm over OPD's")
    return "Read it beside the quotient of the angles as they are: that one is a statement about norms."


@exercise("04-4", "What NSS does not see", minutes=20)
def _unseen(answer: Any) -> str:
    returns = "a matrix of W_0's shape"
    for name, (w_0,) in shaped_cases(41).items():
        w_t = judging.as_matrix(judging.result_of(answer, name, (w_0,), returns), w_0.shape, "W_t", name)
        shift = spectral_shift(singular_values(w_0), singular_values(w_t)).item()
        if shift > 1e-6:  # float32 will do
            raise Wrong(f"NSS is {shift:.1e} on {name}: multiply W_0 by orthogonal matrices alone")
        right, left = (_angles(*pair, 2).max().item() for pair in ((w_0, w_t), (w_0.mT, w_t.mT)))
        if right < 1e-4 and left < 1e-4:
            raise Wrong(f"NSS is 0 on {name}, but no span turns: signs are no rotation")
        if right < 1e-4:
            raise Wrong(f"NSS is 0 on {name}, but the left vectors turn alone: try the other side")
        if right < TURNED:
            raise Wrong(
                f"NSS is 0 and the right span turns on {name}, by {right:.0f}° only: which of the old "
                "leading directions are still among the new ones?"
            )
    return "NSS and angles are blind to each other: C3 and C4 are two claims, though both follow the norm."
