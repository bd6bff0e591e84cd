"""Projected training to play with: whose subspace, what is projected, K and branch, beside free training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from paper_lib.figures.projected import projected_runs, scores
from paper_lib.figures.seeds import spread
from paper_lib.figures.styles import NULL, run_style
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.study.config import Profile
from paper_lib.summaries import at_end, say
from paper_lib.teaching.chart import Cell, line, panel, play_cells
from paper_lib.teaching.play import View

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
