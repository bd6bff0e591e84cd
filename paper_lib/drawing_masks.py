"""Whole masks as local density: how full each block of a matrix is, and each of its rows and columns."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from paper_lib.styles import BACKDROP, NULL, named, run_style

_BLOCKS = 32  # blocks across a matrix, at most
_MARGIN = 0.22  # of a panel's side, for each marginal


def mask_of(masks: pd.DataFrame, run: str, of: str) -> NDArray[np.bool_]:
    """One mask of one run as a matrix (rows, columns).

    masks: the table. of: "update", "principal" or "low_magnitude". Raises ValueError for a run without one.
    """
    rows = masks[masks["run"] == run]
    if rows.empty:
        raise ValueError(f"no masks of run {run!r}; there are {sorted(masks['run'].unique())}")
    return rows.pivot(index="row", columns="column", values=of).to_numpy(dtype=bool)


def block_density(mask: NDArray[np.bool_], blocks: int = _BLOCKS) -> NDArray[np.float64]:
    """Share of marked entries in each block of a mask (m, n): (≤ blocks, ≤ blocks), in [0, 1].

    Blocks are as even as can be; none is empty.
    """
    cuts = [np.unique(np.linspace(0, size, min(blocks, size) + 1).round().astype(int)) for size in mask.shape]
    sums = mask.astype(float)
    for axis, cut in enumerate(cuts):
        sums = np.add.reduceat(sums, cut[:-1], axis=axis)
    return sums / np.outer(*(np.diff(cut) for cut in cuts))


def line_spread(mask: NDArray[np.bool_], axis: int) -> float:
    """Variance of the density of rows (axis 0) or columns (axis 1) over what independent entries would give.

    mask: (m, n). 1 in expectation for entries that are marked independently at one rate, above it where whole
    lines are fuller than others. NaN for a mask that is empty or full.
    """
    lines, density = mask.mean(1 - axis), mask.mean()
    expected = density * (1 - density) / mask.shape[1 - axis]
    return float(lines.var(ddof=1) / expected) if expected > 0 else float("nan")


def draw_density(ax: Axes, mask: NDArray[np.bool_], color: str, *, most: float = 1.0) -> AxesImage:
    """A mask as local density from 0 (white) to `most` (dark), the density of its columns above it and that
    of its rows at its right, from 0 to 1; shaded are two standard deviations of independent entries."""
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": most, "interpolation": "nearest"}
    (m, n), words = mask.shape, named("local density")
    image = ax.imshow(block_density(mask), extent=(0, n, m, 0), aspect="auto", label=words, **look)
    above = ax.inset_axes((0, 1.03, 1, _MARGIN), sharex=ax)
    right = ax.inset_axes((1.03, 0, _MARGIN, 1), sharey=ax)
    line: dict[str, Any] = {"color": color, "linewidth": 0.8}
    columns, rows = mask.mean(0), mask.mean(1)
    above.plot(np.arange(n) + 0.5, columns, label=named("columns"), **line)
    right.plot(rows, np.arange(m) + 0.5, label=named("rows"), **line)
    for beside, fill, size in ((above, above.axhspan, m), (right, right.axvspan, n)):
        reach = 2 * np.sqrt(mask.mean() * (1 - mask.mean()) / size)
        fill(mask.mean() - reach, mask.mean() + reach, color=NULL, alpha=0.3, linewidth=0, gid=BACKDROP)
        beside.margins(0)
    above.set(ylim=(0, 1), yticks=[])
    right.set(xlim=(0, 1), xticks=[])
    for each in (ax, above, right):
        each.tick_params(labelbottom=False, labelleft=False, length=0)
        each.grid(visible=False)
    return image


def draw_update_density(ax: Axes, masks: pd.DataFrame, run: str) -> AxesImage:
    """The visible update of one run, as `draw_density`."""
    image = draw_density(ax, mask_of(masks, run, "update"), run_style(run).color)
    ax.set_title(run_style(run).label)
    return image
