"""The exercises of 05_locking: alignment, its null, fair subspaces, and what Adam does to a projection."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.spectra import top_energy
from paper_lib.geometry.subspaces import subspace_alignment
from paper_lib.geometry.subspaces import top_right_singular_vectors as _top
from paper_lib.summaries import ATTENTION, over_matrices
from paper_lib.teaching.judging import Wrong, exercise, judge_function, shaped_pairs

COMPARED = ("sft", "sft_matched", "opd", "rlvr")
FALLS = (0.5, 0.8, 0.9, 0.95)  # how fast the planted spectra fall


@exercise("05-1", "Sim_K by hand", minutes=15)
def _alignment(answer: Any) -> str:
    judge_function(
        answer,
        _sim,
        returns="one number in [0, 1]",
        cases=shaped_pairs(51, 0.8, 3),
        mistakes={
            "the left singular vectors: V_K holds the right ones": lambda a, b, K: _sim(a.mT, b.mT, K),
            "not divided by K: one span should give 1": lambda a, b, K: K * _sim(a, b, K),
            "the norm is not squared, so that one span would not give 1": lambda a, b, K: (
                (K * _sim(a, b, K)) ** 0.5 / K
            ),
            "a root too many: it is the mean of cos²θ": lambda a, b, K: _sim(a, b, K) ** 0.5,
            "the smallest singular values' vectors: take those of the largest": lambda a, b, K: (
                _last(a, K).mT.matmul(_last(b, K)).square().sum() / K
            ),
            "vector by vector: compare every vector of one span with all of the other": lambda a, b, K: (
                (_top(a, K) * _top(b, K)).sum(0).square().mean()
            ),
        },
    )
    return "It is the mean of cos²θ over the K principal angles, so it does not depend on the bases."


def _last(delta: Tensor, K: int) -> Tensor:
    return torch.linalg.svd(delta, full_matrices=False).Vh[-K:].mT


def _sim(early: Tensor, end: Tensor, K: int) -> float:
    return subspace_alignment(_top(early, K), _top(end, K)).item()


@exercise("05-2", "Who gains most over its own walk?", minutes=10)
def _beyond_the_walk(answer: Any, matrices: pd.DataFrame, nulls: pd.DataFrame) -> str:
    if not isinstance(answer, str):
        raise Wrong(f"answer is a {type(answer).__name__}, expected the name of a run, in quotes")
    if answer not in COMPARED:
        raise Wrong(f"no run {answer!r} among the four; they are {', '.join(COMPARED)}")
    walks = nulls[(nulls["null"] == "random_walk") & (nulls["layer"] >= 0)]
    ours, walk = (
        over_matrices(table, "subspace_alignment", modules=ATTENTION)
        .sort_values("step")
        .groupby(["run", "seed"])["value"]
        .first()
        .groupby("run")
        .mean()
        for table in (matrices, walks)
    )
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
    judge_function(
        answer,
        _fewest,
        returns="a whole number",
        cases={
            f"spectra falling by {a} and {b}, K = {K}": (spectra[a], 3 * spectra[b], K) for a, b, K in pairs
        },
        mistakes={
            "shares of σ: energy is σ²": lambda a, b, K: _fewest(a.sqrt(), b.sqrt(), K),
            "one short: that many hold less than OPD's share": lambda a, b, K: _fewest(a, b, K) - 1,
            "the same energy, not the same share: divide by the whole of each update's": lambda a, b, K: (
                _count(b.square().cumsum(0), a[:K].square().sum())
            ),
            "the same K holds less of SFT's flatter spectrum": lambda a, b, K: K,
        },
    )
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
    rows = {
        "a normal v": normal,
        "a v with few large entries": uneven**3,
        "a v of equal entries": 2 * torch.ones(8),
    }
    judge_function(
        answer,
        _share_inside,
        returns="one number, a share in [0, 1]",
        cases={name: (v.double(),) for name, v in rows.items()},
        mistakes={
            "g lies in span(v), and sign(g) need not: the step is sign(u) sign(v)ᵀ": lambda v: 1.0,
            "the share outside: asked is what stays inside span(v)": lambda v: 1 - _share_inside(v),
            "a cosine: the share of ‖step‖² is its square": lambda v: _share_inside(v) ** 0.5,
            "not divided by ‖sign(v)‖², which is the number of entries": lambda v: len(v) * _share_inside(v),
            "not divided by ‖v‖²: project on the unit vector along v": lambda v: v.abs().mean().square(),
            "the limit for a long normal v: asked is the share for this v": lambda v: 2 / torch.pi,
        },
    )
    return "For normal entries it is near 2/π: one step of Adam takes a third of its energy out of V."


def _share_inside(v: Tensor) -> float:
    return (v.sign() @ v).square().item() / (len(v) * v.square().sum().item())
