"""What the figures of the three gates draw (App. D): norm against KL, curvature by direction, visibility."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paper_lib.figures.panels import draw_beside, draw_chance, draw_rows, label_once, plain_log
from paper_lib.figures.results import Results
from paper_lib.figures.seeds import draw_bar, draw_few, draw_means, is_few, spread, spread_values
from paper_lib.figures.styles import NULL, ORANGE, PURPLE, in_order, run_style
from paper_lib.figures.words import tell
from paper_lib.ground.tables import START
from paper_lib.summaries import at_end, rows_with, squared_norm

OF_START = {
    "principal": "principal",
    "off_principal": "off principal",
    "gaussian": "Gaussian",
    "principal_reconstruction": "top of $W_0$",
}
OF_RUN = {"update": "update", "permuted_update": "permuted"}
PRECISIONS = {  # in the metrics' names: words, colour and marker
    "bfloat16": ("bf16", "black", "o"),
    "float16": ("fp16", ORANGE, "D"),
    "float32": ("fp32", PURPLE, "^"),
}


def draw_kl_and_norm(ax: Axes, results: Results, runs: Sequence[str]) -> None:
    """Gate I: KL(π_0 ‖ π_t) per token against ‖ΔW‖_F² over all matrices, both logarithmic.

    runs: in their colours, a dot a snapshot, the mean over the seeds that have both; the larger marker is the
    end, with the interval of the KL. Dashed is ½ μ ‖ΔW‖_F², μ the curvature along the run's update, where
    that was measured. Grey dots are the ends of all other runs.
    """
    keys = ["run", "seed", "step"]
    kl = rows_with(results.table("trajectories"), metric="forward_kl")[[*keys, "value"]]
    both = kl.merge(squared_norm(results.table("matrices")), on=keys)
    both = both[(both["value"] > 0) & (both["square"] > 0)]
    slopes = rows_with(results.table("curvature"), metric="curvature", direction="update")
    others = at_end(both[~both["run"].isin(runs)]).groupby("run")[["square", "value"]].mean()
    if len(others):
        grey: dict[str, Any] = {"color": NULL, "marker": ".", "linestyle": "none", "markersize": 4}
        draw_beside(ax, others["square"], others["value"], "other runs, at their end", **grey)
    for run in (name for name in runs if name in set(both["run"])):
        rows, style = both[both["run"] == run], run_style(run)
        path = rows.groupby("step")[["square", "value"]].mean()
        ax.plot(path["square"], path["value"], label=style.label, markersize=3, **style.mark)
        end = spread(at_end(rows)).iloc[0]
        tell(ax, style.label, path, interval=end[["low", "high"]], seeds=end["seeds"])
        ax.plot(path["square"].iloc[-1:], path["value"].iloc[-1:], markersize=6, **style.mark)
        if np.isfinite(end["low"]):
            draw_bar(ax, [path["square"].iloc[-1]] * 2, end[["low", "high"]], style.color)
        mu = slopes.loc[slopes["run"] == run, "value"].mean()
        if np.isfinite(mu):
            x = np.geomspace(path["square"].min(), path["square"].max(), 20)
            ax.plot(x, mu * x / 2, color=style.color, linestyle="--", linewidth=1)
            label_once(ax, r"½ $\mu\,\Vert\Delta W\Vert_F^2$, $\mu$ of the end", color=NULL, linestyle="--")
    plain_log(ax, "xy", subs=(1,))
    ax.set(xlabel=r"$\Vert\Delta W\Vert_F^2$, all matrices", ylabel="KL to the start (nats a token)")


def draw_curvature(ax: Axes, curvature: pd.DataFrame) -> None:
    """Gate II: the curvature μ of the KL at W_0 along each direction, a row each, logarithmic.

    curvature: the table. Seeds are dots, their mean a marker, its interval a bar: W_0's own directions in
    black, an update and its own entries in random places (hollow) in the colour of its run.
    """
    rows = curvature[curvature["metric"] == "curvature"]
    lines = [(START, direction, words) for direction, words in OF_START.items()]
    for run in in_order(set(rows["run"]) - {START}):
        lines += [(run, name, f"{run_style(run).label}, {words}") for name, words in OF_RUN.items()]
    there = set(zip(rows["run"], rows["direction"], strict=True))
    drawn = []
    for run, direction, words in (line for line in lines if line[:2] in there):
        values = rows[(rows["run"] == run) & (rows["direction"] == direction)]
        look = {"color": "black", "marker": "D"} if run == START else run_style(run).spot
        fill = "white" if direction == "permuted_update" else look["color"]
        drawn.append((words, values.set_index("seed")["value"], look | {"markerfacecolor": fill}))
    plain_log(ax, "x", subs=(1,))
    draw_rows(ax, drawn)
    ax.set_xlabel(r"curvature $\mu$ (nats a token per unit$^2$)")


def draw_principal_energy(ax: Axes, results: Results, *, runs: Sequence[str], modules: Sequence[str]) -> None:
    """Gate II: the share of ‖ΔW‖_F² in W_0's top-r × top-r singular subspaces over the share r²/(mn) that
    chance gives at the end, a row a run, logarithmic; the mean over matrices of the one over the other's."""
    share, chance = (
        results.ends(f"principal_energy{of}", modules=modules).set_index(["run", "seed"])["value"]
        for of in ("", "_chance")
    )
    ratio = share / chance
    styles = {run: run_style(run) for run in runs if run in ratio.index.unique("run")}
    draw_rows(ax, [(style.label, ratio[run], style.spot) for run, style in styles.items()])
    draw_chance(ax, 1, axis="x")
    plain_log(ax, "x", subs=(1, 2, 5))
    ax.set_xlabel("energy in principal subspaces\nover chance")


def draw_prediction(
    ax: Axes, matrices: pd.DataFrame, *, runs: Sequence[str], others: Sequence[str] = ()
) -> None:
    """Gate III: the visible density against what ½ ULP entry by entry predicts (filled) and what the same
    sizes dealt out at random would show (rings), each on its diagonal where it is right.

    matrices: the table. Means over matrices and seeds, the interval of the observed. others: as grey dots.
    """
    columns = ("predicted_density", "independent_density", "update_density")
    place = ["run", "seed", "layer", "module"]
    rows = at_end(matrices[matrices["metric"].isin(columns)])
    wide = rows.pivot(index=place, columns="metric", values="value").dropna()
    means = wide.groupby(["run", "seed"]).mean().reset_index()  # over matrices
    for run in [*(name for name in others if name not in runs), *runs]:
        each, style = means[means["run"] == run], run_style(run)
        color = style.color if run in runs else NULL
        mine = each[[*columns]].mean().to_frame().T if len(each) else each
        look: dict[str, Any] = {"color": color, "linestyle": "none", "marker": style.marker}
        small: dict[str, Any] = {"markersize": 3.5} if run in runs else {"markersize": 2.5, "marker": "."}
        ax.plot(mine["predicted_density"], mine["update_density"], **(look | small))
        if run in runs and len(mine):
            ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 8, "markeredgewidth": 0.8}
            ax.plot(mine["independent_density"], mine["update_density"], **(look | ring))
            x, y = each["predicted_density"], each["update_density"]
            point = spread_values(y).iloc[0]  # of the observed density over seeds
            interval = point[["low", "high"]]
            draw_bar(ax, [x.mean()] * 2, interval, style.color)
            tell(ax, style.label, [(x.mean(), y.mean())], interval=interval, seeds=point["seeds"])
            if is_few(point["seeds"]):
                draw_few(ax, x, y, style.color)
            label_once(ax, style.label, **look)
    ax.plot([0, 1], [0, 1], color=NULL, linestyle="--", linewidth=1, zorder=1)
    black: dict[str, Any] = {"color": "black", "marker": "o", "linestyle": "none"}
    label_once(ax, "½ ULP, entry by entry", markersize=3.5, **black)
    label_once(ax, "sizes dealt out at random", markerfacecolor="none", markersize=7, **black)
    ax.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    ax.set(xlabel="predicted visible density", ylabel="observed visible density")


def draw_tolerances(ax: Axes, trajectories: pd.DataFrame, run: str, *, eta: float) -> None:
    """Sparsity of one run against the tolerance η in bf16, fp16 and fp32; η = 0 stands at the left edge.

    trajectories: the table, whose rows `update_sparsity_<precision>` have η as k. eta: the paper's, marked
    like 2⁻⁸, below which in bf16 every η says "not equal".
    """
    rows = trajectories[(trajectories["run"] == run) & (trajectories["k"].notna())]
    edge = left_edge(rows)
    for precision, (words, color, marker) in PRECISIONS.items():
        found = rows[rows["metric"] == f"update_sparsity_{precision}"]
        if found.empty:
            continue
        found = found.assign(step=found["k"].replace(0, edge))
        draw_means(ax, found, words, path=True, color=color, marker=marker)
    for value, words, dashes in ((2**-8, "$2^{-8}$", ":"), (eta, r"the paper's $\eta$", "-.")):
        ax.axvline(value, color=NULL, linestyle=dashes, linewidth=1)
        label_once(ax, words, color=NULL, linestyle=dashes)
    ax.set(xscale="log", xlabel=r"tolerance $\eta$ (left edge: 0)", ylabel="update sparsity")
    ax.set(title=run_style(run).label, ylim=(-0.03, 1.03))


def left_edge(rows: pd.DataFrame) -> float:
    """Where η = 0 stands on a logarithmic axis: a little left of the smallest other k of these rows."""
    return rows.loc[rows["k"] > 0, "k"].min() / 3
