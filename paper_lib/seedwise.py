"""One number a seed: pairing runs by seed, saying their mean, and what it is to be missing."""

from math import floor, log10

import pandas as pd

from paper_lib.nulls import t_interval


class Untested(Exception):
    """A claim cannot be tested from these tables; the message says what is missing."""


def paired(*values: pd.Series) -> list[pd.Series]:
    """The same entries of each: those of the seeds that all have, for comparisons seed by seed."""
    seeds = set.intersection(*(set(each.index) for each in values))
    if not seeds:
        raise Untested("the runs compared have no seed in common")
    return [each.loc[sorted(seeds)] for each in values]


def say(values: pd.Series, scale: float = 1.0) -> str:
    """The mean over seeds; with several, ± half the 95 % interval of that mean, to two digits."""
    mean = scale * values.mean()
    if len(values) == 1:
        return f"{mean:.3g}"
    low, high = t_interval(values.to_numpy(), 0.95)
    half = scale * (high - low) / 2
    if half == 0:
        return f"{mean:.3g} ± 0"
    decimals = max(0, 1 - floor(log10(half)))
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"


def defined(values: pd.Series, of: str) -> pd.Series:
    """The values that are not NaN; Untested where all are."""
    if values.isna().all():
        raise Untested(f"{of} is undefined: its update or its mask is empty")
    return values.dropna()
