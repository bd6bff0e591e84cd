"""How far apart two runs are along training, on a logarithmic scale, and how much of that is the seed."""

import numpy as np
import pandas as pd

from paper_lib.seedwise import Untested


def distance(path: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """RMS over the snapshots of `path` of log(path / other), seed by seed: 0.1 is about 10 % apart.

    path, other: positive, as `Evidence.path` gives them; `other` is interpolated at the progress of `path`.
    """
    return (log_ratio(path, other) ** 2).mean() ** 0.5


def seed_spread(path: pd.DataFrame, other: pd.DataFrame) -> float:
    """How much seeds move the distance of two runs that share their anchor: the standard deviation over seeds
    of log(path / other), RMS over the snapshots; NaN for one seed."""
    return float(log_ratio(path, other).var(axis=1).mean() ** 0.5)


def log_ratio(path: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """log(path / other) by snapshot of `path` and common seed."""
    seeds = sorted(set(path.dropna(axis=1).columns) & set(other.dropna(axis=1).columns))
    if not seeds:
        raise Untested("the runs compared have no seed in common")
    there = {seed: np.interp(path.index, other.index, other[seed]) for seed in seeds}
    return (path[seeds] / pd.DataFrame(there, index=path.index)).map(np.log)
