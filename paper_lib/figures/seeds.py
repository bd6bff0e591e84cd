"""What every figure does with seeds: one interval from three on, the seeds themselves below, and a legend."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from paper_lib.figures.words import plain, tell, told
from paper_lib.summaries import over_seeds

LEVEL = 0.95
ENOUGH = 3  # seeds that make an interval; two would give one of twelve times their distance
BAND, BAR = "_band", "_bar"  # labels that no legend shows: what of intervals a figure has
_DOTTED = 25  # steps at most at which two seeds are dots: more would hide the line


def spread(summary: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds` with Student's 95 % interval of the mean: low and high, NaN for fewer than three seeds."""
    found = over_seeds(summary, level=LEVEL)
    found.loc[found["seeds"] < ENOUGH, ["low", "high"]] = np.nan
    return found


def spread_values(values: pd.Series) -> pd.DataFrame:
    """`spread` of one value a seed: one row."""
    return spread(pd.DataFrame({"run": "", "step": 0, "value": values}))


def draw_band(ax: Axes, x: pd.Series, line: pd.DataFrame, color: str, *, scale: float = 1.0) -> None:
    """Shade from low to high of rows of `spread` where there are any, at x."""
    if line["low"].notna().any():
        band = (scale * line["low"], scale * line["high"])
        ax.fill_between(x, *band, color=color, alpha=0.15, linewidth=0, label=BAND)


def draw_bar(ax: Axes, x: Any, y: Any, color: str, *, width: float = 1.0) -> None:
    """A line from one end of an interval to the other."""
    ax.plot(x, y, color=color, linewidth=width, label=BAR)


def draw_few(ax: Axes, x: Iterable[float], y: Iterable[float], color: str) -> None:
    """Small dots: the seeds themselves, for two of which there is no interval. One is its own mean."""
    ax.scatter(list(x), list(y), color=color, s=5, linewidths=0, alpha=0.6)


def is_few(seeds: float) -> bool:
    """Whether a mean over so many seeds is shown with the seeds in place of an interval."""
    return 1 < seeds < ENOUGH


def draw_means(
    ax: Axes,
    values: pd.DataFrame,
    name: str,
    *,
    scale: float = 1.0,
    unit: float = 1.0,
    path: bool = False,
    **look: Any,
) -> None:
    """Draw and tell a run's means over its seeds along step / unit, with their interval or two seeds as dots.

    values: rows of run, step, seed, value. name: of the legend. scale: factor on the values. path: tell x
    too. look: the line's, of which the colour is also the band's.
    """
    line = spread(values).sort_values("step")
    ax.plot(line["step"] / unit, scale * line["mean"], label=name, **look)
    draw_band(ax, line["step"] / unit, line, look["color"], scale=scale)
    if is_few(line["seeds"].max()):
        dots = values[values["step"].isin(line["step"].iloc[:: 1 + len(line) // _DOTTED])]
        draw_few(ax, dots["step"] / unit, scale * dots["value"], look["color"])
    tell_means(ax, name, line, scale=scale, path=path)


def tell_means(
    ax: Axes, name: str, line: pd.DataFrame, *, of: str = "", scale: float = 1.0, path: bool = False
) -> None:
    """Tell rows of `spread`: the means (path: with steps), the interval of the last, how many seeds."""
    means, interval = scale * line["mean"], scale * line[["low", "high"]].iloc[-1]
    values = np.column_stack([line["step"], means]) if path else means
    tell(ax, name, values, of=of, interval=interval, seeds=line["seeds"].max())


def say_number(counts: Iterable[int]) -> str:
    """The counts in short: n = 8, or n = 1–8 where they differ."""
    least, most = min(found := list(counts)), max(found)
    return f"n = {most}" if least == most else f"n = {least}–{most}"


def say_seeds(counts: Iterable[int], shown: str = "bands and bars") -> str:
    """The line of a legend that says over how many seeds its means go, and what bands and bars are.

    shown: which of the two there are; "" leaves the interval out.
    """
    least, most = min(found := list(counts)), max(found)
    words = f"{say_number(found)} seed{'s' if most > 1 else ''}"
    if most < ENOUGH:
        return f"{words}, no interval over seeds below {ENOUGH}"
    if not shown:
        return words
    interval = f"{words}; {shown}: Student's {100 * LEVEL:.0f} % interval of the mean"
    return interval if least >= ENOUGH else f"{interval}, from n = {ENOUGH} on"


def _shown(fig: Figure) -> str:
    """Which of bands and bars a figure has."""
    labels = {str(each.get_label()) for ax in fig.axes for each in (*ax.lines, *ax.collections)}
    errors = any(isinstance(each, ErrorbarContainer) for ax in fig.axes for each in ax.containers)
    there = {"bands": BAND in labels, "bars": BAR in labels or errors}
    return " and ".join(name for name, found in there.items() if found)


def draw_legend(fig: Figure, *, columns: int = 4, seeds: bool = True, of: str = "") -> Legend:
    """One legend below all panels, each label once, in the order drawn, and over how many seeds means go.

    seeds: False leaves that out, for figures of runs that have none. of: whose means they are, where other
    panels show a single seed.
    """
    entries, of_label = dict[str, Any](), dict[str, list[int]]()
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
            means = [series.seeds for series in told(ax) if series.seeds and series.name == plain(label)]
            of_label.setdefault(str(label), []).extend(means)
    counts = [series.seeds for ax in fig.axes for series in told(ax) if series.seeds]
    few = {label: say_number(ns) for label, ns in of_label.items() if ns and min(ns) < max(counts)}
    labels = [f"{label} ({few[label]})" if label in few and seeds else label for label in entries]
    title = (f"{of}: " if of else "") + say_seeds(counts, _shown(fig)) if counts and seeds else None
    columns = min(columns, 3) if few and seeds and len(labels) > 8 else columns
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "title_fontsize": 7.5}
    return fig.legend(list(entries.values()), labels, title=title, **place)
