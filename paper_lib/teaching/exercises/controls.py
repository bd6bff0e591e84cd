"""The exercises of 06_controls: which tokens count, what α mixes, how many seeds decide."""

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from paper_lib.teaching.judging import Outcomes, exercise, judge_function, judge_numbers
from paper_lib.training.objectives import retained

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
