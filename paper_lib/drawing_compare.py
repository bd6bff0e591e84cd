"""What the figures of a comparison draw: a run among SFT, OPD and RLVR, maps by layer, its path."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_lib.compared import Tables
from paper_lib.drawing import draw_chance, draw_legend, draw_trajectory, label_once, null_look, plain_log
from paper_lib.figures import save_figure
from paper_lib.matrices import MODULES
from paper_lib.placing import REGIMES, Axis, Columns, end_rows, end_values
from paper_lib.styles import BACKDROP, named, run_style

THIS_RUN: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 9, "linestyle": "none"}
_ROWS = ("paper", "ours", "this run")


def draw_place(
    ax: Axes,
    axis: Axis,
    matrices: pd.DataFrame,
    nulls: pd.DataFrame | None,
    reference: pd.DataFrame,
    *,
    paper: Columns,
) -> None:
    """One metric on three lines: the paper's SFT, OPD and RLVR, our reference runs (a ring a seed), and this
    run with its nulls just below. paper: of the axis, {} where its model is of another size."""
    for run, (low, high) in paper.items():
        ends = [axis.scale * end for end in (low, high) if 0 < end < np.inf]
        look: dict[str, Any] = {"color": run_style(run).color, "marker": "D", "markersize": 4}
        words = named(run_style(run).label)
        ax.plot(ends, [0] * len(ends), linewidth=1, gid=BACKDROP, label=words, **look)
    ours = end_values(reference, axis)
    for run in REGIMES:
        values = ours.loc[ours["run"] == run, "value"] if len(ours) else pd.Series(dtype=float)
        style = run_style(run)
        ring: dict[str, Any] = {"edgecolors": style.color, "facecolors": "none", "s": 16, "linewidths": 0.9}
        ring["label"] = named(style.label)
        ax.scatter(axis.scale * values, np.ones(len(values)), gid=BACKDROP, **ring)
        label_once(ax, style.label, color=style.color, linewidth=5)
    value = end_values(matrices, axis)["value"]
    ax.plot(axis.scale * value, np.full(len(value), 2), label=named("this run"), **THIS_RUN)
    label_once(ax, "this run", **THIS_RUN)
    if nulls is not None:
        theirs = end_values(nulls[nulls["null"] != "random_walk"], axis, sizes=matrices)
        for null, group in theirs.groupby("null") if len(theirs) else ():
            label, look = null_look(str(null))
            at = axis.scale * group["value"].mean()
            ax.plot(at, 2.55, gid=BACKDROP, label=named(label), **look)
            label_once(ax, label, **look)
    if axis.chance is not None:
        draw_chance(ax, axis.scale * axis.chance, axis="x")
    ax.set_yticks(range(len(_ROWS)), _ROWS)
    ax.set(ylim=(2.9, -0.6), title=axis.words + (f" ({axis.unit.strip()})" if axis.unit else ""))
    ax.grid(visible=False, axis="y")
    if not axis.share:
        low, high = ax.dataLim.intervalx
        plain_log(ax, "x", subs=(1, 2, 5) if high < 50 * max(low, high / 1e9) else (1,))


def draw_map(ax: Axes, matrices: pd.DataFrame, axis: Axis) -> None:
    """A metric by layer (down) and module (across) at the run's end; several experts are averaged."""
    rows = end_rows(matrices, axis)
    rows = rows.assign(module=rows["module"].str.partition(".")[0])
    table = rows.pivot_table(index="layer", columns="module", values="value", dropna=False)
    known = [module for module in MODULES if module in table]
    table = axis.scale * table[[*known, *(m for m in table if m not in known)]]
    look: dict[str, Any] = {"cmap": "cividis", "aspect": "auto", "interpolation": "nearest"}
    image = ax.imshow(table, label=named("by layer and module"), **look)
    ax.set_xticks(range(len(table.columns)), list(table.columns))
    shown = np.unique(np.linspace(0, len(table) - 1, min(8, len(table))).round().astype(int))
    ax.set_yticks(shown, [str(table.index[i]) for i in shown])
    ax.set(title=axis.words + (f" ({axis.unit.strip()})" if axis.unit else ""))
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def path_figure(compared: Tables, figures_dir: str | Path, *, profile: str) -> Path | Markdown:
    """Save the run's path along its snapshots as `fig_along_the_path`; a sentence where there are none."""
    if compared.trajectories is None:
        return Markdown("No snapshots between the two were given (`--trajectory DIR`).")
    fig = plt.figure(figsize=(4.2, 4.6), layout="constrained")
    draw_path(fig, compared.matrices, compared.nulls, compared.trajectories)
    caption = "Stable rank, norm, alignment with the end and the plane of the path, snapshot by snapshot."
    name = "fig_along_the_path"
    return save_figure(fig, name, figures_dir, profile=profile, inputs=compared.paths, caption=caption)


def draw_path(
    fig: Figure, matrices: pd.DataFrame, nulls: pd.DataFrame | None, trajectories: pd.DataFrame
) -> None:
    """A run along its snapshots, in four panels: stable rank, norm, Sim_K to the end, the PCA plane."""
    (rank, norm), (alignment, plane) = fig.subplots(2, 2)
    walks = None if nulls is None else nulls[nulls["null"] == "random_walk"]
    draw_trajectory(rank, matrices, "stable_rank", null=walks, against="step")
    draw_trajectory(norm, matrices, "frobenius_norm", against="step")
    draw_trajectory(alignment, matrices, "subspace_alignment", null=walks, against="step")
    chance = matrices.loc[matrices["metric"] == "subspace_alignment_chance", "value"].mean()
    draw_chance(alignment, chance)
    last = (matrices["metric"] == "increment_alignment") & (matrices["step"] == matrices["step"].max())
    stretches = matrices[(matrices["metric"] == "increment_alignment") & ~last]
    means = stretches.groupby("step")["value"].mean()
    look: dict[str, Any] = {"color": "black", "linestyle": "none", "marker": "x", "markersize": 5}
    alignment.plot(means.index, means, label="of each stretch of training", **look)
    points = trajectories[trajectories["metric"] == "pca_coordinate"]
    points = points.pivot(index="step", columns="k", values="value")
    plane.plot(points[1.0], points[2.0], color="black", marker="o")
    plane.plot(points[1.0].iloc[:1], points[2.0].iloc[:1], color="white", marker="o", markeredgecolor="black")
    rank.set_title("stable rank")
    norm.set_title(r"$\Vert\Delta W\Vert_F$")
    alignment.set(title="Sim$_K$ with the end", ylim=(0, 1.03))
    plane.set(title="path, PC1 and PC2", xlabel="PC1", ylabel="PC2")
    draw_legend(fig, columns=2, seeds=False)
