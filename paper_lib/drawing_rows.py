"""One row a comparison: the seeds, their mean, its interval, and nulls below, for several figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.drawing import label_once
from paper_lib.drawing_seeds import counted, draw_few, spread
from paper_lib.styles import BACKDROP, NULL, named

_ABOVE, _BELOW = -0.28, 0.3  # of a row's height: where seeds and nulls stand


def draw_row(ax: Axes, height: float, values: pd.Series, **look: Any) -> int:
    """A marker at the mean of `values`, one a seed, a bar for its interval, dots for the seeds above it;
    returns the number of seeds."""
    point = spread(pd.DataFrame({"run": "", "step": 0, "value": values})).iloc[0]
    if np.isfinite(point["low"]):
        ends = [point["low"], point["high"]]
        ax.plot(ends, [height] * 2, color=look["color"], linewidth=1.2)
    counted(ax.plot(point["mean"], height, markersize=5, **look)[0], point["seeds"])
    if point["seeds"] > 1:
        draw_few(ax, values.dropna(), [height + _ABOVE] * int(point["seeds"]), look["color"])
    return int(point["seeds"])


def draw_nulls(ax: Axes, height: float, nulls: Mapping[str, float]) -> None:
    """Grey marks just below a row, one a null, by the words of the legend; a first "x", then "|"."""
    for (words, value), marker in zip(nulls.items(), ("x", "|", "+"), strict=False):
        look: dict[str, Any] = {"color": NULL, "marker": marker, "linestyle": "none", "markersize": 6}
        ax.plot(value, height + _BELOW, gid=BACKDROP, label=named(words), **look)
        label_once(ax, words, **look)


def name_rows(ax: Axes, names: Sequence[str], seeds: Sequence[int]) -> None:
    """The rows' names at the left, the first at the top, and the number of seeds of those that have fewer."""
    few = [f" (n = {n})" if n < max(seeds) else "" for n in seeds]
    ax.set_yticks(range(len(names)), [name + n for name, n in zip(names, few, strict=True)])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
