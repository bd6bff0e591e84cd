"""Charts to choose among by controls, each lines in panels: tolerances, mixes, projected training.

Matplotlib draws a chart's first choice in a notebook, a script every choice in any page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from paper_lib.figures.gates import PRECISIONS, left_edge
from paper_lib.figures.projected import projected_runs, scores
from paper_lib.figures.seeds import ENOUGH, LEVEL, spread
from paper_lib.figures.styles import NULL, in_order, is_mix, run_style
from paper_lib.geometry.metrics import METRICS, metrics_of
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.study.config import Profile
from paper_lib.summaries import at_end, over_matrices, say
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


# --- Sparsity: the run, the precision its weights are stored in, and the tolerance η.

_METRIC = "update_sparsity_"
_AXES = ("tolerance η (left edge: 0)", "update sparsity")


def play_tolerance(trajectories: pd.DataFrame, *, runs: Sequence[str], eta: float) -> View:
    """Choose a run, a precision and an η that was measured in it; see its sparsity in every precision over η,
    and that of `runs` in the chosen one. trajectories: the table. eta: the paper's, which comes first."""
    rows = trajectories[trajectories["metric"].str.startswith(_METRIC) & trajectories["k"].notna()]
    rows = rows.assign(stored=rows["metric"].str.removeprefix(_METRIC), step=rows["k"])
    edge, values = left_edge(rows), rows.groupby(["run", "stored", "step"])
    means = pd.concat({stored: spread(group) for stored, group in rows.groupby("stored")})
    means = means.reset_index(level=0, names="stored").sort_values("step")
    means["x"] = means["step"].replace(0, edge)
    stored = [name for name in PRECISIONS if name in set(means["stored"])]
    ticks = [(edge, "0"), *((x, f"{x:g}") for x in (1e-3, 1e-2) if x < means["x"].max())]
    look: dict[str, Any] = {"log": "x", "ylim": (0.0, 1.0), "xticks": ticks}
    compared = {}
    for name in stored:
        drawn = {run: means[(means["run"] == run) & (means["stored"] == name)] for run in runs}
        lines = [
            line(label(run), run_style(run).color, path, dashes=run_style(run).linestyle)
            for run, path in drawn.items()
            if len(path)
        ]
        compared[name] = panel(f"stored in {PRECISIONS[name][0]}", _AXES, lines, **look)
    order = {
        key: ", ".join(f"{label(str(run))} {100 * value:.1f} %" for run, value in group.sort_values().items())
        for key, group in means[means["run"].isin(runs)].set_index("run").groupby(["stored", "step"])["mean"]
    }
    cells = {}
    for run in in_order(means["run"].unique()):
        paths = {name: path for name, path in means[means["run"] == run].groupby("stored")}
        there = [name for name in stored if name in paths]
        lines = [line(*PRECISIONS[name][:2], paths[name], chosen=True) for name in there]
        own = panel(label(run), _AXES, lines, **look)
        for name in there:
            for step, x, mean in paths[name][["step", "x", "mean"]].itertuples(index=False):
                mine = values.get_group((run, name, step)).set_index("seed")["value"]
                said = (
                    f"{label(run)} stored in {PRECISIONS[name][0]}: {say(mine, 100)} % of the weights are "
                    f"unchanged at η = {step:.4g} ({count_seeds({run: mine})}).",
                    f"From the least: {order[name, step]}.",
                )
                key = (label(run), PRECISIONS[name][0], f"{step:.4g}")
                cells[key] = Cell(panels=(own, compared[name]), said=said, marks=((0, x, mean),))
    kinds = {"run": ("Run", "list"), "precision": ("Stored as", "list"), "eta": ("Tolerance η", "slider")}
    wanted = (label("opd"), PRECISIONS[stored[0]][0], f"{eta:.4g}")
    return play_cells(kinds, cells, start=wanted if wanted in cells else ())


# --- The trajectory of each α between RLVR and OPD, beside both.

SHOWN = {metric.name: metric.words for metric in metrics_of("fig4_intrinsic_geometry")}
SHOWN["sampled_accuracy"] = "validation accuracy"


def play_mixing(matrices: pd.DataFrame, curves: pd.DataFrame, *, modules: Iterable[str]) -> View:
    """Choose α and a metric; see its path between those of OPD (α = 1) and RLVR (α = 0), and where it ends.

    matrices, curves: the tables, with the seeds that are to be averaged over. modules: as for
    `over_matrices`. The first α is the middle one of those that the tables have.
    """
    alphas = {"rlvr": 0.0, "opd": 1.0}
    alphas |= {run: float(run.removeprefix("mix_")) for run in matrices["run"].unique() if is_mix(run)}
    runs, names, cells = dict(sorted(alphas.items(), key=lambda item: item[1])), tuple(modules), {}
    mixes = matrices[matrices["run"].isin(list(runs))]
    for metric, words in SHOWN.items():
        # The interval is of three seeds or more; for accuracies, the standard error over the problems.
        accuracy = metric == "sampled_accuracy"
        path = scores(curves, [*runs]) if accuracy else spread(over_matrices(mixes, metric, modules=names))
        path = path.sort_values(["run", "step"], ignore_index=True)
        path = path.assign(x=path["step"] / path.groupby("run")["step"].transform("max"))
        paths = {run: path[path["run"] == run] for run in runs}
        span = (path[["mean", "low"]].min().min(), path[["mean", "high"]].max().max())
        log = "y" if not accuracy and METRICS[metric].log and span[0] > 0 else ""
        for chosen, alpha in runs.items():
            lines = []
            for run in dict.fromkeys(("rlvr", "opd", chosen)):
                look: dict[str, Any] = {"dashes": "--" if run == "rlvr" else "-", "chosen": run == chosen}
                lines.append(line(name_of(runs[run]), run_style(run).color, paths[run], **look))
            shown = panel(words, ("training progress", words), lines, log=log, ylim=span)
            ends = {run: rows.iloc[-1] for run, rows in paths.items()}
            others = [run for run in ("opd", "rlvr") if run != chosen]
            beside = [f"{run_style(run).label}'s at {ends[run]['mean']:.3g}" for run in others]
            said = ", ".join([say_end(words, alpha, ends[chosen]), *beside]) + "."
            cells[name_of(alpha), words] = Cell(panels=(shown,), said=(said,))
    kinds = {"alpha": ("Share of OPD", "slider"), "metric": ("Shown", "list")}
    middle = name_of([*runs.values()][(len(runs) - 1) // 2])
    return play_cells(kinds, cells, start=(middle, next(iter(SHOWN.values()))))


def name_of(alpha: float) -> str:
    """An α in words, such as "α = 1, OPD"."""
    return f"α = {alpha:g}" + {0.0: ", RLVR", 1.0: ", OPD"}.get(alpha, "")


def say_end(words: str, alpha: float, row: pd.Series) -> str:
    """Where a path ends, with the interval and what that is over."""
    seeds, start = int(row["seeds"]), f"{name_of(alpha)}: {words} ends at {row['mean']:.3g}"
    counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
    if np.isnan(row["low"]):
        return f"{start} ({counted})"
    few = "± 1 standard error over the problems,"
    over = few if seeds < ENOUGH else f"{100 * LEVEL:.0f} % interval over"
    return f"{start} ({row['low']:.3g} to {row['high']:.3g}, {over} {counted})"


# --- Projected training: whose subspace, what is projected, K and branch, beside free training.

_LABELS = {"parent": "Objective", "V": "Subspace V", "constrain": "What is projected", "K": "K"}
_LABELS |= {"at": "V taken at"}
_WORDS = {"early": "its own early V", "random": "random V", "principal": "top of W₀", "none": "no direction"}
_APART = 0.3  # between points of one K on its axis


def play_projection(profile: Profile, curves: pd.DataFrame) -> View:
    """Choose among the projected runs that the table has; see validation accuracy along training and, at the
    end, over K, beside free training and a random V, and which share of its steps lay inside V.

    curves: the table. Runs that have a K of its own for each matrix are left out.
    """
    runs = projected_runs(profile)
    runs = runs[runs["run"].isin(curves["run"]) & runs["parent"].isin(curves["run"])]
    settings = {run: profile.run(run).projection for run in runs["run"]}
    runs = runs[[getattr(settings[run], "energy", None) is None for run in runs["run"]]]
    pairs = runs[["run", "basis"]].to_numpy()
    sources = [_WORDS.get(basis) or _source(settings[run]) for run, basis in pairs]
    order = {source: _APART * n for n, source in enumerate(dict.fromkeys(sources))}
    runs = runs.assign(V=sources, x=[K + order[V] for K, V in zip(runs["K"], sources, strict=True)])
    rows, inside = (curves[curves["metric"] == name] for name in ("sampled_accuracy", "share_inside"))
    ends = at_end(rows).set_index(["run", "seed"])["value"]
    lost = {run: (ends[run] - ends[free]).dropna() for run, free in runs[["run", "parent"]].to_numpy()}
    paths = {run: scores(curves, [run]) for run in {*runs["run"], *runs["parent"]}}
    over_K = {parent: _over_K(group, lost) for parent, group in runs.groupby("parent")}
    cells = {}
    for about in runs.to_dict("records"):
        run, parent, K = about["run"], about["parent"], about["K"]
        chance = runs[(runs["parent"] == parent) & (runs["K"] == K) & (runs["basis"] == "random")]["run"]
        drawn = dict.fromkeys([parent, *chance, run])
        lines = [_along(name, paths[name], about["at"], name == run) for name in drawn]
        along = panel(f"{label(parent)} along training", ("training progress", "validation accuracy"), lines)
        share = inside.loc[inside["run"] == run, "value"].mean()
        start = "; ".join(f"{words}: {_say(name, about[name])}" for name, words in _LABELS.items())
        said = f"{start}. Validation accuracy at the end minus the free run's: {say(lost[run])} "
        said += f"({count_seeds({run: lost[run]})})"
        said += f"; {100 * share:.0f} % of the energy of its steps lay inside V." if share == share else "."
        key = tuple(_say(name, about[name]) for name in _LABELS)
        marks = ((1, about["x"], lost[run].mean()),)
        cells[key] = Cell(panels=(along, over_K[parent]), said=(said,), marks=marks)
    return play_cells({name: (words, "list") for name, words in _LABELS.items()}, cells)


def _source(projection: Any) -> str:
    return f"V of {label(projection.source).replace('OPD, other', 'other')}"


def _along(run: str, path: pd.DataFrame, since: float, chosen: bool) -> dict[str, Any]:
    path = path.assign(x=path["step"] / path["step"].max())
    style = run_style(run)
    return line(label(run), style.color, path[path["x"] >= since], dashes=style.linestyle, chosen=chosen)


def _over_K(runs: pd.DataFrame, lost: Mapping[str, pd.Series]) -> dict[str, Any]:
    """What projected gradients of a parent lose over K, from the usual branch on: a line a source of V."""
    usual, lines = runs[(runs["constrain"] == "gradient") & runs["usual_at"]], []
    for source, group in usual.groupby("V", sort=False):
        places = group[["run", "x"]].to_numpy()
        values = pd.concat([lost[run].to_frame("value").assign(run="", step=x) for run, x in places])
        look = run_style(group["run"].iloc[0])
        path = spread(values).sort_values("step").rename(columns={"step": "x"})
        lines.append(line(str(source), look.color, path, dashes="-" if len(path) > 1 else ""))
    level = pd.DataFrame({"x": [0, runs["K"].max()], "mean": 0.0})
    lines.append(line("free training", NULL, level, dashes="--"))
    return panel("at the end, over K", ("K", "accuracy − free run's"), lines)


def _say(name: str, value: Any) -> str:
    if name == "at":
        return f"{100 * value:.0f} % of the run"
    return label(value) if name == "parent" else str(value)
