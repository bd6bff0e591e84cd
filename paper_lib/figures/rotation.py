"""What the figures of rotation draw: angles by index and layer, paths on components, still and moving."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from paper_lib.figures.panels import label_once, null_dashes, null_label, of_run, plain_log
from paper_lib.figures.seeds import draw_means
from paper_lib.figures.styles import NULL, run_style
from paper_lib.figures.words import tell

DEGREES = 180 / math.pi
WALKS = ("random_walk", "adam_walk")


def draw_angles(ax: Axes, table: pd.DataFrame, side: str, *, runs: Sequence[str]) -> None:
    """Principal angles in degrees by index, a line a run: means over the seeds, the band their interval.

    table: rows of `matrices` of one matrix. side: "u" or "v".
    """
    _draw_lines(ax, table[table["metric"] == f"angle_{side}"], "k", runs, DEGREES)
    plain_log(ax, subs=(1, 3))
    ax.set(xlabel="index $i$", ylabel=r"$\theta_i$ (degrees)")


def draw_layers(ax: Axes, table: pd.DataFrame, metric: str, *, runs: Sequence[str]) -> None:
    """An angle in degrees by layer, the mean over the layer's matrices, a line a run; bands as above.

    table: rows of `matrices` at one step of each run.
    """
    means = table[table["metric"] == metric].groupby(["run", "seed", "layer"])["value"].mean().reset_index()
    _draw_lines(ax, means, "layer", runs, DEGREES)
    plain_log(ax, subs=(1, 3))
    ax.set(xlabel="layer", ylabel="degrees", xticks=sorted(means["layer"].unique()))


def _draw_lines(ax: Axes, rows: pd.DataFrame, along: str, runs: Sequence[str], scale: float = 1.0) -> None:
    for run in runs:
        mine, style = of_run(rows, run, "value"), run_style(run)
        draw_means(ax, mine.assign(step=mine[along]), style.label, scale=scale, **style.line)


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
            path = path_in_plane(source, run, seed=seed, metric=metric)[:, 1:]
            path = path / (path[:, 0].std(ddof=1) if own else 1)
            if dotted:
                ax.plot(*path.T, color=style.color, linestyle=null_dashes("random_walk"))
                tell(ax, null_label("random_walk"), path, of=style.label, aside=True)
            else:
                ax.plot(*path.T, label=style.label, **style.line)
                tell(ax, style.label, path)
            ax.plot(*path[0], "o", color=style.color, markerfacecolor="white", markersize=6)
    if null is not None:
        label_once(ax, null_label("random_walk"), color=NULL, linestyle=":")
    if not own:
        ax.set_aspect("equal", adjustable="datalim")
    unit = " (sd of component 1)" if own else " (weight units)"
    ax.set(xlabel=f"component 1{unit}", ylabel=f"component 2{unit}")


def draw_explained_variance(
    ax: Axes, table: pd.DataFrame, nulls: pd.DataFrame, *, runs: Sequence[str]
) -> None:
    """Share of variance by principal component, a line a run; thin, the same of the walks with its steps. The
    axis is linear: the first component tells drift from a walk, and a logarithm would hide it.

    table: `trajectories`; nulls: `nulls`, of which `random_walk` is dotted and `adam_walk` dash-dotted. Means
    over the seeds, the band their interval.
    """
    shares = table[table["metric"] == "explained_variance_ratio"]
    _draw_lines(ax, shares, "k", runs)
    walks = nulls[(nulls["metric"] == "explained_variance_ratio") & nulls["null"].isin(WALKS)]
    for (null, run), rows in walks[walks["run"].isin(runs)].groupby(["null", "run"]):
        share, style = rows.groupby("k")["value"].mean(), run_style(str(run))
        label, dashes = null_label(str(null)), null_dashes(str(null))
        ax.plot(share.index, share, color=style.color, linestyle=dashes)
        label_once(ax, label, color=NULL, linestyle=dashes)
        tell(ax, label, share, of=style.label, aside=True)
    ax.set(xlabel="component $k$", ylabel="share of variance")
    ax.set_xticks(sorted(shares["k"].unique()))


def path_in_plane(table: pd.DataFrame, run: str, *, seed: int, metric: str) -> NDArray[np.float64]:
    """One run's snapshots on the first two components: (T, 3) of progress, component 1 and component 2.

    table: `trajectories`. metric: "joint_pca_coordinate" or "pca_coordinate". ValueError for a run without.
    """
    rows = table[(table["run"] == run) & (table["seed"] == seed) & (table["metric"] == metric)]
    if rows.empty:
        raise ValueError(f"no {metric} of run {run!r}, seed {seed}")
    path = rows[rows["k"] <= 2].pivot(index="step", columns="k", values="value")
    return np.column_stack([path.index / path.index.max(), path.to_numpy()])


def animate_paths(
    ax: Axes, table: pd.DataFrame, *, runs: Sequence[str], seed: int, metric: str = "joint_pca_coordinate"
) -> Callable[[float], None]:
    """Prepare a plane and return what draws it at a share of training in [0, 1]: a line behind each run's
    place, a dot at every snapshot that it has passed, a ring at the start.

    Between snapshots the place is on the straight line from one to the next: it is drawn, not measured. The
    axes are those of the whole path from the first frame on. Arguments as for `path_in_plane`.
    """
    paths = {run: path_in_plane(table, run, seed=seed, metric=metric) for run in runs}
    traces = {}
    for run, path in paths.items():
        style = run_style(run)
        passed = ax.plot([], [], markersize=4, **style.mark)[0]
        trace = ax.plot([], [], label=style.label, markevery=[], **style.line)[0]  # the legend has a marker
        head = ax.plot([], [], markersize=8, **style.mark)[0]
        ax.plot(*path[0, 1:], "o", color=style.color, markerfacecolor="white", markersize=6)
        traces[run] = (passed, trace, head)
        tell(ax, style.label, path[:, 1:])
    points = np.concatenate([path[:, 1:] for path in paths.values()])
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.58 * (high - low).max()  # one scale for both components
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    ax.set_box_aspect(1)
    ax.set(xlabel="component 1 (weight units)", ylabel="component 2 (weight units)")

    def draw(progress: float) -> None:
        for run, (passed, trace, head) in traces.items():
            path = paths[run]
            behind = path[path[:, 0] <= progress + 1e-9]
            place = [np.interp(progress, path[:, 0], path[:, k]) for k in (1, 2)]
            trace.set_data(*np.vstack([behind[:, 1:], place]).T)
            passed.set_data(*behind[1:, 1:].T)
            head.set_data(*([each] for each in place))

    draw(1.0)
    return draw
