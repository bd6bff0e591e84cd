"""The results of a study: one way to read a number from its tables, and to save what is drawn from them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from paper_lib.figures.save import save_animation, save_figure
from paper_lib.ground.tables import read_table
from paper_lib.study.config import Profile
from paper_lib.study.profiles import REFERENCE, get_profile
from paper_lib.summaries import Untested, at_end, defined, over_matrices, rows_with, squared_norm


@dataclass(frozen=True, kw_only=True)
class Results:
    """The tables of one study, asked for one metric at a time: of every run, or of one.

    study: the profile that the tables are of. folder: where they lie; tables: those that are read already.
    figures: the folder of what is drawn from them. Values are means over matrices (`over_matrices`). What is
    asked of one run has one column or entry a seed; a run, metric or value that is missing raises Untested.
    """

    study: Profile
    folder: Path = Path()
    figures: Path = Path()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    _means: dict[Any, pd.DataFrame] = field(default_factory=dict, init=False, repr=False)
    _beside: dict[str, "Results"] = field(default_factory=dict, init=False, repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """A table, one of `tables.TABLES`; raises CompanionError where its file is missing or damaged."""
        if name not in self.tables:
            self.tables[name] = read_table(self.folder / f"{name}.parquet")
        return self.tables[name]

    def save(self, fig: Figure, name: str, *, inputs: Iterable[str | Path], caption: str) -> Path:
        """Save a figure as `save_figure` does. inputs: the tables that it is drawn from, and other files."""
        return save_figure(fig, name, self.figures, inputs=self._files(inputs), caption=caption)

    def animate(self, fig: Figure, name: str, *, inputs: Iterable[str | Path], **moving: Any) -> Path:
        """Save an animation as `save_animation` does; inputs as for `save`."""
        return save_animation(fig, name, self.figures, inputs=self._files(inputs), **moving)

    def _files(self, inputs: Iterable[str | Path]) -> list[Path]:
        return [each if isinstance(each, Path) else self.folder / f"{each}.parquet" for each in inputs]

    # --- Every run: rows of run, seed, step and value, to be drawn or averaged over seeds.

    def paths(
        self,
        metric: str,
        *,
        k: float | None = None,
        modules: Iterable[str] | None = None,
        nulls: bool = False,
    ) -> pd.DataFrame:
        """A metric along training: rows of run, seed, step and value; nulls: those of the nulls, by null."""
        asked = (metric, k, None if modules is None else tuple(modules), nulls)
        if asked not in self._means:
            table, sizes = self.table("nulls" if nulls else "matrices"), self.table("matrices")
            self._means[asked] = over_matrices(table, metric, k=k, modules=asked[2], sizes=sizes)
        return self._means[asked]

    def ends(self, metric: str, **which: Any) -> pd.DataFrame:
        """The rows of `paths` at each run's last snapshot; arguments as for `paths`."""
        return at_end(self.paths(metric, **which))

    def levels(self, metric: str, *, scale: float = 1.0, **which: Any) -> pd.Series:
        """The mean over seeds of `ends` times a scale, such as 100 for percent, one entry a run."""
        return scale * self.ends(metric, **which).groupby("run")["value"].mean()

    def firsts(self, metric: str, **which: Any) -> pd.DataFrame:
        """The rows of `paths` at each run's first snapshot after W_0; arguments as for `paths`."""
        rows = self.paths(metric, **which)
        return rows[rows["step"] == rows.groupby(["run", "seed"])["step"].transform("min")]

    def side_by_side(self, columns: Mapping[str, str | tuple[str, float]], **which: Any) -> pd.DataFrame:
        """Several metrics of `paths` beside each other, to be divided or drawn against one another.

        columns: name of each new column, and its metric or (metric, k). Returns columns run, seed, step (and
        null), then these, with the rows that all of them have.
        """
        frames = []
        for name, wanted in columns.items():
            metric, k = (wanted, None) if isinstance(wanted, str) else wanted
            frames.append(self.paths(metric, k=k, **which).rename(columns={"value": name}))
        return reduce(pd.merge, frames)

    # --- One run: a column or an entry a seed, to be compared seed by seed.

    def path(self, run: str, metric: str, *, null: str | None = None, **which: Any) -> pd.DataFrame:
        """A metric along training: one row a snapshot, indexed by its share of the run in (0, 1], one column
        a seed; k and modules as for `paths`. null: that null of the run instead."""
        missing = f"no {metric} of {run}{(null and f', null {null},') or ''} in the tables"
        try:
            rows = self.paths(metric, nulls=null is not None, **which)
        except Untested:
            raise Untested(missing) from None
        return _along(rows_with(rows, run=run, **({"null": null} if null else {})), missing)

    def end(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the last snapshot, one entry a seed; arguments as for `path`."""
        return defined(self.path(run, metric, **which).iloc[-1], f"{metric} of {run} at the end")

    def first(self, run: str, metric: str, **which: Any) -> pd.Series:
        """The value at the first snapshot after W_0, one entry a seed."""
        return defined(self.path(run, metric, **which).iloc[0], f"{metric} of {run} at its first snapshot")

    def learning(self, run: str, metric: str = "sampled_accuracy") -> pd.DataFrame:
        """Validation accuracy along training, W_0 left out, as `path` gives a metric."""
        rows = rows_with(self.table("curves"), run=run, metric=metric)
        return _along(rows[rows["step"] > 0], f"no validation accuracy of {run} in the tables")

    def score(self, run: str, task: str | None = None) -> tuple[pd.Series, pd.Series]:
        """Accuracy on the test problems of `task` (None: home) at the end and its standard error, by seed."""
        task = task or self.home
        return self._tested(run, f"sampled_accuracy:{task}"), self._tested(run, f"sampled_accuracy_se:{task}")

    def greedy(self, run: str) -> pd.Series:
        """Accuracy on the test problems at the end, each token the likeliest, one entry a seed."""
        return self._tested(run, f"greedy_accuracy:{self.home}")

    def _tested(self, run: str, metric: str) -> pd.Series:
        return self._known("curves", run=run, metric=metric).set_index("seed")["value"].sort_index()

    def total_norm(self, run: str) -> pd.Series:
        """‖ΔW‖_F over every matrix at the end, one entry a seed."""
        norms = at_end(self._known("matrices", run=run, metric="frobenius_norm"))
        return squared_norm(norms).set_index("seed")["square"].pow(0.5)

    def energy_share(self, run: str, modules: Iterable[str]) -> tuple[pd.Series, pd.Series]:
        """The share of Σ ‖ΔW‖_F² at the end that lies in these modules, in [0, 1], NaN where nothing moved,
        and their share of the weights, which is what equal sizes of all entries give (Yu et al. 2026)."""
        names, wanted = ("frobenius_norm", "parameters"), list(modules)
        norms, weights = (at_end(self._known("matrices", run=run, metric=name)) for name in names)
        return _share(norms.assign(value=norms["value"] ** 2), wanted), _share(weights, wanted)

    def retained(self, run: str, k: int) -> pd.Series:
        """F(k) at the end, one entry a seed: the share of Σ ‖ΔW‖_F² over all matrices that lies in the k
        leading singular directions of each (Zhou et al. 2026, App. C.1)."""
        top = self._known("matrices", run=run, metric="top_energy")
        if not (chosen := top["k"].eq(k)).any():
            raise Untested(f"no top_energy of {run} at k = {k} in the tables")
        rows = self._with_norms(at_end(top[chosen]), run)
        return _ratio(rows["value"] * rows[run] ** 2, rows[run] ** 2, rows["seed"])

    def cosine(self, run: str, other: str) -> pd.Series:
        """⟨ΔW, ΔW'⟩ / (‖ΔW‖ ‖ΔW'‖) of two runs, all matrices as one vector, one entry a seed."""
        rows = self._pairs(run, other, "update_cosine")
        for each in (run, other):
            rows = self._with_norms(rows, each)
        a, b, seed = rows[run], rows[other], rows["seed"]
        return _ratio(rows["value"] * a * b, a**2, seed) / _ratio(b**2, a**2, seed) ** 0.5

    def _with_norms(self, rows: pd.DataFrame, run: str) -> pd.DataFrame:
        """The rows with ‖ΔW‖_F of their matrix at the end of a run, in a column of its name."""
        norms = at_end(self._known("matrices", run=run, metric="frobenius_norm"))
        keys = ["seed", "layer", "module"]
        return rows.merge(norms[[*keys, "value"]].rename(columns={"value": run}), on=keys)

    def pair(self, run: str, other: str, metric: str, **among: Iterable[Any]) -> pd.Series:
        """A metric of the table `pairs` for two runs of one seed at their ends, the mean over matrices (among
        values of layer and of module), one entry a seed."""
        rows = self._pairs(run, other, metric, **among)
        return defined(rows.groupby("seed")["value"].mean(), f"{metric} of {run} and {other}")

    def _pairs(self, run: str, other: str, metric: str, **among: Iterable[Any]) -> pd.DataFrame:
        rows = rows_with(self.table("pairs"), run=run, other=other, metric=metric)
        rows = rows[rows["seed"] == rows["other_seed"]]
        for column, values in among.items():
            rows = rows[rows[column].isin(list(values))]
        if rows.empty:
            raise Untested(f"no {metric} of {run} and {other} in a table of pairs")
        return at_end(rows)

    def drift(self, run: str) -> pd.Series:
        """KL(π_0 ‖ π_t) at the end of a run, in nats a token, one entry a seed."""
        rows = self._known("trajectories", run=run, metric="forward_kl")
        return defined(at_end(rows).groupby("seed")["value"].mean(), f"forward_kl of {run}")

    def curved(self, run: str, direction: str) -> pd.Series:
        """The curvature of the KL at W_0 along a direction of a run ("start" for W_0's own), one a seed."""
        rows = self._known("curvature", run=run, metric="curvature", direction=direction)
        return defined(rows.groupby("seed")["value"].mean(), f"curvature along {direction} of {run}")

    def _known(self, table: str, *, run: str, metric: str, **where: str) -> pd.DataFrame:
        """The rows of a table with these entries; raises Untested where there are none."""
        rows = rows_with(self.table(table), run=run, metric=metric, **where)
        if rows.empty:
            place = "the tables" if table in ("matrices", "curves") else f"a table of {table}"
            raise Untested(f"no {' along '.join((metric, *where.values()))} of {run} in {place}")
        return rows

    # --- What the study says of its runs.

    def branch(self, run: str) -> float:
        """The share of its run after which a run goes on from another's state."""
        branches = {each.name: each.branch[1] / each.steps for each in self.study.everything if each.branch}
        if run not in branches:
            raise Untested(f"{run} continues no other run")
        return branches[run]

    def beside(self, profile: str) -> "Results":
        """The committed tables of another profile; only committed ones are read together."""
        folder = self.folder.parent / profile
        if not (self.study.committed and (folder / "matrices.parquet").is_file()):
            raise Untested(f"no tables of profile {profile} beside those of {self.study.name}")
        if profile not in self._beside:
            self._beside[profile] = Results(study=get_profile(profile), folder=folder, figures=self.figures)
        return self._beside[profile]

    @property
    def home(self) -> str:
        """The task of the main runs."""
        return self.study.run("opd").tasks[0].name

    @property
    def rotated(self) -> tuple[int, ...]:
        """The layers whose heads `opd_rotated` starts with rotated; none in a study without that run."""
        layers = [run.rotated_layers for run in self.study.everything if run.name == "opd_rotated"]
        return (layers and layers[0]) or ()

    @cached_property
    def runs(self) -> list[str]:
        """The runs that the tables know, by name."""
        return sorted({*self.table("matrices")["run"].unique(), *self.table("curves")["run"].unique()})

    @cached_property
    def scale(self) -> str:
        """The profile and how many weights its diagnostics track."""
        rows = rows_with(self.table("matrices"), metric="parameters")
        size = rows.drop_duplicates(["layer", "module"])["value"]
        return f"{self.study.name}: {size.sum() / 1e6:.2g} M weights in {len(size)} matrices"


def open_results(
    profile: str, *, data_dir: str | Path = "data", figures_dir: str | Path = "figures"
) -> Results:
    """The tables in data_dir/results/<profile>/; where there are none, those of the reference set, and a line
    that says so. Figures go to figures_dir/<profile>/ either way.

    Raises CompanionError for an unknown profile, and when a table is asked for that is nowhere.
    """
    study, folder = get_profile(profile), Path(data_dir) / "results" / profile
    reference = folder.with_name(REFERENCE.name)
    if not (folder / "matrices.parquet").is_file() and (reference / "matrices.parquet").is_file():
        print(f"{folder} has no tables yet: these are those of profile {REFERENCE.name}, in {reference}")
        study, folder = REFERENCE, reference
    return Results(study=study, folder=folder, figures=Path(figures_dir) / profile)


def by_size(studies: Iterable[Results], read: Callable[[Results], pd.Series]) -> pd.DataFrame:
    """What `read` takes from each study, one entry a seed, by the size of that seed's model: rows of seed,
    value, and step, the number of weights in its measured matrices."""
    found = []
    for results in studies:
        each = rows_with(results.table("matrices"), metric="parameters", run="opd")
        sizes = each.drop_duplicates(["seed", "layer", "module"]).groupby("seed")["value"].sum()
        found.append(pd.DataFrame({"step": sizes, "value": read(results)}).dropna())
    return pd.concat(found).rename_axis("seed").reset_index().assign(run="")


def _along(rows: pd.DataFrame, missing: str) -> pd.DataFrame:
    """One row a step, indexed by its share of the run, one column a seed; without rows, Untested says so."""
    if rows.empty:
        raise Untested(missing)
    path = rows.pivot(index="step", columns="seed", values="value")
    return path.set_index(path.index / path.index.max())


def _share(rows: pd.DataFrame, modules: list[str]) -> pd.Series:
    """The share of the sum of the values that lies in these modules, one entry a seed."""
    return _ratio(rows["value"].where(rows["module"].isin(modules), 0.0), rows["value"], rows["seed"])


def _ratio(above: pd.Series, below: pd.Series, seed: pd.Series) -> pd.Series:
    """The ratio of two sums of rows, one entry a seed."""
    return above.groupby(seed).sum() / below.groupby(seed).sum()
