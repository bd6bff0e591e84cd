"""**The rule.** The unit is the seed. A comparison is one number a seed: a difference of two runs, or the
logarithm of their ratio, over the seeds that both have, with Student's 95 % interval of its mean (from ten
seeds on a bootstrap interval stands beside it). It *holds* (✓) where the interval lies on the claim's side
of a margin that was fixed beforehand: 0 for an order, ± the margin for "preserved", "intact" or "equal". It
*fails* (✗) where the interval lies on the other side, and is *undecided* (?) where it lies across, has fewer
than three seeds, or one member of a family of runs is missing. **Reproduced**: every comparison holds. **Not
reproduced**: none holds and at least one fails. **Cannot be tested at this scale**: a run or a table that the
claim is about is missing, all is undecided, or the comparison could not have told the claim from its
opposite. **Partly**: anything between. The effect size is Cohen's d_z, mean over standard deviation of the
paired values (counted from the level, where a claim names one). *Beyond the null* is *yes* where a comparison
with what chance gives holds too: where chance gives a part of the effect, more than a tenth of it must be
left. It changes no verdict. No interval is corrected for the number of comparisons.
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
    if finding.blunt or not outcomes or set(outcomes) == {"undecided"}:
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
    parts = [finding.blunt] if finding.blunt else []
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
    chosen = [comparison for comparison in comparisons if comparison.outcome == outcome]
    if outcome == "undecided":
        words = [f"{each.text}{_why_undecided(each)}" for each in chosen]
    else:
        words = [each.text for each in chosen]
    return [f"{outcome}: {'; '.join(words)}"] if words else []


def _why_undecided(comparison: Comparison) -> str:
    if comparison.missing:
        return f" ({comparison.missing})"
    seeds = comparison.seeds
    return f" ({seeds} seed{'s' * (seeds != 1)} of the {FEWEST_SEEDS} needed)" if seeds < FEWEST_SEEDS else ""
