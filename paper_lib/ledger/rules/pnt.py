"""P1–P5, their rules: what "The Path Not Taken" (Zhu et al., arXiv 2511.08567) says of RLVR's updates."""

from functools import partial
from typing import Any

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import ONE_RUN, SAME_SETTINGS, Cast, Finding, claim, label, null_if_there, show
from paper_lib.ledger.contrasts import Contrast, left_by_null, more, same, times
from paper_lib.ledger.rules.weights import POINTS, SAID, rescaled
from paper_lib.summaries import ANGLE_MEAN, ATTENTION, Untested, say

says = partial(claim, where="The Path Not Taken, 2511.08567")
NEAR_CHANCE = 0.03  # P2: Jaccard; a quarter of the 13 points between the paper's runs and their chance


@says(
    "P1",
    "RLVR's updates are sparser than SFT's",
    paper="36–92 / 0.6–18.8 %",
    holds_when="sparsity: RLVR > SFT",
    also=("equal norm", "equal accuracy"),
)
def sparser_than_sft(evidence: Results, cast: Cast) -> Finding:
    values = {label(run): evidence.end(run, "update_sparsity") for run in (cast.verified, cast.sft)}
    (rlvr, sft), name = values.values(), label(cast.sft)
    null = f"{name}'s update at RLVR's norm: {{}} %"
    return Finding(
        ours=show(values, "%", 100),
        contrasts=[more(rlvr, sft, f"RLVR is sparser than {name}", paper=0.36 - 0.188, **POINTS)],
        explained="SFT's update, shrunk to RLVR's norm, is as sparse",
        **null_if_there(lambda: rescaled(evidence, cast, cast.verified, "update_sparsity", null)),
    )


@says(
    "P2",
    "Rotating heads, the function unchanged, destroys mask overlap in those layers only",
    paper="overlap falls to chance in the rotated layers",
    holds_when=(
        f"Jaccard of attention masks: within {100 * NEAR_CHANCE:g} points of chance in rotated layers, "
        "above that in the others"
    ),
    matched=SAME_SETTINGS,
)
def rotated_heads(evidence: Results, cast: Cast) -> Finding:
    """Jaccard of OPD's update masks with and without rotated heads, over attention matrices, in the
    rotated layers and in the others. (The paper rotates under RLVR; here the same is done under OPD.)"""
    if not evidence.rotated:
        raise Untested("no run with rotated heads in this profile")
    layers = set(evidence.table("matrices")["layer"].unique()) - set(evidence.rotated)
    places: dict[str, Any] = {"rotated": evidence.rotated, "other": sorted(layers)}
    pair = partial(evidence.pair, "opd", "opd_rotated", module=ATTENTION)
    shared, chance, rounding = (
        {place: pair(f"jaccard{null}", layer=which) for place, which in places.items()}
        for null in ("", "_chance", "_rounding")
    )
    lift, above = ({p: shared[p] - base[p] for p in places} for base in (chance, rounding))
    text = f"rotated layers within {100 * NEAR_CHANCE:g} points of chance"
    contrasts = [
        same(shared["rotated"], chance["rotated"], text, within=NEAR_CHANCE, **POINTS),
        more(shared["other"], chance["other"], "other layers above chance", by=NEAR_CHANCE, **POINTS),
        more(lift["other"], lift["rotated"], "rotated layers lose overlap that others keep", **POINTS),
    ]
    ours, null = (show({f"{p} layers": v for p, v in of.items()}, "%", 100) for of in (shared, rounding))
    return Finding(
        ours=f"Jaccard: {ours}",
        contrasts=contrasts,
        null=f"rounding alone: {null}",
        beyond=more(above["other"], above["rotated"], "more than rounding loses", **POINTS),
        explained="rounding alone loses as much where the weights' sizes changed",
    )


@says(
    "P3",
    "Update masks of different runs meet more than chance",
    paper="Jaccard 0.55–0.60, chance 0.37–0.47",
    holds_when="Jaccard above that of independent masks: OPD and other rollouts, OPD and RLVR",
    matched=SAME_SETTINGS,
)
def masks_across_runs(evidence: Results, cast: Cast) -> Finding:
    others = ["opd_restream", *([cast.rlvr] if cast.rlvr else [])]
    values, chance = (
        {f"OPD and {label(run)}": evidence.pair("opd", run, metric) for run in others}
        for metric in ("jaccard", "jaccard_chance")
    )
    told: dict[str, Any] = {"paper": 0.55 - 0.47, **POINTS}
    contrasts = [more(values[name], chance[name], f"{name} above chance", **told) for name in values]

    def rounding() -> tuple[str, Contrast]:
        name, dealt = next(iter(values)), evidence.pair("opd", others[0], "jaccard_rounding")
        effect, under_null = values[name] - chance[name], dealt - chance[name]
        return f"rounding alone: {say(dealt, 100)} %", left_by_null(effect, under_null, "above rounding")

    return Finding(
        ours=f"Jaccard: {show(values, '%', 100)}; chance {show(chance, '%', 100)}",
        contrasts=contrasts,
        explained="masks meet because rounding shows small weights in both",
        **null_if_there(rounding),
    )


@says(
    "P4",
    "RLVR keeps the spectral geometry that SFT disturbs",
    paper="rotation and spectral shift below SFT's",
    holds_when="mean principal angle and NSS, in logarithms: RLVR < SFT",
    also=("equal norm", "equal accuracy"),
)
def milder_than_sft(evidence: Results, cast: Cast) -> Finding:
    metrics, name = (ANGLE_MEAN, "spectral_shift"), label(cast.sft)
    ends = {m: {label(run): evidence.end(run, m) for run in (cast.verified, cast.sft)} for m in metrics}
    (angle, sft_angle), (shift, sft_shift) = (ends[m].values() for m in metrics)
    angles, shifts = (show(ends[m], SAID[m][1], SAID[m][0]) for m in metrics)
    null = f"{name}'s update at RLVR's norm: {{}}°"
    return Finding(
        ours=f"angle {angles}; NSS {shifts}",
        contrasts=[
            times(sft_angle, angle, f"RLVR rotates less than {name}"),
            times(sft_shift, shift, f"RLVR shifts the spectrum less than {name}"),
        ],
        explained="SFT's update, shrunk to RLVR's norm, rotates as little",
        **null_if_there(lambda: rescaled(evidence, cast, cast.verified, ANGLE_MEAN, null)),
    )


@says(
    "P5",
    "RLVR's visible updates avoid principal weights that are not small",
    paper="overlap below chance",
    holds_when="overlap with principal and not low-magnitude weights below their share",
    matched=ONE_RUN,
)
def off_principal(evidence: Results, cast: Cast) -> Finding:
    """Chance is the share of weights that are principal and not low-magnitude, matrix by matrix."""
    alpha, run = evidence.study.diagnostics.alphas[0], cast.verified
    own = evidence.end(run, "principal_not_low_overlap", k=alpha)
    chance = evidence.end(run, "principal_not_low_chance", k=alpha)

    def permuted() -> tuple[str, Contrast]:
        dealt = evidence.end(run, "principal_not_low_overlap", k=alpha, null="permuted")
        words = f"entries permuted: {say(dealt, 100)} %"
        return words, left_by_null(chance - own, chance - dealt, "farther from chance than permuted")

    return Finding(
        ours=f"overlap {show({label(run): own, 'chance': chance}, '%', 100)}",
        contrasts=[more(chance, own, "RLVR below chance", **POINTS)],
        explained="rounding to bf16 explains it",
        **null_if_there(permuted),
    )
