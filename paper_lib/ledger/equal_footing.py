"""Runs compared where they are equally far: each cut at one norm of its update, or at one accuracy.

At their ends runs differ in both, and either may be all that a claim sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.summaries import Untested, paired

POINTS = 10  # of a run that is cut, at equal shares of what is left of it


@dataclass(frozen=True, kw_only=True)
class CutResults(Results):
    """Results whose runs end early. whole: the results that are cut; stops: by run, the progress in (0, 1]
    at which it is, one a seed.

    Between snapshots every metric is interpolated linearly; before the first it has that one's value.
    """

    whole: Results
    stops: dict[str, pd.Series]

    def path(self, run: str, metric: str, *, null: str | None = None, **which: Any) -> pd.DataFrame:
        """As `Results.path`, up to the cut; nulls are those of whole runs and raise Untested."""
        if null is not None:
            raise Untested(f"the null {null} is of the whole run")
        if run not in self.stops:
            raise Untested(f"{run} is not among the runs compared at an equal point")
        path, shares = self.whole.path(run, metric, **which), np.arange(1, POINTS + 1) / POINTS
        stops = [(seed, stop) for seed, stop in self.stops[run].items() if seed in path]
        cut = {seed: np.interp(shares * stop, path.index, path[seed]) for seed, stop in stops}
        return pd.DataFrame(cut, index=pd.Index(shares, name="step"))

    def _whole(self, *asked: Any, **_: Any) -> NoReturn:
        """Raises Untested: tables know this of whole runs, and would answer as if none were cut."""
        raise Untested(f"what is asked of {asked[0]} is known of the whole run alone")

    paths = ends = firsts = _whole
    score = greedy = learning = branch = beside = total_norm = energy_share = pair = drift = curved = _whole
    retained = cosine = _whole


def at_equal_norm(results: Results, runs: Sequence[str]) -> CutResults:
    """Every run cut where ‖ΔW‖_F, the mean over matrices, reaches the smallest of their end norms, by seed.

    Raises Untested where a run is past it at its first snapshot.
    """
    return _cut(results, {run: results.path(run, "frobenius_norm").map(np.log) for run in runs}, "norm")


def at_equal_accuracy(results: Results, runs: Sequence[str]) -> CutResults:
    """Every run cut where the validation accuracy, made monotone by its running maximum, reaches the smallest
    of their best. Raises Untested where a run is past it at its first snapshot, as OPD is where SFT ends."""
    return _cut(results, {run: results.learning(run).cummax() for run in runs}, "accuracy")


def crossing(path: pd.DataFrame, target: pd.Series) -> pd.Series:
    """The progress at which each seed's path first reaches its target, interpolated; NaN where it starts
    above or never gets there. path: rising, one column a seed; target: one entry a seed."""
    found = {}
    for seed, goal in target.items():
        values = path[seed].to_numpy()
        inside = values[0] <= goal <= values.max()
        at = int(np.argmax(values >= goal))
        if inside and at > 0:
            share = (goal - values[at - 1]) / (values[at] - values[at - 1])
            found[seed] = path.index[at - 1] + share * (path.index[at] - path.index[at - 1])
        else:
            found[seed] = path.index[0] if inside else np.nan
    return pd.Series(found)


def _cut(results: Results, paths: dict[str, pd.DataFrame], of: str) -> CutResults:
    ends = paired(*(path.dropna(axis=1).max() for path in paths.values()))
    target = pd.concat(ends, axis=1).min(axis=1)
    stops = {run: crossing(path, target).dropna() for run, path in paths.items()}
    if past := [run for run, found in stops.items() if found.empty]:
        raise Untested(f"{past[0]} is past the {of} that the others reach at its first snapshot")
    tables = {each.name: getattr(results, each.name) for each in fields(Results) if each.init}
    return CutResults(**tables, whole=results, stops=stops)
