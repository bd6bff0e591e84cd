"""The exercises of 03_sparsity: what a density allows, which weights are principal, what size explains."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.sparsity import mark_largest, principal_mask
from paper_lib.summaries import at_end, over_matrices
from paper_lib.teaching.judging import Outcomes, exercise, judge_function, judge_numbers, shaped_cases

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
