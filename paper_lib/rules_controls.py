"""Rules of C11–C14: training inside a subspace, and the controls of tokens, rollouts and advantages."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from paper_lib.distances import distance
from paper_lib.evidence import Evidence
from paper_lib.findings import Cast, Finding, if_there, label, null_if_there, show
from paper_lib.outcomes import Comparison, above, absent, below, more, times
from paper_lib.rules_training import ALONG
from paper_lib.rules_weights import POINTS
from paper_lib.seedwise import Untested, paired, say

TOKEN_RUNS = tuple(f"opd_tokens_{how}_{share}" for how in ("top_gap", "random") for share in (50, 25))
# C11, of accuracy: two standard errors of one of our evaluations. The paper counts + 0.9 points as intact and
# − 9.9 as degraded.
INTACT = 0.02
# C12–C13, RMS log distance: twice what a seed moves the ratio of two runs' stable ranks. The paper's axis
# spans 18–29, ± 24 %.
PRESERVED = 0.10


def projected_training(evidence: Evidence, cast: Cast) -> Finding:
    """C11. Losses are accuracy of the free run minus that of its projection, at the end, by seed. In the
    matched reading SFT is confined to the widest V there is, as its update needs more directions."""
    sft_run = _widest(evidence, "sft_projected_early") if cast.is_matched else "sft_projected_early"
    opd, sft = _loss(evidence, "opd", "opd_projected_early"), _loss(evidence, "sft", sft_run)
    gain = _loss(evidence, "opd", "sft")  # the free run over its anchor
    comparisons = [
        below(opd, INTACT, f"OPD loses less than {100 * INTACT:g} points", **POINTS),
        above(sft, INTACT, f"{label(sft_run)} loses more than {100 * INTACT:g} points", **POINTS),
        more(sft, opd, f"{label(sft_run)} loses more than OPD", **POINTS),
    ]
    gained = above(gain, INTACT, "OPD gains over its anchor")
    blunt = comparisons[0].outcome != "fails" and gained.seeds > 2 and not gained.holds
    losses = {"OPD": opd, label(sft_run): sft}
    return Finding(
        ours=f"accuracy lost: {show(losses, 'points', 100)}; free OPD gains {say(gain, 100)}",
        comparisons=comparisons,
        explained="a random V does as well",
        blunt="free OPD gains no more than the margin over its anchor: nothing to lose" if blunt else "",
        **null_if_there(lambda: _random_subspace(evidence, opd)),
    )


def _random_subspace(evidence: Evidence, own: pd.Series) -> tuple[str, Comparison]:
    chance = _loss(evidence, "opd", "opd_projected_random")
    return f"in a random V, OPD loses {say(chance, 100)}", more(
        chance, own, "a random V costs more", **POINTS
    )


def _widest(evidence: Evidence, name: str) -> str:
    """The run `name`_k<K> of the largest K."""
    found = {
        int(match[1]): run
        for run in evidence.runs
        if (match := re.fullmatch(rf"{name}_k(\d+)", run)) is not None
    }
    if not found:
        raise Untested(f"no {name}_k<K> with a wider V in the tables")
    return found[max(found)]


def _loss(evidence: Evidence, free: str, projected: str) -> pd.Series:
    above, below_it = paired(evidence.score(free)[0], evidence.score(projected)[0])
    return above - below_it


def kept_tokens(evidence: Evidence, cast: Cast) -> Finding:
    """C12. A member of the family that is missing stays undecided."""
    finding = _preserved(evidence, TOKEN_RUNS, cast)
    return replace(finding, note=if_there(lambda: _norms(evidence, TOKEN_RUNS, cast)))


def teacher_rollouts(evidence: Evidence, cast: Cast) -> Finding:
    """C13."""
    run = "opd_teacher_rollouts"
    finding = _preserved(evidence, (run,), cast)
    norm, opd_norm = (evidence.end(name, "frobenius_norm", **ALONG) for name in (run, cast.opd))
    louder = times(norm, opd_norm, f"{label(run)}: norm above OPD's")
    note = if_there(lambda: _scores(evidence, ("sft", cast.opd, run)))
    return replace(finding, comparisons=[*finding.comparisons, louder], note=note)


def to_opd(evidence: Evidence, run: str, cast: Cast) -> pd.Series:
    """RMS log distance of a run's stable-rank trajectory to OPD's, one a seed."""
    return distance(*(evidence.path(name, "stable_rank", **ALONG) for name in (run, cast.opd)))


def _preserved(evidence: Evidence, runs: Sequence[str], cast: Cast) -> Finding:
    """Each run's stable-rank trajectory is nearer to OPD's than the margin."""
    apart, comparisons = {}, []
    for run in runs:
        text = f"{label(run)} within {PRESERVED:g} of OPD"
        try:
            apart[label(run)] = to_opd(evidence, run, cast)
            comparisons.append(below(apart[label(run)], PRESERVED, text))
        except Untested as missing:
            comparisons.append(absent(text, str(missing)))
    return Finding(
        ours=f"distance to OPD's stable rank (RMS log): {show(apart)}" if apart else "–",
        comparisons=comparisons,
        explained="RLVR, another objective, is as near to OPD",
        **null_if_there(lambda: _objective_distance(evidence, cast, apart)),
    )


def _objective_distance(
    evidence: Evidence, cast: Cast, apart: dict[str, pd.Series]
) -> tuple[str, Comparison]:
    """How far a change of objective leads, and whether the farthest of the runs stays nearer than RLVR."""
    if cast.rlvr is None or not apart:
        raise Untested("no RLVR or no control to compare with")
    others = {label(run): to_opd(evidence, run, cast) for run in (cast.rlvr, cast.sft)}
    farthest = pd.concat(paired(*apart.values()), axis=1).max(axis=1)
    words = f"change of objective: {show(others)}"
    return words, more(others[label(cast.rlvr)], farthest, "nearer to OPD than RLVR is")


def _norms(evidence: Evidence, runs: Sequence[str], cast: Cast) -> str:
    opd, shown = evidence.end(cast.opd, "frobenius_norm", **ALONG), []
    for run in runs:
        ours, theirs = paired(evidence.end(run, "frobenius_norm", **ALONG), opd)
        shown.append(f"{label(run)} {say(ours / theirs)}")
    return f"norm over OPD's: {'; '.join(shown)}"


def _scores(evidence: Evidence, runs: Sequence[str]) -> str:
    scores = dict(zip(map(label, runs), paired(*(evidence.score(run)[0] for run in runs)), strict=True))
    return f"accuracy at the end: {show(scores, '%', 100)}"


def advantage_mixes(evidence: Evidence, cast: Cast) -> Finding:
    """C14. Mixes of raw advantages as in the paper; in the matched reading, of advantages at unit scale."""
    ending = "_unit" if cast.is_matched else ""
    by_alpha = {
        float(match[1]): run
        for run in evidence.runs
        if (match := re.fullmatch(rf"mix_([\d.]+){ending}", run)) is not None
    }
    if len(by_alpha) < 2 or cast.rlvr is None:
        raise Untested(f"no two runs mix_<alpha>{ending} in the tables")
    mixes = [by_alpha[alpha] for alpha in sorted(by_alpha, reverse=True)]
    rlvr = evidence.path(cast.rlvr, "stable_rank", **ALONG)
    opd_gap = {run: to_opd(evidence, run, cast) for run in mixes}
    rlvr_gap = {run: distance(evidence.path(run, "stable_rank", **ALONG), rlvr) for run in mixes}
    most, least = mixes[0], mixes[-1]
    comparisons = [
        more(rlvr_gap[most], opd_gap[most], f"{label(most)} is nearer to OPD than to RLVR"),
        more(opd_gap[least], rlvr_gap[least], f"{label(least)} is nearer to RLVR"),
        more(opd_gap[least], opd_gap[most], f"{label(least)} is farther from OPD than {label(most)}"),
    ]
    pairs = [f"{a:g}: {opd_gap[r].mean():.2g}/{rlvr_gap[r].mean():.2g}" for a, r in sorted(by_alpha.items())]
    return Finding(
        ours=f"α: distance to OPD/RLVR (RMS log): {'; '.join(reversed(pairs))}",
        comparisons=comparisons,
        explained="OPD with other rollouts is as far from OPD",
        note=if_there(lambda: f"RLVR is {say(to_opd(evidence, str(cast.rlvr), cast))} from OPD"),
        **null_if_there(lambda: _other_rollouts(evidence, cast, opd_gap[least])),
    )


def _other_rollouts(evidence: Evidence, cast: Cast, gap: pd.Series) -> tuple[str, Comparison]:
    noise = to_opd(evidence, "opd_restream", cast)
    return f"OPD with other rollouts: {say(noise)} from OPD", more(gap, noise, "farther than rollouts lead")
