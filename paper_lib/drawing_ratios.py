"""Runs against OPD along training: their ratio, seed by seed, where lines by themselves would coincide."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.distances import log_ratio
from paper_lib.drawing import label_once
from paper_lib.drawing_seeds import counted, draw_band, draw_few, is_few, spread
from paper_lib.seedwise import Untested
from paper_lib.styles import BACKDROP, NULL, named, run_style

_NOISE = "opd_restream"  # OPD again from the same anchor: what of a ratio is the rollouts'


def draw_ratios(
    ax: Axes, path: Callable[[str], pd.DataFrame], what: str, *, runs: Sequence[str], seeds: Sequence[int]
) -> None:
    """Each run over OPD along training, a line a run, with the interval of its mean beside the end.

    path: of a run, as `Evidence.path` gives it; what: its name on the axis. Ratios are of one seed, means are
    geometric. Grey, with its interval as a band, is OPD with other rollouts throughout, where there is such a
    run; two seeds are dots. Raises Untested for a run of `runs` that is not there.
    """
    opd, style = path("opd")[list(seeds)], run_style("opd")
    _draw_noise(ax, path, opd)
    ax.axhline(1, color=style.color, linewidth=1.4, zorder=1.5, label=named(style.label))
    for number, run in enumerate(runs):
        ratios, look = _over(path(run), opd), _look(run)
        line, place = spread(ratios), 1.04 + 0.03 * number
        sparse: dict[str, Any] = {"markevery": (number % 3, 3), "linewidth": 1.1}  # so that all show
        counted(ax.plot(line["step"], np.exp(line["mean"]), **sparse, **look)[0], line["seeds"].max())
        low, mean, high = np.exp(line[["low", "mean", "high"]].iloc[-1])
        ax.plot([place], [mean], **(look | {"label": None, "linestyle": "none", "markersize": 4.5}))
        ax.plot([place, place], [low, high], color=look["color"], linewidth=1)
        if is_few(line["seeds"].max()):
            ends = ratios.loc[ratios["step"] == 1, "value"]
            draw_few(ax, [place] * len(ends), np.exp(ends), look["color"])
    ax.set(xlabel="training progress", ylabel=f"{what} over OPD's")


def _over(path: pd.DataFrame, opd: pd.DataFrame) -> pd.DataFrame:
    """log(run / OPD) as rows of run, step (the progress), seed, value."""
    logs = log_ratio(path, opd).rename_axis("step").reset_index()
    return logs.melt("step", var_name="seed").assign(run="")


def _draw_noise(ax: Axes, path: Callable[[str], pd.DataFrame], opd: pd.DataFrame) -> None:
    try:
        line = spread(_over(path(_NOISE), opd))
    except Untested:
        return
    line[["low", "mean", "high"]] = np.exp(line[["low", "mean", "high"]])
    words = run_style(_NOISE).label
    look: dict[str, Any] = {"color": NULL, "linestyle": "--", "linewidth": 1}
    ax.plot(line["step"], line["mean"], gid=BACKDROP, label=named(words), **look)
    draw_band(ax, line["step"], line, NULL)
    label_once(ax, words, **look)


def _look(run: str) -> dict[str, Any]:
    style = run_style(run)
    return {
        "color": style.color,
        "linestyle": style.linestyle,
        "marker": style.marker,
        "label": style.label,
    }
