"""What only the figures of weights draw: masks, what an overlap can reach, planes, angles and paths."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from paper_lib.drawing import draw_chance, draw_points, label_once, null_look
from paper_lib.sparsity import overlap_bounds
from paper_lib.styles import BACKDROP, NULL, ORANGE, PURPLE, in_order, run_style
from paper_lib.summaries import at_end, over_matrices, over_seeds, overlap_range

DEGREES = 180 / math.pi
_REACH = "#EBEBEB"


def draw_paper(ax: Axes, values: Mapping[str, float | tuple[float, float]], *, runs: Sequence[str]) -> None:
    """Hollow diamonds at the paper's values, on the lines that `draw_points` gave the same runs.

    values: by run, a number or the least and the most of several models, drawn with a line between them.
    """
    look: dict[str, Any] = {"color": "black", "marker": "D", "markerfacecolor": "none", "linewidth": 0.8}
    for run, value in values.items():
        points = sorted({*value} if isinstance(value, tuple) else {value})
        ax.plot(points, [runs.index(run)] * len(points), markersize=4, gid=BACKDROP, **look)
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
    ax.imshow(picture, cmap=ListedColormap(colors), **look)
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
    level: float,
) -> None:
    """The overlap of one α-mask ("principal", "low_magnitude") with each run's visible update at its end,
    with chance, nulls and what the update's density allows. Other arguments as for `draw_points`."""
    ends, null = (
        at_end(over_matrices(table, f"{mask}_overlap", k=alpha, modules=modules))
        for table in (matrices, nulls)
    )
    draw_reach(ax, at_end(overlap_range(matrices, alpha=alpha, modules=modules)), runs=runs)
    draw_chance(ax, alpha, axis="x")
    draw_points(ax, ends, runs=runs, nulls=null, level=level)
    ax.set(
        title=f"{mask.replace('_', ' ')}\n" + rf"$\alpha$ = {alpha:g}", xlabel="overlap", xlim=(-0.03, 1.03)
    )


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
    """Two metrics against each other: a line a run through its training, a marker at its end.

    frame, nulls: from `summaries.side_by_side`, averaged over seeds here; a null is one point, grey, at the
    end of the run it belongs to. Raises ValueError for a run without rows.
    """
    for run in in_order(frame["run"]) if runs is None else runs:
        style = run_style(run)
        path = frame[frame["run"] == run].groupby("step")[[x, y]].mean()
        if path.empty:
            raise ValueError(f"no {y} of run {run!r}; there are {sorted(frame['run'].unique())}")
        line: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        ax.plot(path[x], path[y], markevery=[-1], markersize=6, label=style.label, **line)
    if nulls is not None:
        for (null, _), points in nulls.groupby(["null", "run"]):
            label, look = null_look(str(null))
            ax.plot(points[x].mean(), points[y].mean(), gid=BACKDROP, **look)
            label_once(ax, label, **look)


def draw_angles(ax: Axes, table: pd.DataFrame, side: str, *, runs: Sequence[str]) -> None:
    """Principal angles in degrees by index, a line a run: means over the seeds, the band their extremes.

    table: rows of `matrices` of one matrix. side: "u" or "v".
    """
    angles = table[table["metric"] == f"angle_{side}"]
    for run in runs:
        style = run_style(run)
        rows = angles[angles["run"] == run].drop(columns="step").rename(columns={"k": "step"})
        if rows.empty:
            raise ValueError(f"no angle_{side} of run {run!r} in this matrix")
        line = over_seeds(rows)
        look: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        ax.plot(line["step"], DEGREES * line["mean"], label=style.label, **look)
        if (line["seeds"] > 1).any():
            band = (DEGREES * line["low"], DEGREES * line["high"])
            ax.fill_between(line["step"], *band, color=style.color, alpha=0.15, linewidth=0, gid=BACKDROP)
    ax.set(yscale="log", xlabel="index $i$", ylabel=r"$\theta_i$ (degrees)")


def draw_paths(
    ax: Axes,
    table: pd.DataFrame,
    *,
    runs: Sequence[str],
    seed: int,
    metric: str = "pca_coordinate",
    null: pd.DataFrame | None = None,
) -> None:
    """Paths on their first two principal components, a dot a snapshot, a ring at the start.

    table: `trajectories`. metric: "joint_pca_coordinate" puts the runs in one plane; "pca_coordinate" gives
    each its own, in units of the spread of its first component. null: rows of `nulls`, whose random walk is
    drawn dotted in the colour of its run.
    """
    own = metric == "pca_coordinate"
    for run in runs:
        style = run_style(run)
        for source, dotted in ((table, False), (null, True)):
            if source is None:
                continue
            rows = source[(source["run"] == run) & (source["seed"] == seed) & (source["metric"] == metric)]
            path = rows.pivot(index="step", columns="k", values="value")
            if path.empty:
                raise ValueError(f"no {metric} of run {run!r}, seed {seed}")
            x, y = (path[k] / (path[1].std() if own else 1) for k in (1, 2))
            look: dict[str, Any] = {"linestyle": ":", "gid": BACKDROP} if dotted else {"marker": style.marker}
            ax.plot(x, y, color=style.color, label=None if dotted else style.label, **look)
            ax.plot(x.iloc[0], y.iloc[0], "o", color=style.color, markerfacecolor="white", markersize=6)
    if null is not None:
        label_once(ax, "its random walk", color=NULL, linestyle=":")
    unit = " (spreads)" if own else ""
    ax.set(xlabel=f"component 1{unit}", ylabel=f"component 2{unit}")


def draw_explained_variance(
    ax: Axes, table: pd.DataFrame, nulls: pd.DataFrame, *, runs: Sequence[str]
) -> None:
    """Share of variance by principal component, a line a run; dotted, the same of its random walk.

    table: `trajectories`; nulls: `nulls`. Means over the seeds.
    """
    for source, dotted in ((table, False), (nulls[nulls["null"] == "random_walk"], True)):
        rows = source[source["metric"] == "explained_variance_ratio"]
        for run in runs:
            style = run_style(run)
            share = rows[rows["run"] == run].groupby("k")["value"].mean()
            look: dict[str, Any] = {"linestyle": ":", "gid": BACKDROP} if dotted else {"marker": style.marker}
            label = None if dotted else style.label
            ax.plot(share.index, share, color=style.color, label=label, **look)
    label_once(ax, "its random walk", color=NULL, linestyle=":")
    ax.set(xlabel="component $k$", ylabel="share of variance", yscale="log")
    ax.set_xticks(sorted(rows["k"].unique()))
