"""C15 and its rules: the three gates of the paper's account, each against what chance or arithmetic gives."""

from collections.abc import Callable
from math import degrees, exp
from typing import Any

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ground.tables import START
from paper_lib.ledger.claim import Cast, Finding, claim, contrast_if_there, label, of_cast, show
from paper_lib.ledger.contrasts import EXPLAINED, Contrast, above, left_by_null, log_of, same, times
from paper_lib.ledger.rules.weights import POINTS, mean_angle

SAME_DENSITY = 0.02  # C15c: of all entries; SFT and OPD lie 20 points of sparsity and more apart


@claim(
    "C15a",
    "Gate I: an anchor keeps the policy near its start, and so bounds the norm",
    where="§3.3, App. D",
    paper="‖ΔW‖ ≤ √(2δ/μ), qualitative",
    holds_when="KL to the start: OPD and RLVR below SFT; norms within the bound",
)
def anchor_gate(evidence: Results, cast: Cast) -> Finding:
    """‖ΔW‖_F ≤ √(2δ/μ), δ the KL per token from π_0 to π_t and μ the curvature along ΔW. To second
    order this is an equality, whatever the run: on which side of it a run lies is the sign of a third-order
    term, and nothing that held the norm, so that the bound decides nothing.
    """
    kl = {label(run): evidence.drift(run) for run in cast.runs}
    names = [label(run) for run in cast.runs]
    contrasts = [times(kl[names[0]], kl[name], f"KL to the start: {name} < {names[0]}") for name in names[1:]]
    norms, shares = {}, {}
    for run in cast.runs[1:]:
        norms[label(run)] = evidence.total_norm(run)
        bound = (2 * kl[label(run)] / evidence.curved(run, "update")) ** 0.5
        idle = "an identity to second order, whatever the run"
        contrasts.append(times(bound, norms[label(run)], f"{label(run)}'s norm within its bound", idle=idle))
        shares[label(run)] = log_of(norms[label(run)], bound).map(exp)
    ours = f"KL to the start {show(kl, 'nats a token · 1e-3', 1e3)}; norms {show(norms)}"
    return Finding(ours=ours, contrasts=contrasts, note=f"norm over its bound: {show(shares)}")


@claim(
    "C15b",
    "Gate II: the model's geometry steers the update off the principal directions",
    where="§3.3, App. D",
    paper="qualitative",
    holds_when=(
        "OPD and RLVR rotate a tenth less than SFT's update at their norm, and show less on principal, "
        "not small weights than with their entries permuted, by a tenth of the distance from chance; "
        "OPD's energy in the principal subspaces is below a random update's; principal directions are "
        "the steeper ones"
    ),
)
def geometry_gate(evidence: Results, cast: Cast) -> Finding:
    """What the geometry steers rotates less than SFT's update at the same norm, has less of its energy
    in the principal subspaces than a random update, and shows on principal weights less than its own entries
    in random places do; and principal directions are the steep ones. (A Gaussian of the same norm is no null
    for the rotation: at full rank it has a far smaller ‖ΔW‖₂, which is what rotates.) Less is less by a
    tenth, of the rotation or of the overlap's distance from chance."""
    which = {"k": evidence.study.diagnostics.alphas[0]}
    angles = {label(run): mean_angle(evidence, run) for run in cast.runs[1:]}
    shrunk = {label(run): mean_angle(evidence, run, null=cast.rescaled) for run in cast.runs[1:]}
    contrasts = []
    for run in cast.runs[1:]:
        name = label(run)
        text = f"{name} rotates a tenth less than the update of {label(cast.sft)} at its norm"
        contrasts.append(times(shrunk[name], angles[name], text, by=1 / EXPLAINED))
        own = evidence.end(run, "principal_not_low_overlap", **which)
        chance = evidence.end(run, "principal_not_low_chance", **which)
        dealt = evidence.end(run, "principal_not_low_overlap", null="permuted", **which)
        text = f"{name} shows less on principal, not small weights than with its entries permuted"
        contrasts.append(left_by_null(chance - own, chance - dealt, text, **POINTS))
    opd, energy = cast.opd, "OPD's energy in the principal subspaces is below a random update's"
    steep = "principal directions curve more than others"
    contrasts += [
        _above(energy, lambda of: evidence.end(opd, f"principal_energy{of}"), "_chance", ""),
        _above(steep, lambda which: evidence.curved(START, which), "principal", "off_principal"),
    ]
    return Finding(
        ours=show(angles, "° on average", degrees(1)),
        contrasts=contrasts,
        null=f"the update of {label(cast.sft)} at their norms: {show(shrunk, '°', degrees(1))}",
        beyond=contrasts[0],
        explained="at OPD's norm SFT's update rotates no more",
    )


def _above(text: str, ask: Callable[[str], pd.Series], greater: str, smaller: str) -> Contrast:
    return contrast_if_there(text, lambda: times(ask(greater), ask(smaller), text))


@claim(
    "C15c",
    "Gate III: bf16 decides which part of an update is visible",
    where="§3.3, App. D",
    paper="visible when |ΔW| ≳ ½ ULP, qualitative",
    holds_when=(
        f"sparsity with entries in random places within {100 * SAME_DENSITY:g} points; ½ ULP predicts "
        f"more than {100 - 100 * SAME_DENSITY:g} % of the entries"
    ),
)
def visibility_gate(evidence: Results, cast: Cast) -> Finding:
    """½ ULP says entry by entry what shows, and the sizes of an update alone, wherever they fall, how
    much of it. Where W_0 is stored in bf16 the first is arithmetic and cannot fail."""
    values = of_cast(evidence, cast, "update_sparsity")
    dealt = {label(run): evidence.end(run, "update_sparsity", null="permuted") for run in cast.runs}
    contrasts = [
        same(own, dealt[name], f"{name} as sparse with its entries permuted", within=SAME_DENSITY, **POINTS)
        for name, own in values.items()
    ]
    contrasts += [_half_ulp(evidence, run) for run in cast.runs]
    return Finding(
        ours=show(values, "%", 100),
        contrasts=contrasts,
        null=f"entries permuted: {show(dealt, '%', 100)}",
        note="here the null is what the claim predicts",
    )


def _half_ulp(evidence: Results, run: str) -> Contrast:
    text, idle = f"½ ULP predicts what shows of {label(run)}", "arithmetic where the start is stored in bf16"
    told: dict[str, Any] = {"unit": "% of entries", "scale": 100, "idle": idle}
    return contrast_if_there(
        text, lambda: above(evidence.end(run, "prediction_agreement"), 1 - SAME_DENSITY, text, **told)
    )
