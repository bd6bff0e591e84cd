"""Sparsity to play with: the run, the precision its weights are stored in, and the tolerance η."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from paper_lib.figures.gates import PRECISIONS, draw_tolerances, left_edge
from paper_lib.figures.panels import draw_points
from paper_lib.figures.styles import in_order
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.summaries import say
from paper_lib.teaching.play import Control, Options, Play

_METRIC = "update_sparsity_"


def play_tolerance(trajectories: pd.DataFrame, *, runs: list[str], eta: float) -> Play:
    """Choose a run, a precision and an η that was measured in it; see its sparsity, beside that of `runs` at
    the same two. trajectories: the table. eta: the paper's."""
    rows = trajectories[trajectories["metric"].str.startswith(_METRIC)]
    there = set(rows["metric"])

    def etas(values: Mapping[str, Any]) -> Options:
        found = rows[(rows["run"] == values["run"]) & (rows["metric"] == _METRIC + values["precision"])]
        return [(f"{k:.4g}", k) for k in sorted(found["k"].unique().tolist())]

    stored = [(words, name) for name, (words, *_) in PRECISIONS.items() if _METRIC + name in there]
    controls = (
        Control(
            name="run",
            label="Run",
            options=[(label(run), run) for run in in_order(rows["run"].unique())],
            start="opd",
        ),
        Control(name="precision", label="Stored as", options=stored),
        Control(name="eta", label="Tolerance η", options=etas, start=eta, kind="slider"),
    )
    return Play(controls, partial(draw_tolerance, rows, tuple(runs), eta))


def draw_tolerance(
    rows: pd.DataFrame, runs: tuple[str, ...], paper: float, *, run: str, precision: str, eta: float
) -> tuple[Figure, str]:
    """Left, the run's sparsity over η in every precision, with the chosen one ringed; right, `runs` at the
    chosen precision and η. rows: those of `update_sparsity_<precision>`."""
    here = rows[(rows["metric"] == _METRIC + precision) & (rows["k"] == eta)]
    mine = here[here["run"] == run].set_index("seed")["value"]
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_tolerances(left, rows, run, eta=paper)
    left.plot(eta or left_edge(rows), mine.mean(), "o", color="black", mfc="none", markersize=11)
    left.legend()
    compared = [each for each in runs if each in set(here["run"])]
    draw_points(right, here, runs=compared)
    right.set(xlabel="update sparsity", xlim=(-0.03, 1.03))
    right.set_title(f"{PRECISIONS[precision][0]}, $\\eta$ = {eta:.4g}")
    means = here[here["run"].isin(compared)].groupby("run")["value"].mean().sort_values()
    order = ", ".join(f"{label(str(name))} {100 * value:.3g} %" for name, value in means.items())
    return figure, (
        f"{label(run)} stored in {PRECISIONS[precision][0]}: {say(mine, 100)} % of the weights are unchanged "
        f"at η = {eta:.4g} ({count_seeds({run: mine})}). From the least: {order}."
    )
