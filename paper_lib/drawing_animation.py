"""The path of the update as an animation: where each run is in its PCA plane, as training goes on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from paper_lib.styles import run_style

Draw = Callable[[float], None]  # draws a share of training, from 0 to 1


def path_in_plane(table: pd.DataFrame, run: str, *, seed: int, metric: str) -> NDArray[np.float64]:
    """One run's snapshots on the first two components: (T, 3) of progress, component 1 and component 2.

    table: `trajectories`. metric: "joint_pca_coordinate" or "pca_coordinate". Raises ValueError for a run
    without them.
    """
    rows = table[(table["run"] == run) & (table["seed"] == seed) & (table["metric"] == metric)]
    if rows.empty:
        raise ValueError(f"no {metric} of run {run!r}, seed {seed}")
    path = rows[rows["k"] <= 2].pivot(index="step", columns="k", values="value")
    return np.column_stack([path.index / path.index.max(), path.to_numpy()])


def animate_paths(
    ax: Axes, table: pd.DataFrame, *, runs: Sequence[str], seed: int, metric: str = "joint_pca_coordinate"
) -> Draw:
    """Prepare a plane and return what draws it at a share of training: a line behind each run's place, a dot
    at every snapshot that it has passed, a ring at the start.

    Between snapshots the place is on the straight line from one to the next: it is drawn, not measured. The
    axes are those of the whole path from the first frame on. Arguments as for `path_in_plane`.
    """
    paths = {run: path_in_plane(table, run, seed=seed, metric=metric) for run in runs}
    traces = {}
    for run, path in paths.items():
        style = run_style(run)
        passed = ax.plot([], [], linestyle="none", marker=style.marker, markersize=4, color=style.color)[0]
        look: dict[str, Any] = {"color": style.color, "linestyle": style.linestyle, "marker": style.marker}
        trace = ax.plot([], [], label=style.label, markevery=[], **look)[0]  # the legend's entry has a marker
        head = ax.plot([], [], linestyle="none", marker=style.marker, markersize=8, color=style.color)[0]
        ax.plot(*path[0, 1:], "o", color=style.color, markerfacecolor="white", markersize=6)
        traces[run] = (passed, trace, head)
    _fix_axes(ax, np.concatenate([path[:, 1:] for path in paths.values()]))

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


def _fix_axes(ax: Axes, points: NDArray[np.float64]) -> None:
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, 0.58 * (high - low).max()  # one scale for both components
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    ax.set_box_aspect(1)
    ax.set(xlabel="component 1", ylabel="component 2")
