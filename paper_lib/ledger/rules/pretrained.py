"""Claims on pretrained weights, SmolLM2-135M: after equal training, and where the updates have one norm."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import Cast, Finding
from paper_lib.ledger.contrasts import Contrast, absent
from paper_lib.ledger.equal_footing import at_equal_norm
from paper_lib.summaries import Untested

JUDGED = ("C1", "C3", "C4", "C5", "C6", "C7", "C10")
AT_ONE_NORM = JUDGED[:5]  # those of the weights at one moment; C7 and C10 are of the whole path
MATCHED = Cast(sft="sft_matched")


def on_pretrained(name: str, rule: Callable[[Results, Cast], Finding], evidence: Results) -> Finding:
    """The rule of the claim of that name for matched SFT, OPD and RLVR at their ends, and where the claim is
    of the weights at one moment also at the smallest of their end norms. The null is that of the ends."""
    finding = rule(evidence, MATCHED)
    if name not in AT_ONE_NORM:
        return finding
    contrasts = [*_titled("at the end", finding.contrasts), *_at_one_norm(rule, evidence)]
    return replace(finding, contrasts=contrasts)


def _at_one_norm(rule: Callable[[Results, Cast], Finding], evidence: Results) -> list[Contrast]:
    try:
        cut = at_equal_norm(evidence, MATCHED.runs)
        return _titled("at one norm", rule(cut, MATCHED).contrasts)
    except Untested as missing:
        return [absent("at one norm", str(missing))]


def _titled(when: str, contrasts: Sequence[Contrast]) -> list[Contrast]:
    return [replace(contrast, text=f"{when}: {contrast.text}") for contrast in contrasts]
