"""What several figures draw: a metric along training, a value a run, and chance."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from paper_lib.figures.seeds import draw_bar, draw_few, draw_means, spread, spread_values, tell_means
from paper_lib.figures.styles import NULL, in_order, run_style
from paper_lib.figures.words import tell
from paper_lib.summaries import Untested, log_ratio, over_matrices, over_seeds

WIDTH = 7.2  # inches: a page's


def new_figure(
    rows: int = 1, columns: int = 1, *, height: float, title: str = "", **grid: Any
) -> tuple[Figure, Any]:
    """A figure as wide as the page, `height` inches high, and its panels; grid: as for `plt.subplots`."""
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **grid)
    fig.suptitle(title, fontsize=9)
    return fig, axes


def by_label(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose index names runs, with their labels in place of the names."""
    return table.rename(index=lambda run: run_style(run).label).rename_axis(index=None)


# --- One row a comparison: the seeds, their mean, its interval, and nulls below, for several figures.

_ABOVE, _BELOW, _DODGE = -0.28, 0.14, 0.06  # of a row's height: seeds, the first null, and from null to null


def draw_row(ax: Axes, height: float, name: str, values: pd.Series, **look: Any) -> int:
    """A marker at the mean of `values`, one a seed, a bar for its interval, dots for the seeds above it;
    returns the number of seeds. name: of the row."""
    line = spread_values(values)
    point = line.iloc[0]
    if np.isfinite(point["low"]):
        draw_bar(ax, point[["low", "high"]], [height] * 2, look["color"], width=1.2)
    ax.plot(point["mean"], height, markersize=5, **look)
    if point["seeds"] > 1:
        draw_few(ax, values.dropna(), [height + _ABOVE] * int(point["seeds"]), look["color"])
    tell_means(ax, name, line)
    return int(point["seeds"])


def name_rows(ax: Axes, names: Sequence[str], seeds: Sequence[int]) -> None:
    """The rows' names at the left, the first at the top, and the number of seeds of those that have fewer."""
    few = [f" (n = {n})" if n < max(seeds) else "" for n in seeds]
    ax.set_yticks(range(len(names)), [name + n for name, n in zip(names, few, strict=True)])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def draw_rows(ax: Axes, rows: Sequence[tuple[str, pd.Series, dict[str, Any]]]) -> None:
    """`draw_row` of each (name, values, look) from the top, and their names."""
    seeds = [draw_row(ax, height, name, values, **look) for height, (name, values, look) in enumerate(rows)]
    name_rows(ax, [name for name, *_ in rows], seeds)


# --- Runs against OPD over all of training: their ratio, seed by seed, where lines would coincide.

_NOISE = "opd_restream"  # OPD again from the same anchor: what of a ratio is the rollouts'


def draw_ratios(
    ax: Axes, path: Callable[[str], pd.DataFrame], what: str, *, runs: Sequence[str], seeds: Sequence[int]
) -> None:
    """Each run over OPD, a row a run: the geometric mean over the snapshots of the ratio, seed by seed.

    path: of a run, as `Results.path` gives it; what: its name on the axis. Shaded is the interval of OPD with
    other rollouts throughout, where there is such a run. Raises Untested for a run that is not there.
    """
    opd, styles = path("opd")[list(seeds)], {run: run_style(run) for run in runs}
    _draw_noise(ax, path, opd)
    ax.axvline(1, color=run_style("opd").color, linewidth=1.4, zorder=1.5)
    tell(ax, run_style("opd").label, 1)
    draw_rows(ax, [(style.label, _over(path(run), opd), style.mark) for run, style in styles.items()])
    ax.set_xlabel(f"{what} over OPD's")


def _over(path: pd.DataFrame, opd: pd.DataFrame) -> pd.Series:
    """The geometric mean of run / OPD over the snapshots, one entry a seed."""
    return log_ratio(path, opd).mean().map(np.exp)


def _draw_noise(ax: Axes, path: Callable[[str], pd.DataFrame], opd: pd.DataFrame) -> None:
    try:
        line = spread_values(_over(path(_NOISE), opd))
    except Untested:
        return
    words, (low, mean, high) = run_style(_NOISE).label, line[["low", "mean", "high"]].iloc[0]
    if math.isfinite(low):
        ax.axvspan(low, high, color=NULL, alpha=0.15, linewidth=0)
    label_once(ax, words, color=NULL, alpha=0.3, linewidth=6)
    tell(ax, words, mean, interval=(low, high), aside=True)


_NULLS = {  # label and marker, in the order drawn and told
    "random_walk": ("random walk", "_"),
    "same_norm_gaussian": ("Gaussian of the same norm", "x"),
    "permuted": ("entries permuted", "+"),
    "rescaled_sft": ("SFT's at this norm", "s"),
    "rescaled_sft_matched": ("matched SFT's at this norm", "v"),
    "adam_walk": ("Adam on noise alone", "^"),
}


def draw_trajectory(
    ax: Axes,
    table: pd.DataFrame,
    metric: str,
    *,
    runs: Sequence[str] | None = None,
    modules: Iterable[str] | None = None,
    null: pd.DataFrame | None = None,
    against: Literal["progress", "step"] = "progress",
) -> None:
    """Draw `metric` along training, a line a run: the mean over matrices and seeds, the band its interval.

    table, modules: as for `over_matrices`. runs: which, and in which order; None is all. null: rows of the
    table `nulls`, thin in the colour of their run. against: "progress", the step over the run's last, or
    "step". Raises ValueError for a run without rows.
    """
    values = over_matrices(table, metric, modules=modules)
    names = in_order(values["run"]) if runs is None else list(runs)
    nulls = pd.DataFrame(columns=["run", "null"])
    if null is not None:
        nulls = over_seeds(over_matrices(null, metric, modules=modules, sizes=table))
    for name in names:
        mine, style = of_run(values, name, metric), run_style(name)
        unit = mine["step"].max() if against == "progress" else 1
        draw_means(ax, mine, style.label, unit=unit, **style.line)
        for kind, walk in nulls[nulls["run"] == name].groupby("null"):
            walk = walk.sort_values("step")
            thin: dict[str, Any] = {"linestyle": null_dashes(str(kind)), "linewidth": 1}
            ax.plot(walk["step"] / unit, walk["mean"], color=style.color, **thin)
            tell(ax, null_label(str(kind)), walk["mean"], of=style.label, aside=True)
    for kind in nulls["null"].unique():
        label_once(ax, null_label(kind), color=NULL, linestyle=null_dashes(kind))
    ax.set_xlabel("training progress" if against == "progress" else "step")


def draw_points(
    ax: Axes,
    summary: pd.DataFrame,
    *,
    runs: Sequence[str] | None = None,
    nulls: pd.DataFrame | None = None,
    scale: float = 1.0,
) -> None:
    """Draw one value a run, top to bottom: each seed a ring, their mean a marker, a bar for its interval.

    summary: rows of one step a run (`at_end(over_matrices(…))`). nulls: the same of the table `nulls`, drawn
    grey below the run they belong to, each kind at a height of its own.
    """
    names = in_order(summary["run"]) if runs is None else list(runs)
    means = spread(summary)
    for row, name in enumerate(names):
        line, style = of_run(means, name, "value"), run_style(name)
        point = line.iloc[0]
        seeds = scale * summary.loc[summary["run"] == name, "value"]
        if point["seeds"] > 1:
            ring: dict[str, Any] = {"facecolors": "none", "s": 10, "linewidths": 0.7, "alpha": 0.6}
            ax.scatter(seeds, np.full(len(seeds), row), edgecolors=style.color, **ring)
        if np.isfinite(point["low"]):
            draw_bar(ax, scale * point[["low", "high"]], [row, row], style.color, width=1.2)
        ax.plot(scale * point["mean"], row, color=style.color, marker=style.marker, markersize=5)
        tell_means(ax, style.label, line, scale=scale)
        if nulls is not None:
            mine = nulls[nulls["run"] == name]
            for kind in sorted(mine["null"].unique(), key=lambda null: [*_NULLS, null].index(null)):
                value = scale * mine.loc[mine["null"] == kind, "value"].mean()
                height = row + _BELOW + _DODGE * [*_NULLS, kind].index(kind)
                draw_null(ax, value, height, kind, of=style.label)
    numbers = [means.loc[means["run"] == name, "seeds"].max() for name in names]
    name_rows(ax, [run_style(name).label for name in names], numbers)


def draw_chance(ax: Axes, value: float, label: str = "chance", *, axis: Literal["x", "y"] = "y") -> None:
    """Draw a grey dashed line across the panel at `value` on the given axis."""
    line = ax.axhline if axis == "y" else ax.axvline
    line(value, color=NULL, linestyle="--", linewidth=1, zorder=1)
    label_once(ax, label, color=NULL, linestyle="--")
    tell(ax, label, value, aside=True)


def leave_blank(ax: Axes, words: str) -> None:
    """A sentence in place of a panel whose rows the tables do not have."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, words, ha="center", transform=ax.transAxes, fontsize=8)
    tell(ax, words)


def draw_beside(ax: Axes, x: ArrayLike, y: ArrayLike, label: str, **look: Any) -> None:
    """A line or marks that are named in the legend and drawn for comparison: alone they make no figure."""
    ax.plot(x, y, label=label, **look)
    tell(ax, label, np.column_stack([x, y]), aside=True)


def plain_log(ax: Axes, axes: str = "y", *, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Logarithmic axes, each letter of "xy" one, with ticks at `subs` of each decade as plain numbers."""

    def write(value: float, _: int) -> str:
        return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")

    for name in axes:
        axis = {"x": ax.xaxis, "y": ax.yaxis}[name]
        ax.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(write))
        axis.set_minor_formatter(NullFormatter())


def null_dashes(null: str) -> str:
    """How the line of a null is dashed: dotted, but Adam's walk is dash-dotted."""
    return "-." if null == "adam_walk" else ":"


def null_label(null: str) -> str:
    """What the legend calls a null."""
    return _NULLS.get(null, (null,))[0]


def draw_null(ax: Axes, x: float, y: float, null: str, *, of: str = "", plane: bool = False) -> None:
    """One value of a null, in grey with a marker of its own; told is x, in a plane the point."""
    label, marker = _NULLS.get(null, (null, "|"))
    look: dict[str, Any] = {"color": NULL, "marker": marker, "markerfacecolor": "none", "markersize": 5}
    ax.plot(x, y, linestyle="none", **look)
    label_once(ax, label, linestyle="none", **look)
    tell(ax, label, [(x, y)] if plane else x, of=of, aside=True)


def label_once(ax: Axes, label: str, **look: Any) -> None:
    """Give a panel's legend one entry for what is drawn many times."""
    if label not in ax.get_legend_handles_labels()[1]:
        ax.plot([], [], label=label, **{"linewidth": 1, **look})


def of_run(rows: pd.DataFrame, run: str, what: str) -> pd.DataFrame:
    """The rows of a run; ValueError, with what they are, where there are none."""
    mine = rows[rows["run"] == run]
    if mine.empty:
        raise ValueError(f"no {what} of run {run!r}; there are {sorted(rows['run'].unique())}")
    return mine
