"""What a rule finds: our values in words, and comparisons that hold or do not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from paper_lib.evidence import Evidence, Untested, paired, say
from paper_lib.styles import run_style


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: of the means over the seeds that both sides have, and in how many of these it holds."""

    text: str
    holds: bool
    in_seeds: int = 1
    seeds: int = 1

    def __str__(self) -> str:
        return self.text if self.seeds == 1 else f"{self.text} ({self.in_seeds} of {self.seeds} seeds)"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the tables say of a claim: our values, the comparisons, what to read beside them, and, where
    the comparisons could not have told the claim from its opposite, why."""

    ours: str
    checks: Sequence[Check]
    note: str = ""
    blunt: str = ""


def less(a: pd.Series, b: pd.Series, text: str) -> Check:
    """Whether a < b, for the means over common seeds."""
    a, b = paired(a, b)
    return Check(text=text, holds=bool(a.mean() < b.mean()), in_seeds=int((a < b).sum()), seeds=len(a))


def rising(values: dict[str, pd.Series]) -> list[Check]:
    """A check for each neighbouring pair: the first is below the second."""
    return [less(values[a], values[b], f"{a} < {b}") for a, b in pairwise(values)]


def falling(values: dict[str, pd.Series]) -> list[Check]:
    """A check for each neighbouring pair: the first is above the second."""
    return [less(values[b], values[a], f"{a} > {b}") for a, b in pairwise(values)]


def label(run: str) -> str:
    """A run's name in figures, without mathematical typesetting."""
    return run_style(run).label.replace(r"$\alpha$", "α").replace("$W_0$", "W₀")


def three(evidence: Evidence, sft: str, metric: str, **which: Any) -> dict[str, pd.Series]:
    """A metric at the end of SFT, OPD and RLVR, by label. sft: the run that plays SFT."""
    return {label(run): evidence.end(run, metric, **which) for run in (sft, "opd", "rlvr")}


def show(values: dict[str, pd.Series], unit: str = "", scale: float = 1.0) -> str:
    """Values by label in words: means, intervals, unit and number of seeds."""
    shown = "; ".join(f"{name} {say(each, scale)}" for name, each in values.items())
    return f"{shown}{unit and f' {unit}'} ({count_seeds(values)})"


def count_seeds(values: dict[str, pd.Series]) -> str:
    """How many seeds the values have, such as "3 seeds" or "1 or 3 seeds"."""
    counts = sorted({len(each) for each in values.values()})
    return f"{' or '.join(map(str, counts))} seed{'s' if counts != [1] else ''}"


def if_there(note: Callable[[], str]) -> str:
    """A note that is no part of the rule: where its runs are missing it says so, and the rule stands."""
    try:
        return note()
    except Untested as missing:
        return str(missing)
