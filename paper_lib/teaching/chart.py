"""Lines in panels to choose among, as one record: matplotlib draws it in a notebook, a script in any page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from paper_lib.teaching.play import View, view

_DIGITS = 5  # significant ones that numbers are shipped with
Kinds = Mapping[str, tuple[str, str]]  # by control, its label and kind: "list" or "slider"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands at one choice. panels: of `panel`; said: its sentences; marks: rings (panel, x, y)."""

    panels: tuple[dict[str, Any], ...]
    said: tuple[str, ...]
    marks: tuple[tuple[int, float, float], ...] = ()


def line(
    name: str, color: str, path: pd.DataFrame, *, dashes: str = "-", chosen: bool = False
) -> dict[str, Any]:
    """One line of a panel. path: columns x and mean, and low and high where they are known; dashes: as of
    matplotlib, "" for points with whiskers; chosen: thicker, with dots and the band from low to high."""
    columns = path.reindex(columns=["x", "mean", "low", "high"])
    values = {str(key): [_short(value) for value in columns[key]] for key in columns}
    return {"name": name, "color": color, "dashes": dashes, "chosen": chosen, **values}


def panel(
    title: str,
    axes: tuple[str, str],
    lines: Sequence[dict[str, Any]],
    *,
    log: str = "",
    ylim: tuple[float, float] | None = None,
    xticks: Sequence[tuple[float, str]] = (),
) -> dict[str, Any]:
    """Lines in one frame. axes: words of x and y; log: the letters of logarithmic axes; ylim: else what the
    lines span; xticks: else round numbers."""
    spans = _span(lines, "x"), ylim or _span(lines, "mean", "low", "high")
    ticks = [_ticks(*span, logarithmic=name in log) for name, span in zip("xy", spans, strict=True)]
    limits = {f"{name}lim": [_short(end) for end in span] for name, span in zip("xy", spans, strict=True)}
    shown = {"xticks": [[_short(x), word] for x, word in xticks] or ticks[0], "yticks": ticks[1]}
    return {"title": title, "axes": axes, "log": log, "lines": list(lines), **limits, **shown}


def _span(lines: Sequence[dict[str, Any]], *keys: str) -> tuple[float, float]:
    values = [value for each in lines for key in keys for value in each[key] if value is not None]
    return min(values), max(values)


def _ticks(low: float, high: float, *, logarithmic: bool) -> list[list[Any]]:
    locator = LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(5)
    values = [float(f"{tick:.3g}") for tick in locator.tick_values(low, high) if low <= tick <= high]
    return [[value, f"{value:g}"] for value in values]


def play_cells(kinds: Kinds, cells: Mapping[Any, Cell], *, start: Sequence[str] = ()) -> View:
    """Choose a cell by one control after another. kinds: by control, its label and kind; cells: by the words
    chosen; start: the first choice, else the first cell."""
    # A cell is shipped as the places of its words, panels and sentences in lists that have each of them once.
    first = tuple(start) or next(iter(cells))
    offered = [list(dict.fromkeys(key[place] for key in cells)) for place in range(len(kinds))]
    panels = {id(each): each for cell in cells.values() for each in cell.panels}
    said = list(dict.fromkeys(words for cell in cells.values() for words in cell.said))
    place = {each: n for each_once in (said, panels) for n, each in enumerate(each_once)}
    rows = [
        [
            [words.index(word) for words, word in zip(offered, key, strict=True)],
            [place[id(each)] for each in cell.panels],
            [place[words] for words in cell.said],
            [[number, _short(x), _short(y)] for number, x, y in cell.marks],
        ]
        for key, cell in cells.items()
    ]
    controls = [
        {"name": name, "label": label, "kind": kind, "options": words}
        for (name, (label, kind)), words in zip(kinds.items(), offered, strict=True)
    ]
    at = [words.index(word) for words, word in zip(offered, first, strict=True)]
    record = {"controls": controls, "start": at, "cells": rows, "panels": [*panels.values()], "said": said}
    return view("chart", record, _figure(cells[first]), " ".join(cells[first].said))


def _figure(cell: Cell) -> Figure:
    figure = Figure(figsize=(7.2 if len(cell.panels) > 1 else 6.0, 3.0), layout="constrained")
    axes = figure.subplots(1, len(cell.panels), squeeze=False)[0]
    for ax, about in zip(axes, cell.panels, strict=True):
        for each in about["lines"]:
            path = pd.DataFrame({key: each[key] for key in ("x", "mean", "low", "high")}, dtype=float)
            look = {"color": each["color"], "linewidth": 2.2 if each["chosen"] else 1.2}
            marker = "o" if each["chosen"] or not each["dashes"] else ""
            ax.plot("x", "mean", each["dashes"], data=path, marker=marker, label=each["name"], **look)
            if not each["dashes"]:
                ax.vlines(path["x"], path["low"], path["high"], **look)
            elif each["chosen"]:
                ax.fill_between(path["x"], path["low"], path["high"], color=each["color"], alpha=0.15)
        ax.set(xscale="log" if "x" in about["log"] else "linear", title=about["title"])
        ax.set(yscale="log" if "y" in about["log"] else "linear", xlabel=about["axes"][0])
        ax.set(ylabel=about["axes"][1])
        for axis, ticks in ((ax.xaxis, about["xticks"]), (ax.yaxis, about["yticks"])):
            axis.set_ticks([value for value, _ in ticks], [words for _, words in ticks])
            axis.set_minor_locator(NullLocator())
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))  # each name once
        ax.legend(handles.values(), handles, fontsize=7)
    for number, x, y in cell.marks:
        axes[number].plot(x, y, "o", color="black", mfc="none", markersize=11)
    return figure


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{_DIGITS}g}")
