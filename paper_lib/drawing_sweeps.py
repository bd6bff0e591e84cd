"""What the figure of projected training draws over K, over the branch point, and over what is projected."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.config import Profile
from paper_lib.drawing import draw_chance, label_once
from paper_lib.drawing_rows import draw_row, name_rows
from paper_lib.drawing_seeds import counted, draw_few, is_few, spread
from paper_lib.styles import NULL, in_order, run_style


def projected_runs(profile: Profile) -> pd.DataFrame:
    """The projected runs of a profile: columns run, parent, basis, constrain, K, at (the share of the run
    after which V_K is taken), usual_K and usual_at, whether each is that of the parent's own early V_K."""
    records = []
    for run in profile.everything:
        if run.projection is not None and run.branch is not None:
            parent, step = run.branch
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
    both = mine.merge(
        wide.reset_index().rename(columns={"run": "parent"}), on=["parent", "seed"], suffixes=("", "_free")
    )
    both["change"] = both["score"] - both["score_free"]
    return both.assign(error=np.hypot(both["se"], both["se_free"])).drop(columns=["score", "score_free"])


def draw_change(ax: Axes, changes: pd.DataFrame, along: str) -> None:
    """The change of accuracy over "K" or over "at", a line a parent and basis; over "at" only parents that
    vary it, where there are any.

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
    apart = 0.03 * max(np.ptp(rows[along]) if len(rows) else 0, 1e-2)
    for number, ((parent, basis), group) in enumerate(series):
        shift = apart * (number - (len(series) - 1) / 2)  # so that bars at one value stand side by side
        style = run_style(f"{parent}_projected_{basis}")
        look: dict[str, Any] = {"color": style.color, "marker": style.marker, "linestyle": style.linestyle}
        means = spread(group.assign(step=group[along], value=group["change"], run="")).sort_values("step")
        error = group.groupby(along)["error"].apply(lambda e: np.sqrt((e**2).sum()) / len(e)).to_numpy()
        down = (means["mean"] - means["low"]).fillna(pd.Series(error, means.index))
        up = (means["high"] - means["mean"]).fillna(pd.Series(error, means.index))
        bars = ax.errorbar(
            means["step"] + shift, means["mean"], [down, up], label=style.label, elinewidth=0.8, **look
        )
        counted(bars.lines[0], means["seeds"].max())
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
    shown, seeds = in_order(rows["run"]), []
    for height, run in enumerate(shown):
        values = rows[rows["run"] == run].groupby("seed")["value"].mean()
        style = run_style(run)
        seeds.append(draw_row(ax, height, values, color=style.color, marker=style.marker))
    names = [
        f"{run_style(runs['parent'][run]).label}, {runs['constrain'][run]}"
        + (", random V" if runs["basis"][run] == "random" else "")
        for run in shown
    ]
    name_rows(ax, names, seeds)
    ax.axvline(1, color=NULL, linestyle="--", linewidth=1, zorder=1)
    label_once(ax, "confined to V", color=NULL, linestyle="--")
    ax.set(xlabel="share of the step inside V", xlim=(0, 1.05))
