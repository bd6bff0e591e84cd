"""The exercises of 03_sparsity: what a density allows, which weights are principal, what size explains."""

from typing import Any

import torch
from torch import Tensor

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.sparsity import mark_largest, principal_mask
from paper_lib.summaries import at_end, over_matrices
from paper_lib.teaching.judging import Exercise, Frames, judge_function, judge_numbers, shaped_cases

SFT_DENSITY, SFT_PRINCIPAL, SFT_LOW = (
    METRICS[name].value("sft") for name in ("update_density", "principal_overlap", "low_magnitude_overlap")
)


def _alpha_range(answer: Any, tables: Frames) -> str:
    spared = 1 - SFT_DENSITY
    least = {overlap: overlap * SFT_DENSITY for overlap in (SFT_PRINCIPAL, SFT_LOW)}
    most = {overlap: overlap * SFT_DENSITY + spared for overlap in (SFT_PRINCIPAL, SFT_LOW)}
    right = (max(least.values()), min(most.values()))
    judge_numbers(
        answer,
        right,
        unit="two numbers, the least and the largest α, as shares",
        relative=0.005,
        mistakes=(
            (
                (least[SFT_PRINCIPAL], most[SFT_PRINCIPAL]),
                "that is what the principal overlap allows; the low-magnitude mask has the same α",
            ),
            (
                (least[SFT_LOW], most[SFT_LOW]),
                "that is what the low-magnitude overlap allows; the principal mask has the same α",
            ),
            (
                (min(least.values()), max(most.values())),
                "the α of either mask: one α has to allow both, so intersect the two ranges",
            ),
            (
                (right[0], min(most.values()) - spared),
                "the largest α forgets the weights that stayed: a mask may hold all of them as well",
            ),
            ((SFT_PRINCIPAL, SFT_LOW), "those are the overlaps; solve both bounds for α"),
        ),
    )
    return "The appendix's 0.5 lies outside, the 0.3 of the text inside: printed numbers alone decide it."


def _principal(answer: Any, tables: Frames) -> str:
    judge_function(
        answer,
        lambda w, alpha, rank: principal_mask(w, alpha=alpha, rank=rank),
        returns="a mask of W_0's shape",
        cases=shaped_cases(21, 0.3, 2),
        mistakes=(
            (
                lambda w, alpha, rank: mark_largest(w.abs(), alpha),
                "the largest weights themselves: rank those of the rank-r reconstruction",
            ),
            (
                lambda w, alpha, rank: mark_largest(_leading(w, rank), alpha),
                "the largest signed values: large negative entries are principal too",
            ),
            (
                lambda w, alpha, rank: mark_largest(-_leading(w, rank).abs(), alpha),
                "the smallest entries of the reconstruction: take the other end",
            ),
            (
                lambda w, alpha, rank: mark_largest((w - _leading(w, rank)).abs(), alpha),
                "ranked by what the reconstruction leaves out, the smallest singular values",
            ),
            (
                lambda w, alpha, rank: mark_largest(_leading(w, rank, scaled=False).abs(), alpha),
                "U Vᵀ without the singular values between them",
            ),
            (
                lambda w, alpha, rank: ~principal_mask(w, alpha=alpha, rank=rank),
                "the complement: mark the α that are principal",
            ),
        ),
    )
    return "A small weight can be principal: it is, where the leading directions cross and the rest cancels."


def _leading(w: Tensor, rank: int, *, scaled: bool = True) -> Tensor:
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    return (u[:, :rank] * (s[:rank] if scaled else 1)) @ vh[:rank]


def _at_equal_size(answer: Any, tables: Frames) -> str:
    matrices, nulls = tables["matrices"], tables["nulls"]
    ends = at_end(over_matrices(matrices, "update_sparsity")).groupby("run")["value"].mean()
    chance = at_end(over_matrices(nulls, "update_sparsity", sizes=matrices))
    null = chance[chance["run"] == "opd"].groupby("null")["value"].mean()
    plain = {
        name: at_end(rows[rows["metric"] == "update_sparsity"])["value"].mean()
        for name, rows in {
            "opd": matrices[matrices["run"] == "opd"],
            "null": nulls[(nulls["run"] == "opd") & (nulls["null"] == "rescaled_sft")],
        }.items()
    }
    right = 100 * (ends["opd"] - null["rescaled_sft"])
    judge_numbers(
        answer,
        right,
        unit="points of sparsity, OPD less SFT's update at OPD's norm",
        relative=0.0,
        absolute=0.02,
        mistakes=(
            (
                100 * (ends["opd"] - ends["sft"]),
                "SFT's own sparsity, at SFT's own norm: take its update shrunk to OPD's (`rescaled_sft`)",
            ),
            (
                100 * (ends["opd"] - null["rescaled_sft_matched"]),
                "that is matched SFT's update; the question is about SFT as the paper sets it up",
            ),
            (
                100 * (ends["opd"] - null["same_norm_gaussian"]),
                "that null is Gaussian noise of OPD's norm, not SFT's update",
            ),
            (-right, "the sign: OPD's sparsity less the null's"),
            (
                100 * (plain["opd"] - plain["null"]),
                "a mean over matrices: sparsity counts weights, so large matrices count more",
            ),
        ),
    )
    return "Set it beside the gap between OPD and SFT as they are: the rest of that gap is size."


EXERCISES = (
    Exercise(name="03-1", title="Which α was it?", minutes=10, judge=_alpha_range),
    Exercise(name="03-2", title="The principal weights", minutes=20, judge=_principal),
    Exercise(
        name="03-3",
        title="Sparsity at equal size",
        minutes=15,
        judge=_at_equal_size,
        tables=("matrices", "nulls"),
    ),
)
