"""From one value a matrix to one value a run: over matrices first, then over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from math import floor, log10
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.sparsity import overlap_bounds

# --- One number a seed: pairing runs by seed, saying their mean, and what it is to be missing.


class Untested(ValueError):
    """The tables do not have what is asked of them; the message says what is missing."""


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


# --- How far apart two runs are along training, on a logarithmic scale, and how much of that is the seed.


def distance(path: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """RMS over the snapshots of `path` of log(path / other), seed by seed: 0.1 is about 10 % apart.

    path, other: positive, as `Results.path` gives them; `other` is interpolated at the progress of `path`.
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


ATTENTION = ("q", "k", "v", "o")  # what the paper tracks along the run
MLP = ("gate", "up", "down")
MODULE_GROUPS = {"all": (*ATTENTION, *MLP), "attention": ATTENTION, "mlp": MLP}
ANGLE_MEAN = "angle_mean"  # of `mean_angles`
WEIGHTED = {name for name, metric in METRICS.items() if metric.mean == "weights"}


def over_matrices(
    table: pd.DataFrame,
    metric: str,
    *,
    k: float | None = None,
    modules: Iterable[str] | None = None,
    sizes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Mean of `metric` over matrices for each run, seed and step (and null), as the paper averages (App. C).

    table: `matrices`, `nulls` or `curves`. k: which, where the metric has several. modules: these alone, such
    as ATTENTION. sizes: for WEIGHTED metrics, the table with the `parameters` rows where `table` has none.
    Returns columns run, seed, step, value, and null where `table` has it; a matrix without a value (NaN) is
    left out of the mean. ANGLE_MEAN and the recall of a mask are computed from what the table has. Raises
    Untested for a metric, ValueError for a k or module that is not there and for an ambiguous k.
    """
    rows = rows_of_metric(table, metric)
    if rows.empty:
        raise Untested(f"no metric {metric!r} in the table; it has {sorted(table['metric'].unique())}")
    if "k" in rows:
        rows = _choose_k(rows, metric, k)
    if modules is not None:
        wanted = list(modules)
        rows = rows[rows["module"].isin(wanted)]
        if rows.empty:
            raise ValueError(f"no {metric} of modules {wanted} in the table")
    keys = [name for name in ("null", "run", "seed", "step") if name in rows]
    if metric not in WEIGHTED:
        return rows.groupby(keys)["value"].mean().reset_index()
    weighted = _with_sizes(rows, table if sizes is None else sizes)
    weighted["sum"] = weighted["value"] * weighted["size"]
    totals = weighted.dropna(subset="value").groupby(keys, as_index=False)[["sum", "size"]].sum()
    return totals.assign(value=totals["sum"] / totals["size"]).drop(columns=["sum", "size"])


def rows_with(table: pd.DataFrame, **entries: Any) -> pd.DataFrame:
    """The rows with these entries, by column."""
    for column, value in entries.items():
        table = table[table[column] == value]
    return table


def rows_of_metric(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of one metric; those of ANGLE_MEAN and "<mask>_recall" are made where there are none."""
    rows, mask = table[table["metric"] == metric], metric.removesuffix("_recall")
    if metric == ANGLE_MEAN and rows.empty:
        return mean_angles(table)
    return mask_recall(table, mask) if mask != metric and rows.empty else rows


def mean_angles(table: pd.DataFrame) -> pd.DataFrame:
    """The mean principal angle of every matrix, left and right subspaces together: the one number that stands
    for a rotation wherever there is one (C3), as rows of the metric ANGLE_MEAN, in radians.

    table: `matrices` or `nulls`. Their k, which the shorter side may cut from matrix to matrix, is NaN.
    """
    rows = table[table["metric"].isin(("angle_u_mean", "angle_v_mean"))].drop(columns=["metric", "k"])
    keys = [name for name in rows if name != "value"]
    means = rows.groupby(keys, as_index=False, sort=False)["value"].mean()
    return means.assign(metric=ANGLE_MEAN, k=np.nan)


def squared_norm(matrices: pd.DataFrame) -> pd.DataFrame:
    """Σ ‖ΔW‖_F² over all matrices of each run, seed and step: columns run, seed, step, square."""
    rows = matrices[matrices["metric"] == "frobenius_norm"]
    sums = rows.assign(square=rows["value"] ** 2).groupby(["run", "seed", "step"])["square"].sum()
    return sums.reset_index()


def over_seeds(summary: pd.DataFrame, *, level: float | None = None) -> pd.DataFrame:
    """Mean and spread over seeds for each run and step (and null) of what `over_matrices` returns.

    Returns columns run, step, mean, low, high, seeds (how many have a value), and null where there. low and
    high are the extremes; with `level`, Student's interval of the mean at that level, NaN for one seed.
    """
    keys = [name for name in ("null", "run", "step") if name in summary]
    records = []
    for key, group in summary.groupby(keys, sort=False):
        values = group["value"].dropna().to_numpy()
        low, high = (np.nan, np.nan)
        if len(values):
            low, high = (values.min(), values.max()) if level is None else t_interval(values, level)
        mean = values.mean() if len(values) else np.nan
        place = dict(zip(keys, key, strict=True))
        records.append(place | {"mean": mean, "low": low, "high": high, "seeds": len(values)})
    return pd.DataFrame(records, columns=[*keys, "mean", "low", "high", "seeds"])


def overlap_range(table: pd.DataFrame, *, alpha: float, modules: Iterable[str] | None = None) -> pd.DataFrame:
    """Mean over matrices of what any α-mask could reach at their densities (`sparsity.overlap_bounds`).

    table: `matrices` or `nulls`. Returns columns run, seed, step (and null), low, high; a matrix without a
    visible entry is left out, as in the mean of the overlaps themselves. Raises ValueError where the table
    has no `update_density` of these modules.
    """
    rows = table[table["metric"] == "update_density"]
    if modules is not None:
        rows = rows[rows["module"].isin(list(modules))]
    if rows.empty:
        raise ValueError("no update_density of these modules in the table")
    low, high = zip(*(overlap_bounds(alpha, density) for density in rows["value"]), strict=True)
    keys = [name for name in ("null", "run", "seed", "step") if name in rows]
    return rows.assign(low=low, high=high).groupby(keys, as_index=False)[["low", "high"]].mean()


def mask_recall(table: pd.DataFrame, mask: str) -> pd.DataFrame:
    """|mask ∩ update| / |mask| of every matrix, overlap · density / α: the visible share of the weights in
    an α-mask, to be read against the density. mask: "principal" or "low_magnitude".

    table: `matrices` or `nulls`. Returns rows of "<mask>_recall", k = α; 0 where nothing is visible.
    """
    keys = [name for name in table if name not in ("metric", "k", "value")]
    rows, density = (table[table["metric"] == name] for name in (f"{mask}_overlap", "update_density"))
    both = rows.merge(density[[*keys, "value"]].rename(columns={"value": "density"}), on=keys)
    recall = (both["value"] * both["density"] / both["k"]).where(both["density"] > 0, 0.0)
    return both.drop(columns="density").assign(metric=f"{mask}_recall", value=recall)


def at_end(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows at each run's last step, by seed where there are several."""
    keys = [name for name in ("run", "seed") if name in summary]
    return summary[summary["step"] == summary.groupby(keys)["step"].transform("max")]


def _choose_k(rows: pd.DataFrame, metric: str, k: float | None) -> pd.DataFrame:
    known = sorted(rows["k"].dropna().unique())
    if k is None:
        if len(known) > 1:
            raise ValueError(f"{metric} is there for k in {known}: name one")
        return rows
    chosen = rows[np.isclose(rows["k"], k)]
    if chosen.empty:
        raise ValueError(f"no {metric} at k = {k}; k is in {known}")
    return chosen


def _with_sizes(rows: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the number of parameters of each matrix in column `size`."""
    place = ["run", "seed", "layer", "module"]
    sizes = source[source["metric"] == "parameters"].drop_duplicates(place)
    sized = rows.merge(sizes[[*place, "value"]].rename(columns={"value": "size"}), on=place, how="left")
    if sized["size"].isna().any():
        raise ValueError("this mean counts parameters: pass sizes=, a table with the metric 'parameters'")
    return sized


def t_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean: x̄ ± t_{(1+level)/2, N−1} s / √N, for a few roughly normal values.

    values: (N,). Returns (low, high); both NaN for N = 1, where nothing is known of the spread. Raises
    ValueError for N = 0, non-finite values or a level outside (0, 1).
    """
    sample = np.asarray(values, dtype=np.float64)
    single = sample.size == 1  # whose value may be a share of no gain, 0 / 0 say
    if sample.ndim != 1 or sample.size == 0 or not (single or np.isfinite(sample).all()):
        raise ValueError(f"values must be (N,), finite, N >= 1, got {sample!s:.80} of shape {sample.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level} for {sample.size} values")
    if single:
        return math.nan, math.nan
    size, mean = sample.size, float(sample.mean())
    reach = _quantile((1 + level) / 2, size - 1) * float(sample.std(ddof=1)) / math.sqrt(size)
    return mean - reach, mean + reach


@cache
def _quantile(share: float, freedom: int) -> float:
    from scipy.special import stdtrit  # a tenth of a second, and only intervals need it

    return float(stdtrit(freedom, share))
