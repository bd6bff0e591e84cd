"""Claims about objectives at the paper's budgets: as it set the runs up, and at one budget for all, twice."""

from collections.abc import Callable
from dataclasses import replace

from paper_lib.figures.results import Results
from paper_lib.ledger.claim import Cast, Finding

JUDGED = ("C1", "C3", "C4", "C5", "C6", "C7", "C8", "C9")
CASTS = {
    "as printed": Cast(),  # OPD 64 × 300, RLVR 512 × 1,024, SFT 256 × 5,375 from the base
    "all at 64 × 300": Cast(sft="sft_short", rlvr="rlvr_short"),
    "all at 512 × 1,024": Cast(sft="sft_long", opd="opd_long"),
}


def at_the_budgets(rule: Callable[[Results, Cast], Finding], evidence: Results) -> Finding:
    """The rule as printed, and with the budget the same for all, twice: what is the objective's and not the
    budget's holds all three times. The values and the null are those of the runs as printed."""
    findings = {name: rule(evidence, cast) for name, cast in CASTS.items()}
    contrasts = [
        replace(contrast, text=f"{name}: {contrast.text}")
        for name, finding in findings.items()
        for contrast in finding.contrasts
    ]
    return replace(findings["as printed"], contrasts=contrasts)
