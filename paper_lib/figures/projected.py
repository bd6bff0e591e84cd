"""What the figure of projected training draws over K, over the branch point, and over what is projected."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.figures.panels import draw_chance, draw_rows
from paper_lib.figures.results import Results
from paper_lib.figures.seeds import draw_band, draw_few, is_few, spread, tell_means
from paper_lib.figures.styles import in_order, run_style
from paper_lib.study.config import Profile
from paper_lib.summaries import paired

# --- Accuracies with their errors.


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
        x = line["step"] / last
        ax.plot(x, line["mean"], label=style.label, **style.line)
        tell_means(ax, style.label, line)
        if number == 0:
            draw_band(ax, x, line, style.color)
        else:
            ax.errorbar([place], end["mean"], _reach(end), elinewidth=0.8, **style.spot)
        if is_few(end["seeds"].item()):
            values = seeds.loc[(seeds["run"] == run) & (seeds["step"] == last), "mean"]
            draw_few(ax, [place] * len(values), values, style.color)
    ax.set(xlabel="training progress", xticks=(0, 0.5, 1))


def draw_losses(ax: Axes, results: Results, task: str, *, runs: Sequence[str], free: str) -> pd.Series:
    """Points of test accuracy by which a confined run ends below its free parent, a row a run; the means."""
    lost = dict[str, pd.Series]()
    for run in runs:
        whole, confined = paired(*(results.score(each, task)[0] for each in (free, run)))
        lost[run] = 100 * (whole - confined)
    draw_rows(ax, [(run_style(run).label, values, run_style(run).spot) for run, values in lost.items()])
    draw_chance(ax, 0, "free training", axis="x")
    return pd.Series({run: values.mean() for run, values in lost.items()})


def _reach(rows: pd.DataFrame) -> list[pd.Series]:
    return [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]


def projected_runs(profile: Profile) -> pd.DataFrame:
    """The projected runs of a profile that train all else as their parent does: columns run, parent, basis,
    constrain, K, at (the share of the run after which V_K is taken), usual_K and usual_at, whether each is
    that of the parent's own early V_K."""
    records = []
    for run in profile.everything:
        if run.projection is None or run.branch is None:
            continue
        parent, step = run.branch
        if run.frozen == profile.run(parent).frozen:
            place = {"K": run.projection.K, "at": round(step / profile.run(parent).steps, 3)}
            kind = {"basis": run.projection.basis, "constrain": run.projection.constrain}
            records.append({"run": run.name, "parent": parent, **kind, **place})
    found = pd.DataFrame(records)
    usual = found[found["run"] == found["parent"] + "_projected_early"].set_index("parent")
    for name in ("K", "at"):
        found[f"usual_{name}"] = found[name] == found["parent"].map(usual[name])
    return found


def accuracy_change(profile: Profile, curves: pd.DataFrame, task: str) -> pd.DataFrame:
    """Test accuracy at the end minus the free parent's of the same seed, with the evaluation's own error.

    curves: the table. Returns the columns of `projected_runs` and seed, change, error; runs and seeds that
    the table does not have, or whose parent it does not have, are left out.
    """
    names = {f"sampled_accuracy:{task}": "score", f"sampled_accuracy_se:{task}": "se"}
    rows = curves[curves["metric"].isin(names)].replace({"metric": names})
    wide = rows.pivot_table(index=["run", "seed"], columns="metric", values="value", aggfunc="last")
    mine = projected_runs(profile).merge(wide.reset_index(), on="run")
    free = wide.reset_index().rename(columns={"run": "parent"})
    both = mine.merge(free, on=["parent", "seed"], suffixes=("", "_free"))
    both["change"] = both["score"] - both["score_free"]
    return both.assign(error=np.hypot(both["se"], both["se_free"])).drop(columns=["score", "score_free"])


def draw_change(ax: Axes, changes: pd.DataFrame, along: str) -> None:
    """The change of accuracy over "K" or "at" (there of parents that vary it), a line a parent and basis.

    changes: of `accuracy_change`; only projected gradients, at the usual value of the other of the two. A
    point has the interval over seeds from three on, below that the error of the evaluation.
    """
    if along not in ("K", "at"):
        raise ValueError(f"along is {along!r}, expected 'K' or 'at'")
    other = {"K": "usual_at", "at": "usual_K"}[along]
    rows = changes[(changes["constrain"] == "gradient") & changes[other]]
    rows = rows[rows["basis"].isin(["early", "random"])]
    if along == "at":
        rows = rows[rows["basis"] == "early"]
        varied = rows.groupby("parent")["at"].transform("nunique") > 1
        rows = rows[varied] if varied.any() else rows
    series = list(rows.groupby(["parent", "basis"]))
    apart = 0.012 * max(np.ptp(rows[along]) if len(rows) else 0, 1e-2)
    for number, ((parent, basis), group) in enumerate(series):
        shift = apart * (number - (len(series) - 1) / 2)  # so that bars at one value stand side by side
        style = run_style(f"{parent}_projected_{basis}")
        means = spread(group.assign(step=group[along], value=group["change"], run="")).sort_values("step")
        error = group.groupby(along)["error"].apply(lambda e: np.sqrt((e**2).sum()) / len(e)).to_numpy()
        means["low"] = means["low"].fillna(means["mean"] - error)
        means["high"] = means["high"].fillna(means["mean"] + error)
        look: dict[str, Any] = {"label": style.label, "elinewidth": 0.8, **style.line}
        ax.errorbar(means["step"] + shift, means["mean"], _reach(means), **look)
        tell_means(ax, style.label, means)
        if is_few(means["seeds"].max()):
            draw_few(ax, group[along] + shift, group["change"], style.color)
    draw_chance(ax, 0, "free training")
    ax.set_xlabel("K" if along == "K" else "V taken at")
    ax.set_xticks(sorted(rows[along].unique()))
    ax.margins(x=0.12)


def draw_share_inside(ax: Axes, profile: Profile, curves: pd.DataFrame) -> None:
    """Which share of the step that the optimizer proposed lay inside V, the mean over training after the
    branch, a row a run at the usual K and branch; the marker says what was projected.

    curves: the table. Where the gradient alone is projected, the proposed step is the applied one.
    """
    runs = projected_runs(profile).set_index("run")
    runs = runs[runs["usual_K"] & runs["usual_at"] & runs["basis"].isin(["early", "random"])]
    rows = curves[(curves["metric"] == "share_inside") & curves["run"].isin(runs.index)]
    names = {
        run: f"{run_style(runs['parent'][run]).label}, {runs['constrain'][run]}"
        + (", random V" if runs["basis"][run] == "random" else "")
        for run in in_order(rows["run"])
    }
    means = rows.groupby(["run", "seed"])["value"].mean()
    draw_rows(ax, [(name, means[run], run_style(run).spot) for run, name in names.items()])
    ax.set(xlabel="share of the step inside V", xlim=(0, 1))
