"""What a claim is, and what its rule finds in the tables. The words of the ledger:

claim: a sentence of a paper and its rule; it is read several times, each time by another cast.
cast: which runs play SFT, OPD and RLVR in a reading.
finding: what the rule finds: our values, their contrasts, and what chance gives for them (null).
contrast: one number a seed against the claim's side of an edge: it holds, fails or is undecided.
level: with what a contrast compares values that are no differences, such as chance.
missing: why a contrast has no value: a run or a table is not there.
idle: why a contrast would have come out so whether the claim is true or not: it decides nothing.
lacking: of a contrast that has seeds enough and does not hold; it may make another one idle.
beyond: the contrast that holds where the claim's effect is more than its null gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.figures.styles import run_style
from paper_lib.ledger.contrasts import Contrast, absent
from paper_lib.summaries import Untested, say

# Readings with matched SFT, OPD and RLVR all at one other setting: its kind, and which that the tables have.
EQUALLY_SET = {
    "all at a quarter of the batch": ("batch", 0),
    "all at half the rate": ("lr", 0),
    "all at twice the rate": ("lr", -1),
}
BUDGETS = "the paper's budgets"  # the profile budgets
HARDER = "skills that the anchor lacks"  # the profile headroom, with matched SFT
PRETRAINED = "SmolLM2-135M"  # the profile smollm2, with matched SFT


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Which runs play SFT, OPD and RLVR; None where none does."""

    sft: str = "sft"
    opd: str = "opd"
    rlvr: str | None = "rlvr"

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that play SFT, OPD and RLVR, in this order."""
        return tuple(run for run in (self.sft, self.opd, self.rlvr) if run is not None)

    @property
    def verified(self) -> str:
        """RLVR's run. Raises Untested where nothing plays it."""
        if self.rlvr is None:
            raise Untested("nothing plays RLVR")
        return self.rlvr

    @property
    def is_matched(self) -> bool:
        """Whether SFT is played by the run with OPD's start, rate, steps and batch."""
        return self.sft == "sft_matched"

    @property
    def rescaled(self) -> str:
        """The null that is SFT's update at the norm of OPD's or RLVR's."""
        return "rescaled_sft_matched" if self.is_matched else "rescaled_sft"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """ours, null: our values, and what chance gives for them, in words. explained: what it means where
    `beyond` does not hold. note: what to read beside it."""

    ours: str
    contrasts: Sequence[Contrast]
    null: str = "–"
    beyond: Contrast | None = None
    explained: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One row of the ledger. holds_when: its contrasts in words. rule: evidence and a cast to a finding.

    matched: what the second reading changes ("" where it puts matched SFT in SFT's place), beginning with "by
    design" where the runs compared share their settings in the first reading already. also: further readings.
    judged_on: a reading that takes the place of the first, where its tables are there.
    """

    id: str
    statement: str
    where: str
    paper: str
    holds_when: str
    rule: Callable[[Results, Cast], Finding]
    matched: str = ""
    also: Sequence[str] = ()
    judged_on: str = ""


def claim(id: str, statement: str, **told: Any) -> Callable[[Callable[[Results, Cast], Finding]], Claim]:
    """Make a claim of the rule below it; told: the other fields of `Claim`."""
    return lambda rule: Claim(id=id, statement=statement, rule=rule, **told)


def label(run: str) -> str:
    """A run's name in figures, without mathematical typesetting."""
    return run_style(run).label.replace(r"$\alpha$", "α").replace("$W_0$", "W₀")


def of_cast(evidence: Results, cast: Cast, metric: str, **which: Any) -> dict[str, pd.Series]:
    """A metric at the end of SFT, OPD and RLVR, by label."""
    return {label(run): evidence.end(run, metric, **which) for run in cast.runs}


def show(values: Mapping[str, pd.Series], unit: str = "", scale: float = 1.0) -> str:
    """Values by label in words: means, intervals, unit and number of seeds."""
    shown = "; ".join(f"{name} {say(each, scale)}" for name, each in values.items())
    return f"{shown}{unit and f' {unit}'} ({count_seeds(values)})"


def count_seeds(values: Mapping[str, pd.Series]) -> str:
    """How many seeds the values have, such as "3 seeds" or "1 or 3 seeds"."""
    counts = sorted({len(each) for each in values.values()})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"


def if_there(note: Callable[[], str]) -> str:
    """A note that is no part of the rule: where its runs are missing it says so, and the rule stands."""
    try:
        return note()
    except Untested as missing:
        return str(missing)


def contrast_if_there(text: str, contrast: Callable[[], Contrast]) -> Contrast:
    """A contrast; undecided where its run or table is missing."""
    try:
        return contrast()
    except Untested as missing:
        return absent(text, str(missing))


def null_if_there(null: Callable[[], tuple[str, Contrast]]) -> dict[str, Any]:
    """The fields `null` and `beyond` of a finding; without the null's rows, why, and no contrast."""
    try:
        words, beyond = null()
    except Untested as missing:
        return {"null": f"– ({missing})"}
    return {"null": words, "beyond": beyond}


WHOLE = ("OPD at SFT's settings", "OPD at a quarter of the batch")  # for what compares whole trajectories
ENDS = (*WHOLE, *EQUALLY_SET, "equal norm", "equal accuracy", HARDER, PRETRAINED)
SAME_SETTINGS = "by design: the runs compared share start, rate, steps and batch"
ONE_RUN = "by design: it is about one run, against its chance"
