"""The ledger as a picture: every comparison by how far it clears its claim's edge, every verdict a mark."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_lib.claims import MATCHED, PAPER, Reading
from paper_lib.outcomes import Comparison
from paper_lib.styles import BACKDROP, NULL, named
from paper_lib.verdicts import NOT_REPRODUCED, PARTLY, REPRODUCED, UNTESTED, beyond_null

# Okabe and Ito's colours, and a mark each, so that neither has to be told from colour alone.
MARKS: dict[str, dict[str, Any]] = {
    REPRODUCED: {"color": "#0072B2", "marker": "o"},
    PARTLY: {"color": "#E69F00", "marker": "D"},
    NOT_REPRODUCED: {"color": "#D55E00", "marker": "X"},
    UNTESTED: {"color": NULL, "marker": "o", "markerfacecolor": "none"},
}
_COUNTED = {
    "holds": "comparisons hold",
    "fails": "comparisons fail",
    "undecided": "comparisons undecided",
}
_OUTCOMES = {"holds": "#0072B2", "fails": "#D55E00", "undecided": NULL}
EDGE = 100.0  # half widths: what is farther sits there
_ROW = 0.27  # inches
_VERDICT, _NULL = 1.06, 1.21  # right of a panel, in its widths
_SPREAD = 0.7  # of a row's height, over which its comparisons are spread


def claims_figure(readings: list[Reading]) -> Figure:
    """One row a claim: statement, a panel for each of the two main readings, verdicts and beyond the null.

    readings: as `claims.read_all` returns them. A dot is a comparison, at its clearance: the distance of its
    mean from the edge of what the claim allows, in half widths of its 95 % interval, so that a dot right of 1
    holds, left of −1 fails, and between is undecided; hollow ones decide nothing. Dots beyond ± 100 sit at
    the edge.
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
    _legend(fig)
    return fig


def _frame(ax: Axes, rows: int, name: str) -> None:
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.axvspan(-1, 1, color="#EFEFEF", linewidth=0, gid=BACKDROP)
    ax.axvline(0, color=NULL, linewidth=0.8, gid=BACKDROP)
    ax.set(xlim=(-1.6 * EDGE, 1.6 * EDGE), ylim=(rows - 0.4, -0.6), yticks=[])
    ax.set_xticks([-100, -10, -1, 1, 10, 100], ["−100", "−10", "−1", "1", "10", "100"], fontsize=7)
    ax.minorticks_off()
    ax.set_title(
        "as the paper set the runs up" if name == PAPER else "with matched settings", fontsize=9, pad=16
    )
    heads: dict[str, Any] = {"fontsize": 6.5, "color": "#444444", "transform": ax.transAxes, "va": "bottom"}
    places = {"fails": 0.18, "undecided": 0.5, "holds": 0.82, "verdict": _VERDICT, "> null": _NULL}
    for head, x in places.items():
        ax.text(x, 1.003, head, ha="center", **heads)
    for row in range(1, rows):
        ax.axhline(row - 0.5, color="#DDDDDD", linewidth=0.5, gid=BACKDROP)
    ax.grid(visible=False)


def _draw_reading(ax: Axes, row: int, reading: Reading) -> None:
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False}
    mark: dict[str, Any] = {"linestyle": "none", "markersize": 7, "label": named(reading.verdict)}
    ax.plot(_VERDICT, row, **mark, **MARKS[reading.verdict], **beside)
    finding = reading.finding
    beyond = "–" if finding is None else beyond_null(finding)
    ax.text(_NULL, row, beyond, ha="center", va="center", fontsize=7, transform=ax.get_yaxis_transform())
    shown = (
        [] if finding is None else [each for each in finding.comparisons if each.clearance == each.clearance]
    )
    if not shown:
        look: dict[str, Any] = {"fontsize": 5.8, "color": NULL, "style": "italic"}
        look["bbox"] = {"facecolor": "white", "linewidth": 0, "pad": 1.0}
        ax.text(0, row, _why_empty(reading), ha="center", va="center", **look)
    for number, each in enumerate(shown):
        _draw_comparison(ax, row + _SPREAD * ((number + 0.5) / len(shown) - 0.5), each)


def _draw_comparison(ax: Axes, height: float, comparison: Comparison) -> None:
    """The interval, one half width to either side of the mean, and the mean."""
    x, color = float(np.clip(comparison.clearance, -EDGE, EDGE)), _OUTCOMES[comparison.outcome]
    ax.plot([x - 1, x + 1], [height, height], color=color, linewidth=1)
    look: dict[str, Any] = {"color": color, "marker": "|" if abs(x) == EDGE else "o", "markersize": 3.2}
    if comparison.idle:
        look["markerfacecolor"] = "white"
    ax.plot(x, height, label=named(_COUNTED[comparison.outcome]), **look)


def _why_empty(reading: Reading) -> str:
    if reading.finding is not None:
        return "fewer than 3 seeds"
    return reading.why if len(reading.why) <= 48 else reading.why[:46].rsplit(" ", 1)[0] + " …"


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
