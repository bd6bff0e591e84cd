"""The exercises of the notebooks on what an update does to weights, 03_sparsity and 04_pca."""

from collections.abc import Callable
from itertools import accumulate, count
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.nulls import random_walk_explained_variance
from paper_lib.geometry.sparsity import mark_largest, principal_mask
from paper_lib.geometry.spectra import singular_values, spectral_shift
from paper_lib.geometry.subspaces import principal_angles, top_right_singular_vectors
from paper_lib.summaries import at_end, over_matrices
from paper_lib.teaching import judging
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, judge_numbers, shaped_cases

# --- 03_sparsity: what a density allows, which weights are principal, what size explains.

SFT_DENSITY, SFT_PRINCIPAL, SFT_LOW = (
    METRICS[name].value("sft") for name in ("update_density", "principal_overlap", "low_magnitude_overlap")
)


@exercise("03-1", "Which α was it?", minutes=10)
def _alpha_range(answer: Any) -> str:
    spared = 1 - SFT_DENSITY
    principal, low = ((s * SFT_DENSITY, s * SFT_DENSITY + spared) for s in (SFT_PRINCIPAL, SFT_LOW))
    least, most = zip(principal, low, strict=True)
    right, either = (max(least), min(most)), (min(least), max(most))
    forgetful = (right[0], right[1] - spared)
    mistakes = {
        "that is what the principal overlap allows; the low-magnitude mask has the same α": principal,
        "that is what the low-magnitude overlap allows; the principal mask has the same α": low,
        "the α of either mask: one α has to allow both, so intersect the two ranges": either,
        "the largest α forgets the weights that stayed: a mask may hold all of them as well": forgetful,
        "those are the overlaps; solve both bounds for α": (SFT_PRINCIPAL, SFT_LOW),
    }
    unit = "two numbers, the least and the largest α, as shares"
    # Three digits; the principal overlap is 0.33 % from the least α.
    judge_numbers(answer, right, mistakes, unit=unit, relative=0.002)
    return "The appendix's 0.5 lies outside, the 0.3 of the text inside: printed numbers alone decide it."


@exercise("03-2", "The principal weights", minutes=20)
def _principal(answer: Any) -> str:
    def outcomes(w: Tensor, alpha: float, r: int) -> Outcomes:
        right, (u, s, vh) = principal_mask(w, alpha=alpha, rank=r), torch.linalg.svd(w, full_matrices=False)
        leading, unscaled = (u[:, :r] * s[:r]) @ vh[:r], u[:, :r] @ vh[:r]
        marked = {
            "the largest weights themselves: rank those of the rank-r reconstruction": w.abs(),
            "the largest signed values: large negative entries are principal too": leading,
            "the smallest entries of the reconstruction: take the other end": -leading.abs(),
            "ranked by what the reconstruction leaves out, the smallest singular values": (w - leading).abs(),
            "U Vᵀ without the singular values between them": unscaled.abs(),
        }
        wrong = {words: mark_largest(scores, alpha) for words, scores in marked.items()}
        return right, wrong | {"the complement: mark the principal ones": ~right}

    judge_function(answer, outcomes, shaped_cases(21, 0.3, 2), returns="a mask of W_0's shape")
    return "A small weight can be principal: it is, where the leading directions cross and the rest cancels."


@exercise("03-3", "Sparsity at equal size", minutes=15)
def _at_equal_size(answer: Any, matrices: pd.DataFrame, nulls: pd.DataFrame) -> str:
    ends = at_end(over_matrices(matrices, "update_sparsity")).groupby("run")["value"].mean()
    chance = at_end(over_matrices(nulls, "update_sparsity", sizes=matrices))
    null = chance[chance["run"] == "opd"].groupby("null")["value"].mean()
    plain, plain_null = (
        at_end(rows[(rows["run"] == "opd") & (rows["metric"] == "update_sparsity")])["value"].mean()
        for rows in (matrices, nulls[nulls["null"] == "rescaled_sft"])
    )

    def points(other: float) -> float:
        return 100 * (ends["opd"] - other)

    right, matched = points(null["rescaled_sft"]), points(null["rescaled_sft_matched"])
    own, alike = points(ends["sft"]), 100 * (plain - plain_null)
    mistakes = {
        "SFT's own sparsity, at SFT's own norm: take its update shrunk to OPD's (`rescaled_sft`)": own,
        "that is matched SFT's update; the question is about SFT as the paper sets it up": matched,
        "that null is Gaussian noise of OPD's norm, not SFT's update": points(null["same_norm_gaussian"]),
        "the sign: OPD's sparsity less the null's": -right,
        "a mean over matrices: sparsity counts weights, so large matrices count more": alike,
    }
    unit = "points of sparsity, OPD less SFT's update at OPD's norm"
    judge_numbers(answer, right, mistakes, unit=unit, relative=0.0, absolute=0.02)
    return "Set it beside the gap between OPD and SFT as they are: the rest of that gap is size."


# --- 04_pca: what turns, what only seems to, and what a random walk draws.

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
        right, first = angles.max(), _angles(w_0, w_t, 1).max()
        one_by_one = (a * b).sum(0).abs().clamp(max=1).acos().rad2deg().max()
        return right, {
            "radians: asked is the angle in degrees": right.deg2rad(),
            "the left singular vectors: asked are the right ones": _angles(w_0.mT, w_t.mT, k).max(),
            "the smallest of the angles, not the largest": angles.min(),
            "the mean of the angles, not the largest": angles.mean(),
            "that is the cosine of the angle": right.deg2rad().cos(),
            "vector by vector: two bases of one span would have an angle": one_by_one,
            "the first direction alone: the angle is between two spans of k directions": first,
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
