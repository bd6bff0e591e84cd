"""The trajectory of each α between RLVR and OPD, beside both: controls, picture and view."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.figures.projected import scores
from paper_lib.figures.seeds import ENOUGH, LEVEL, spread
from paper_lib.figures.styles import is_mix, run_style
from paper_lib.geometry.metrics import METRICS, metrics_of
from paper_lib.summaries import over_matrices
from paper_lib.teaching.chart import Cell, line, panel, play_cells
from paper_lib.teaching.play import View

SHOWN = {metric.name: metric.words for metric in metrics_of("fig4_intrinsic_geometry")}
SHOWN["sampled_accuracy"] = "validation accuracy"


def play_mixing(matrices: pd.DataFrame, curves: pd.DataFrame, *, modules: Iterable[str]) -> View:
    """Choose α and a metric; see its path between those of OPD (α = 1) and RLVR (α = 0), and where it ends.

    matrices, curves: the tables, with the seeds that are to be averaged over. modules: as for
    `over_matrices`. The first α is the middle one of those that the tables have.
    """
    runs, names, cells = _between(matrices["run"].unique()), tuple(modules), {}
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


def _between(names: Iterable[str]) -> dict[str, float]:
    alphas = {"rlvr": 0.0, "opd": 1.0} | {n: float(n.removeprefix("mix_")) for n in names if is_mix(n)}
    return dict(sorted(alphas.items(), key=lambda item: item[1]))
