"""Where a run lies between SFT, OPD and RLVR: metric by metric, and what the size of its update explains."""

from collections.abc import Mapping, Sequence
from math import inf, log, nan
from pathlib import Path

import numpy as np
import pandas as pd

from paper_lib.geometry.metrics import Metric, metrics_of
from paper_lib.summaries import ANGLE_MEAN, at_end, over_matrices, rows_of_metric

PAPER_WIDTH, OUR_WIDTH = 4096, 128  # of Qwen3-8B, whose sizes the paper states, and of the reference runs
REGIMES = {"sft": "SFT", "opd": "OPD", "rlvr": "RLVR"}
COMPARABLE = 4  # how many times wider or narrower a model may be where a metric grows with the width
NEAR = 0.25  # of the gap between two regimes: still near one of them
ALIKE, LIKE = 0.01, 0.1  # a difference of shares, and of logarithms, that nobody would read anything into
Columns = Mapping[str, tuple[float, float]]

NULLS = {"same_norm_gaussian": "Gaussian of the same norm", "permuted": "entries permuted"}
AXES = metrics_of("fig_where_it_lies")
# All that a report needs of our runs: where they end on every axis. Made by tests/support/reference_ends.py.
REFERENCE = Path(__file__).with_name("reference.parquet")
# What an update's size and bf16 may decide, so that its null is asked; what grows with the model's width.
BY_SIZE = ("update_sparsity", "low_magnitude_overlap", "principal_overlap", ANGLE_MEAN, "spectral_shift")
WIDTH_BOUND = ("stable_rank",)


def end_values(table: pd.DataFrame, axis: Metric, *, sizes: pd.DataFrame | None = None) -> pd.DataFrame:
    """The axis's metric at the end of each run: the mean over matrices, columns run, seed, value (and null).

    table, sizes: as for `over_matrices`; without rows where the table has no such metric.
    """
    rows = rows_on(table, axis)
    if rows.empty:
        return rows
    return at_end(over_matrices(rows, axis.name, sizes=table if sizes is None else sizes))


def end_value(
    table: pd.DataFrame, axis: Metric, *, null: str | None = None, sizes: pd.DataFrame | None = None
) -> float:
    """The one number of an axis, of the run or of one of its nulls, that is drawn, tabled and judged: the
    mean of `end_values` over seeds; NaN where it has none."""
    rows = table if null is None else table[table["null"] == null]
    values = end_values(rows, axis, sizes=table if sizes is None else sizes)
    return values["value"].mean() if len(values) else nan


def placed(value: float, columns: Columns, *, share: bool = False) -> str:
    """Where a value lies among the regimes, such as "at OPD" or "between OPD and RLVR"; "" where unknown.

    columns: by regime, its lowest and highest value; regimes that overlap are one. At: inside of its values.
    Near: within a quarter of the gap to the next regime, on the scale of log-odds for shares and of
    logarithms otherwise. Beyond: past the outermost.
    """
    if not columns or np.isnan(value):
        return ""
    groups = _groups({name: tuple(position(end, share) for end in ends) for name, ends in columns.items()})
    x = position(value, share)
    for name, low, high in groups:
        if low <= x <= high:
            return f"at {name}"
    below = [(name, high) for name, _, high in groups if high < x]
    above = [(name, low) for name, low, _ in groups if low > x]
    if below and above:
        (left, start), (right, end) = below[-1], above[0]
        way = (x - start) / (end - start)
        if NEAR < way < 1 - NEAR:
            order = [*REGIMES.values()]
            first, second = sorted((left, right), key=lambda name: order.index(name.split(" or ")[0]))
            return f"between {first} and {second}"
        return f"near {left if way <= NEAR else right}"
    name, edge = above[0] if above else below[-1]
    if len(groups) == 1:
        return f"{'below' if above else 'above'} {name}"
    gap = groups[1][1] - groups[0][2] if above else groups[-1][1] - groups[-2][2]
    return f"{'near' if abs(x - edge) <= NEAR * gap else 'beyond'} {name}"


def our_columns(reference: pd.DataFrame, axis: Metric) -> Columns:
    """By regime, the lowest and highest value over the seeds of our reference runs (`REFERENCE`)."""
    values = reference[reference["metric"] == axis.name].dropna().groupby("run")["value"]
    return {str(run): (ends.min(), ends.max()) for run, ends in values}


def comparable(axis: Metric, width: int, other: int) -> bool:
    """Whether two models of these widths can be compared on the axis."""
    return axis.name not in WIDTH_BOUND or max(width / other, other / width) <= COMPARABLE


def places(axis: Metric, value: float, reference: pd.DataFrame, width: int) -> list[str]:
    """Where a value of a model of this width lies on the paper's scale and among our runs, or ""."""
    paper = axis.spans() if comparable(axis, width, PAPER_WIDTH) else {}
    ours = our_columns(reference, axis) if comparable(axis, width, OUR_WIDTH) else {}
    return [placed(value, columns, share=axis.share) for columns in (paper, ours)]


def axes_of(matrices: pd.DataFrame) -> list[Metric]:
    """The axes on which the run has a value."""
    return [axis for axis in AXES if not np.isnan(end_value(matrices, axis))]


def explaining(value: float, theirs: Mapping[str, float], *, share: bool) -> str | None:
    """The first null that has the run's value as a reader of the figure sees it, within a point for shares, a
    tenth for all else; "" where none has, None where there is nothing to compare. theirs: by NULLS."""
    if np.isnan([value, theirs.get("same_norm_gaussian", nan)]).any():
        return None
    return next((null for null, other in theirs.items() if _alike(value, other, share)), "")


def _alike(value: float, other: float, share: bool) -> bool:
    if share or min(value, other) <= 0:
        return abs(value - other) <= (ALIKE if share else 0)
    return abs(log(value / other)) <= LIKE


def rows_on(table: pd.DataFrame, axis: Metric) -> pd.DataFrame:
    """The axis's metric of every matrix."""
    rows = rows_of_metric(table, axis.name)
    return rows if axis.alpha is None else rows[np.isclose(rows["k"], axis.alpha)]


def position(value: float, share: bool) -> float:
    """Log-odds of a share, the logarithm of all else; infinite at the ends of its range and past them."""
    if value <= 0:
        return -inf
    if share:
        return inf if value >= 1 else log(value / (1 - value))
    return log(value) if value < inf else inf


def _groups(columns: Mapping[str, Sequence[float]]) -> list[tuple[str, float, float]]:
    """Name, low and high from the lowest on; regimes whose values overlap are "OPD or RLVR"."""
    groups: list[tuple[list[str], float, float]] = []
    for name, (low, high) in sorted(columns.items(), key=lambda item: item[1][0]):
        if groups and low <= groups[-1][2]:
            names, start, end = groups[-1]
            groups[-1] = ([*names, name], start, max(end, high))
        else:
            groups.append(([name], low, high))
    return [(" or ".join(REGIMES[n] for n in REGIMES if n in names), a, b) for names, a, b in groups]
