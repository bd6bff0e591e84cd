"""C11 and its rule: training confined to a subspace."""

from dataclasses import replace

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import Cast, Claim, Finding, if_there, label, null_if_there, show
from paper_lib.ledger.contrasts import Contrast, above, below, more
from paper_lib.ledger.rules.weights import POINTS
from paper_lib.summaries import paired, say

# Of accuracy: two standard errors of one of our evaluations. The paper counts + 0.9 points as intact and
# − 9.9 as degraded.
INTACT = 0.02


def projected_training(evidence: Results, cast: Cast) -> Finding:
    """C11. Losses are accuracy of the free run minus that of its projection, at the end, by seed. A run that
    learns nothing more after the branch has nothing to lose, and what it loses decides nothing."""
    opd_run, sft_run = (f"{run}_projected_early" for run in ("opd", cast.sft))
    opd, sft = _loss(evidence, "opd", opd_run), _loss(evidence, cast.sft, sft_run)
    gains = {label(run): _gain(evidence, run, it) for run, it in (("opd", opd_run), (cast.sft, sft_run))}
    opd_idle, sft_idle = (_nothing_to_lose(*each) for each in gains.items())
    name, points = label(cast.sft), f"{100 * INTACT:g} points"
    contrasts = [
        replace(below(opd, INTACT, f"OPD loses less than {points}", **POINTS), idle=opd_idle),
        replace(above(sft, INTACT, f"{name} loses more than {points}", **POINTS), idle=sft_idle),
        replace(more(sft, opd, f"{name} loses more than OPD", **POINTS), idle=sft_idle),
    ]
    runs = ("opd", opd_run, cast.sft, sft_run)
    return Finding(
        ours=f"accuracy lost: {show({'OPD': opd, label(cast.sft): sft}, 'points', 100)}; gained after the "
        f"branch without confinement: {show(gains, 'points', 100)}",
        contrasts=contrasts,
        explained="a random V does as well",
        note=if_there(lambda: greedy(evidence, runs)),
        **null_if_there(lambda: _random_subspace(evidence, cast, opd)),
    )


C11 = Claim(
    id="C11",
    statement="Training on inside the early subspace leaves OPD intact and degrades SFT",
    where="§4.2, Figs 6, 8",
    paper="OPD 63.3 → 64.2, SFT 55.5 → 45.6 (first draft)",
    holds_when=(
        f"OPD loses less than {100 * INTACT:g} points of accuracy, SFT more than that and OPD; each only "
        "where the free run gains more than that after the branch"
    ),
    rule=projected_training,
    matched="SFT is confined at OPD's start, rate, steps and batch, where it learns on after the branch",
)


def greedy(evidence: Results, runs: tuple[str, ...]) -> str:
    """Greedy accuracy of these runs at the end, in words: whether a change is more than one of sampling."""
    values = {label(run): evidence.greedy(run) for run in dict.fromkeys(runs)}
    return f"greedy accuracy: {show(values, '%', 100)}"


def _random_subspace(evidence: Results, cast: Cast, own: pd.Series) -> tuple[str, Contrast]:
    losses = {"OPD": _loss(evidence, "opd", "opd_projected_random")}
    if f"{cast.sft}_projected_random" in evidence.runs:
        losses[label(cast.sft)] = _loss(evidence, cast.sft, f"{cast.sft}_projected_random")
    words = f"lost in a random V: {show(losses, 'points', 100)}"
    return words, more(losses["OPD"], own, "a random V costs more", **POINTS)


def _loss(evidence: Results, free: str, projected: str) -> pd.Series:
    above_it, below_it = paired(evidence.score(free)[0], evidence.score(projected)[0])
    return above_it - below_it


def _gain(evidence: Results, free: str, projected: str) -> pd.Series:
    """Validation accuracy that the free run gains from the branch of `projected` to its end."""
    path = evidence.learning(free)
    before = path[path.index <= evidence.branch(projected) + 1e-9]
    start, end = paired(before.iloc[-1].dropna(), path.iloc[-1].dropna())
    return end - start


def _nothing_to_lose(name: str, gain: pd.Series) -> str:
    if not above(gain, INTACT, "").lacking:
        return ""
    return f"free {name} gains {say(gain, 100)} points after the branch: nothing to lose"


CLAIMS = (C11,)
