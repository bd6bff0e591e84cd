"""Sparsity to play with: the run, the precision its weights are stored in, and the tolerance η."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from paper_lib.figures.gates import PRECISIONS, left_edge
from paper_lib.figures.seeds import spread
from paper_lib.figures.styles import in_order, run_style
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.summaries import say
from paper_lib.teaching.chart import Cell, line, panel, play_cells
from paper_lib.teaching.play import View

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
