"""Projected training to play with: subspace, target, K and branch, beside free training."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from paper_lib.figures.panels import draw_trajectory
from paper_lib.figures.projected import accuracy_change, draw_accuracy, projected_runs
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.study.config import Profile
from paper_lib.summaries import say
from paper_lib.teaching.play import Control, Options, Play

_LABELS = {
    "parent": "Objective",
    "basis": "Subspace V",
    "constrain": "What is projected",
    "K": "K",
    "at": "V taken at",
}
_WORDS = {
    "early": "its own early V",
    "other_seed": "V of other rollouts",
    "random": "random V",
    "principal": "top of W₀",
}


def play_projection(profile: Profile, curves: pd.DataFrame) -> Play:
    """Choose among the projected runs that the table has; see its accuracy beside the free run's, and which
    share of its steps lay inside V. curves: the table."""
    runs = projected_runs(profile)
    runs = runs[runs["run"].isin(curves["run"]) & runs["parent"].isin(curves["run"])]
    rows = curves[curves["run"].isin({*runs["run"], *runs["parent"]})]
    controls = [
        Control(name=name, label=words, options=_offered(runs, name)) for name, words in _LABELS.items()
    ]
    return Play(controls, partial(draw_projection, profile, rows, runs))


def _offered(runs: pd.DataFrame, name: str) -> Callable[[Mapping[str, Any]], Options]:
    """The values of a column among the runs that have the values chosen before it."""

    def options(values: Mapping[str, Any]) -> Options:
        return [(_say(name, value), value) for value in _those(runs, values)[name].unique().tolist()]

    return options


def draw_projection(
    profile: Profile, curves: pd.DataFrame, runs: pd.DataFrame, **chosen: Any
) -> tuple[Figure, str]:
    """Left, validation accuracy of the chosen run and its free parent from the branch on, and of the random V
    of the same K where there is one; right, the share of the step at each snapshot that lay inside V."""
    run, parent = _those(runs, chosen).iloc[0]["run"], chosen["parent"]
    random = _those(runs, chosen | {"basis": "random"})["run"].tolist()
    shown = list(dict.fromkeys([run, *random]))
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    branch = profile.run(run).branch
    draw_accuracy(left, curves, runs=[parent, *shown], since=branch[1] if branch else 0)
    snapshots = curves.loc[curves["metric"] == "sampled_accuracy", "step"].unique()
    draw_trajectory(right, curves[curves["step"].isin(snapshots)], "share_inside", runs=shown)
    left.set(ylabel="validation accuracy", xlim=(0, 1.2))
    right.set(title="step's share inside V", ylim=(0, 1.03))
    left.legend()
    return figure, _words(profile, curves, run, chosen)


def _words(profile: Profile, curves: pd.DataFrame, run: str, chosen: Mapping[str, Any]) -> str:
    start = ", ".join(f"{_LABELS[name]}: {_say(name, value)}" for name, value in chosen.items())
    home = profile.run(chosen["parent"]).tasks[0].name
    changes = accuracy_change(profile, curves, home)
    change = changes.loc[changes["run"] == run].set_index("seed")["change"]
    if change.empty:
        return f"{start}. No seed has both this run and the free one."
    inside = curves[(curves["run"] == run) & (curves["metric"] == "share_inside")]
    return (
        f"{start}. Test accuracy minus the free run's: {say(change)} ({count_seeds({run: change})}); "
        f"{100 * inside['value'].mean():.0f} % of the energy of its steps lay inside V."
    )


def _those(runs: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in values.items():
        runs = runs[runs[name] == value]
    return runs


def _say(name: str, value: Any) -> str:
    if name == "at":
        return f"{100 * value:.0f} % of the run"
    return label(value) if name == "parent" else _WORDS.get(value, str(value))
