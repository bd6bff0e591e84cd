"""The exercises of 05_locking: alignment, its null, fair subspaces, and what Adam does to a projection."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.spectra import top_energy
from paper_lib.geometry.subspaces import subspace_alignment, top_right_singular_vectors
from paper_lib.summaries import ATTENTION, over_matrices
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, shaped_pairs

COMPARED = ("sft", "sft_matched", "opd", "rlvr")
FALLS = (0.5, 0.8, 0.9, 0.95)  # how fast the planted spectra fall


@exercise("05-1", "Sim_K by hand", minutes=15)
def _alignment(answer: Any) -> str:
    def outcomes(early: Tensor, end: Tensor, K: int) -> Outcomes:
        a, b = (top_right_singular_vectors(delta_w, K) for delta_w in (early, end))
        left = (top_right_singular_vectors(delta_w.mT, K) for delta_w in (early, end))
        last = (torch.linalg.svd(delta_w, full_matrices=False).Vh[-K:].mT for delta_w in (early, end))
        right = subspace_alignment(a, b)
        return right, {
            "the left singular vectors: V_K holds the right ones": subspace_alignment(*left),
            "not divided by K: one span should give 1": K * right,
            "the norm is not squared, so that one span would not give 1": (K * right) ** 0.5 / K,
            "a root too many: it is the mean of cos²θ": right**0.5,
            "the smallest singular values' vectors: take those of the largest": subspace_alignment(*last),
            "vector by vector: compare every vector of one span with all of the other": (
                (a * b).sum(0).square().mean()
            ),
        }

    judge_function(answer, outcomes, shaped_pairs(51, 0.8, 3), returns="one number in [0, 1]")
    return "It is the mean of cos²θ over the K principal angles, so it does not depend on the bases."


@exercise("05-2", "Who gains most over its own walk?", minutes=10)
def _beyond_the_walk(answer: Any, matrices: pd.DataFrame, nulls: pd.DataFrame) -> str:
    if not isinstance(answer, str):
        raise Wrong(f"answer is a {type(answer).__name__}, expected the name of a run, in quotes")
    if answer not in COMPARED:
        raise Wrong(f"no run {answer!r} among the four; they are {', '.join(COMPARED)}")
    walks = nulls[(nulls["null"] == "random_walk") & (nulls["layer"] >= 0)]
    both = (over_matrices(table, "subspace_alignment", modules=ATTENTION) for table in (matrices, walks))
    first = (rows.sort_values("step").groupby(["run", "seed"])["value"].first() for rows in both)
    ours, walk = (values.groupby("run").mean() for values in first)
    excess = (ours - walk)[list(COMPARED)]
    if answer == excess.idxmax():
        return "Matched SFT is the run that the paper lacks: what emergence says of OPD depends on it."
    if answer == "opd":
        raise Wrong("the run of the claim is not the highest: put all four beside their own walks")
    if answer == walk.idxmax():
        raise Wrong("the run whose own walk starts highest: that part of its start is a shared prefix")
    if excess[answer] == excess.min():
        raise Wrong("that run gains least over its own walk: subtract the walk of the same run")
    raise Wrong("another run gains more: subtract each run's own walk, in attention, at the first snapshot")


@exercise("05-3", "A fair K for SFT", minutes=15)
def _matched_k(answer: Any) -> str:
    spectra = {fall: fall ** torch.arange(40, dtype=torch.float64) for fall in FALLS}
    pairs = ((0.5, 0.8, 2), (0.8, 0.9, 3), (0.8, 0.95, 3), (0.9, 0.95, 4))

    def outcomes(opd: Tensor, sft: Tensor, K: int) -> Outcomes:
        right, energy = _fewest(opd, sft, K), opd[:K].square().sum()
        return right, {
            "shares of σ: energy is σ²": _fewest(opd.sqrt(), sft.sqrt(), K),
            "one short: that many hold less than OPD's share": right - 1,
            "the same energy, not the same share: divide by the whole of each update's": (
                _count(sft.square().cumsum(0), energy)
            ),
            "the same K holds less of SFT's flatter spectrum": K,
        }

    cases = {f"spectra falling by {a} and {b}, K = {K}": (spectra[a], 3 * spectra[b], K) for a, b, K in pairs}
    judge_function(answer, outcomes, cases, returns="a whole number")
    return "At equal K, SFT is asked to live in a smaller part of its update than OPD is."


def _count(cumulative: Tensor, goal: Tensor) -> int:
    return min(len(cumulative), int((cumulative < goal - 1e-12).sum()) + 1)


def _fewest(opd: Tensor, sft: Tensor, K: int) -> int:
    shares = sft.square().cumsum(0) / sft.square().sum()
    return _count(shares, top_energy(opd, K))


@exercise("05-4", "Adam's first step leaves the subspace", minutes=20)
def _adam_step(answer: Any) -> str:
    generator = torch.Generator().manual_seed(61)
    normal, uneven = torch.randn(2, 12, generator=generator, dtype=torch.float64)

    def outcomes(v: Tensor) -> Outcomes:
        right = (v.sign() @ v).square() / (len(v) * v.square().sum())
        return right, {
            "g lies in span(v), and sign(g) need not: the step is sign(u) sign(v)ᵀ": 1.0,
            "the share outside: asked is what stays inside span(v)": 1 - right,
            "a cosine: the share of ‖step‖² is its square": right**0.5,
            "not divided by ‖sign(v)‖², which is the number of entries": len(v) * right,
            "not divided by ‖v‖²: project on the unit vector along v": v.abs().mean().square(),
            "the limit for a long normal v: asked is the share for this v": 2 / torch.pi,
        }

    cases = {
        "a normal v": (normal,),
        "a v with few large entries": (uneven**3,),
        "a v of equal entries": (2 * torch.ones(8).double(),),
    }
    judge_function(answer, outcomes, cases, returns="one number, a share in [0, 1]")
    return "For normal entries it is near 2/π: one step of Adam takes a third of its energy out of V."
