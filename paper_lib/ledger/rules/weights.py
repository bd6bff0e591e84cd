"""C1–C6 and their rules: what an update does to the weights, against chance and against bf16 rounding."""

from math import degrees
from typing import Any

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.geometry.metrics import ALPHA, METRICS, REGIMES
from paper_lib.ledger.claim import ENDS, Cast, Claim, Finding, if_there, label, null_if_there, of_cast, show
from paper_lib.ledger.contrasts import Contrast, absent, in_turn, left_by_null, log_of, more, same
from paper_lib.summaries import ANGLE_MEAN, Untested, say

POINTS: dict[str, Any] = {"unit": "points", "scale": 100.0}
OPD_VARIANTS = ("opd_small_teacher", "opd_second_domain", "opd_small_student", "opd_moe_teacher")
STABLE_SPARSITY = (
    0.06  # C2: the paper's own variants lie up to 5.5 points off, 57.1 % for code against 51.6 %
)


def sparsity_order(evidence: Results, cast: Cast) -> Finding:
    """C1."""
    values = of_cast(evidence, cast, "update_sparsity")
    return Finding(
        ours=show(values, "%", 100),
        contrasts=in_turn(values, "<", paper=_printed("update_sparsity"), **POINTS),
        explained="SFT's update, shrunk to OPD's norm, is as sparse",
        **null_if_there(lambda: _rescaled(evidence, cast, "update_sparsity")),
    )


C1 = Claim(
    id="C1",
    statement="The share of weights unchanged at bf16 rises from SFT to OPD to RLVR",
    where="§3.2, Table 1",
    paper=METRICS["update_sparsity"].by_regime(),
    holds_when="sparsity: SFT < OPD < RLVR",
    rule=sparsity_order,
    also=ENDS,
)


def sparsity_of_variants(evidence: Results, cast: Cast) -> Finding:
    """C2. Each variant is within the paper's own spread of OPD; a smaller student has its own model and is
    compared all the same, as in the paper."""
    opd = evidence.end(cast.opd, "update_sparsity")
    values, contrasts = {label(cast.opd): opd}, []
    for run in OPD_VARIANTS:
        text = f"{label(run)} within {100 * STABLE_SPARSITY:g} points of OPD"
        try:
            values[label(run)] = evidence.end(run, "update_sparsity")
            contrasts.append(same(values[label(run)], opd, text, within=STABLE_SPARSITY, **POINTS))
        except Untested as missing:
            contrasts.append(absent(text, str(missing)))
    return Finding(
        ours=show(values, "%", 100),
        contrasts=contrasts,
        explained="RLVR is as near to OPD as its variants are",
        note="the smaller teacher is the student's own checkpoint before the noisy stage of its training",
        **null_if_there(lambda: _other_objective(evidence, cast, values)),
    )


C2 = Claim(
    id="C2",
    statement="OPD's sparsity is stable over teachers, student sizes and data domains",
    where="§3.2, Table 1",
    paper="48.6–57.1 % over six variants",
    holds_when=f"each variant within {100 * STABLE_SPARSITY:g} points of OPD, as the paper's are",
    rule=sparsity_of_variants,
    matched="by design: each variant has OPD's rate, steps and batch",
)


def _other_objective(evidence: Results, cast: Cast, values: dict[str, pd.Series]) -> tuple[str, Contrast]:
    """Whether RLVR is farther from OPD than the farthest variant."""
    regimes = of_cast(evidence, cast, "update_sparsity")
    gaps = {
        name: (each - regimes[label(cast.opd)]).abs().dropna() for name, each in (regimes | values).items()
    }
    if "RLVR" not in gaps or len(values) < 2:
        raise Untested("no RLVR or no variant to compare with")
    farthest = pd.concat([gaps[name] for name in values], axis=1, join="inner").max(axis=1)
    words = f"change of objective: RLVR {say(gaps['RLVR'], 100)} points from OPD"
    return words, more(gaps["RLVR"], farthest, "RLVR is farther", **POINTS)


def rotation_order(evidence: Results, cast: Cast) -> Finding:
    """C3. The mean principal angle, left and right subspaces together."""
    values = {label(run): mean_angle(evidence, run) for run in cast.runs}
    return Finding(
        ours=show(values, "° on average", degrees(1)),
        contrasts=in_turn(values, ">", paper=_printed(ANGLE_MEAN), ratio=True),
        explained="SFT's update, shrunk to OPD's norm, rotates as little",
        note=if_there(lambda: _largest_angle(evidence, cast)),
        **null_if_there(lambda: _rescaled(evidence, cast, ANGLE_MEAN)),
    )


C3 = Claim(
    id="C3",
    statement="SFT rotates the principal subspaces most, then OPD, then RLVR",
    where="§3.2, Fig. 2",
    paper="> 10° / about 1° / < 0.5°, one layer",
    holds_when="mean principal angle, in logarithms: SFT > OPD > RLVR",
    rule=rotation_order,
    also=ENDS,
)


def _largest_angle(evidence: Results, cast: Cast) -> str:
    """The order by another statistic: the paper does not say which its angles are."""
    values = of_cast(evidence, cast, "angle_u_max")
    order = "; ".join(map(str, in_turn(values, ">", ratio=True)))
    return f"largest angle of the left subspaces: {show(values, '°', degrees(1))}; {order}"


def shift_order(evidence: Results, cast: Cast) -> Finding:
    """C4."""
    values = of_cast(evidence, cast, "spectral_shift")
    return Finding(
        ours=show(values, "· 1e-3", 1e3),
        contrasts=in_turn(values, ">", paper=_printed("spectral_shift"), ratio=True),
        explained="SFT's update, shrunk to OPD's norm, shifts as little",
        **null_if_there(lambda: _rescaled(evidence, cast, "spectral_shift")),
    )


C4 = Claim(
    id="C4",
    statement="SFT shifts the spectrum most, then OPD, then RLVR",
    where="§3.2, Fig. 2",
    paper="NSS 1e-3 / 1e-4 / 1e-5",
    holds_when="NSS, in logarithms: SFT > OPD > RLVR",
    rule=shift_order,
    also=ENDS,
)


def principal_overlap(evidence: Results, cast: Cast) -> Finding:
    """C5."""
    return _overlap(evidence, cast, "principal_overlap", -1)


C5 = Claim(
    id="C5",
    statement="Visible updates avoid principal weights, more so from SFT to OPD to RLVR",
    where="§3.2, Fig. 3",
    paper=METRICS["principal_overlap"].by_regime(),
    holds_when="overlap: SFT > OPD > RLVR; OPD and RLVR below chance",
    rule=principal_overlap,
    also=ENDS,
)


def low_magnitude_overlap(evidence: Results, cast: Cast) -> Finding:
    """C6."""
    return _overlap(evidence, cast, "low_magnitude_overlap", 1)


C6 = Claim(
    id="C6",
    statement="Visible updates gather on small weights, more so from SFT to OPD to RLVR",
    where="§3.2, Fig. 3",
    paper=METRICS["low_magnitude_overlap"].by_regime(),
    holds_when="overlap: SFT < OPD < RLVR; OPD and RLVR above chance",
    rule=low_magnitude_overlap,
    also=ENDS,
)


def mean_angle(evidence: Results, run: str, *, null: str | None = None) -> pd.Series:
    """The mean principal angle of a run at its end, in radians, left and right subspaces together."""
    return evidence.end(run, ANGLE_MEAN, null=null)


def _printed(metric: str) -> list[float]:
    return [METRICS[metric].value(regime) for regime in REGIMES]


def _overlap(evidence: Results, cast: Cast, metric: str, sign: int) -> Finding:
    """The order, and OPD and RLVR on the claim's side of chance: above it for sign 1, below it for −1."""
    alpha = evidence.study.diagnostics.alphas[0]
    values = of_cast(evidence, cast, metric, k=alpha)
    contrasts = in_turn(values, "<" if sign > 0 else ">", paper=_printed(metric), **POINTS)
    side = "above" if sign > 0 else "below"
    for run, printed in zip(cast.runs[1:], _printed(metric)[1:], strict=False):
        from_chance = sign * (values[label(run)] - alpha)
        contrasts.append(
            Contrast(
                text=f"{label(run)} {side} chance",
                values=from_chance,
                paper=sign * (printed - ALPHA),
                **POINTS,
            )
        )
    return Finding(
        ours=show(values, f"%, chance {100 * alpha:g} %", 100),
        contrasts=contrasts,
        explained="rounding to bf16 explains it",
        **null_if_there(lambda: permuted_overlap(evidence, cast.opd, metric, sign, alpha)),
    )


def permuted_overlap(
    evidence: Results, run: str, metric: str, sign: int, alpha: float
) -> tuple[str, Contrast]:
    """What the run's update scores with its entries in random places, which is what rounding alone gives."""
    own, shuffled = evidence.end(run, metric, k=alpha), evidence.end(run, metric, k=alpha, null="permuted")
    words = f"{label(run)}'s entries permuted: {say(shuffled, 100)} %"
    effect, under_null = sign * (own - alpha), sign * (shuffled - alpha)
    return words, left_by_null(effect, under_null, "farther from chance than with its entries permuted")


def _rescaled(evidence: Results, cast: Cast, metric: str) -> tuple[str, Contrast]:
    """What SFT's update scores at OPD's norm: size alone, as the direction is still SFT's."""
    sft, opd = evidence.end(cast.sft, metric), evidence.end(cast.opd, metric)
    shrunk = evidence.end(cast.opd, metric, null=cast.rescaled)
    said = {ANGLE_MEAN: (degrees(1), "°"), "spectral_shift": (1e3, "· 1e-3"), "update_sparsity": (100, "%")}
    factor, unit = said[metric]
    words = f"the update of {label(cast.sft)} at OPD's norm: {say(shrunk, factor)} {unit}"
    if metric == "update_sparsity":
        effect, under_null = opd - sft, shrunk - sft
    else:
        effect, under_null = log_of(sft, opd), log_of(sft, shrunk)
    text = "more than the difference in norm"
    return words, left_by_null(effect.dropna(), under_null.dropna(), text)


CLAIMS = (C1, C2, C3, C4, C5, C6)
