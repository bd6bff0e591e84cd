"""S1–S7, their rules: what "Dense Supervision, Sparse Updates" (Yu et al., arXiv 2606.13657) says of OPD."""

import re
from functools import partial
from math import log

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import (
    ONE_RUN,
    SAME_SETTINGS,
    Cast,
    Finding,
    claim,
    if_there,
    label,
    null_if_there,
    show,
)
from paper_lib.ledger.contrasts import Contrast, above, below, left_by_null, more, times
from paper_lib.ledger.rules.projection import greedy
from paper_lib.ledger.rules.trajectory import ALONG, chance_rank
from paper_lib.ledger.rules.weights import PERCENT, POINTS, permuted_overlap
from paper_lib.summaries import MLP, say

says = partial(claim, where="Dense Supervision, Sparse Updates, 2606.13657")
INTACT = 0.02  # S6, of accuracy: two standard errors of one of our evaluations
SMALL = (0.00036, 0.00142)  # S1: the range that the sibling reports, of the norm of W_0
FAR_BELOW = 10.0  # S1: an order of magnitude; the sibling has two (0.142 against 11.9 %)


@says(
    "S1",
    "OPD's update is small, two orders of magnitude below offline distillation's",
    paper="0.036–0.142 / 11.9 % of ‖W₀‖",
    holds_when=f"relative norm in the sibling's range; at least {FAR_BELOW:g} times below SFT's",
)
def small_update(evidence: Results, cast: Cast) -> Finding:
    """The range is the sibling's own, at its size and learning rate, which decide an absolute norm: it
    tests nothing of ours. The order needs neither."""
    values = {label(run): evidence.end(run, "relative_norm") for run in (cast.opd, cast.sft)}
    (opd, sft), (low, high) = values.values(), SMALL
    in_range = Contrast(
        text=f"OPD between {100 * low:g} and {100 * high:g} %",
        idle="width and learning rate decide an absolute norm",
        **{"values": opd, "low": low, "high": high, "level": high, **PERCENT},
    )
    far = times(sft, opd, f"{FAR_BELOW:g} times below {label(cast.sft)}", by=FAR_BELOW)
    return Finding(ours=show(values, "% of the norm of W₀", 100), contrasts=[in_range, far])


@says(
    "S2",
    "OPD's stable rank is below offline distillation's",
    paper="7.3–20.3 / 82.7",
    holds_when="stable rank, in logarithms: OPD < SFT",
    also=("equal norm", "equal accuracy"),
)
def low_rank(evidence: Results, cast: Cast) -> Finding:
    """Offline distillation is SFT on demonstrations here."""
    values = {label(run): evidence.end(run, "stable_rank", **ALONG) for run in (cast.opd, cast.sft)}
    opd, sft = values.values()
    return Finding(
        ours=show(values),
        contrasts=[times(sft, opd, f"OPD below {label(cast.sft)}", paper=log(82.7 / 20.3))],
        explained="training on credit by chance ends as low",
        **null_if_there(lambda: chance_rank(evidence, cast.opd)),
    )


@says(
    "S3",
    "OPD's visible updates avoid principal weights and gather on small ones",
    paper="4.4–5.5 and 23–49 %, chance 10 %",
    holds_when="principal overlap below chance, low-magnitude overlap above",
    matched=ONE_RUN,
)
def masks_of_opd(evidence: Results, cast: Cast) -> Finding:
    """At the smallest α in the tables, the nearest to the sibling's 10 %."""
    alpha = min(evidence.study.diagnostics.alphas)
    principal = evidence.end(cast.opd, "principal_overlap", k=alpha)
    low = evidence.end(cast.opd, "low_magnitude_overlap", k=alpha)
    return Finding(
        ours=show({"principal": principal, "low magnitude": low}, f"%, chance {100 * alpha:g} %", 100),
        contrasts=[
            below(principal, alpha, "principal overlap below chance", paper=0.055 - 0.1, **PERCENT),
            above(low, alpha, "low-magnitude overlap above chance", paper=0.23 - 0.1, **PERCENT),
        ],
        explained="rounding to bf16 explains it",
        **null_if_there(lambda: permuted_overlap(evidence, cast.opd, "low_magnitude_overlap", 1, alpha)),
    )


@says(
    "S4",
    "The MLP carries most of the update's energy",
    paper="62–86 %",
    holds_when="more of ‖ΔW‖_F² over all matrices than half, and than their share of the weights",
    matched=ONE_RUN,
)
def energy_in_mlp(evidence: Results, cast: Cast) -> Finding:
    """Chance is the share of the weights; where it is above a half, more than half is no finding."""
    energy, weights = evidence.energy_share(cast.opd, MLP)
    idle = "more than half of the weights are there" if weights.min() > 0.5 else ""
    half = above(energy, 0.5, "more than half in the MLP", idle=idle, **PERCENT)
    beyond = more(energy, weights, "more than their share of the weights", **POINTS)
    return Finding(
        ours=f"{say(energy, 100)} % of ‖ΔW‖² ({len(energy)} seeds)",
        contrasts=[half, beyond],
        null=f"their share of the weights: {say(weights, 100)} %",
        beyond=beyond,
        explained="as many of the weights are there",
    )


@says(
    "S5",
    "RLVR's mask covers OPD's beyond chance",
    paper="53 %, chance 17.5 %",
    holds_when="share of OPD's visible entries that RLVR shows above RLVR's density",
    matched=SAME_SETTINGS,
)
def shared_masks(evidence: Results, cast: Cast) -> Finding:
    names = ("reverse_coverage", "other_density", "reverse_coverage_rounding")
    covered, chance, dealt = (evidence.pair(cast.opd, cast.verified, name) for name in names)
    return Finding(
        ours=show({"coverage": covered, "chance": chance}, "%", 100),
        contrasts=[more(covered, chance, "coverage above chance", paper=0.53 - 0.175, **POINTS)],
        null=f"rounding alone: {say(dealt, 100)} %",
        beyond=left_by_null(covered - chance, dealt - chance, "above rounding"),
        explained="rounding shows small weights in both",
    )


@says(
    "S6",
    "Training only the subnetwork that OPD found recovers its accuracy, a random one does not",
    paper="35.10 / 35.52 full / 32.92 random",
    holds_when=(
        f"found loses less than {100 * INTACT:g} points of accuracy, random more than that, and more "
        "than found"
    ),
    matched=SAME_SETTINGS,
)
def subnetwork(evidence: Results, cast: Cast) -> Finding:
    """ "Does not" is judged by the margin of "recovers", on the other side of it."""
    runs = {"all": "opd", "found": "opd_subnetwork_found", "random": "opd_subnetwork_random"}
    scores = {name: evidence.score(run)[0] for name, run in runs.items()}
    full, found, random = scores.values()
    return Finding(
        ours=f"accuracy {show(scores, '%', 100)}",
        contrasts=[
            more(found, full, f"the found one loses less than {100 * INTACT:g} points", by=-INTACT, **POINTS),
            more(found, random, "the found one is above a random one", **POINTS),
            more(full, random, f"a random one loses more than {100 * INTACT:g} points", by=INTACT, **POINTS),
        ],
        note=if_there(lambda: _mask_size(evidence, tuple(runs.values()))),
    )


def _mask_size(evidence: Results, runs: tuple[str, ...]) -> str:
    """How much either mask leaves free, beside greedy accuracy; the sibling's leaves 17.5 %."""
    density = evidence.end("opd", "update_density")
    free = f"each mask leaves {say(density, 100)} % of the weights free, the sibling's 17.5 %"
    return f"{free}; {greedy(evidence, runs)}"


@says(
    "S7",
    "OPD with AdamW beats OPD with SGD",
    paper="43.0 / 39.1",
    holds_when="accuracy: AdamW > SGD at a rate searched for, at its best rate and at the study's",
    matched="by design: start, steps and batch shared, each optimizer at its own rate",
)
def optimizer(evidence: Results, cast: Cast) -> Finding:
    """SGD's rate is the best of eight in a search on another seed; AdamW's best is that of the few in the
    tables, by validation accuracy at the end. No grid is common to both, so that AdamW is to win at its best
    rate and also at the study's, which was not searched for."""
    rates = [run for run in evidence.runs if re.fullmatch(r"opd(_lr_.+)?", run)]
    best = max(rates, key=lambda run: evidence.learning(run).iloc[-1].mean())
    runs = dict.fromkeys((best, "opd", "opd_sgd"))
    scores = {label(run): evidence.score(run)[0] for run in runs}
    sgd = scores[label("opd_sgd")]
    rivals = {best: f"at its best rate of {len(rates)}", "opd": "at the study's rate"}
    return Finding(
        ours=f"accuracy {show(scores, '%', 100)}",
        contrasts=[
            more(scores[label(run)], sgd, f"AdamW {rate} above SGD", paper=0.43 - 0.391, **POINTS)
            for run, rate in rivals.items()
        ],
        note=if_there(lambda: greedy(evidence, tuple(runs))),
    )
