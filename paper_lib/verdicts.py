"""**The rule.** The unit is the seed. A comparison is one number a seed: a difference of two runs, or the
logarithm of their ratio, over the seeds that both have, with Student's 95 % interval of its mean (from ten
seeds on a bootstrap interval stands beside it). It *holds* (✓) where the interval lies on the claim's side
of a margin: 0 for an order, a stated number for "preserved", "intact" or "equal". It *fails* (✗) where the
interval lies on the other side, and is *undecided* (?) where it lies across, has fewer than three seeds, a
run of a family is missing, or the comparison would have come out so whether the claim is true or not.
**Reproduced**: every comparison holds. **Not reproduced**: none holds and at least one fails. **Cannot be
tested at this scale**: a run or a table that the claim is about is missing, or all is undecided.
**Partly**: anything between. The effect size is Cohen's d_z, mean over standard deviation of the paired
values (counted from the level, where a claim names one). *Beyond the null* is *yes* where a comparison with
what chance gives holds too: where chance gives a part of the effect, more than a tenth of it must be left.
It changes no verdict. No interval is corrected for the number of comparisons. Margins stand, with their
reason, beside the rules that use them. They were set while the tables grew, not before the first run; what
was revised once all seeds were there made rules stricter (C8, C11, C12, C14, C15a, C15b, S6), or fairer to
the claim (S7, where AdamW has its best rate too).
"""

from collections.abc import Sequence

from paper_lib.findings import Finding
from paper_lib.outcomes import FEWEST_SEEDS, Comparison

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
UNTESTED = "cannot be tested at this scale"
VERDICTS = (REPRODUCED, PARTLY, NOT_REPRODUCED, UNTESTED)


def judge(finding: Finding) -> str:
    """One of VERDICTS, by the rule above."""
    outcomes = [comparison.outcome for comparison in finding.comparisons]
    if not outcomes or set(outcomes) == {"undecided"}:
        return UNTESTED
    if set(outcomes) == {"holds"}:
        return REPRODUCED
    return PARTLY if "holds" in outcomes else NOT_REPRODUCED


def beyond_null(finding: Finding) -> str:
    """Whether the claim's effect is more than its null gives: yes, no, or – where that was not compared."""
    if finding.beyond is None or finding.beyond.seeds < FEWEST_SEEDS:
        return "–"
    return "yes" if finding.beyond.holds else "no"


def reason(finding: Finding) -> str:
    """One line: what fails or stays undecided, and what chance has to say."""
    comparisons = finding.comparisons
    parts = list[str]()
    if comparisons and all(comparison.holds for comparison in comparisons):
        parts.append("every comparison holds")
    else:
        parts += _named(comparisons, "holds") if judge(finding) == PARTLY else []
        parts += [*_named(comparisons, "fails"), *_named(comparisons, "undecided")]
    if beyond_null(finding) == "no":
        parts.append(f"not shown beyond its null: {finding.explained or 'chance may explain it'}")
    parts += [finding.note] if finding.note else []
    return ". ".join(part[0].upper() + part[1:] for part in parts)


def _named(comparisons: Sequence[Comparison], outcome: str) -> list[str]:
    """The comparisons of that outcome in words; those undecided for one reason share it."""
    reasons = dict[str, list[str]]()
    for comparison in comparisons:
        if comparison.outcome == outcome:
            why = _why_undecided(comparison) if outcome == "undecided" else ""
            reasons.setdefault(why, []).append(comparison.text)
    words = [f"{'; '.join(texts)}{why}" for why, texts in reasons.items()]
    return [f"{outcome}: {'; '.join(words)}"] if words else []


def _why_undecided(comparison: Comparison) -> str:
    if why := comparison.missing or comparison.idle:
        return f" ({why})"
    seeds = comparison.seeds
    return f" ({seeds} seed{'s' * (seeds != 1)} of the {FEWEST_SEEDS} needed)" if seeds < FEWEST_SEEDS else ""
