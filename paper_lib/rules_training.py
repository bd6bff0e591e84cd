"""Rules of C7–C14: the update along training, confined to a subspace, and under the controls."""

from collections.abc import Sequence
from dataclasses import replace
from math import hypot, isfinite
from typing import Any

import pandas as pd

from paper_lib.evidence import Evidence, Untested, distance, paired, say, seed_spread
from paper_lib.findings import Check, Finding, count_seeds, if_there, label, less, show, three
from paper_lib.styles import in_order, is_mix
from paper_lib.summaries import ATTENTION

TOKEN_RUNS = tuple(f"opd_tokens_{how}_{share}" for how in ("top_gap", "random") for share in (50, 25))
NORM_FACTOR = 1.5  # C8: "well above" is at least this times
BAND_FACTOR = 0.5  # C7: a "narrow" band is at most this times another's
RANK_FACTOR = 1.25  # C8: "about equal" is within this factor
ALONG: dict[str, Any] = {"modules": ATTENTION}  # the matrices that the paper tracks along the run


def rank_regimes(evidence: Evidence, sft: str) -> Finding:
    """C7. SFT grows, RLVR contracts; OPD's band, (max − min) / mean, is at most half as wide as either's, and
    ends below SFT."""
    supervised = label(sft)
    paths = {label(r): evidence.path(r, "stable_rank", **ALONG) for r in (sft, "opd", "rlvr")}
    first, last = ({n: p.iloc[at].dropna() for n, p in paths.items()} for at in (0, -1))
    width = {name: (path.max() - path.min()) / path.mean() for name, path in paths.items()}
    checks = [
        less(first[supervised], last[supervised], f"{supervised} grows"),
        less(last["RLVR"], first["RLVR"], "RLVR contracts"),
        less(width["OPD"], BAND_FACTOR * width[supervised], f"OPD's band is half of {supervised}'s or less"),
        less(width["OPD"], BAND_FACTOR * width["RLVR"], "OPD's band is half of RLVR's or less"),
        less(last["OPD"], last[supervised], f"OPD ends below {supervised}"),
    ]
    return Finding(ours=_first_to_last(first, last), checks=checks)


def _first_to_last(first: dict[str, pd.Series], last: dict[str, pd.Series]) -> str:
    moves = [f"{name} {say(first[name])} → {say(last[name])}" for name in first]
    return f"{'; '.join(moves)} ({count_seeds(last)})"


def norm_and_rank(evidence: Evidence, sft: str) -> Finding:
    """C8. OPD's norm is at least 1.5 times RLVR's while their stable ranks end within a factor of 1.25."""
    norms = three(evidence, sft, "frobenius_norm", **ALONG)
    ranks = three(evidence, sft, "stable_rank", **ALONG)
    opd, rlvr = paired(norms["OPD"], norms["RLVR"])
    opd_rank, rlvr_rank = paired(ranks["OPD"], ranks["RLVR"])
    ratio, apart = opd / rlvr, (opd_rank / rlvr_rank).map(lambda x: max(x, 1 / x))
    checks = [
        less(_level(NORM_FACTOR, ratio), ratio, f"norm ratio OPD/RLVR above {NORM_FACTOR}"),
        less(apart, _level(RANK_FACTOR, apart), f"end stable ranks within a factor {RANK_FACTOR}"),
    ]
    ours = f"norms {show(norms)}; OPD/RLVR: norm {say(ratio)}, end stable rank {say(opd_rank / rlvr_rank)}"
    return Finding(ours=ours, checks=checks)


def tail_drift(evidence: Evidence, sft: str) -> Finding:
    """C9. The Hill index rises for SFT, falls for RLVR, and moves less for OPD than for SFT."""
    supervised = label(sft)
    runs = {label(run): run for run in (sft, "opd", "rlvr")}
    first = {name: evidence.first(run, "hill_index", **ALONG) for name, run in runs.items()}
    last = {name: evidence.end(run, "hill_index", **ALONG) for name, run in runs.items()}
    move = {name: last[name] - first[name] for name in runs}
    checks = [
        less(first[supervised], last[supervised], f"{supervised} rises"),
        less(last["RLVR"], first["RLVR"], "RLVR falls"),
        less(move["OPD"].abs(), move[supervised].abs(), f"OPD moves less than {supervised}"),
    ]
    return Finding(ours=_first_to_last(first, last), checks=checks)


def early_subspace(evidence: Evidence, sft: str) -> Finding:
    """C10. Sim_K to the end at the first snapshot: OPD above SFT, RLVR and a walk with OPD's step lengths."""
    which = ALONG | {"k": evidence.diagnostics.K}
    runs = {label(run): run for run in (sft, "rlvr", "opd")}
    values = {name: evidence.first(run, "subspace_alignment", **which) for name, run in runs.items()}
    values["random walk"] = evidence.first("opd", "subspace_alignment", null="random_walk", **which)
    others = [name for name in values if name != "OPD"]
    checks = [less(values[name], values["OPD"], f"OPD above {name}") for name in others]
    started = evidence.path("opd", "subspace_alignment", **which).index[0]
    ours = f"Sim_{evidence.diagnostics.K} at {100 * started:.0f} %: {show(values)}"
    return Finding(ours=ours, checks=checks)


def projected_training(evidence: Evidence, sft: str) -> Finding:
    """C11. OPD projected on its own early V loses at most two standard errors; SFT loses more than that, and
    more than OPD. Blunt where OPD had no more than two to lose, having gained no more over the anchor."""
    opd, opd_error = _loss(evidence, "opd", "opd_projected_early")
    sft_loss, sft_error = _loss(evidence, "sft", "sft_projected_early")
    gain, gain_error = _loss(evidence, "opd", "sft")
    checks = [
        Check(text="OPD loses at most 2 standard errors", holds=opd <= 2 * opd_error),
        Check(text="SFT loses more than 2 standard errors", holds=sft_loss > 2 * sft_error),
        Check(text="SFT loses more than OPD", holds=sft_loss > opd),
    ]
    ours = (
        f"accuracy lost: OPD {100 * opd:.1f} (standard error {100 * opd_error:.1f}) of the {100 * gain:.1f} "
        f"({100 * gain_error:.1f}) gained; SFT {100 * sft_loss:.1f} ({100 * sft_error:.1f}) points"
    )
    blunt = gain <= 2 * gain_error and checks[0].holds
    return Finding(
        ours=ours,
        checks=checks,
        note=if_there(lambda: _random_subspace(evidence)),
        blunt="free OPD gains at most 2 standard errors over the anchor: nothing to lose" if blunt else "",
    )


def _random_subspace(evidence: Evidence) -> str:
    loss, error = _loss(evidence, "opd", "opd_projected_random")
    return f"in a random V, OPD loses {100 * loss:.1f} ({100 * error:.1f})"


def _loss(evidence: Evidence, free: str, projected: str) -> tuple[float, float]:
    """Mean over common seeds of the accuracy that projection costs, and its standard error (evaluation's)."""
    above, above_error, below, below_error = paired(*evidence.score(free), *evidence.score(projected))
    errors = [hypot(a, b) for a, b in zip(above_error, below_error, strict=True)]
    return float((above - below).mean()), hypot(*errors) / len(errors)


def kept_tokens(evidence: Evidence, sft: str) -> Finding:
    """C12."""
    return _preserved(evidence, TOKEN_RUNS, sft)


def teacher_rollouts(evidence: Evidence, sft: str) -> Finding:
    """C13."""
    run = "opd_teacher_rollouts"
    finding = _preserved(evidence, (run,), sft)
    opd_norm, norm = (evidence.end(name, "frobenius_norm", **ALONG) for name in ("opd", run))
    checks = [*finding.checks, less(opd_norm, norm, "its norm is above OPD's")]
    note = f"{finding.note}; {if_there(lambda: _scores(evidence, (sft, 'opd', run)))}"
    return replace(finding, checks=checks, note=note)


def _preserved(evidence: Evidence, runs: Sequence[str], sft: str) -> Finding:
    """Each run's stable-rank trajectory is no farther from OPD's than RLVR's and SFT's are, or than seeds
    move the distance between RLVR and OPD. Blunt where neither RLVR nor SFT is farther than that."""
    opd, rlvr = (evidence.path(run, "stable_rank", **ALONG) for run in ("opd", "rlvr"))
    apart = {run: distance(evidence.path(run, "stable_rank", **ALONG), opd) for run in (*runs, "rlvr", sft)}
    noise = seed_spread(rlvr, opd)
    regimes = pd.concat([apart["rlvr"], apart[sft]], axis=1, join="inner")
    limit = regimes.min(axis=1).clip(lower=noise if isfinite(noise) else None)
    names = {run: label(run) for run in apart}
    checks = [less(apart[run], limit, f"{names[run]} within {limit.mean():.2g}") for run in runs]
    shown = "; ".join(f"{names[run]} {values.mean():.2g}" for run, values in apart.items())
    blunt = noise >= regimes.max(axis=1).mean()
    return Finding(
        ours=f"distance to OPD's stable rank (RMS log): {shown}{_by_seeds(noise)}",
        checks=checks,
        note=if_there(lambda: _norms(evidence, runs)),
        blunt="neither RLVR nor SFT is farther from OPD than seeds move that distance" if blunt else "",
    )


def _by_seeds(noise: float) -> str:
    return f"; seeds move RLVR's by {noise:.2g}" if isfinite(noise) else ""


def _norms(evidence: Evidence, runs: Sequence[str]) -> str:
    opd, shown = evidence.end("opd", "frobenius_norm", **ALONG), []
    for run in runs:
        ours, theirs = paired(evidence.end(run, "frobenius_norm", **ALONG), opd)
        shown.append(f"{label(run)} {say(ours / theirs)}")
    return f"norm over OPD's: {'; '.join(shown)}"


def _scores(evidence: Evidence, runs: Sequence[str]) -> str:
    scores = dict(zip(map(label, runs), paired(*(evidence.score(run)[0] for run in runs)), strict=True))
    return f"accuracy at the end: {show(scores, '%', 100)}"


def advantage_mixes(evidence: Evidence, sft: str) -> Finding:
    """C14. The largest α stays nearer to OPD; the smallest is nearer to RLVR, and farther from OPD."""
    mixes = [run for run in in_order(evidence.matrices["run"].unique()) if is_mix(run)]
    if len(mixes) < 2:
        raise Untested("no two runs mix_<alpha> in the tables")
    opd, rlvr = (evidence.path(run, "stable_rank", **ALONG) for run in ("opd", "rlvr"))
    paths = {run: evidence.path(run, "stable_rank", **ALONG) for run in mixes}
    to_opd = {run: distance(path, opd) for run, path in paths.items()}
    to_rlvr = {run: distance(path, rlvr) for run, path in paths.items()}
    most, least = mixes[0], mixes[-1]
    checks = [
        less(to_opd[most], to_opd[least], "the distance to OPD grows from the largest α to the smallest"),
        less(to_opd[most], to_rlvr[most], f"{label(most)} is nearer to OPD"),
        less(to_rlvr[least], to_opd[least], f"{label(least)} is nearer to RLVR"),
    ]
    pairs = [
        f"{run.removeprefix('mix_')}: {to_opd[run].mean():.2g}/{to_rlvr[run].mean():.2g}" for run in mixes
    ]
    between, noise = distance(rlvr, opd).mean(), seed_spread(rlvr, opd)
    return Finding(
        ours=f"α: distance to OPD/RLVR (RMS log): {'; '.join(pairs)}",
        checks=checks,
        note=f"RLVR is {between:.2g} from OPD{_by_seeds(noise)}",
        blunt="RLVR is no farther from OPD than seeds move that distance" if noise >= between else "",
    )


def _level(value: float, like: pd.Series) -> pd.Series:
    return pd.Series(value, index=like.index)
