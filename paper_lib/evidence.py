"""What the ledger reads: the tables of one profile, asked for one metric of one run at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import floor, log10
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.config import DiagnosticsConfig
from paper_lib.nulls import t_interval
from paper_lib.profiles import get_profile
from paper_lib.summaries import over_matrices
from paper_lib.tables import read_table


class Untested(Exception):
    """A claim cannot be tested from these tables; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The tables of one profile. home: the task of the main runs; diagnostics: the sizes of the metrics.

    Every answer has one column or entry a seed; a run, metric or value that is not there raises Untested.
    """

    profile: str
    home: str
    diagnostics: DiagnosticsConfig
    matrices: pd.DataFrame
    nulls: pd.DataFrame
    curves: pd.DataFrame

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
        rows = self._measured.get((run, metric)) if null is None else self._null.get((null, run, metric))
        if rows is None:
            raise Untested(f"no {metric} of {run}{(null and f', null {null},') or ''} in the tables")
        sizes = self._measured.get((run, "parameters"))
        means = over_matrices(rows, metric, k=k, modules=modules, sizes=sizes)
        path = means.pivot(index="step", columns="seed", values="value")
        return path.set_index(path.index / path.index.max())

    def end(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the last snapshot, one entry a seed; arguments as for `path`."""
        return _defined(self.path(run, metric, **which).iloc[-1], f"{metric} of {run} at the end")

    def first(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the first snapshot after W_0, one entry a seed."""
        return _defined(self.path(run, metric, **which).iloc[0], f"{metric} of {run} at its first snapshot")

    def score(self, run: str, task: str | None = None) -> tuple[pd.Series, pd.Series]:
        """Accuracy on the test problems at the end and its standard error, one entry a seed; at home unless
        `task` names a variant."""
        name = f"sampled_accuracy{{}}:{task or self.home}"
        found = []
        for metric in (name.format(""), name.format("_se")):
            rows = self.curves[(self.curves["run"] == run) & (self.curves["metric"] == metric)]
            if rows.empty:
                raise Untested(f"no {metric} of {run} in the tables")
            found.append(rows.set_index("seed")["value"].sort_index())
        return found[0], found[1]

    @property
    def scale(self) -> str:
        """The profile and how many weights its diagnostics track."""
        rows = self.matrices[self.matrices["metric"] == "parameters"]
        size = rows.drop_duplicates(["layer", "module"])["value"]
        return f"{self.profile}: {size.sum() / 1e6:.2g} M weights in {len(size)} matrices"

    @cached_property
    def _measured(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.matrices.groupby(["run", "metric"])))

    @cached_property
    def _null(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.nulls.groupby(["null", "run", "metric"])))


def read_evidence(profile_name: str, data_dir: str | Path = "data") -> Evidence:
    """The tables in data_dir/results/<profile>/. Raises CompanionError for an unknown profile or table."""
    profile = get_profile(profile_name)
    folder = Path(data_dir) / "results" / profile_name
    tables = {name: read_table(folder / f"{name}.parquet") for name in ("matrices", "nulls", "curves")}
    home = profile.run("opd").tasks[0].name
    return Evidence(profile=profile_name, home=home, diagnostics=profile.diagnostics, **tables)


def paired(*values: pd.Series) -> list[pd.Series]:
    """The same entries of each: those of the seeds that all have, for comparisons seed by seed."""
    seeds = set.intersection(*(set(each.index) for each in values))
    if not seeds:
        raise Untested("the runs compared have no seed in common")
    return [each.loc[sorted(seeds)] for each in values]


def distance(path: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """RMS over the snapshots of `path` of log(path / other), seed by seed: 0.1 is about 10 % apart.

    path, other: positive, as `Evidence.path` gives them; `other` is interpolated at the progress of `path`.
    """
    return (log_ratio(path, other) ** 2).mean() ** 0.5


def seed_spread(path: pd.DataFrame, other: pd.DataFrame) -> float:
    """How much seeds move the distance of two runs that share their anchor: the standard deviation over seeds
    of log(path / other), RMS over the snapshots; NaN for one seed."""
    return float(log_ratio(path, other).var(axis=1).mean() ** 0.5)


def log_ratio(path: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """log(path / other) by snapshot of `path` and common seed."""
    seeds = sorted(set(path.dropna(axis=1).columns) & set(other.dropna(axis=1).columns))
    if not seeds:
        raise Untested("the runs compared have no seed in common")
    there = {seed: np.interp(path.index, other.index, other[seed]) for seed in seeds}
    return (path[seeds] / pd.DataFrame(there, index=path.index)).map(np.log)


def say(values: pd.Series, scale: float = 1.0) -> str:
    """The mean over seeds; with several, ± half the 95 % interval of that mean, to two digits."""
    mean = scale * values.mean()
    if len(values) == 1:
        return f"{mean:.3g}"
    low, high = t_interval(values.to_numpy(), 0.95)
    half = scale * (high - low) / 2
    if half == 0:
        return f"{mean:.3g} ± 0"
    decimals = max(0, 1 - floor(log10(half)))
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"


def _defined(values: pd.Series, of: str) -> pd.Series:
    if values.isna().all():
        raise Untested(f"{of} is undefined: its update or its mask is empty")
    return values.dropna()
