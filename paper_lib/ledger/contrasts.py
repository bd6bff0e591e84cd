"""A contrast: one number a seed, its interval, and on which side of a claim's edge it lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.summaries import paired, t_interval

FEWEST_SEEDS = 3
FLOOR = 0.1  # of the paper's effect: below it ours has the order alone, not the size
EXPLAINED = 0.9  # a null that leaves less than the rest of an effect explains it
NEAR_ONE = 0.1  # a ratio this near to 1 is shown with a digit more, or its interval would seem to touch 1
MARKS = {"holds": "✓", "fails": "✗", "undecided": "?"}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """values: one a seed, a paired difference or, where `ratio`, the log of a paired ratio.

    The claim's side is low < mean < high: (0, ∞) for an ordering, (−margin, margin) for what is to be equal.
    unit, scale: how a value is said, such as points and 100. paper: what the paper prints of the same thing,
    counted from the level. level, missing, idle: see `claim`.
    """

    text: str
    values: pd.Series
    low: float = 0.0
    high: float = math.inf
    level: float | None = None
    ratio: bool = False
    unit: str = ""
    scale: float = 1.0
    missing: str = ""
    idle: str = ""
    paper: float | None = None

    @cached_property
    def seeds(self) -> int:
        """How many seeds have a value."""
        return int(self.values.notna().sum())

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN for none."""
        return float(self.values.mean()) if self.seeds else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean over seeds; both NaN below two seeds."""
        return t_interval(self.values.dropna().to_numpy(), 0.95) if self.seeds else (math.nan, math.nan)

    @cached_property
    def outcome(self) -> str:
        """holds: the interval lies on the claim's side; fails: on the other; undecided: across the edge, of
        fewer than three seeds, or idle."""
        low, high = self.interval
        if self.seeds < FEWEST_SEEDS or self.idle:
            return "undecided"
        if low > self.low and high < self.high:
            return "holds"
        return "fails" if high < self.low or low > self.high else "undecided"

    @property
    def holds(self) -> bool:
        return self.outcome == "holds"

    @property
    def share(self) -> float:
        """The mean over the paper's value, both from the level; NaN where the paper prints none."""
        return (self.mean - (self.level or 0.0)) / self.paper if self.paper else math.nan

    @property
    def slight(self) -> bool:
        """Whether it holds at less than a tenth of the paper's size."""
        return self.holds and self.share < FLOOR

    @property
    def lacking(self) -> bool:
        """Whether there are seeds enough, and it does not hold."""
        return self.seeds >= FEWEST_SEEDS and not self.holds

    @property
    def inside(self) -> float:
        """How far inside the claim's side the mean lies, from the edge that decides; negative outside."""
        return min(self.mean - self.low, self.high - self.mean)

    @property
    def effect(self) -> float:
        """Cohen's d_z, `inside` over the standard deviation of the values; ±∞ where all seeds agree to the
        digit, NaN below two seeds."""
        return _over(self.inside, float(self.values.std())) if self.seeds > 1 else math.nan

    @property
    def clearance(self) -> float:
        """`inside` in half widths of the interval: beyond ± 1 it is decided; NaN below three seeds."""
        low, high = self.interval
        return _over(self.inside, (high - low) / 2) if self.seeds >= FEWEST_SEEDS else math.nan

    def __str__(self) -> str:
        if self.missing or not self.seeds:
            return f"{MARKS['undecided']} {self.text}: {self.missing or 'no value'}"
        shown = self._say(self.mean)
        if self.seeds > 1:
            shown += " [{}, {}]".format(*map(self._say, self.interval))
        digits = ".0f" if abs(self.share) >= 0.995 else ".2g"  # no exponent
        of_paper = f", {100 * self.share:{digits}} % of the paper's" if self.share == self.share else ""
        return f"{MARKS[self.outcome]} {self.text}: {shown}{self.unit and f' {self.unit}'}{of_paper}"

    def _say(self, value: float) -> str:
        if self.ratio:
            factor = np.exp(value)
            return f"× {factor:.{4 if abs(factor - 1) < NEAR_ONE else 3}g}"
        return f"{self.scale * value:{'+' if self.level is None else ''}.3g}"


def _over(value: float, width: float) -> float:
    return value / width if width else math.copysign(math.inf, value) if value else 0.0


# told, here and below: unit, scale, paper and idle of the contrast.
def more(a: pd.Series, b: pd.Series, text: str, *, by: float = 0.0, **told: Any) -> Contrast:
    """a − b > `by`, seed by seed."""
    a, b = paired(a, b)
    return Contrast(text=text, values=a - b, low=by, **told)


def times(a: pd.Series, b: pd.Series, text: str, *, by: float = 1.0, **told: Any) -> Contrast:
    """a / b > `by`, in logarithms, seed by seed. a, b: positive."""
    return Contrast(text=text, values=log_of(a, b), low=math.log(by), ratio=True, **told)


def same(a: pd.Series, b: pd.Series, text: str, *, within: float, **told: Any) -> Contrast:
    """|a − b| < `within`: an interval inside ± the margin, as in an equivalence test."""
    return more(a, b, text, by=-within, high=within, **told)


def same_factor(a: pd.Series, b: pd.Series, text: str, *, within: float) -> Contrast:
    """1/`within` < a / b < `within`. a, b: positive."""
    edge = math.log(within)
    return Contrast(text=text, values=log_of(a, b), low=-edge, high=edge, ratio=True)


def below(values: pd.Series, limit: float, text: str, **told: Any) -> Contrast:
    """values < limit, a level."""
    return Contrast(text=text, values=values, low=-math.inf, high=limit, level=limit, **told)


def above(values: pd.Series, limit: float, text: str, **told: Any) -> Contrast:
    """values > limit, a level."""
    return Contrast(text=text, values=values, low=limit, level=limit, **told)


def left_by_null(effect: pd.Series, under_null: pd.Series, text: str, **told: Any) -> Contrast:
    """Whether the null leaves more than a tenth of an effect: 0.9 · effect − what the null gives > 0.

    effect: one value a seed, positive where it has the claim's sign; under_null: the same of the null.
    """
    return more(EXPLAINED * effect, under_null, text, **told)


def absent(text: str, reason: str) -> Contrast:
    """A contrast whose run or table is missing: undecided."""
    return Contrast(text=text, values=pd.Series(dtype=float), missing=reason)


def in_turn(
    values: dict[str, pd.Series], sign: str, *, paper: Sequence[float] = (), ratio: bool = False, **said: Any
) -> list[Contrast]:
    """The order of neighbours: values fall from first to last for sign ">", rise for "<".

    paper: what the paper prints for them, in the same order; said: unit and scale.
    """
    pairs = []
    for at, (first, second) in enumerate(pairwise(values)):
        upper, lower = (first, second) if sign == ">" else (second, first)
        ours, text = (values[upper], values[lower]), f"{first} {sign} {second}"
        pair = times(*ours, text) if ratio else more(*ours, text, **said)
        if paper:
            one, other = (math.log(value) if ratio else value for value in paper[at : at + 2])
            pair = replace(pair, paper=abs(one - other))
        pairs.append(pair)
    return pairs


def log_of(a: pd.Series, b: pd.Series) -> pd.Series:
    """log(a / b) of common seeds. a, b: positive."""
    a, b = paired(a, b)
    return (a / b).map(np.log)
