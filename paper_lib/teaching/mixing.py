"""The trajectory of each α between RLVR and OPD, beside both: picture and view."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from paper_lib.figures.panels import draw_trajectory
from paper_lib.figures.projected import scores
from paper_lib.figures.seeds import ENOUGH, LEVEL, spread
from paper_lib.figures.styles import is_mix, run_style
from paper_lib.geometry.metrics import METRICS, metrics_of
from paper_lib.summaries import over_matrices
from paper_lib.teaching.play import View, drawn, view

SHOWN = {metric.name: metric.words for metric in metrics_of("fig4_intrinsic_geometry")}
SHOWN["sampled_accuracy"] = "validation accuracy"
_DIGITS = 5  # significant ones that numbers are shipped with


def play_mixing(matrices: pd.DataFrame, curves: pd.DataFrame, *, modules: Sequence[str]) -> View:
    """Choose α and a metric; see its path between those of OPD (α = 1) and RLVR (α = 0), and where it ends.

    matrices, curves: the tables, with the seeds that are to be averaged over. modules: as for
    `over_matrices`. The first α is the middle one of those that the tables have.
    """
    record, runs = mixing_record(matrices, curves, modules=modules), [*_between(matrices["run"].unique())]
    alpha, metric = record["start"]["alpha"], record["start"]["metric"]
    shown = list(dict.fromkeys((runs[0], runs[alpha], runs[-1])))
    figure = Figure(figsize=(6.0, 3.0), layout="constrained")
    ax = figure.subplots()
    draw_trajectory(ax, matrices, metric, runs=shown, modules=modules)
    ax.set_ylabel(SHOWN[metric])
    ax.legend()
    return view("mixing", record, drawn(figure, record["runs"][alpha]["paths"][metric]["said"]))


def mixing_record(matrices: pd.DataFrame, curves: pd.DataFrame, *, modules: Sequence[str]) -> dict[str, Any]:
    """What is shown, as JSON. runs: from RLVR to OPD, each with its α and, by metric, the lists progress,
    mean, low and high (null: no interval) and a sentence on its end. metrics: words and vertical axis."""
    runs = _between(matrices["run"].unique())
    paths = {metric: _paths(matrices, curves, metric, runs, tuple(modules)) for metric in SHOWN}
    found: list[dict[str, Any]] = [
        {"name": name_of(alpha), "alpha": alpha, "color": run_style(run).color, "paths": {}}
        for run, alpha in runs.items()
    ]
    for metric, path in paths.items():
        ends = {run: path[path["run"] == run].iloc[-1] for run in runs}
        for (run, alpha), each in zip(runs.items(), found, strict=True):
            beside = [f"{run_style(o).label}'s at {ends[o]['mean']:.3g}" for o in ("opd", "rlvr") if o != run]
            said = ", ".join([say_end(SHOWN[metric], alpha, ends[run]), *beside]) + "."
            each["paths"][metric] = _line(path[path["run"] == run]) | {"said": said}
    start = {"alpha": (len(found) - 1) // 2, "metric": next(iter(SHOWN))}
    return {"metrics": {m: _axis(m, path) for m, path in paths.items()}, "runs": found, "start": start}


def _axis(metric: str, path: pd.DataFrame) -> dict[str, Any]:
    values = path[["mean", "low", "high"]].to_numpy(dtype=float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    logarithmic = metric in METRICS and METRICS[metric].log and low > 0
    locator = LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(5)
    ticks = [float(f"{tick:.3g}") for tick in locator.tick_values(low, high) if low <= tick <= high]
    span = [_short(low), _short(high)]
    return {"label": SHOWN[metric], "log": logarithmic, "span": span, "ticks": ticks}


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


def _between(names: Iterable[str]) -> dict[str, float]:
    """The runs from RLVR to OPD by rising α."""
    alphas = {"rlvr": 0.0, "opd": 1.0} | {n: float(n.removeprefix("mix_")) for n in names if is_mix(n)}
    return dict(sorted(alphas.items(), key=lambda item: item[1]))


def _paths(
    matrices: pd.DataFrame, curves: pd.DataFrame, metric: str, runs: Iterable[str], modules: tuple[str, ...]
) -> pd.DataFrame:
    """run, step, mean, low, high and seeds: an interval from three seeds on, below that nothing; for
    accuracies the standard error over the problems."""
    if metric == "sampled_accuracy":
        found = scores(curves, [*runs])
    else:
        rows = matrices[matrices["run"].isin(list(runs)) & (matrices["metric"] == metric)]
        found = spread(over_matrices(rows, metric, modules=modules))
    return found.sort_values(["run", "step"], ignore_index=True)


def _line(path: pd.DataFrame) -> dict[str, Any]:
    progress = path["step"] / path["step"].max()
    columns = {"progress": progress, **{name: path[name] for name in ("mean", "low", "high")}}
    return {name: [_short(value) for value in values] for name, values in columns.items()}


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.{_DIGITS}g}")
