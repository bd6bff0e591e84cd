"""**The rule.** The unit is the seed. A comparison is one number a seed: a difference of two runs, or the
logarithm of their ratio, over the seeds that both have, with Student's 95 % interval of its mean. It *holds*
(✓) where the interval lies on the claim's side of a margin: 0 for an order, a stated number for "preserved",
"intact" or "equal". It *fails* (✗) where the interval lies on the other side, and is *undecided* (?) where it
lies across, has fewer than three seeds, a run of a family is missing, or the comparison would have come out
so whether the claim is true or not. **Reproduced**: every comparison holds, and where the paper prints values
ours is at least a tenth of its difference or log ratio. **Order only**: every comparison holds, and one is
below that tenth. **Not reproduced**: none holds and at least one fails. **Not decided by this design**: a run
or a table that the claim is about is missing, or all is undecided. **Partly**: anything between. The effect
size is Cohen's d_z: how far inside the claim's side the mean lies, from the edge that decides, over the
standard deviation of the values. *Beyond the null* is *yes* where a comparison with what chance gives holds
too: where chance gives a part of the effect, more than a tenth of it must be left. It changes no verdict. No
interval is corrected for the number of comparisons; a table at the end says what that would change. Margins
stand, with their reason, beside the rules that use them. They were set while the tables grew, not before the
first run; what was revised once all seeds were there made rules stricter (C8, C12, C14, C15, S4, S6, S7),
replaced nulls and a scale that showed nothing (C7, C10, C11, S2), or took out what no design of ours decides
(the bound of C15a, the range of S1).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import BUDGETS, ENDS, EQUALLY_SET, HARDER, PRETRAINED, Cast, Claim, Finding
from paper_lib.ledger.contrasts import FEWEST_SEEDS, Contrast
from paper_lib.ledger.equal_footing import at_equal_accuracy, at_equal_norm
from paper_lib.ledger.rules import controls, gates, island, pnt, projection, sibling, trajectory, weights
from paper_lib.ledger.rules.budgets import JUDGED, at_the_budgets
from paper_lib.ledger.rules.pretrained import JUDGED as ON_PRETRAINED
from paper_lib.ledger.rules.pretrained import on_pretrained
from paper_lib.summaries import Untested

REPRODUCED, ORDER_ONLY, PARTLY, NOT_REPRODUCED = "reproduced", "order only", "partly", "not reproduced"
UNTESTED = "not decided by this design"
VERDICTS = (REPRODUCED, ORDER_ONLY, PARTLY, NOT_REPRODUCED, UNTESTED)

_RULES = (weights, trajectory, projection, controls, gates, pnt, sibling, island)  # in the ledger's order
CLAIMS = tuple(each for module in _RULES for each in vars(module).values() if isinstance(each, Claim))
PAPER, MATCHED = "SFT at its own schedule", "matched"
_READ = ("ours", "comparisons", "effect size", "null", "beyond the null", "verdict", "why")
LEDGER_COLUMNS = (
    *("claim", "statement", "where", "paper", "scale", "holds when", *_READ),
    *(f"{name}, matched" for name in _READ),
    *("matched by", *ENDS),
)


def judge(finding: Finding) -> str:
    """One of VERDICTS, by the rule above."""
    outcomes = [contrast.outcome for contrast in finding.contrasts]
    if not outcomes or set(outcomes) == {"undecided"}:
        return UNTESTED
    if set(outcomes) == {"holds"}:
        return ORDER_ONLY if any(contrast.slight for contrast in finding.contrasts) else REPRODUCED
    return PARTLY if "holds" in outcomes else NOT_REPRODUCED


def beyond_null(finding: Finding) -> str:
    """Whether the claim's effect is more than its null gives: yes, no, or – where that was not compared."""
    if finding.beyond is None or finding.beyond.seeds < FEWEST_SEEDS:
        return "–"
    return "yes" if finding.beyond.holds else "no"


def reason(finding: Finding) -> str:
    """One line: what fails or stays undecided, and what chance has to say."""
    contrasts = finding.contrasts
    parts = list[str]()
    if contrasts and all(contrast.holds for contrast in contrasts):
        parts.append("every comparison holds")
        slight = [contrast.text for contrast in contrasts if contrast.slight]
        parts += [f"less than a tenth of the paper's size: {'; '.join(slight)}"] if slight else []
    else:
        parts += _named(contrasts, "holds") if judge(finding) == PARTLY else []
        parts += [*_named(contrasts, "fails"), *_named(contrasts, "undecided")]
    if beyond_null(finding) == "no":
        parts.append(f"not shown beyond its null: {finding.explained or 'chance may explain it'}")
    parts += [finding.note] if finding.note else []
    return ". ".join(part[0].upper() + part[1:] for part in parts)


def _named(contrasts: Sequence[Contrast], outcome: str) -> list[str]:
    """The contrasts of that outcome in words; those undecided for one reason share it."""
    reasons = dict[str, list[str]]()
    for contrast in contrasts:
        if contrast.outcome == outcome:
            why = _why_undecided(contrast) if outcome == "undecided" else ""
            reasons.setdefault(why, []).append(contrast.text)
    words = [f"{'; '.join(texts)}{why}" for why, texts in reasons.items()]
    return [f"{outcome}: {'; '.join(words)}"] if words else []


def _why_undecided(contrast: Contrast) -> str:
    if why := contrast.missing or contrast.idle:
        return f" ({why})"
    seeds = contrast.seeds
    return f" ({seeds} seed{'s' * (seeds != 1)} of the {FEWEST_SEEDS} needed)" if seeds < FEWEST_SEEDS else ""


NOTHING = Finding(ours="–", contrasts=())


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A claim read once: its verdict and one line of why; finding is NOTHING where something is missing."""

    claim: Claim
    name: str
    verdict: str
    why: str
    finding: Finding = NOTHING


def read_claim(claim: Claim, evidence: Results, name: str = PAPER) -> Reading:
    """The claim in the reading of that name: PAPER, MATCHED or one of ENDS."""
    judged_on = BUDGETS if claim.id in JUDGED else claim.judged_on
    if name == PAPER and judged_on:
        instead = read_claim(claim, evidence, judged_on)
        if instead.finding is not NOTHING:
            return replace(instead, name=PAPER, why=f"Judged on {judged_on}. {instead.why}")
    try:
        if name == BUDGETS:
            finding = at_the_budgets(claim.rule, evidence.beside("budgets"))
        elif name == PRETRAINED:
            finding = on_pretrained(claim.id, claim.rule, evidence.beside("smollm2"))
        else:
            finding = claim.rule(*_cast(evidence, name))
    except Untested as missing:
        return Reading(claim=claim, name=name, verdict=UNTESTED, why=_sentence(str(missing)))
    why = reason(finding)
    if name == MATCHED and claim.matched:
        why = f"{_sentence(claim.matched)}. {why}"
    return Reading(claim=claim, name=name, verdict=judge(finding), why=why, finding=finding)


def read_all(evidence: Results, only: Sequence[str] | None = None) -> list[Reading]:
    """Every claim, or those of `only`, in both main readings: PAPER and MATCHED of one claim are neighbours.

    Raises ValueError for an unknown claim.
    """
    return [read_claim(claim, evidence, name) for claim in _chosen(only) for name in (PAPER, MATCHED)]


def ledger(
    evidence: Results, only: Sequence[str] | None = None, *, readings: Sequence[Reading] | None = None
) -> pd.DataFrame:
    """One row a claim, all text, columns LEDGER_COLUMNS; a reading that a claim does not have is "–".

    only: these claims, such as ("C7", "C8"), in the ledger's order; None is all. readings: what `read_all`
    found of the same claims, where it has been asked already. Raises ValueError for an unknown claim.
    """
    rows, read = [], read_all(evidence, only) if readings is None else readings
    for claim in _chosen(only):
        known = (claim.id, claim.statement, claim.where, claim.paper, evidence.scale, claim.holds_when)
        main = [cell for reading in read if reading.claim is claim for cell in _cells(reading)]
        others = [_short(claim, evidence, name) for name in ENDS]
        matched = claim.matched or "SFT at OPD's start, rate, steps and batch in SFT's place"
        rows.append((*known, *main, matched, *others))
    return pd.DataFrame(rows, columns=list(LEDGER_COLUMNS))


def _chosen(only: Sequence[str] | None) -> list[Claim]:
    known = [claim.id for claim in CLAIMS]
    if unknown := sorted(set(only or ()) - set(known)):
        raise ValueError(f"no claim {unknown[0]!r}; there are {', '.join(known)}")
    return [claim for claim in CLAIMS if only is None or claim.id in only]


def _cast(evidence: Results, name: str) -> tuple[Results, Cast]:
    """What a reading is of: tables, perhaps of runs that are cut, and the runs in the roles."""
    matched = Cast(sft="sft_matched")
    if name == HARDER:
        return evidence.beside("headroom"), matched
    if name == "OPD at SFT's settings":
        return evidence, Cast(opd="opd_as_sft", rlvr=None)
    if name == "OPD at a quarter of the batch":
        return evidence, Cast(opd=f"opd_batch_{_settings(evidence, 'batch', ['opd'])[0]}")
    if name in EQUALLY_SET:  # the smallest batch, or the lower or higher of two rates, that the tables have
        kind, at = EQUALLY_SET[name]
        values = _settings(evidence, kind, matched.runs)
        if kind == "lr" and len(values) < 2:
            raise Untested("matched SFT, OPD and RLVR are not all in the tables at two other rates")
        sft, opd, rlvr = (f"{run}_{kind}_{values[at]}" for run in matched.runs)
        return evidence, Cast(sft=sft, opd=opd, rlvr=rlvr)
    if name == "equal norm":
        return at_equal_norm(evidence, matched.runs), matched
    if name == "equal accuracy":
        return at_equal_accuracy(evidence, matched.runs), matched
    return evidence, matched if name == MATCHED else Cast()


def _settings(evidence: Results, kind: str, roles: Sequence[str]) -> list[str]:
    """The values for which every role has a run <role>_<kind>_<value>, ascending, as they are written."""
    values = [
        {match[1] for run in evidence.runs if (match := re.fullmatch(rf"{role}_{kind}_([-\d.e]+)", run))}
        for role in roles
    ]
    if not (common := set.intersection(*values)):
        raise Untested(f"no run <role>_{kind}_<value> of each of {', '.join(roles)} in the tables")
    return sorted(common, key=float)


def _cells(reading: Reading) -> tuple[str, ...]:
    """One entry each of _READ."""
    finding = reading.finding
    effects = [f"{each.text} {each.effect:+.1f}" for each in finding.contrasts if each.effect == each.effect]
    words = ("; ".join(map(str, finding.contrasts)) or "–", "; ".join(effects) or "–", finding.null)
    return (finding.ours, *words, beyond_null(finding), reading.verdict, reading.why)


def _short(claim: Claim, evidence: Results, name: str) -> str:
    if not (claim.id in ON_PRETRAINED if name == PRETRAINED else name in claim.also):
        return "–"
    reading = read_claim(claim, evidence, name)
    return f"{reading.verdict}: {'; '.join(map(str, reading.finding.contrasts)) or reading.why}"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]
