"""Is it size? A metric against the size of the update, run by run, and what size leaves over."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.drawing import label_once, plain_log
from paper_lib.drawing_seeds import ENOUGH, LEVEL, counted
from paper_lib.findings import label
from paper_lib.nulls import t_interval
from paper_lib.regression import OBJECTIVES, PREDICTORS, fit_size, linear, measured, predicted
from paper_lib.styles import BACKDROP, NULL, OPD, ORANGE, RLVR, SFT, named

_LOOKS: dict[str, dict[str, Any]] = {
    "sft": {"color": SFT, "marker": "s"},
    "opd": {"color": OPD, "marker": "o"},
    "rlvr": {"color": RLVR, "marker": "^"},
    "mix": {"color": ORANGE, "marker": "D"},
}


def draw_regression(ax: Axes, data: pd.DataFrame, outcome: str, *, against: str) -> None:
    """The outcome against one predictor, both logarithmic: a point a run and seed, by objective.

    data: as `regression.end_values` returns it. The line is the fit with the other predictor at its geometric
    mean; the points are as measured, so that they scatter about it by the other predictor too.
    """
    for kind, group in _by_objective(data):
        dots: dict[str, Any] = {"s": 16, "linewidths": 0, "alpha": 0.75, "label": named(label(kind))}
        ax.scatter(group[against], group[outcome], **dots, **_LOOKS[kind])
        label_once(ax, label(kind), linestyle="none", markersize=4, **_LOOKS[kind])
    line = pd.DataFrame({against: np.geomspace(data[against].min(), data[against].max(), 50)})
    for other in PREDICTORS:
        if other != against:
            line[other] = np.exp(np.log(data[other]).mean())
    fit = fit_size(data, outcome, draws=2)
    centre = linear(data[outcome], outcome).mean() - sum(
        fit.slopes[name] * np.log(data[name]).mean() for name in PREDICTORS
    )
    height = measured(centre + sum(fit.slopes[name] * np.log(line[name]) for name in PREDICTORS), outcome)
    ax.plot(line[against], height, color=NULL, linewidth=1, label="norm and drift ratio alone", gid=BACKDROP)
    ax.set(xlabel=_words(against), ylabel=_words(outcome))
    plain_log(ax, "xy")


def draw_residuals(ax: Axes, data: pd.DataFrame, outcome: str) -> None:
    """f(measured) − f(predicted from size), a row an objective: what is beyond norm and drift ratio.

    A point is a run and seed, a tick the mean of its objective, a bar its interval over seeds, each of which
    counts with the mean of its runs; all means at 0 is "it is size".
    """
    left = linear(data[outcome], outcome) - linear(predicted(data, outcome), outcome)
    kinds = [kind for kind, _ in _by_objective(data)]
    for row, (kind, group) in enumerate(_by_objective(data)):
        values = left[group.index]
        spread = row + np.linspace(-0.25, 0.25, len(values))
        ax.scatter(values, spread, s=12, linewidths=0, alpha=0.6, **_LOOKS[kind])
        seeds = values.groupby(group["seed"]).mean()
        color = _LOOKS[kind]["color"]
        counted(
            ax.plot([seeds.mean()] * 2, [row - 0.35, row + 0.35], color=color, linewidth=2)[0], len(seeds)
        )
        if len(seeds) >= ENOUGH:
            ax.plot(t_interval(seeds.to_numpy(), LEVEL), [row] * 2, color=color, linewidth=1.2)
    ax.axvline(0, color=NULL, linestyle="--", linewidth=1, gid=BACKDROP)
    ax.set_yticks(range(len(kinds)), [label(kind) for kind in kinds])
    ax.set(ylim=(len(kinds) - 0.5, -0.5), xlabel="left by size (log)")
    ax.grid(visible=False, axis="y")


def _by_objective(data: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = dict(iter(data.groupby("objective")))
    return [(kind, groups[kind]) for kind in OBJECTIVES if kind in groups]


def _words(name: str) -> str:
    return {"frobenius_norm": "norm of the update"}.get(name, name.replace("_", " "))
