"""C1–C6 and their rules: what an update does to the weights, against chance and against bf16 rounding."""

from dataclasses import replace
from math import degrees
from typing import Any

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.geometry.metrics import ALPHA, METRICS, REGIMES
from paper_lib.ledger.claim import ENDS, Cast, Finding, claim, if_there, label, null_if_there, of_cast, show
from paper_lib.ledger.contrasts import Contrast, absent, in_turn, left_by_null, log_of, more, same
from paper_lib.summaries import ANGLE_MEAN, Untested, say

POINTS: dict[str, Any] = {"unit": "points", "scale": 100.0}
PERCENT: dict[str, Any] = {"unit": "%", "scale": 100}
OPD_VARIANTS = ("opd_small_teacher", "opd_second_domain", "opd_small_student", "opd_moe_teacher")
STABLE_SPARSITY = 0.06  # C2: the paper's own variants lie up to 5.5 points off, 57.1 % against 51.6 %
# How a metric is said: the factor and the unit.
SAID = {"update_sparsity": (100, "%"), ANGLE_MEAN: (degrees(1), "°"), "spectral_shift": (1e3, "· 1e-3")}


@claim(
    "C1",
    "The share of weights unchanged at bf16 rises from SFT to OPD to RLVR",
    where="§3.2, Table 1",
    paper=METRICS["update_sparsity"].by_regime(),
    holds_when="sparsity: SFT < OPD < RLVR",
    also=ENDS,
)
def sparsity_order(evidence: Results, cast: Cast) -> Finding:
    return _in_order(evidence, cast, "update_sparsity", "<", "is as sparse")


@claim(
    "C2",
    "OPD's sparsity is stable over teachers, student sizes and data domains",
    where="§3.2, Table 1",
    paper="48.6–57.1 % over six variants",
    holds_when=f"each variant within {100 * STABLE_SPARSITY:g} points of OPD, as the paper's are",
    matched="by design: each variant has OPD's rate, steps and batch",
)
def stable_sparsity(evidence: Results, cast: Cast) -> Finding:
    """Each variant is within the paper's own spread of OPD; a smaller student has its own model and is
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


@claim(
    "C3",
    "SFT rotates the principal subspaces most, then OPD, then RLVR",
    where="§3.2, Fig. 2",
    paper="> 10° / about 1° / < 0.5°, one layer",
    holds_when="mean principal angle, in logarithms: SFT > OPD > RLVR",
    also=ENDS,
)
def rotation_order(evidence: Results, cast: Cast) -> Finding:
    """The mean principal angle, left and right subspaces together."""
    found = _in_order(evidence, cast, ANGLE_MEAN, ">", "rotates as little", average=" on average")
    return replace(found, note=if_there(lambda: _largest_angle(evidence, cast)))


def _largest_angle(evidence: Results, cast: Cast) -> str:
    """The order by another statistic: the paper does not say which its angles are."""
    values = of_cast(evidence, cast, "angle_u_max")
    order = "; ".join(map(str, in_turn(values, ">", ratio=True)))
    return f"largest angle of the left subspaces: {show(values, '°', degrees(1))}; {order}"


@claim(
    "C4",
    "SFT shifts the spectrum most, then OPD, then RLVR",
    where="§3.2, Fig. 2",
    paper="NSS 1e-3 / 1e-4 / 1e-5",
    holds_when="NSS, in logarithms: SFT > OPD > RLVR",
    also=ENDS,
)
def shift_order(evidence: Results, cast: Cast) -> Finding:
    return _in_order(evidence, cast, "spectral_shift", ">", "shifts as little")


@claim(
    "C5",
    "Visible updates avoid principal weights, more so from SFT to OPD to RLVR",
    where="§3.2, Fig. 3",
    paper=METRICS["principal_overlap"].by_regime(),
    holds_when="overlap: SFT > OPD > RLVR; OPD and RLVR below chance",
    also=ENDS,
)
def principal_overlap(evidence: Results, cast: Cast) -> Finding:
    return _overlap(evidence, cast, "principal_overlap", -1)


@claim(
    "C6",
    "Visible updates gather on small weights, more so from SFT to OPD to RLVR",
    where="§3.2, Fig. 3",
    paper=METRICS["low_magnitude_overlap"].by_regime(),
    holds_when="overlap: SFT < OPD < RLVR; OPD and RLVR above chance",
    also=ENDS,
)
def small_overlap(evidence: Results, cast: Cast) -> Finding:
    return _overlap(evidence, cast, "low_magnitude_overlap", 1)


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
        apart, paper = sign * (values[label(run)] - alpha), sign * (printed - ALPHA)
        contrasts.append(Contrast(text=f"{label(run)} {side} chance", values=apart, paper=paper, **POINTS))
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


def _in_order(
    evidence: Results, cast: Cast, metric: str, sign: str, shrunk: str, *, average: str = ""
) -> Finding:
    """SFT, OPD and RLVR in turn, against SFT's update at OPD's norm; shrunk: what that one does as well."""
    values, (factor, unit) = of_cast(evidence, cast, metric), SAID[metric]
    said = {"ratio": True} if sign == ">" else POINTS
    null = f"the update of {label(cast.sft)} at OPD's norm: {{}} {unit}"
    return Finding(
        ours=show(values, unit + average, factor),
        contrasts=in_turn(values, sign, paper=_printed(metric), **said),
        explained=f"SFT's update, shrunk to OPD's norm, {shrunk}",
        **null_if_there(lambda: rescaled(evidence, cast, cast.opd, metric, null)),
    )


def rescaled(evidence: Results, cast: Cast, run: str, metric: str, words: str) -> tuple[str, Contrast]:
    """What SFT's update scores at the norm of a run's: size alone, as the direction is still SFT's. words:
    with a place for it."""
    sft, own = (evidence.end(each, metric) for each in (cast.sft, run))
    shrunk = evidence.end(run, metric, null=cast.rescaled)
    rises = metric == "update_sparsity"
    effect, under_null = (each - sft if rises else log_of(sft, each) for each in (own, shrunk))
    contrast = left_by_null(effect.dropna(), under_null.dropna(), "more than the difference in norm")
    return words.format(say(shrunk, SAID[metric][0])), contrast


CLAIMS = (sparsity_order, stable_sparsity, rotation_order, shift_order, principal_overlap, small_overlap)
