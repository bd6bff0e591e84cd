"""What the figures of projected training and of the ledger draw: accuracies with their errors, a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from paper_lib.drawing_seeds import counted, draw_band, draw_few, is_few, spread
from paper_lib.styles import run_style


def scores(curves: pd.DataFrame, runs: Sequence[str], task: str | None = None) -> pd.DataFrame:
    """Accuracy (avg@8) over the seeds that all `runs` have: run, step, mean, error, low, high, seeds.

    curves: the table. task: on the test problems of that task, at the end; None: on the validation problems
    of the run's own. error is the evaluation's alone, √(Σ se²) / seeds; low and high are Student's interval
    over seeds, and mean ± error where there are fewer than three. Raises ValueError for a run without such
    values, and where no seed is common.
    """
    wide = _by_seed(curves, runs, task)
    found = spread(wide.rename(columns={"mean": "value"}))
    groups = wide.assign(error=wide["error"] ** 2).groupby(["run", "step"])["error"]
    error = groups.sum() ** 0.5 / wide["seed"].nunique()
    found = found.merge(error.reset_index(), on=["run", "step"])
    found["low"] = found["low"].fillna(found["mean"] - found["error"])
    found["high"] = found["high"].fillna(found["mean"] + found["error"])
    return found


def _by_seed(curves: pd.DataFrame, runs: Sequence[str], task: str | None) -> pd.DataFrame:
    suffix = f":{task}" if task else ""
    names = {f"sampled_accuracy{suffix}": "mean", f"sampled_accuracy_se{suffix}": "error"}
    rows = curves[curves["metric"].isin(names) & curves["run"].isin(runs)]
    if missing := [run for run in runs if run not in set(rows["run"])]:
        raise ValueError(f"no sampled_accuracy{suffix} of run {missing[0]!r} in the curves")
    seeds = set.intersection(*(set(group["seed"]) for _, group in rows.groupby("run")))
    if not seeds:
        raise ValueError(f"the runs {', '.join(runs)} have no seed in common")
    rows = rows[rows["seed"].isin(seeds)].replace({"metric": names})
    return rows.pivot(index=["run", "step", "seed"], columns="metric", values="value").reset_index()


def draw_accuracy(ax: Axes, curves: pd.DataFrame, *, runs: Sequence[str], since: int = 0) -> None:
    """Validation accuracy along training: the first run's interval as a band, the others' at their end.

    Intervals are those of `scores`; two seeds are dots at the end. since: the first step to draw, such as
    that at which projected runs leave the free one.
    """
    found, seeds = scores(curves, runs), _by_seed(curves, runs, None)
    for number, run in enumerate(runs):
        line, style, place = found[found["run"] == run], run_style(run), 1.01 + 0.025 * number
        last = line["step"].max()
        line, end = line[line["step"] >= since], line[line["step"] == last]
        look: dict[str, Any] = {"color": style.color, "marker": style.marker}
        x = line["step"] / last
        drawn = ax.plot(x, line["mean"], label=style.label, linestyle=style.linestyle, **look)[0]
        counted(drawn, end["seeds"].item())
        if number == 0:
            draw_band(ax, x, line, style.color)
        else:
            ax.errorbar([place], end["mean"], _reach(end), elinewidth=0.8, **look)
        if is_few(end["seeds"].item()):
            values = seeds.loc[(seeds["run"] == run) & (seeds["step"] == last), "mean"]
            draw_few(ax, [place] * len(values), values, style.color)
    ax.set(xlabel="training progress", xticks=(0, 0.5, 1))


def draw_scores(ax: Axes, curves: pd.DataFrame, task: str, *, runs: Sequence[str]) -> None:
    """Test accuracy on one task at the end of each run, with the interval of `scores`, two seeds as dots;
    dotted runs are hollow."""
    found, seeds = scores(curves, runs, task).set_index("run"), _by_seed(curves, runs, task)
    for number, run in enumerate(runs):
        style, row = run_style(run), found.loc[[run]]
        fill = "white" if style.linestyle == ":" else style.color
        look: dict[str, Any] = {"color": style.color, "marker": style.marker, "markerfacecolor": fill}
        bar = ax.errorbar(
            [number], row["mean"], _reach(row), label=style.label, linestyle="", markersize=4.5, **look
        )
        counted(bar.lines[0], row["seeds"].item())
        if is_few(row["seeds"].item()):
            values = seeds.loc[seeds["run"] == run, "mean"]
            draw_few(ax, [number + 0.3] * len(values), values, style.color)
    ax.set(xticks=(), xlim=(-0.7, len(runs) - 0.3))


def _reach(rows: pd.DataFrame) -> list[pd.Series]:
    """How far the bars of `errorbar` reach down and up."""
    return [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
