"""The ledger's pictures: its verdicts, the overview of the regimes, and sparsity as size predicts it."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_lib.figures.panels import draw_beside, label_once
from paper_lib.figures.results import Results
from paper_lib.figures.seeds import draw_bar, spread_values, tell_means
from paper_lib.figures.styles import NULL, OPD, ORANGE, RLVR, SFT, run_style
from paper_lib.figures.words import tell
from paper_lib.geometry.metrics import REGIMES, Metric, metrics_of
from paper_lib.ledger import verdicts
from paper_lib.ledger.claim import label
from paper_lib.ledger.contrasts import Contrast
from paper_lib.ledger.size import OBJECTIVES, held_out
from paper_lib.ledger.verdicts import MATCHED, NOTHING, PAPER, Reading, beyond_null
from paper_lib.summaries import MODULE_GROUPS, Untested, paired

# --- The ledger: every contrast by how far it clears its claim's edge, and every verdict.

# Okabe and Ito's colours, and a mark each, so that neither has to be told from colour alone.
MARKS: dict[str, dict[str, Any]] = {
    verdicts.REPRODUCED: {"color": "#0072B2", "marker": "o"},
    verdicts.ORDER_ONLY: {"color": "#0072B2", "marker": "^"},
    verdicts.PARTLY: {"color": "#E69F00", "marker": "D"},
    verdicts.NOT_REPRODUCED: {"color": "#D55E00", "marker": "X"},
    verdicts.UNTESTED: {"color": NULL, "marker": "o", "markerfacecolor": "none"},
}
_OUTCOMES = {"holds": "#0072B2", "fails": "#D55E00", "undecided": NULL}
EDGE = 100.0  # half widths: dots that are farther sit there
_ROW = 0.27  # inches
_VERDICT, _NULL = 1.06, 1.21  # right of a panel, in its widths
_SPREAD = 0.7  # of a row's height, over which its contrasts are spread


def claims_figure(readings: list[Reading]) -> Figure:
    """One row a claim: statement, a panel for each of the two main readings, verdicts and beyond the null.

    readings: as `verdicts.read_all` returns them. A dot is a contrast at its `clearance`: right of 1 it
    holds, left of −1 it fails, between it is undecided; hollow ones decide nothing.
    """
    claims = list(dict.fromkeys(reading.claim.id for reading in readings))
    by_place = {(reading.claim.id, reading.name): reading for reading in readings}
    height = _ROW * len(claims) + 1.25
    fig = plt.figure(figsize=(10.5, height))
    grid = fig.add_gridspec(
        *(1, 2), left=0.47, right=0.935, top=1 - 0.5 / height, bottom=0.75 / height, wspace=0.3
    )
    for column, name in enumerate((PAPER, MATCHED)):
        ax = fig.add_subplot(grid[column])
        _frame(ax, len(claims), name)
        for row, claim in enumerate(claims):
            _draw_reading(ax, row, by_place[claim, name])
            if column == 0:
                _name(ax, row, by_place[claim, name])
        _tell_readings(ax, [by_place[claim, name] for claim in claims])
    _legend(fig)
    return fig


def _frame(ax: Axes, rows: int, name: str) -> None:
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.axvspan(-1, 1, color="#EFEFEF", linewidth=0)
    ax.axvline(0, color=NULL, linewidth=0.8)
    ax.set(xlim=(-1.6 * EDGE, 1.6 * EDGE), ylim=(rows - 0.4, -0.6), yticks=[])
    ax.set_xticks([-100, -10, -1, 1, 10, 100], ["−100", "−10", "−1", "1", "10", "100"], fontsize=7)
    ax.minorticks_off()
    ax.set_title(name if name == PAPER else "with matched settings", fontsize=9, pad=16)
    heads: dict[str, Any] = {"fontsize": 6.5, "color": "#444444", "transform": ax.transAxes, "va": "bottom"}
    places = {"fails": 0.18, "undecided": 0.5, "holds": 0.82, "verdict": _VERDICT, "> null": _NULL}
    for head, x in places.items():
        ax.text(x, 1.003, head, ha="center", **heads)
    for row in range(1, rows):
        ax.axhline(row - 0.5, color="#DDDDDD", linewidth=0.5)
    ax.grid(visible=False)


def _draw_reading(ax: Axes, row: int, reading: Reading) -> None:
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False}
    ax.plot(_VERDICT, row, linestyle="none", markersize=7, **MARKS[reading.verdict], **beside)
    beyond = beyond_null(reading.finding)
    ax.text(_NULL, row, beyond, ha="center", va="center", fontsize=7, transform=ax.get_yaxis_transform())
    shown = _cleared(reading)
    if not shown:
        look: dict[str, Any] = {"fontsize": 5.8, "color": NULL, "style": "italic"}
        look["bbox"] = {"facecolor": "white", "linewidth": 0, "pad": 1.0}
        why = "fewer than 3 seeds"
        if reading.finding is NOTHING:
            why = reading.why if len(reading.why) <= 48 else reading.why[:46].rsplit(" ", 1)[0] + " …"
        ax.text(0, row, why, ha="center", va="center", **look)
    for place, each in enumerate(shown):
        height, color = row + _SPREAD * ((place + 0.5) / len(shown) - 0.5), _OUTCOMES[each.outcome]
        x = float(np.clip(each.clearance, -EDGE, EDGE))  # the mean; the interval is one to either side
        ax.plot([x - 1, x + 1], [height, height], color=color, linewidth=1)
        marker, fill = "|" if abs(x) == EDGE else "o", "white" if each.idle else color
        ax.plot(x, height, color=color, marker=marker, markersize=3.2, markerfacecolor=fill)


def _cleared(reading: Reading) -> list[Contrast]:
    return [contrast for contrast in reading.finding.contrasts if not np.isnan(contrast.clearance)]


def _tell_readings(ax: Axes, readings: list[Reading]) -> None:
    """How many claims have each verdict, and how many contrasts each outcome."""
    judged = Counter(reading.verdict for reading in readings)
    outcomes = Counter(contrast.outcome for reading in readings for contrast in _cleared(reading))
    for what, order, counts in (("claims", MARKS, judged), ("comparisons", _OUTCOMES, outcomes)):
        for each in (each for each in order if each in counts):
            tell(ax, what, counts[each], of=each)


def _name(ax: Axes, row: int, reading: Reading) -> None:
    place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    statement = reading.claim.statement
    size = 7.2 if len(statement) <= 78 else 6.2
    ax.text(-2.2, row, reading.claim.id, fontsize=7.5, weight="bold", **place)
    ax.text(-2.0, row, statement, fontsize=size, **place)


def _legend(fig: Figure) -> None:
    """Verdicts at the left, and what the axes show, below them."""
    entries = [
        Line2D([], [], linestyle="none", markersize=7, label=verdict, **look)
        for verdict, look in MARKS.items()
    ]
    look: dict[str, Any] = {"fontsize": 7.5, "frameon": False, "handletextpad": 0.2}
    fig.legend(handles=entries, loc="lower left", ncols=2, bbox_to_anchor=(0.005, 0.0), **look)
    height = fig.get_size_inches()[1]
    words = (
        "distance of a mean from the edge of what its claim allows, in half widths of its 95 % interval over "
        "seeds\nhollow: it would lie there whether the claim is true or not; "
        "> null: whether the effect is more than chance gives"
    )
    fig.text(0.71, 0.12 / height, words, ha="center", va="bottom", fontsize=7.2, linespacing=1.5)


# --- The overview: where OPD lies on the way from RLVR to SFT, metric by metric.

OVERVIEW = metrics_of("fig1_overview")


def regime_ends(evidence: Results, metric: Metric) -> dict[str, pd.Series]:
    """End values by run, of SFT, matched SFT, OPD and RLVR where they are there, angles in degrees: over the
    matrices that the paper has, masks at the first α of the profile."""
    k = evidence.study.diagnostics.alphas[0] if metric.alpha else None
    scale, values = (metric.scale if metric.unit == "°" else 1.0), {}
    for run in (*REGIMES, "sft_matched"):
        with suppress(Untested):
            values[run] = scale * evidence.end(run, metric.name, k=k, modules=MODULE_GROUPS[metric.over])
    return values


def position(value: pd.Series, rlvr: pd.Series, sft: pd.Series, *, log: bool) -> pd.Series:
    """(value − RLVR) / (SFT − RLVR), or the same of the logarithms, seed by seed: 0 is RLVR's, 1 is SFT's."""
    seeds = paired(value, rlvr, sft)
    x, low, high = [each.map(np.log) for each in seeds] if log else seeds
    return (x - low) / (high - low)


LIMITS = (-0.5, 1.3)  # what the axis shows of the way from RLVR to SFT


def draw_overview(ax: Axes, evidence: Results) -> None:
    """Where OPD and matched SFT lie on the way from RLVR (0) to SFT (1), metric by metric.

    A marker is the mean over seeds, a bar its interval from three seeds on, rings are the seeds, a hollow
    diamond is the paper's OPD, where it prints a number for all three. A row whose seeds do not agree on
    whether SFT is above RLVR has no such scale and says so. What of ours is beyond LIMITS sits at the edge
    as an arrow. The values stand at the right.
    """
    for place, run in ((0, "rlvr"), (1, "sft")):
        ax.axvline(place, color=run_style(run).color, linewidth=1.6, label=run_style(run).label)
        tell(ax, run_style(run).label, place, aside=True)
    margin: dict[str, Any] = {"va": "center", "fontsize": 7, "transform": ax.get_yaxis_transform()}
    ax.text(1.02, -0.8, "SFT / OPD / RLVR", **margin)
    for height, metric in enumerate(OVERVIEW):
        values = regime_ends(evidence, metric)
        words = [f"{values[run].mean():.3g}" if run in values else "–" for run in REGIMES]
        ax.text(1.02, height, " / ".join(words), **margin)
        _draw_row(ax, height, metric, values)
    ax.set_yticks(range(len(OVERVIEW)), [_row_label(metric) for metric in OVERVIEW])
    ax.set(xlim=LIMITS, ylim=(len(OVERVIEW) - 0.5, -0.5), xlabel="from RLVR (0) to SFT (1)")
    ax.grid(visible=False, axis="y")


def _row_label(metric: Metric) -> str:
    unit = ", °" if metric.unit == "°" else ""
    over = ",\nattention" if metric.over == "attention" else ""
    return metric.words.replace(", ", ",\n") + over + unit + (" (log)" if metric.log else "")


def _draw_row(ax: Axes, height: int, metric: Metric, values: dict[str, pd.Series]) -> None:
    if not {"sft", "rlvr"} <= set(values):
        return
    rlvr, sft = paired(values["rlvr"], values["sft"])
    if not ((sft > rlvr).all() or (sft < rlvr).all()):
        look: dict[str, Any] = {"color": NULL, "ha": "center", "va": "center", "fontsize": 7}
        ax.text(0.5, height, "seeds disagree on SFT and RLVR", **look)
        return
    for run, offset in (("sft_matched", 0.15), ("opd", -0.15)):
        if run in values:
            positions = position(values[run], rlvr, sft, log=metric.log)
            _draw_position(ax, height + offset, run, _row_label(metric), positions)
    paper = _paper_position(metric)
    if LIMITS[0] <= paper <= LIMITS[1]:
        look = {"color": "black", "marker": "D", "markerfacecolor": "none", "linestyle": "none"}
        ax.plot(paper, height, markersize=5, **look)
        tell(ax, "OPD in the paper", paper, of=_row_label(metric), aside=True)
        label_once(ax, "OPD in the paper, 8B", markersize=4, **look)


def _paper_position(metric: Metric) -> float:
    """Where the paper's OPD lies; NaN where it does not print a number for each of the three."""
    ends = metric.spans()
    if not all(run in ends and ends[run][0] > 0 and ends[run][1] < math.inf for run in REGIMES):
        return math.nan
    sft, opd, rlvr = (pd.Series([metric.value(run)]) for run in REGIMES)
    return position(opd, rlvr, sft, log=metric.log).mean()


def _draw_position(ax: Axes, height: float, run: str, row: str, positions: pd.Series) -> None:
    style, mean, line = run_style(run), positions.mean(), spread_values(positions)
    marker = "<" if mean < LIMITS[0] else ">" if mean > LIMITS[1] else style.marker
    x = np.clip(mean, *LIMITS)
    look: dict[str, Any] = {"color": style.color, "marker": marker, "markersize": 6, "clip_on": False}
    ax.plot(x, height, **look)
    ends = line[["low", "high"]].iloc[0].clip(*LIMITS)
    draw_bar(ax, ends, [height] * 2, style.color, width=1.2)
    label_once(ax, style.label, **style.mark)
    tell_means(ax, style.label, line, of=row)
    if len(positions) > 1:
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": style.color, "s": 9, "linewidths": 0.6}
        ax.scatter(positions, np.full(len(positions), height), **ring)


# --- Is it size? Sparsity as norm and evenness predict it.

_LOOKS: dict[str, dict[str, Any]] = {
    kind: {"color": color, "marker": run_style(kind).marker if kind != "mix" else "D"}
    for kind, color in zip(OBJECTIVES, (OPD, SFT, RLVR, ORANGE), strict=True)
}


def draw_size(ax: Axes, data: pd.DataFrame, *, names: Sequence[str] = ()) -> None:
    """Measured against predicted sparsity in percent, each kind of run by the fit over all others; the
    diagonal is exact. data: as `size.end_values` returns it; names: as for `draw_kinds`."""
    shares = data.assign(predicted=held_out(data))
    draw_kinds(ax, shares, "predicted", names=names, scale=100)
    ends = np.array(ax.get_ylim())
    draw_beside(ax, ends, ends, "measured as predicted", color=NULL, linewidth=1, scalex=False, scaley=False)
    ax.set(xlabel="sparsity from norm and evenness, %")


def draw_kinds(
    ax: Axes, data: pd.DataFrame, against: str, *, names: Sequence[str] = (), scale: float = 1.0
) -> None:
    """Sparsity in percent against `scale` times a column, a mark a kind of run at its mean, by objective; the
    runs of `names` are named beside it."""
    means = data.groupby(["objective", "run"])[[against, "update_sparsity"]].mean().mul([scale, 100.0])
    for kind in (kind for kind in OBJECTIVES if kind in means.index):
        points, look = means.loc[kind], _LOOKS[kind] | {"linestyle": "none", "markersize": 4.5}
        ax.plot(points[against], points["update_sparsity"], alpha=0.8, **look)
        tell(ax, label(kind), points.agg(["min", "max"]), of=f"{len(points)} kinds of run within")
        label_once(ax, label(kind), **look)
        for run in points.index.intersection(list(names)):
            place: dict[str, Any] = {"textcoords": "offset points", "xytext": (6, -3), "fontsize": 7}
            ax.annotate(label(run), tuple(points.loc[run]), **place)
    ax.set(ylabel="update sparsity, %")
