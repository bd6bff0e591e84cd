"""What the figures of projected training and of the ledger draw: accuracies with their errors, a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from paper_lib.styles import run_style


def scores(curves: pd.DataFrame, runs: Sequence[str], task: str | None = None) -> pd.DataFrame:
    """Accuracy (avg@8) with its standard error, over the seeds that all `runs` have: run, step, mean, error.

    curves: the table. task: on the test problems of that task, at the end; None: on the validation problems
    of the run's own. The error is the evaluation's alone, √(Σ se²) / seeds. Raises ValueError for a run
    without such values, and where no seed is common.
    """
    suffix = f":{task}" if task else ""
    names = {f"sampled_accuracy{suffix}": "mean", f"sampled_accuracy_se{suffix}": "error"}
    rows = curves[curves["metric"].isin(names) & curves["run"].isin(runs)]
    if missing := [run for run in runs if run not in set(rows["run"])]:
        raise ValueError(f"no sampled_accuracy{suffix} of run {missing[0]!r} in the curves")
    seeds = set.intersection(*(set(group["seed"]) for _, group in rows.groupby("run")))
    if not seeds:
        raise ValueError(f"the runs {', '.join(runs)} have no seed in common")
    rows = rows[rows["seed"].isin(seeds)].replace({"metric": names})
    wide = rows.pivot(index=["run", "step", "seed"], columns="metric", values="value")
    groups = wide.assign(error=wide["error"] ** 2).groupby(["run", "step"])
    error = groups["error"].sum() ** 0.5 / len(seeds)
    return pd.DataFrame({"mean": groups["mean"].mean(), "error": error}).reset_index()


def draw_accuracy(ax: Axes, curves: pd.DataFrame, *, runs: Sequence[str], since: int = 0) -> None:
    """Validation accuracy along training: the first run's standard error as a band, the others' at their end.

    since: the first step to draw, such as that at which projected runs leave the free one.
    """
    found = scores(curves, runs)
    for number, run in enumerate(runs):
        line, style = found[found["run"] == run], run_style(run)
        x = line["step"] / line["step"].max()
        x, mean, error = (values[line["step"] >= since] for values in (x, line["mean"], line["error"]))
        look: dict[str, Any] = {"color": style.color, "marker": style.marker}
        ax.plot(x, mean, label=style.label, linestyle=style.linestyle, **look)
        if number == 0:
            ax.fill_between(x, mean - error, mean + error, color=style.color, alpha=0.15, linewidth=0)
        else:
            ax.errorbar([1.01 + 0.025 * number], mean.iloc[-1:], error.iloc[-1:], elinewidth=0.8, **look)
    ax.set(xlabel="training progress", xticks=(0, 0.5, 1))


def draw_scores(ax: Axes, curves: pd.DataFrame, task: str, *, runs: Sequence[str]) -> None:
    """Test accuracy on one task at the end of each run, with its standard error; dotted runs are hollow."""
    found = scores(curves, runs, task).set_index("run")
    for number, run in enumerate(runs):
        style, row = run_style(run), found.loc[[run]]
        fill = "white" if style.linestyle == ":" else style.color
        look: dict[str, Any] = {"color": style.color, "marker": style.marker, "markerfacecolor": fill}
        ax.errorbar(
            [number], row["mean"], row["error"], label=style.label, linestyle="", markersize=4.5, **look
        )
    ax.set(xticks=(), xlim=(-0.7, len(runs) - 0.3))
