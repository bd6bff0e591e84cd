"""M1–M5, their rules: what "No Task Vector Is an Island" (Zhou et al., arXiv 2609.39405) says of OPD."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import log

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import ENDS, HARDER, Cast, Finding, claim, if_there, label, null_if_there, show
from paper_lib.ledger.contrasts import Contrast, above, left_by_null, log_of, more, times
from paper_lib.ledger.rules.weights import PERCENT, POINTS
from paper_lib.summaries import Untested, say

says = partial(
    claim,
    where="No Task Vector Is an Island, 2609.39405",
    matched=(
        "by design: start, prompts, samples, rate, steps and batch are shared; but their OPD has the RL "
        "expert itself for a teacher, ours another model"
    ),
)
MOSTLY = 0.5  # M4: of OPD's energy; theirs has 93 %
# M5: how task vectors are put together, and what the sum is to beat, with what theirs beats it by.
MERGES = {"raw_sum": "the sum", "task_arithmetic": "half the sum", "ties": "TIES"}
CONTROLS = {
    "norm_matched_other": ("RLVR's update at its norm", 0.0177),
    "norm_matched": ("OPD's update at its norm", 0.0207),
    "residual_removed": ("the sum without OPD's residual", 0.0288),
}


@says(
    "M1",
    "OPD changes fewer weights at bf16 than RL",
    paper="OPD / RL 1.27 / 21.04 % (mathematics), 1.31 / 27.98 % (code)",
    holds_when="share of weights changed at bf16, in logarithms: OPD < RLVR",
    also=ENDS[1:],
)
def changes_fewer(evidence: Results, cast: Cast) -> Finding:
    text, paper = "{} changes fewer than RLVR", log(21.04 / 1.27)
    return _below_rlvr(cast, lambda run: 1 - evidence.end(run, "update_sparsity"), text, paper, "%", 100)


@says(
    "M2",
    "OPD's update is smaller than RL's",
    paper="norm, OPD over RL 0.597 (mathematics), 0.687 (code)",
    holds_when="norm over all matrices, in logarithms: OPD < RLVR",
    also=(*ENDS[1:5], HARDER),
)
def is_smaller(evidence: Results, cast: Cast) -> Finding:
    return _below_rlvr(cast, evidence.total_norm, "{}'s norm below RLVR's", log(1 / 0.687))


@says(
    "M3",
    "OPD's update is spread over more directions than RL's",
    paper="F(256 of 2,048) 33.7 / 39.2 % (mathematics), 33.4 / 45.9 % (code); lower at 8 to 256",
    holds_when=(
        "share of the energy in the k leading directions of each matrix, in logarithms: OPD < RLVR at each "
        "k of the tables; 4 of our 128 are as 64 of their 2,048"
    ),
    also=(*ENDS[1:5], HARDER),
)
def spreads_wider(evidence: Results, cast: Cast) -> Finding:
    rows = evidence.table("matrices")
    ks = sorted({int(k) for k in rows.loc[rows["metric"].eq("top_energy"), "k"]})
    if not ks:
        raise Untested("no top_energy in the tables")
    asked = [(partial(evidence.retained, k=k), f"F({k}): {{}} below RLVR") for k in ks]
    findings = [_below_rlvr(cast, *each, log(39.2 / 33.7), "%", 100) for each in asked]
    ours = "; ".join(f"F({k}) {finding.ours}" for k, finding in zip(ks, findings, strict=True))
    return replace(findings[-1], ours=ours, contrasts=[each.contrasts[0] for each in findings])


def _below_rlvr(
    cast: Cast, ask: Callable[[str], pd.Series], text: str, paper: float, unit: str = "", scale: float = 1.0
) -> Finding:
    """What is asked of OPD below that of RLVR, and by more than other rollouts move it. text: with a place
    for OPD; paper: the logarithm of RL's over OPD's."""
    values = {label(run): ask(run) for run in (cast.opd, cast.verified)}
    opd, rlvr = values.values()

    def other_rollouts() -> tuple[str, Contrast]:
        again = ask("opd_restream")
        beyond = left_by_null(log_of(rlvr, opd), log_of(again, opd).abs(), "by more than other rollouts")
        return f"OPD with other rollouts: {say(again, scale)}{unit and f' {unit}'}", beyond

    return Finding(
        ours=show(values, unit, scale),
        contrasts=[times(rlvr, opd, text.format(label(cast.opd)), paper=paper)],
        explained="OPD is not below RLVR by more than other rollouts move it",
        **null_if_there(other_rollouts),
    )


@says(
    "M4",
    "Most of OPD's update is orthogonal to RL's",
    paper="93.0 % (mathematics), 95.2 % (code) of its energy",
    holds_when=f"1 − cos² of the whole updates above {100 * MOSTLY:g} %",
    also=(HARDER,),
)
def is_orthogonal(evidence: Results, cast: Cast) -> Finding:
    """o = α r + q with q ⊥ r: ‖q‖² / ‖o‖² = 1 − cos²(o, r). OPD with other rollouts says how much of it is
    noise that no objective chose."""
    cosine = evidence.cosine(cast.opd, cast.verified)
    apart, text = 1 - cosine**2, "most of OPD's energy is orthogonal to RLVR's update"

    def to_itself() -> tuple[str, Contrast]:
        again = 1 - evidence.cosine(cast.opd, "opd_restream") ** 2
        beyond = left_by_null(apart, again, "more than to OPD with other rollouts", **POINTS)
        return f"OPD and OPD with other rollouts: {say(again, 100)} %", beyond

    return Finding(
        ours=f"{say(apart, 100)} % of OPD's energy, cosine {say(cosine)} ({len(cosine)} seeds)",
        contrasts=[above(apart, MOSTLY, text, paper=0.93 - MOSTLY, **PERCENT)],
        explained="OPD is as orthogonal to OPD with other rollouts",
        **null_if_there(to_itself),
    )


@says(
    "M5",
    "OPD's update added to RL's makes a better model than either",
    paper="above both in 7 of 12 cells; the sum above either at its norm by 1.77 and 2.07 points (code)",
    holds_when=(
        "sampled accuracy: the sum, half of it, and TIES of the two updates above the better run; the sum "
        "above either update at its norm, and above itself without what of OPD's is orthogonal to RLVR's"
    ),
    judged_on=HARDER,
)
def composes(evidence: Results, cast: Cast) -> Finding:
    """The better run is the one of higher mean over seeds. Of their operators TSV-M is left out, and so are
    sums over tasks, as no RLVR learns a second task."""
    pair = (cast.opd, cast.verified)
    made = {name: _merged(evidence, *pair, name) for name in (*MERGES, *CONTROLS)}
    single = {run: evidence.score(run)[0] for run in pair}
    best, total = max(pair, key=lambda run: single[run].mean()), made["raw_sum"]
    matched = {CONTROLS[name][0]: made[name] for name in ("norm_matched_other", "norm_matched")}
    above_best = [more(made[n], single[best], f"{MERGES[n]} above {label(best)}", **POINTS) for n in MERGES]
    above_controls = [
        more(total, made[name], f"the sum above {words}", paper=paper, **POINTS)
        for name, (words, paper) in CONTROLS.items()
    ]
    shown = {label(run): each for run, each in single.items()} | {MERGES[n]: made[n] for n in MERGES}

    def demonstrated() -> dict[str, pd.Series]:
        return {label(run): _merged(evidence, run, "sft_matched", "raw_sum") for run in pair}

    return Finding(
        ours=f"accuracy {show(shown, '%', 100)}",
        contrasts=[*above_best, *above_controls],
        null=f"either update at the sum's norm: {show(matched, '%', 100)}",
        beyond=more(total, pd.concat(matched, axis=1).max(axis=1), "the sum above the better", **POINTS),
        explained="one update of that norm does as well",
        note=if_there(lambda: f"the sum with matched SFT's update: {show(demonstrated(), '%', 100)}"),
    )


def _merged(evidence: Results, run: str, other: str, how: str) -> pd.Series:
    """Accuracy of the model that has the updates of both runs, put together so, one entry a seed."""
    try:
        return evidence.pair(run, other, f"sampled_accuracy:{how}")
    except Untested:
        raise Untested(f"no update of {label(run)} was added to one of {label(other)}") from None
