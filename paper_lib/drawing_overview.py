"""The regime in one picture: where OPD lies on the way from RLVR to SFT, metric by metric."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.drawing import label_once
from paper_lib.drawing_seeds import ENOUGH, LEVEL, counted
from paper_lib.evidence import Evidence
from paper_lib.nulls import t_interval
from paper_lib.plain_words import number
from paper_lib.seedwise import Untested, paired
from paper_lib.styles import BACKDROP, NULL, named, run_style
from paper_lib.summaries import ANGLE_MEAN, ATTENTION

_ALONG = {"modules": ATTENTION}
_ENDS = ("sft", "opd", "rlvr")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of the overview. paper: its values for SFT, OPD and RLVR; log: the scale of what spans decades.

    alpha: measured at the first α of the profile. which: as for `Evidence.end`.
    """

    name: str
    metric: str
    paper: tuple[float, float, float] | None = None
    log: bool = False
    alpha: bool = False
    scale: float = 1.0
    which: dict[str, Any] = field(default_factory=dict)


MEASURES = (
    Measure(name="update sparsity", metric="update_sparsity", paper=(0.081, 0.516, 0.772)),
    Measure(name="principal overlap", metric="principal_overlap", paper=(0.2966, 0.2731, 0.2665), alpha=True),
    Measure(
        name="low-magnitude overlap",
        metric="low_magnitude_overlap",
        paper=(0.3188, 0.5359, 0.7348),
        alpha=True,
    ),
    Measure(name="mean principal angle,\nU and V, ° (log)", metric=ANGLE_MEAN, log=True, scale=180 / np.pi),
    Measure(name="spectral shift (log)", metric="spectral_shift", paper=(1e-3, 1e-4, 1e-5), log=True),
    Measure(
        name="norm of the update (log)",
        metric="frobenius_norm",
        paper=(4.701, 0.452, 0.168),
        log=True,
        which=_ALONG,
    ),
    Measure(name="drift ratio (log)", metric="drift_ratio", log=True, which=_ALONG),
    Measure(name="stable rank", metric="stable_rank", which=_ALONG),
    Measure(name="Hill index", metric="hill_index", which=_ALONG),
)


def measured(evidence: Evidence, measure: Measure) -> dict[str, pd.Series]:
    """End values by run, of SFT, matched SFT, OPD and RLVR where they are there."""
    which = measure.which | ({"k": evidence.diagnostics.alphas[0]} if measure.alpha else {})
    values = {}
    for run in (*_ENDS, "sft_matched"):
        try:
            values[run] = measure.scale * evidence.end(run, measure.metric, **which)
        except Untested:
            continue
    return values


def position(value: pd.Series, rlvr: pd.Series, sft: pd.Series, *, log: bool) -> pd.Series:
    """(value − RLVR) / (SFT − RLVR), or the same of the logarithms, seed by seed: 0 is RLVR's, 1 is SFT's."""
    seeds = paired(value, rlvr, sft)
    x, low, high = [each.map(np.log) for each in seeds] if log else seeds
    return (x - low) / (high - low)


def draw_overview(ax: Axes, evidence: Evidence, *, limits: tuple[float, float] = (-0.5, 1.3)) -> None:
    """Where OPD and matched SFT lie on the way from RLVR (0) to SFT (1), metric by metric.

    A marker is the mean over seeds, a bar its interval from three seeds on, rings are the seeds, a hollow
    diamond is the paper's OPD. A row whose seeds do not agree on whether SFT is above RLVR has no such scale
    and says so. What is beyond `limits` sits at the edge as an arrow. The values stand at the right.
    """
    for place, run in ((0, "rlvr"), (1, "sft")):
        ax.axvline(place, color=run_style(run).color, linewidth=1.6, label=run_style(run).label, gid=BACKDROP)
    margin: dict[str, Any] = {"va": "center", "fontsize": 7, "transform": ax.get_yaxis_transform()}
    ax.text(1.02, -0.8, "SFT / OPD / RLVR", **margin)
    for row, measure in enumerate(MEASURES):
        values = measured(evidence, measure)
        words = [f"{values[run].mean():.3g}" if run in values else "–" for run in _ENDS]
        ax.text(1.02, row, " / ".join(words), **margin)
        _draw_row(ax, row, measure, values, limits)
    ax.set_yticks(range(len(MEASURES)), [measure.name for measure in MEASURES])
    ax.set(xlim=limits, ylim=(len(MEASURES) - 0.5, -0.5), xlabel="from RLVR (0) to SFT (1)")
    ax.grid(visible=False, axis="y")


def _draw_row(
    ax: Axes, row: int, measure: Measure, values: dict[str, pd.Series], limits: tuple[float, float]
) -> None:
    if not {"sft", "rlvr"} <= set(values):
        return
    rlvr, sft = paired(values["rlvr"], values["sft"])
    if not ((sft > rlvr).all() or (sft < rlvr).all()):
        ax.text(0.5, row, "seeds disagree on SFT and RLVR", color=NULL, ha="center", va="center", fontsize=7)
        return
    for run, offset in (("sft_matched", 0.15), ("opd", -0.15)):
        if run in values:
            positions = position(values[run], rlvr, sft, log=measure.log)
            _draw_position(ax, row + offset, run, positions, limits)
    if measure.paper is not None:
        first, opd, last = (pd.Series([value]) for value in measure.paper)
        there = position(opd, last, first, log=measure.log).mean()
        look: dict[str, Any] = {
            "color": "black",
            "marker": "D",
            "markerfacecolor": "none",
            "linestyle": "none",
        }
        ax.plot(there, row, markersize=5, gid=BACKDROP, label=named("OPD in the paper"), **look)
        label_once(ax, "OPD in the paper, 8B", markersize=4, **look)


def _draw_position(
    ax: Axes, height: float, run: str, positions: pd.Series, limits: tuple[float, float]
) -> None:
    style, mean = run_style(run), positions.mean()
    marker = "<" if mean < limits[0] else ">" if mean > limits[1] else style.marker
    x = min(max(mean, limits[0]), limits[1])
    words = style.label if x == mean else f"{style.label} at {number(mean)}, beyond the edge at"
    look: dict[str, Any] = {"color": style.color, "marker": marker, "markersize": 6, "clip_on": False}
    counted(ax.plot(x, height, label=named(words), **look)[0], len(positions))
    if len(positions) >= ENOUGH:
        ends = [min(max(end, limits[0]), limits[1]) for end in t_interval(positions.to_numpy(), LEVEL)]
        ax.plot(ends, [height] * 2, color=style.color, linewidth=1.2)
    label_once(ax, style.label, color=style.color, marker=style.marker, linestyle="none")
    if len(positions) > 1:
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": style.color, "s": 9, "linewidths": 0.6}
        ax.scatter(positions, np.full(len(positions), height), **ring)
