"""What several figures draw: a metric along training, a value a run, chance, and one legend."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paper_lib.styles import BACKDROP, NULL, in_order, run_style
from paper_lib.summaries import over_matrices, over_seeds

_NULL_LABELS = {
    "random_walk": "random walk",
    "same_norm_gaussian": "Gaussian of the same norm",
    "permuted": "entries permuted",
    "rescaled_sft": "SFT's at this norm",
    "rescaled_sft_matched": "matched SFT's at this norm",
    "adam_walk": "Adam on noise alone",
}
_NULL_MARKERS = dict(zip(_NULL_LABELS, ("_", "x", "+", "s", "v", "^"), strict=True))
_BELOW = 0.3  # of a line's height, where its nulls stand: on top of the run nobody would see either


def draw_trajectory(
    ax: Axes,
    table: pd.DataFrame,
    metric: str,
    *,
    runs: Sequence[str] | None = None,
    k: float | None = None,
    modules: Iterable[str] | None = None,
    null: pd.DataFrame | None = None,
    scale: float = 1.0,
    against: str = "progress",
) -> None:
    """Draw `metric` along training, a line a run: the mean over matrices and seeds, the band its extremes.

    table, k, modules: as for `over_matrices`. runs: which, and in which order; None is all. null: rows of the
    table `nulls`, drawn dotted in the colour of the run they belong to. scale: factor on the values, such as
    180/π. against: "progress" (step over the run's last) or "step". Raises ValueError for a run without rows.
    """
    if against not in ("progress", "step"):
        raise ValueError(f"against is {against!r}, expected 'progress' or 'step'")
    lines = over_seeds(over_matrices(table, metric, k=k, modules=modules))
    last = lines.groupby("run")["step"].max()
    names = in_order(lines["run"]) if runs is None else list(runs)
    nulls = None
    if null is not None:
        nulls = over_seeds(over_matrices(null, metric, k=k, modules=modules, sizes=table))
    for name in names:
        line = _of_run(lines, name, metric).sort_values("step")
        style = run_style(name)
        x = line["step"] / (last[name] if against == "progress" else 1)
        look: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        ax.plot(x, scale * line["mean"], label=style.label, **look)
        if (line["seeds"] > 1).any():
            band = (scale * line["low"], scale * line["high"])
            ax.fill_between(x, *band, color=style.color, alpha=0.15, linewidth=0, gid=BACKDROP)
        if nulls is not None:
            for _, walk in nulls[nulls["run"] == name].groupby("null"):
                walk = walk.sort_values("step")
                x = walk["step"] / (last[name] if against == "progress" else 1)
                ax.plot(x, scale * walk["mean"], color=style.color, linestyle=":", linewidth=1, gid=BACKDROP)
    for kind in [] if nulls is None else nulls["null"].unique():
        label_once(ax, _NULL_LABELS.get(kind, kind), color=NULL, linestyle=":")
    ax.set_xlabel("training progress" if against == "progress" else "step")


def draw_points(
    ax: Axes,
    summary: pd.DataFrame,
    *,
    runs: Sequence[str] | None = None,
    nulls: pd.DataFrame | None = None,
    level: float | None = None,
    scale: float = 1.0,
) -> None:
    """Draw one value a run, top to bottom: each seed a ring, their mean a marker, a bar from low to high.

    summary: rows of one step a run (`at_end(over_matrices(…))`). nulls: the same of the table `nulls`, drawn
    grey just below the run they belong to. level: of the interval; None draws the extremes of the seeds.
    """
    names = in_order(summary["run"]) if runs is None else list(runs)
    means = over_seeds(summary, level=level)
    for row, name in enumerate(names):
        point, style = _of_run(means, name, "value").iloc[0], run_style(name)
        seeds = scale * summary.loc[summary["run"] == name, "value"]
        if point["seeds"] > 1:
            ring: dict[str, Any] = {
                "edgecolors": style.color,
                "facecolors": "none",
                "s": 10,
                "linewidths": 0.7,
                "alpha": 0.6,
            }
            ax.scatter(seeds, np.full(len(seeds), row), **ring)
            ax.plot(scale * point[["low", "high"]], [row, row], color=style.color, linewidth=1.2)
        ax.plot(scale * point["mean"], row, color=style.color, marker=style.marker, markersize=5)
        if nulls is not None:
            for kind, group in nulls[nulls["run"] == name].groupby("null"):
                label, look = null_look(str(kind))
                ax.plot(scale * group["value"].mean(), row + _BELOW, gid=BACKDROP, **look)
                label_once(ax, label, **look)
    ax.set_yticks(range(len(names)), [run_style(name).label for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")


def draw_chance(ax: Axes, value: float, label: str = "chance", *, axis: str = "y") -> None:
    """Draw a grey dashed line across the panel at `value` on the given axis, "x" or "y"."""
    if axis not in ("x", "y"):
        raise ValueError(f"axis is {axis!r}, expected 'x' or 'y'")
    line = ax.axhline if axis == "y" else ax.axvline
    line(value, color=NULL, linestyle="--", linewidth=1, zorder=1, gid=BACKDROP)
    label_once(ax, label, color=NULL, linestyle="--")


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


def draw_legend(fig: Figure, *, columns: int = 4) -> Legend:
    """One legend below all panels, each label once, in the order drawn."""
    entries: dict[str, Artist] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    return fig.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


def null_look(null: str) -> tuple[str, dict[str, Any]]:
    """The label of a null, and how one value of it is drawn: in grey, with a marker of its own."""
    look = {"color": NULL, "marker": _NULL_MARKERS.get(null, "|"), "linestyle": "none"}
    return _NULL_LABELS.get(null, null), look | {"markerfacecolor": "none", "markersize": 5}


def label_once(ax: Axes, label: str, **look: Any) -> None:
    """Give a panel's legend one entry for what is drawn many times."""
    if label not in ax.get_legend_handles_labels()[1]:
        ax.plot([], [], label=label, **{"linewidth": 1, **look})


def _of_run(rows: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    found = rows[rows["run"] == name]
    if found.empty:
        raise ValueError(f"no {metric} of run {name!r}; there are {sorted(rows['run'].unique())}")
    return found
