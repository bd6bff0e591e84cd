"""What the figures of sparsity draw: the paper's values, masks, overlaps within reach, planes, one weight."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from paper_lib.figures.panels import draw_chance, draw_null, draw_points, label_once, leave_blank, of_run
from paper_lib.figures.results import Results
from paper_lib.figures.seeds import ENOUGH, draw_bar, draw_few, is_few, spread
from paper_lib.figures.styles import NULL, in_order, run_style
from paper_lib.figures.words import tell
from paper_lib.geometry.sparsity import overlap_bounds
from paper_lib.summaries import at_end, overlap_range

_REACH = "#EBEBEB"


def draw_paper(
    ax: Axes, values: Mapping[str, float | tuple[float, float]], *, runs: Sequence[str], scale: float = 1.0
) -> None:
    """Hollow diamonds at the paper's values, on the lines that `draw_points` gave the same runs.

    values: by run, a number or the least and the most, drawn with a line between them; a most of infinity or
    a least of 0 is a bound, drawn as an arrow head. scale: factor on the values.
    """
    look: dict[str, Any] = {"color": "black", "marker": "D", "markerfacecolor": "none", "linewidth": 0.8}
    for run, value in values.items():
        low, high = value if isinstance(value, tuple) else (value, value)
        points = sorted({scale * each for each in (low, high) if 0 < each < math.inf})
        bound = {"marker": ">"} if high == math.inf else {"marker": "<"} if low == 0 else {}
        ax.plot(points, [runs.index(run)] * len(points), markersize=4, **look | bound)
        tell(ax, "paper", points, of=run_style(run).label, aside=True)
    label_once(ax, "paper, 8B", **(look | {"linestyle": "none"}))


def draw_overlap(
    ax: Axes,
    results: Results,
    mask: str,
    *,
    alpha: float,
    runs: Sequence[str],
    modules: Sequence[str],
    paper: Mapping[str, float],
) -> None:
    """The overlap of one α-mask ("principal", "low_magnitude") with each run's visible update at its end,
    with chance, nulls, the paper's values and what the update's density allows. Other arguments as for
    `draw_points`. The principal mask's overlaps lie close together: its axis spans the marks alone."""
    ends, null = (results.ends(f"{mask}_overlap", k=alpha, modules=modules, nulls=n) for n in (False, True))
    reach = at_end(overlap_range(results.table("matrices"), alpha=alpha, modules=modules))
    low, high = reach.groupby("run")[["low", "high"]].mean().reindex(list(runs)).to_numpy().T
    ax.barh(range(len(runs)), high - low, left=low, height=0.62, color=_REACH, linewidth=0, zorder=0)
    label_once(ax, "within reach", color=_REACH, linewidth=6)
    draw_chance(ax, alpha, axis="x")
    draw_points(ax, ends, runs=runs, nulls=null)
    draw_paper(ax, paper, runs=runs)
    ax.set(xlabel="overlap", xlim=_around_marks(ax) if mask == "principal" else (-0.03, 1.03))


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
    ax.fill_between(density, low, high, color=_REACH, linewidth=0, zorder=0)
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
        path = of_run(frame, run, y).groupby("step")[[x, y]].mean()
        end: dict[str, Any] = {"linewidth": width, "markevery": [-1], "markersize": 6}
        ax.plot(path[x], path[y], label=style.label, **end, **style.line)
        up = _draw_end(ax, frame, run, x, y)
        tell(ax, style.label, path, interval=up[["low", "high"]], seeds=up["seeds"])
    if nulls is not None:
        for (null, of), points in nulls.groupby(["null", "run"]):
            at = points[[x, y]].mean()
            draw_null(ax, at[x], at[y], str(null), of=run_style(str(of)).label, plane=True)


def _draw_end(ax: Axes, frame: pd.DataFrame, run: str, x: str, y: str) -> pd.Series:
    """A cross of both intervals at a run's end, or its seeds where they are two; returns y's `spread`."""
    ends, color = at_end(frame[frame["run"] == run]), run_style(run).color
    across, up = (spread(ends.assign(value=ends[name])).iloc[0] for name in (x, y))
    if is_few(up["seeds"]):
        draw_few(ax, ends[x], ends[y], color)
    if up["seeds"] >= ENOUGH:
        draw_bar(ax, across[["low", "high"]], [up["mean"]] * 2, color)
        draw_bar(ax, [across["mean"]] * 2, up[["low", "high"]], color)
    return up


# --- Whole masks as local density: how full each block of a matrix is, and each of its rows and columns.

_BLOCKS = 32  # blocks across a matrix, at most
_MARGIN = 0.22  # of a panel's side, for each marginal


def mask_of(masks: pd.DataFrame, run: str, of: str) -> NDArray[np.bool_]:
    """One mask of one run as a matrix (rows, columns).

    masks: the table. of: "update", "principal" or "low_magnitude". Raises ValueError for a run without one.
    """
    return of_run(masks, run, "masks").pivot(index="row", columns="column", values=of).to_numpy(dtype=bool)


def block_density(mask: NDArray[np.bool_], blocks: int = _BLOCKS) -> NDArray[np.float64]:
    """Share of marked entries in each block of a mask (m, n): (≤ blocks, ≤ blocks), in [0, 1]; blocks
    are as even as can be, and none is empty."""
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


def draw_density(ax: Axes, mask: NDArray[np.bool_], color: str) -> AxesImage:
    """A mask as local density from 0 (white) to 1 (dark), the density of its columns above it and that
    of its rows at its right, from 0 to 1; shaded are two standard deviations of independent entries."""
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    (m, n), density = mask.shape, block_density(mask)
    image = ax.imshow(density, extent=(0, n, m, 0), aspect="auto", **look)
    above = ax.inset_axes((0, 1.03, 1, _MARGIN), sharex=ax)
    right = ax.inset_axes((1.03, 0, _MARGIN, 1), sharey=ax)
    line: dict[str, Any] = {"color": color, "linewidth": 0.8}
    columns, rows = mask.mean(0), mask.mean(1)
    above.plot(np.arange(n) + 0.5, columns, **line)
    right.plot(rows, np.arange(m) + 0.5, **line)
    blocks = " × ".join(map(str, density.shape))
    for words, shares in ((f"density of {blocks} blocks", density), ("columns", columns), ("rows", rows)):
        tell(ax, words, [shares.min(), shares.max()])
    for beside, fill, size in ((above, above.axhspan, m), (right, right.axvspan, n)):
        reach = 2 * np.sqrt(mask.mean() * (1 - mask.mean()) / size)
        fill(mask.mean() - reach, mask.mean() + reach, color=NULL, alpha=0.3, linewidth=0)
        beside.margins(0)
    above.set(ylim=(0, 1), yticks=(0, 1))
    right.set(xlim=(0, 1), xticks=(0, 1))
    for each in (ax, above, right):
        each.tick_params(labelbottom=each is right, labelleft=each is above, length=0, labelsize=6, pad=1)
        each.grid(visible=False)
    return image


_CELL = "#E8E8E8"
_MOST = 24  # grid lines in a panel: beyond, they would be a grey wall
_BF16 = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)  # every bf16 number, as float32
NUMBERS = np.unique(_BF16[np.isfinite(_BF16)].astype(np.float64))  # that bf16 has, rising


def draw_journey(ax: Axes, journeys: pd.DataFrame, run: str, k: float) -> None:
    """One weight along training, in half gaps from the bf16 number it started at: its float32 value in the
    run's colour, what bf16 stores of it in black.

    journeys: the table; one entry k of one run of it is drawn. Half a gap is the way up to the edge of the
    shaded cell, which holds what rounds to the first number; grey lines are the numbers that bf16 has. The
    panel's title says from when on another number shows. Without such rows it is blank, with a sentence.
    """
    rows = journeys[(journeys["run"] == run) & (journeys["k"] == k)].sort_values("step")
    if rows.empty:
        return leave_blank(ax, f"no weight of {run_style(run).label} was followed")
    progress, style = rows["step"] / rows["step"].max(), run_style(run)
    start = rows["stored"].iloc[0]
    low, high = cell(start)
    values, stored, numbers = ((x - start) / (high - start) for x in (rows["value"], rows["stored"], NUMBERS))
    edges = [*values, *stored, (low - start) / (high - start), 1]
    reach = min(edges) - 0.5, max(edges) + 0.5
    there = numbers[(numbers > reach[0]) & (numbers < reach[1])]
    if len(there) <= _MOST:
        ax.hlines(there, -1, 2, color=NULL, linewidth=0.4, alpha=0.7, zorder=1)
        label_once(ax, "numbers that bf16 has", color=NULL, linewidth=0.6)
    ax.axhspan(edges[-2], 1, color=_CELL, linewidth=0, zorder=0)
    label_once(ax, "rounds to the first number", color=_CELL, linewidth=6)
    ax.plot(progress, stored, color="black", linewidth=1.6, drawstyle="steps-post")
    label_once(ax, "what bf16 shows", color="black", linewidth=1.6)
    look: dict[str, Any] = {"color": style.color, "marker": style.marker, "linewidth": 1}
    ax.plot(progress, values, **look)
    tell(ax, f"{style.label} in half gaps", values)
    label_once(ax, f"{style.label}, float32", **look)
    moved, title = np.flatnonzero(stored != stored.iloc[0]), "never shows"
    if len(moved):
        back = " and back" if stored.iloc[-1] == stored.iloc[0] else ""
        title = f"shows at {100 * progress.to_numpy()[moved[0]]:.0f} %{back}"
    ax.set_title(title, fontsize=7.5, weight="normal")
    ax.set(xticks=(0, 0.5, 1), xlim=(-0.03, 1.03), ylim=reach)
    ax.grid(visible=False)


def cell(stored: float) -> tuple[float, float]:
    """What rounds to a bf16 number: from and to halfway to its neighbours. Raises ValueError for another."""
    place = int(np.searchsorted(NUMBERS, stored))
    if not 0 < place < len(NUMBERS) - 1 or NUMBERS[place] != stored:
        raise ValueError(f"{stored!r} is not a bf16 number between the least and the largest")
    below, above = NUMBERS[place - 1], NUMBERS[place + 1]
    return float(below + stored) / 2, float(above + stored) / 2
