"""What the figures of projected training and of the ledger draw: accuracies with their errors, a table."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper_lib.styles import run_style

_VERDICT_COLORS = {"agrees": "#CFE8DC", "partly": "#FBE9BF", "disagrees": "#F6CDB8"}
_LEDGER = {
    "claim": 5,
    "statement": 32,
    "paper": 22,
    "ours": 46,
    "verdict": 12,
    "why": 46,
    "verdict with matched SFT": 14,
}


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


def ledger_figure(rows: pd.DataFrame) -> Figure:
    """The ledger as a picture, its verdicts in colour."""
    width, leading = sum(_LEDGER.values()) + len(_LEDGER), 0.115
    cells = [
        [textwrap.wrap(str(row[name]), size) or [""] for name, size in _LEDGER.items()]
        for _, row in rows.iterrows()
    ]
    heads = [textwrap.wrap(name, size) for name, size in _LEDGER.items()]
    heights = [max(map(len, line)) + 0.8 for line in (heads, *cells)]
    fig = plt.figure(figsize=(0.052 * width, leading * sum(heights)))
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(sum(heights), 0))
    ax.set_axis_off()
    top = 0.0
    for number, (line, height) in enumerate(zip((heads, *cells), heights, strict=True)):
        left = 0.6
        for (name, size), words in zip(_LEDGER.items(), line, strict=True):
            if number and (color := _VERDICT_COLORS.get(" ".join(words))) and name.startswith("verdict"):
                ax.add_patch(Rectangle((left - 0.5, top), size + 0.6, height, color=color, linewidth=0))
            weight = "bold" if number == 0 or name == "claim" else "normal"
            ax.text(
                left, top + 0.45, "\n".join(words), va="top", fontsize=6.5, linespacing=1.2, weight=weight
            )
            left += size + 1
        top += height
        ax.axhline(top, color="black" if number == 0 else "#BBBBBB", linewidth=0.6)
    return fig
