"""The exercises of the notebooks on runs and their controls, 05_locking and 06_controls."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry.spectra import top_energy
from paper_lib.geometry.subspaces import subspace_alignment, top_right_singular_vectors
from paper_lib.summaries import ATTENTION, over_matrices
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, judge_numbers, shaped_pairs
from paper_lib.training.objectives import retained

# --- 05_locking: alignment, its null, fair subspaces, and what Adam does to a projection.

COMPARED = ("sft", "sft_matched", "opd", "rlvr")
FALLS = (0.5, 0.8, 0.9, 0.95)  # how fast the planted spectra fall


@exercise("05-1", "Subspace alignment by hand", minutes=15)
def _alignment(answer: Any) -> str:
    def outcomes(early: Tensor, end: Tensor, K: int) -> Outcomes:
        a, b = (top_right_singular_vectors(delta_w, K) for delta_w in (early, end))
        left = (top_right_singular_vectors(delta_w.mT, K) for delta_w in (early, end))
        last = (torch.linalg.svd(delta_w, full_matrices=False).Vh[-K:].mT for delta_w in (early, end))
        right, one_by_one = subspace_alignment(a, b), (a * b).sum(0).square().mean()
        return right, {
            "the left singular vectors: V_K holds the right ones": subspace_alignment(*left),
            "not divided by K: one span should give 1": K * right,
            "the norm is not squared, so that one span would not give 1": (K * right) ** 0.5 / K,
            "a root too many: it is the mean of cos²θ": right**0.5,
            "the smallest singular values' vectors: take those of the largest": subspace_alignment(*last),
            "vector by vector: compare every vector of one span with all of the other": one_by_one,
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
        right, of_norms = _fewest(opd, sft, K), _count(sft.square().cumsum(0), opd[:K].square().sum())
        return right, {
            "shares of σ: energy is σ²": _fewest(opd.sqrt(), sft.sqrt(), K),
            "one short: that many hold less than OPD's share": right - 1,
            "the same energy, not the same share: divide by the whole of each update's": of_norms,
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


# --- 06_controls: which tokens count, what α mixes, how many seeds decide.

MOST_SEEDS = 10_000


@exercise("06-1", "The tokens that are kept", minutes=15)
def _retention(answer: Any) -> str:
    gaps = (
        [0.1, -2.0, 1.5, 0.4, -0.3, 0.9, -1.1],
        [2.0, -3.0, 0.5, 0.2, 1.0],
        [-0.2, 0.7, -1.4, 0.3, 0.6, -0.9, 1.2, 0.1, -0.5, 0.8],
        [1.1, -0.4, 0.2, -1.6, 0.9, 0.5, -0.7, 1.3],  # ρT is whole
        [0.6, -1.2, 0.4, 1.8, -0.1, -0.8, 0.3],  # a quantile of the gaps keeps one less
    )
    cases = {
        f"{len(gap)} tokens, ρ = {keep}": (torch.tensor(gap, dtype=torch.float64), keep)
        for gap, keep in zip(gaps, (0.5, 0.25, 0.25, 0.5, 0.8), strict=True)
    }

    def outcomes(gap: Tensor, keep: float) -> Outcomes:
        right, T = _top_gap(gap, keep), len(gap)
        fewer, more = (_top_gap(gap, (math.floor(keep * T) + extra) / T) for extra in (0, 1))
        return right, {
            "the smallest gaps: keep where the student is most above": _top_gap(-gap, keep),
            "the largest |r_t|: the paper keeps the largest r_t": _top_gap(gap.abs(), keep),
            "rounded down: ⌈ρT⌉ tokens are kept, so that a short response keeps one": fewer,
            "one too many where ρT is whole: ⌈ρT⌉ is ρT there": more,
            "not rescaled: those kept stand for all T": (right > 0).double(),
            "rescaled by 1/ρ: the factor is T over the number that is kept, ⌈ρT⌉": (right > 0) / keep,
        }

    judge_function(answer, outcomes, cases, returns="a tensor of (T,) weights")
    return "The weights of a response add up to T, so that a control changes the tokens and not the scale."


def _top_gap(gap: Tensor, keep: float) -> Tensor:
    mask = torch.ones(1, len(gap), dtype=torch.bool)
    return retained(gap[None], mask, keep_fraction=keep, selection="top_gap", noise=None)[0].double()


@exercise("06-2", "The α that balances", minutes=15)
def _balance(answer: Any, curves: pd.DataFrame) -> str:
    rows = curves[curves["metric"] == "gradient_norm"].sort_values("step")
    norms = rows.groupby("run")["value"].mean()
    first = rows.groupby(["run", "seed"])["value"].first().groupby("run").mean()
    opd, rlvr = norms["opd"], norms["rlvr"]
    first_step = first["rlvr"] / (first["opd"] + first["rlvr"])
    mistakes = {
        "that weighs the larger gradient more: set α ‖g_OPD‖ = (1 − α) ‖g_RLVR‖": opd / (opd + rlvr),
        "equal weights give equal parts only where the two gradients have one norm": 0.5,
        "a quotient of the norms, RLVR's over OPD's: solve α ‖g_OPD‖ = (1 − α) ‖g_RLVR‖": rlvr / opd,
        "a quotient of the norms, OPD's over RLVR's: solve α ‖g_OPD‖ = (1 − α) ‖g_RLVR‖": opd / rlvr,
        "from the first step alone, one noisy batch: take the mean over the run": first_step,
    }
    judge_numbers(answer, rlvr / (opd + rlvr), mistakes, unit="one α in (0, 1)", relative=0.02)
    return "Below this α most of the mixed gradient is RLVR's: a raw α is no share."


@exercise("06-3", "How many seeds?", minutes=20)
def _seeds(answer: Any) -> str:
    samples = (
        [0.9, 1.4, 0.2, 1.6, 0.7],
        [0.31, -0.42, 0.55, 0.12],
        [-1.0, -1.3, -0.8, -1.1],
        [0.5, 1.9, -0.6],
        [2.0, 2.1, 1.9],  # two are enough
    )

    def outcomes(d: np.ndarray) -> Outcomes:
        normal, own = _needed(d, quantile=lambda n: 1.96), _needed(d, quantile=lambda n: _student(len(d)))
        one_sided = _needed(d, quantile=lambda n: _student(n, level=0.9))
        return _needed(d), {
            "1.96 is for a known deviation: take Student's t with N − 1 degrees of freedom": normal,
            "t for the seeds you have: its degrees of freedom change with the N you ask for": own,
            "a one-sided 95 %: the interval has 2.5 % on either side": one_sided,
            "the deviation divides by N, not by N − 1": _needed(d, correction=0),
            "the half width is t s / √N, not t s / N": _needed(d, power=1.0),
        }

    cases = {f"differences {s}": (np.array(s),) for s in samples}
    judge_function(answer, outcomes, cases, returns="a whole number of seeds")
    return "Pairing is what makes few seeds enough: the anchors' differences cancel in the difference."


def _needed(differences: np.ndarray, *, quantile: Any = None, correction: int = 1, power: float = 0.5) -> int:
    """The fewest seeds N ≥ 2 whose 95 % interval, of half width t_{N−1} s / √N, would not reach 0.

    differences: paired, (seeds,), as measured. At most 10 000, where more would be needed.
    """
    mean, deviation = abs(differences.mean()), differences.std(ddof=correction)
    quantile = quantile or _student
    for count in range(2, MOST_SEEDS):
        if quantile(count) * deviation / count**power < mean:
            return count
    return MOST_SEEDS


def _student(count: int, level: float = 0.95) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, count - 1))
