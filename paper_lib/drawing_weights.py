"""What the figures of sparsity draw: the paper's values, masks, what an overlap can reach, planes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from paper_lib.drawing import draw_chance, draw_points, label_once, null_look, null_name
from paper_lib.drawing_seeds import ENOUGH, counted, draw_few, is_few, spread
from paper_lib.sparsity import overlap_bounds
from paper_lib.styles import BACKDROP, ORANGE, PURPLE, in_order, named, run_style
from paper_lib.summaries import at_end, over_matrices, overlap_range

_REACH = "#EBEBEB"


def draw_paper(ax: Axes, values: Mapping[str, float | tuple[float, float]], *, runs: Sequence[str]) -> None:
    """Hollow diamonds at the paper's values, on the lines that `draw_points` gave the same runs.

    values: by run, a number or the least and the most of several models, drawn with a line between them.
    """
    look: dict[str, Any] = {"color": "black", "marker": "D", "markerfacecolor": "none", "linewidth": 0.8}
    for run, value in values.items():
        points = sorted({*value} if isinstance(value, tuple) else {value})
        row = [runs.index(run)] * len(points)
        ax.plot(points, row, markersize=4, gid=BACKDROP, label=named("paper"), **look)
    label_once(ax, "paper, 8B", **(look | {"linestyle": "none"}))


def draw_reach(ax: Axes, ranges: pd.DataFrame, *, runs: Sequence[str]) -> None:
    """A grey bar on each run's line from the lowest to the highest overlap that its density allows.

    ranges: rows of one step a run, from `summaries.overlap_range`.
    """
    for row, run in enumerate(runs):
        low, high = ranges.loc[ranges["run"] == run, ["low", "high"]].mean()
        ax.barh(row, high - low, left=low, height=0.62, color=_REACH, linewidth=0, zorder=0, gid=BACKDROP)
    label_once(ax, "within reach", color=_REACH, linewidth=6)


def draw_mask(ax: Axes, masks: pd.DataFrame, run: str, *, window: int, of: str = "update") -> None:
    """The first rows and columns of a mask of one run: its visible update, or of = "weights" for W_0's.

    masks: the table `masks`. The weights' picture tells the principal mask, the low-magnitude one and both
    apart. window: how many rows and columns. Raises ValueError for a run without a picture.
    """
    rows = masks[(masks["run"] == run) & (masks["row"] < window) & (masks["column"] < window)]
    if rows.empty:
        raise ValueError(f"no masks of run {run!r}; there are {sorted(masks['run'].unique())}")
    if of == "update":
        shade, colors = rows["update"].astype(int), ["white", run_style(run).color]
    else:
        shade = rows["principal"] + 2 * rows["low_magnitude"].astype(int)
        colors = ["white", PURPLE, ORANGE, "black"]
        for label, color in zip(("principal", "low magnitude", "both"), colors[1:], strict=True):
            label_once(ax, label, color=color, marker="s", linestyle="none", markersize=5)
    picture = rows.assign(shade=shade).pivot(index="row", columns="column", values="shade").to_numpy()
    look: dict[str, Any] = {"vmin": 0, "vmax": len(colors) - 1, "interpolation": "nearest"}
    what = "changed visibly" if of == "update" else "principal, small or both"
    ax.imshow(picture, cmap=ListedColormap(colors), label=named(what), **look)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)


def draw_overlap(
    ax: Axes,
    matrices: pd.DataFrame,
    nulls: pd.DataFrame,
    mask: str,
    *,
    alpha: float,
    runs: Sequence[str],
    modules: Sequence[str],
    paper: Mapping[str, float] | None = None,
) -> None:
    """The overlap of one α-mask ("principal", "low_magnitude") with each run's visible update at its end,
    with chance, nulls, the paper's values and what the update's density allows. Other arguments as for
    `draw_points`. The principal mask's overlaps lie close together: its axis spans the marks alone."""
    ends, null = (
        at_end(over_matrices(table, f"{mask}_overlap", k=alpha, modules=modules))
        for table in (matrices, nulls)
    )
    draw_reach(ax, at_end(overlap_range(matrices, alpha=alpha, modules=modules)), runs=runs)
    draw_chance(ax, alpha, axis="x")
    draw_points(ax, ends, runs=runs, nulls=null)
    draw_paper(ax, {} if paper is None else paper, runs=runs)
    limits = _around_marks(ax) if mask == "principal" else (-0.03, 1.03)
    ax.set(title=f"{mask.replace('_', ' ')}\n" + rf"$\alpha$ = {alpha:g}", xlabel="overlap", xlim=limits)


def _around_marks(ax: Axes) -> tuple[float, float]:
    """From a little below the least to a little above the greatest mark or line of a panel."""
    marks = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in ax.lines])
    low, high = np.nanmin(marks), np.nanmax(marks)
    margin = 0.1 * max(high - low, 0.01)
    return float(low - margin), float(high + margin)


def draw_reach_curve(ax: Axes, *, alpha: float) -> None:
    """Shade the overlaps that any α-mask can reach at each update density."""
    density = np.linspace(0.005, 1, 400)
    low, high = np.array([overlap_bounds(alpha, d) for d in density]).T
    ax.fill_between(density, low, high, color=_REACH, linewidth=0, zorder=0, gid=BACKDROP)
    label_once(ax, "within reach", color=_REACH, linewidth=6)


def draw_plane(
    ax: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    runs: Sequence[str] | None = None,
    nulls: pd.DataFrame | None = None,
) -> None:
    """Two metrics against each other: a line a run through its training, a marker at its end, with the
    intervals of both over seeds.

    frame, nulls: from `summaries.side_by_side`, averaged over seeds here; a null is one point, grey, at the
    end of the run it belongs to. Lines get thinner from the first run to the last, so that those which
    coincide all show. Raises ValueError for a run without rows.
    """
    names = in_order(frame["run"]) if runs is None else list(runs)
    for run, width in zip(names, np.linspace(4, 1, len(names)), strict=True):
        style = run_style(run)
        path = frame[frame["run"] == run].groupby("step")[[x, y]].mean()
        if path.empty:
            raise ValueError(f"no {y} of run {run!r}; there are {sorted(frame['run'].unique())}")
        line: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        line |= {"linewidth": width, "markevery": [-1], "markersize": 6}
        counted(ax.plot(path[x], path[y], label=style.label, **line)[0], _draw_end(ax, frame, run, x, y))
    if nulls is not None:
        for (null, _), points in nulls.groupby(["null", "run"]):
            label, look = null_look(str(null))
            where, words = (
                (points[x].mean(), points[y].mean()),
                null_name(str(null), str(points["run"].iloc[0])),
            )
            ax.plot(*where, gid=BACKDROP, label=words, **look)
            label_once(ax, label, **look)


def _draw_end(ax: Axes, frame: pd.DataFrame, run: str, x: str, y: str) -> int:
    """A cross of both intervals at a run's end, or its seeds where they are two; returns their number."""
    ends, color = at_end(frame[frame["run"] == run]), run_style(run).color
    across, up = (spread(ends.assign(value=ends[name])).iloc[0] for name in (x, y))
    if is_few(up["seeds"]):
        draw_few(ax, ends[x], ends[y], color)
    if up["seeds"] >= ENOUGH:
        thin: dict[str, Any] = {"color": color, "linewidth": 1, "gid": BACKDROP}
        ax.plot(across[["low", "high"]], [up["mean"]] * 2, **thin)
        ax.plot([across["mean"]] * 2, up[["low", "high"]], **thin)
    return int(up["seeds"])
