"""What the figures draw of the table `pairs`: masks that two runs share, subspaces that they share."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from paper_lib.figures.panels import draw_chance, draw_rows, label_once, leave_blank
from paper_lib.figures.styles import NULL, in_order, run_style
from paper_lib.figures.words import tell
from paper_lib.summaries import ATTENTION, rows_with

ROTATED = ("opd", "opd_rotated")
_PROBES = ("opd_rotated", "opd_256x1", "sft_matched_32x8", "rlvr_random_reward")


def named_pairs(pairs: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of runs in the table: two runs of one seed first, then (run, run) for a run's next seed."""
    known = set(zip(pairs["run"], pairs["other"], strict=True))
    order = in_order({*pairs["run"], *pairs["other"]})
    return sorted(known, key=lambda pair: (pair[0] == pair[1], *map(order.index, pair)))


def pair_values(pairs: pd.DataFrame, pair: tuple[str, str], metric: str, **among: Sequence[Any]) -> pd.Series:
    """A metric of one pair, the mean over matrices (among values of layer and module), one entry a seed."""
    rows = rows_with(pairs, run=pair[0], other=pair[1], metric=metric)
    for column, values in among.items():
        rows = rows[rows[column].isin(values)]
    return rows.groupby("seed")["value"].mean()


def draw_jaccard(ax: Axes, pairs: pd.DataFrame, *, modules: Sequence[str]) -> None:
    """How many points more of the visible weights two runs share (Jaccard) than by rounding alone, a row a
    pair, the most first; probes of a run are left out.

    pairs: the table. A run with its own next seed is filled in its colour, two runs of a seed are in black.
    """
    shown = [pair for pair in named_pairs(pairs) if pair[1] not in _PROBES]
    _draw_pairs(ax, {pair: _beyond_rounding(pairs, pair, module=modules) for pair in shown})
    _name_rounding(ax)


def draw_cosines(ax: Axes, pairs: pd.DataFrame, *, modules: Sequence[str]) -> None:
    """Cosine of two updates, ⟨ΔW, ΔW'⟩ / ‖ΔW‖ ‖ΔW'‖, mean over matrices, a row a pair, the highest first, the
    look as in `draw_jaccard`; rotated heads are left out, whose weights are not the same."""
    shown = named_pairs(pairs[~pairs["other"].isin(ROTATED[1:])])
    _draw_pairs(ax, {pair: pair_values(pairs, pair, "update_cosine", module=modules) for pair in shown})
    draw_chance(ax, 0, "chance", axis="x")
    ax.set(xlabel="cosine of two updates", xlim=(-0.15, 1.03))


def _draw_pairs(ax: Axes, values: dict[tuple[str, str], pd.Series]) -> None:
    rows = []
    for run, other in sorted(values, key=lambda pair: -values[pair].mean()):
        one, two = (run_style(each).label for each in (run, other))
        name = f"{one}, next seed" if run == other else f"{one} – {two.removeprefix(f'{one}, ')}"
        look = run_style(run).spot if run == other else {"color": "black", "marker": "D"}
        rows.append((name, values[run, other], look))
    draw_rows(ax, rows)


def draw_rotated(ax: Axes, pairs: pd.DataFrame, rotated: Sequence[int]) -> None:
    """As `draw_jaccard`, OPD with and without rotated heads, over attention, in the layers that were rotated
    and in the others; a blank panel with a sentence where the table has no such pair."""
    rows = pairs[(pairs["run"] == ROTATED[0]) & (pairs["other"] == ROTATED[1])]
    if rows.empty or not rotated:
        return leave_blank(ax, "no run with rotated heads")
    untouched = sorted(set(rows["layer"]) - set(rotated))
    places = {"rotated layers": sorted(rotated), "untouched layers": untouched}
    color, lines = run_style(ROTATED[1]).color, []
    for fill, (place, layers) in zip((color, "white"), places.items(), strict=True):
        values = _beyond_rounding(rows, ROTATED, layer=layers, module=ATTENTION)
        look = {"color": color, "marker": "8", "markerfacecolor": fill}
        lines.append((f"{place}\n({', '.join(map(str, layers))})", values, look))
    draw_rows(ax, lines)
    _name_rounding(ax)


def _beyond_rounding(pairs: pd.DataFrame, pair: tuple[str, str], **among: Sequence[Any]) -> pd.Series:
    """Jaccard less that of `rounding alone`, in points, one entry a seed."""
    shared, rounding = (pair_values(pairs, pair, f"jaccard{null}", **among) for null in ("", "_rounding"))
    return 100 * (shared - rounding)


def _name_rounding(ax: Axes) -> None:
    draw_chance(ax, 0, "rounding alone", axis="x")
    ax.set_xlabel("Jaccard beyond rounding (points)")


def draw_shared(ax: Axes, pairs: pd.DataFrame, *, runs: Sequence[str], modules: Sequence[str]) -> None:
    """Short horizontal marks at the right edge of a panel of Sim_K along training: how much of the final
    subspace a run shares with its own next seed (in its colour), and OPD with RLVR and with matched SFT of
    its seed (black, the latter dotted)."""
    marks = [((run, run), run_style(run).color, "with its next seed") for run in runs]
    others = [other for other in ("rlvr", "sft_matched") if other in runs]
    marks += [(("opd", other), "black", f"OPD with {run_style(other).label}") for other in others]
    for pair, color, words in marks:
        values = pair_values(pairs, pair, "subspace_alignment", module=modules)
        if len(values):
            dashes = (0, (1, 0.6)) if pair[1] == "sft_matched" != pair[0] else "-"
            look: dict[str, Any] = {"linewidth": 2.2, "linestyle": dashes, "solid_capstyle": "butt"}
            ax.plot([1.04, 1.13], [values.mean()] * 2, color=color, **look)
            whose = run_style(pair[0]).label if pair[0] == pair[1] else ""
            tell(ax, words, values.mean(), of=whose, aside=True)
            label_once(ax, words, color="black" if pair[0] != pair[1] else NULL, **look)
