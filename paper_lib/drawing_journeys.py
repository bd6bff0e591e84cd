"""One weight's journey through bf16: what the optimizer moves, and the value that is stored and shown."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from paper_lib.drawing import label_once
from paper_lib.plain_words import number
from paper_lib.styles import BACKDROP, NULL, named, run_style

_CELL = "#E8E8E8"
_SMALLEST = 2.0**-133  # above 0 in bf16
_MOST = 24  # grid lines in a panel: beyond, they would be a grey wall


def draw_journey(ax: Axes, journeys: pd.DataFrame, run: str, k: float) -> None:
    """One weight along training: its float32 value in the run's colour, what bf16 stores of it in black.

    journeys: the table; one entry k of one run of it is drawn. Grey lines are the numbers that bf16 has, the
    shaded cell holds what rounds to the first of them; the panel's title says from when on another shows.
    Where the table has no such rows the panel is blank, with a sentence.
    """
    rows = journeys[(journeys["run"] == run) & (journeys["k"] == k)].sort_values("step")
    if rows.empty:
        ax.set_axis_off()
        words = f"no weight of {run_style(run).label} was followed"
        ax.text(0.5, 0.5, words, ha="center", transform=ax.transAxes, fontsize=8)
        return
    progress, style = rows["step"] / rows["step"].max(), run_style(run)
    values, stored = rows["value"].to_numpy(), rows["stored"].to_numpy()
    low, high = cell(stored[0])
    shown = [*values, *stored, low, high]
    _draw_grid(ax, min(shown), max(shown))
    ax.axhspan(low, high, color=_CELL, linewidth=0, zorder=0, gid=BACKDROP)
    label_once(ax, "rounds to the first value", color=_CELL, linewidth=6)
    steps: dict[str, Any] = {"color": "black", "linewidth": 1.6, "drawstyle": "steps-post"}
    ax.plot(progress, stored, **steps)
    label_once(ax, "what bf16 shows", color="black", linewidth=1.6)
    look: dict[str, Any] = {"color": style.color, "marker": style.marker, "linewidth": 1}
    half_gaps = (values[-1] - values[0]) / (high - stored[0])
    words = f"{style.label} ends {number(round(half_gaps, 1))} half gaps away,"
    ax.plot(progress, values, label=named(words), **look)
    label_once(ax, f"{style.label}, float32", **look)
    ax.set_title(_first_shown(progress.to_numpy(), stored), fontsize=7.5, weight="normal")
    ends = [stored[0]] if stored[0] == stored[-1] else [stored[0], stored[-1]]
    ax.set_yticks(ends, [f"{value:.5g}".replace("-", "−") for value in ends], fontsize=7)
    ax.set(xticks=(0, 0.5, 1), xlim=(-0.03, 1.03))
    ax.grid(visible=False)


def cell(stored: float) -> tuple[float, float]:
    """What rounds to a bf16 number: from and to halfway to its neighbours. Raises ValueError for another."""
    if _rounded(stored) != stored:
        raise ValueError(f"{stored!r} is not a bf16 number")
    below, above = neighbour(stored, -1), neighbour(stored, 1)
    return (below + stored) / 2, (stored + above) / 2


def _rounded(value: float) -> float:
    return torch.tensor([value], dtype=torch.float64).to(torch.bfloat16).double().item()


def neighbour(stored: float, direction: int) -> float:
    """The next bf16 number above (1) or below (−1) a finite bf16 number."""
    if stored == 0:
        return direction * _SMALLEST
    bits = torch.tensor([stored], dtype=torch.float64).to(torch.bfloat16).view(torch.int16)
    away = direction if stored > 0 else -direction
    return (bits + away).to(torch.int16).view(torch.bfloat16).double().item()


def _draw_grid(ax: Axes, low: float, high: float) -> None:
    """A hairline at every bf16 number from low to high, or none where they are too many to tell apart."""
    place, found = _rounded(low), list[float]()
    place = neighbour(place, -1) if place > low else place
    while place <= high and len(found) <= _MOST:
        found.append(place)
        place = neighbour(place, 1)
    if 0 < len(found) <= _MOST:
        ax.hlines(found, -1, 2, color=NULL, linewidth=0.4, alpha=0.7, zorder=1, gid=BACKDROP)
        label_once(ax, "numbers that bf16 has", color=NULL, linewidth=0.6)
    ax.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))


def _first_shown(progress: np.ndarray, stored: np.ndarray) -> str:
    moved = np.flatnonzero(stored != stored[0])
    if len(moved) == 0:
        return "never shows"
    back = " and back" if stored[-1] == stored[0] else ""
    return f"shows at {100 * progress[moved[0]]:.0f} %{back}"
