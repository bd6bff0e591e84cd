"""Runs compared where they are equally far: each cut at one norm of its update, or at one accuracy.

At their ends runs differ in both, and either may be all that a claim sees.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from paper_lib.study.config import DiagnosticsConfig, Profile
from paper_lib.study.profiles import get_profile
from paper_lib.summaries import (
    Untested,
    at_end,
    defined,
    energy_share,
    mean_angles,
    over_matrices,
    paired,
    squared_norm,
)
from paper_lib.tables import read_table

# --- What the ledger reads: the tables of one profile, asked for one metric of one run at a time.


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The tables of one profile. home: the task of the main runs; diagnostics: the sizes of the metrics;
    rotated: the layers whose heads the run `opd_rotated` starts with rotated; branches: for each run that
    continues another, after which share of the run.

    Every answer has one column or entry a seed; a run, metric or value that is not there raises Untested.
    pairs, trajectories and curvature may be empty.
    """

    profile: str
    home: str
    diagnostics: DiagnosticsConfig
    matrices: pd.DataFrame
    nulls: pd.DataFrame
    curves: pd.DataFrame
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    trajectories: pd.DataFrame = field(default_factory=pd.DataFrame)
    curvature: pd.DataFrame = field(default_factory=pd.DataFrame)
    rotated: tuple[int, ...] = ()
    branches: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[str]:
        """The runs that the tables know, by name."""
        return sorted({*self.matrices["run"].unique(), *self.curves["run"].unique()})

    def path(
        self,
        run: str,
        metric: str,
        *,
        k: float | None = None,
        modules: Iterable[str] | None = None,
        null: str | None = None,
    ) -> pd.DataFrame:
        """A metric along training, the mean over matrices: one row a snapshot, indexed by its share of the
        run in (0, 1], one column a seed. null: that null of the run instead."""
        place = (run, metric, k, tuple(modules or ()), null)
        if place not in self._paths:
            self._paths[place] = self._path(run, metric, k, modules, null)
        return self._paths[place]

    def _path(
        self, run: str, metric: str, k: float | None, modules: Iterable[str] | None, null: str | None
    ) -> pd.DataFrame:
        rows = self._measured.get((run, metric)) if null is None else self._null.get((null, run, metric))
        if rows is None:
            raise Untested(f"no {metric} of {run}{(null and f', null {null},') or ''} in the tables")
        sizes = self._measured.get((run, "parameters"))
        means = over_matrices(rows, metric, k=k, modules=modules, sizes=sizes)
        path = means.pivot(index="step", columns="seed", values="value")
        return path.set_index(path.index / path.index.max())

    def end(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the last snapshot, one entry a seed; arguments as for `path`."""
        return defined(self.path(run, metric, **which).iloc[-1], f"{metric} of {run} at the end")

    def first(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the first snapshot after W_0, one entry a seed."""
        return defined(self.path(run, metric, **which).iloc[0], f"{metric} of {run} at its first snapshot")

    def score(self, run: str, task: str | None = None) -> tuple[pd.Series, pd.Series]:
        """Accuracy on the test problems at the end and its standard error, one entry a seed; at home unless
        `task` names a variant."""
        task = task or self.home
        return self._tested(run, f"sampled_accuracy:{task}"), self._tested(run, f"sampled_accuracy_se:{task}")

    def greedy(self, run: str) -> pd.Series:
        """Accuracy on the test problems at the end, each token the likeliest, one entry a seed."""
        return self._tested(run, f"greedy_accuracy:{self.home}")

    def _tested(self, run: str, metric: str) -> pd.Series:
        rows = _rows(self.curves, run=run, metric=metric)
        if rows.empty:
            raise Untested(f"no {metric} of {run} in the tables")
        return rows.set_index("seed")["value"].sort_index()

    def total_norm(self, run: str) -> pd.Series:
        """‖ΔW‖_F over every matrix at the end, one entry a seed."""
        return squared_norm(self._at_end(run, "frobenius_norm")).set_index("seed")["square"].pow(0.5)

    def energy_share(self, run: str, modules: Iterable[str]) -> tuple[pd.Series, pd.Series]:
        """The share of Σ ‖ΔW‖_F² at the end that lies in these modules, and their share of the weights."""
        wanted, weights = list(modules), self._at_end(run, "parameters")
        energy = energy_share(self._at_end(run, "frobenius_norm"), wanted).set_index("seed")["value"]
        inside = weights[weights["module"].isin(wanted)]
        return energy, inside.groupby("seed")["value"].sum() / weights.groupby("seed")["value"].sum()

    def _at_end(self, run: str, metric: str) -> pd.DataFrame:
        """The rows of every matrix at the last snapshot."""
        rows = self._measured.get((run, metric))
        if rows is None:
            raise Untested(f"no {metric} of {run} in the tables")
        return at_end(rows)

    def pair(
        self,
        run: str,
        other: str,
        metric: str,
        *,
        layers: Iterable[int] | None = None,
        modules: Iterable[str] | None = None,
    ) -> pd.Series:
        """A metric of the table `pairs` for two runs of one seed at their ends, the mean over matrices (of
        these layers and modules), one entry a seed."""
        rows = _rows(self.pairs, run=run, other=other, metric=metric)
        if len(rows):
            rows = rows[rows["seed"] == rows["other_seed"]]
            rows = rows if layers is None else rows[rows["layer"].isin(list(layers))]
            rows = rows if modules is None else rows[rows["module"].isin(list(modules))]
        if rows.empty:
            raise Untested(f"no {metric} of {run} and {other} in a table of pairs")
        return defined(at_end(rows).groupby("seed")["value"].mean(), f"{metric} of {run} and {other}")

    def drift(self, run: str, metric: str = "forward_kl") -> pd.Series:
        """How far the policy is from its start at the end of a run, in nats a token, one entry a seed."""
        rows = _rows(self.trajectories, run=run, metric=metric)
        if rows.empty:
            raise Untested(f"no {metric} of {run} in a table of trajectories")
        return defined(at_end(rows).groupby("seed")["value"].mean(), f"{metric} of {run}")

    def curved(self, run: str, direction: str) -> pd.Series:
        """The curvature of the KL at W_0 along a direction of a run ("start" for W_0's own), one a seed."""
        rows = _rows(self.curvature, run=run, metric="curvature", direction=direction)
        if rows.empty:
            raise Untested(f"no curvature along {direction} of {run} in a table of curvature")
        return defined(rows.groupby("seed")["value"].mean(), f"curvature along {direction} of {run}")

    def learning(self, run: str) -> pd.DataFrame:
        """Validation accuracy along training, W_0 left out, as `path` gives a metric."""
        rows = self.curves[(self.curves["run"] == run) & (self.curves["metric"] == "sampled_accuracy")]
        rows = rows[rows["step"] > 0]
        if rows.empty:
            raise Untested(f"no validation accuracy of {run} in the tables")
        path = rows.pivot(index="step", columns="seed", values="value")
        return path.set_index(path.index / path.index.max())

    def branch(self, run: str) -> float:
        """The share of its run after which a run goes on from another's state."""
        if run not in self.branches:
            raise Untested(f"{run} continues no other run")
        return self.branches[run]

    @property
    def scale(self) -> str:
        """The profile and how many weights its diagnostics track."""
        rows = self.matrices[self.matrices["metric"] == "parameters"]
        size = rows.drop_duplicates(["layer", "module"])["value"]
        return f"{self.profile}: {size.sum() / 1e6:.2g} M weights in {len(size)} matrices"

    @cached_property
    def _paths(self) -> dict[Any, pd.DataFrame]:
        return {}

    @cached_property
    def _measured(self) -> dict[Any, pd.DataFrame]:
        return _grouped(self.matrices, "run", "metric")

    @cached_property
    def _null(self) -> dict[Any, pd.DataFrame]:
        return _grouped(self.nulls, "null", "run", "metric")


def read_evidence(profile_name: str, data_dir: str | Path = "data") -> Evidence:
    """The tables in data_dir/results/<profile>/. Raises CompanionError for an unknown profile or table."""
    profile = get_profile(profile_name)
    folder = Path(data_dir) / "results" / profile_name
    tables = {name: read_table(folder / f"{name}.parquet") for name in ("matrices", "nulls", "curves")}
    for name in ("pairs", "trajectories", "curvature"):
        if (folder / f"{name}.parquet").is_file():
            tables[name] = read_table(folder / f"{name}.parquet")
    home = profile.run("opd").tasks[0].name
    return Evidence(
        profile=profile_name,
        home=home,
        diagnostics=profile.diagnostics,
        rotated=_rotated_layers(profile),
        branches={run.name: run.branch[1] / run.steps for run in profile.everything if run.branch},
        **tables,
    )


def _rotated_layers(profile: Profile) -> tuple[int, ...]:
    """The layers whose heads `opd_rotated` starts with rotated; none in a profile without that run."""
    try:
        return profile.run("opd_rotated").rotated_layers or ()
    except ValueError:
        return ()


def _rows(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    """The rows with these entries; none of an empty table, which has no columns."""
    for column, value in where.items():
        table = table[table[column] == value] if len(table) else table
    return table


def _grouped(table: pd.DataFrame, *keys: str) -> dict[Any, pd.DataFrame]:
    """A table's rows by these keys, with those of the mean angle of both sides."""
    return {place: rows for each in (table, mean_angles(table)) for place, rows in each.groupby([*keys])}


POINTS = 10  # of a run that is cut, at equal shares of what is left of it


@dataclass(frozen=True, kw_only=True)
class CutEvidence(Evidence):
    """Evidence whose runs end early. whole: the evidence that is cut; stops: by run, the progress in (0, 1]
    at which it is, one a seed.

    Between snapshots every metric is interpolated linearly; before the first it has that one's value.
    """

    whole: Evidence
    stops: dict[str, pd.Series]

    def path(
        self,
        run: str,
        metric: str,
        *,
        k: float | None = None,
        modules: Iterable[str] | None = None,
        null: str | None = None,
    ) -> pd.DataFrame:
        """As `Evidence.path`, up to the cut; nulls are those of whole runs and raise Untested."""
        if null is not None:
            raise Untested(f"the null {null} is of the whole run")
        if run not in self.stops:
            raise Untested(f"{run} is not among the runs compared at an equal point")
        path, shares = self.whole.path(run, metric, k=k, modules=modules), np.arange(1, POINTS + 1) / POINTS
        stops = [(seed, stop) for seed, stop in self.stops[run].items() if seed in path]
        cut = {seed: np.interp(shares * stop, path.index, path[seed]) for seed, stop in stops}
        return pd.DataFrame(cut, index=pd.Index(shares, name="step"))

    def _whole(self, run: str, *_: Any, **__: Any) -> NoReturn:
        """Raises Untested: tables know this of whole runs, and would answer as if none were cut."""
        raise Untested(f"what is asked of {run} is known of the whole run alone")

    score = greedy = learning = branch = total_norm = energy_share = pair = drift = curved = _whole


def at_equal_norm(evidence: Evidence, runs: Sequence[str]) -> CutEvidence:
    """Every run cut where ‖ΔW‖_F, the mean over matrices, reaches the smallest of their end norms, by seed.

    Raises Untested where a run is past it at its first snapshot.
    """
    paths = {run: evidence.path(run, "frobenius_norm").map(np.log) for run in runs}
    return _cut(evidence, paths, "norm")


def at_equal_accuracy(evidence: Evidence, runs: Sequence[str]) -> CutEvidence:
    """Every run cut where the validation accuracy, made monotone by its running maximum, reaches the smallest
    of their best. Raises Untested where a run is past it at its first snapshot, as OPD is where SFT ends."""
    paths = {run: evidence.learning(run).cummax() for run in runs}
    return _cut(evidence, paths, "accuracy")


def crossing(path: pd.DataFrame, target: pd.Series) -> pd.Series:
    """The progress at which each seed's path first reaches its target, interpolated; NaN where it starts
    above or never gets there. path: rising, one column a seed; target: one entry a seed."""
    crossings = {}
    for seed, goal in target.items():
        values = path[seed].to_numpy()
        inside = values[0] <= goal <= values.max()
        at = int(np.argmax(values >= goal))
        if inside and at > 0:
            share = (goal - values[at - 1]) / (values[at] - values[at - 1])
            crossings[seed] = path.index[at - 1] + share * (path.index[at] - path.index[at - 1])
        else:
            crossings[seed] = path.index[0] if inside else np.nan
    return pd.Series(crossings)


def _cut(evidence: Evidence, paths: dict[str, pd.DataFrame], of: str) -> CutEvidence:
    ends = paired(*(path.dropna(axis=1).max() for path in paths.values()))
    target = pd.concat(ends, axis=1).min(axis=1)
    stops = {run: crossing(path, target).dropna() for run, path in paths.items()}
    if past := [run for run, shares in stops.items() if shares.empty]:
        raise Untested(f"{past[0]} is past the {of} that the others reach at its first snapshot")
    tables: dict[str, Any] = {each.name: getattr(evidence, each.name) for each in fields(Evidence)}
    return CutEvidence(**tables, whole=evidence, stops=stops)
