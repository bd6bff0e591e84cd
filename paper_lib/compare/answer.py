"""What a comparison says, in sentences and one table, computed from its numbers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from pandas.io.formats.style import Styler

from paper_lib.compare import placing
from paper_lib.compare.adapters import NO_BASE
from paper_lib.compare.placing import NULLS, REGIMES, Columns, axes_of, end_values, rows_on
from paper_lib.compare.summary import Tables, ends
from paper_lib.figures import panels
from paper_lib.figures.panels import draw_beside, draw_chance, draw_trajectory, label_once
from paper_lib.figures.save import save_figure
from paper_lib.figures.seeds import draw_legend
from paper_lib.figures.styles import run_style
from paper_lib.figures.words import tell
from paper_lib.geometry.metrics import METRICS, Metric, metrics_of
from paper_lib.ground.matrices import MODULES
from paper_lib.summaries import at_end

# --- What the figures of a comparison draw: a run among SFT, OPD and RLVR, maps by layer, its path.

THIS_RUN: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 9, "linestyle": "none"}


def draw_place(
    ax: Axes,
    axis: Metric,
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
        ax.plot(ends, [0] * len(ends), linewidth=1, **look)
        tell(ax, "paper", ends, of=run_style(run).label, aside=True)
    ours = reference[reference["metric"] == axis.name]
    for run in REGIMES:
        values = ours.loc[ours["run"] == run, "value"]
        style = run_style(run)
        ring: dict[str, Any] = {"edgecolors": style.color, "facecolors": "none", "s": 16, "linewidths": 0.9}
        ax.scatter(axis.scale * values, np.ones(len(values)), **ring)
        label_once(ax, style.label, color=style.color, linewidth=5)
        ends = [axis.scale * values.min(), axis.scale * values.max()]
        tell(ax, "ours", ends, of=f"{style.label} ({len(values)} points)", aside=True)
    value = end_values(matrices, axis)["value"]
    ax.plot(axis.scale * value, np.full(len(value), 2), **THIS_RUN)
    tell(ax, "this run", axis.scale * value)
    label_once(ax, "this run", **THIS_RUN)
    if nulls is not None:
        theirs = end_values(nulls[nulls["null"] != "random_walk"], axis, sizes=matrices)
        for null, group in theirs.groupby("null") if len(theirs) else ():
            panels.draw_null(ax, axis.scale * group["value"].mean(), 2.55, str(null))
    if axis.alpha is not None:
        draw_chance(ax, axis.scale * axis.alpha, axis="x")
    ax.set_yticks(range(3), ("paper", "ours", "this run"))
    ax.set(ylim=(2.9, -0.6), xlabel=axis.said + (f" ({axis.unit})" if axis.unit else ""))
    ax.grid(visible=False, axis="y")
    if not axis.share:
        low, high = ax.dataLim.intervalx
        panels.plain_log(ax, "x", subs=(1, 2, 5) if high < 50 * max(low, high / 1e9) else (1,))


def draw_map(ax: Axes, matrices: pd.DataFrame, axis: Metric) -> None:
    """A metric by layer (down) and module (across) at the run's end; several experts are averaged."""
    rows = at_end(rows_on(matrices, axis))
    rows = rows.assign(module=rows["module"].str.partition(".")[0])
    table = rows.pivot_table(index="layer", columns="module", values="value", dropna=False)
    known = [module for module in MODULES if module in table]
    table = axis.scale * table[[*known, *(m for m in table if m not in known)]]
    image = ax.imshow(table, cmap="cividis", aspect="auto", interpolation="nearest")
    ends = [np.nanmin(table), np.nanmax(table)]
    tell(ax, f"by layer and module, {len(table)} × {len(table.columns)} cells,", ends)
    ax.set_xticks(range(len(table.columns)), list(table.columns))
    shown = np.unique(np.linspace(0, len(table) - 1, min(8, len(table))).round().astype(int))
    ax.set_yticks(shown, [str(table.index[i]) for i in shown])
    ax.set(title=f"{axis.said}: {' to '.join(axis.show(end / axis.scale) for end in ends)}", ylabel="layer")
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def path_figure(compared: Tables, folder: str | Path) -> Path | Markdown:
    """Save a run along its snapshots as folder/fig_along_the_path, in four panels: stable rank, norm, Sim_K
    with the end, the PCA plane; a sentence where there are none."""
    matrices, nulls, trajectories = compared.matrices, compared.nulls, compared.trajectories
    if trajectories is None:
        return Markdown("No snapshots between the two were given (`--trajectory DIR`).")
    fig = plt.figure(figsize=(4.2, 4.6), layout="constrained")
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
    draw_beside(alignment, means.index, means, "of each stretch of training", **look)
    points = trajectories[trajectories["metric"] == "pca_coordinate"]
    points = points.pivot(index="step", columns="k", values="value")
    plane.plot(points[1.0], points[2.0], color="black", marker="o")
    tell(plane, "path", points[[1.0, 2.0]])
    plane.plot(points[1.0].iloc[:1], points[2.0].iloc[:1], color="white", marker="o", markeredgecolor="black")
    rank.set_title("stable rank")
    norm.set_title(r"$\Vert\Delta W\Vert_F$")
    alignment.set(title="Sim$_K$ with the end", ylim=(0, 1.03))
    plane.set(title="path, PC1 and PC2", xlabel="PC1", ylabel="PC2")
    draw_legend(fig, columns=2, seeds=False)
    caption = "Stable rank, norm, alignment with the end and the plane of the path, snapshot by snapshot."
    return save_figure(fig, "fig_along_the_path", folder, inputs=compared.paths, caption=caption)


_PERCENT = METRICS["update_sparsity"].show

# --- The answer in words, and the tables beside it, from what `summary.summary` found.


def answer(told: Mapping[str, Any]) -> str:
    """What a comparison found, in Markdown: what was compared, whether anything trained, the places by
    metric, and what size explains."""
    named = [_code(told[name]) for name in ("finetuned", "base")]
    size = f"{told['matrices']} matrices with {_count(told['weights'])} weights"
    more = f"; {told['failed']} more could not be measured (listed below)" if told["failed"] else ""
    lines = [f"**{' against '.join(named)}**: {size}{more}. {_trained(told)}"]
    if told["verdicts"]["identical"]:
        lines.append("**The two are identical** in every matrix compared: there is no update.")
    else:
        lines += [*_sentences(told), *_size(told), *_rounding(told)]
    return "\n\n".join(lines)


def _trained(told: Mapping[str, Any]) -> str:
    """What did not move, and what could not."""
    trained, lines = told["trained"], list[str]()
    for names, number, kind in (
        (trained["unmoved_matrices"], told["matrices"], "matrices"),
        (trained["unmoved_others"], trained["others"], "norms, biases and embeddings beside them"),
    ):
        some = f" ({'such as ' * (len(names) > 1)}{_code(names[0])})" if names else ""
        if number:
            lines.append(f"Of {number} {kind} {f'{len(names)} never' if names else 'all'} moved{some}.")
    if told["verdicts"]["frozen-norms"]:
        lines.append("**None of the norms moved.**")
    if trained.get("stuck_share"):
        lines.append(
            f"At these learning rates no step of Adam can move {_PERCENT(trained['stuck_share'])} of the "
            f"weights in bf16: without float32 masters they cannot train. With them, "
            f"{_PERCENT(trained['hidden_share'])} would not show in bf16 if every step went one way."
        )
    return " ".join(lines)


def _rounding(told: Mapping[str, Any]) -> list[str]:
    if (share := told["rounding_share"]) is None:
        return []
    if share >= 0:
        return [f"About {_PERCENT(share)} of the norm is rounding to 16 bits."]
    return [f"Rounding to 16 bits hides more norm than it adds: it was about {1 - share:.3g} times that."]


def place_table(told: Mapping[str, Any]) -> pd.DataFrame:
    """A row an axis: `metric`, the `value`, and its place on the `paper`'s scale and on `ours`, "" where the
    two cannot be compared."""
    rows = [
        (METRICS[name].said, METRICS[name].show(of["value"]), of["paper"], of["ours"])
        for name, of in told["metrics"].items()
    ]
    return pd.DataFrame(rows, columns=["metric", "value", "paper", "ours"])


def null_table(told: Mapping[str, Any]) -> pd.DataFrame:
    """The run beside its nulls, a row a metric that both have, with chance."""
    rows = []
    for name, of in told["metrics"].items():
        axis = METRICS[name]
        values = {"this run": of["value"]} | {words: of.get(null) for null, words in NULLS.items()}
        if None not in values.values():
            row = {"metric": axis.said} | {words: axis.show(value) for words, value in values.items()}
            rows.append(row | {"chance": axis.show(axis.alpha) if axis.alpha else ""})
    return pd.DataFrame(rows)


def module_table(told: Mapping[str, Any]) -> pd.DataFrame:
    """By module: the rank that a LoRA would need, intruder dimensions, and the size of a lossless patch."""
    rows = []
    for module, of in told["modules"].items():
        row = {"module": module, "matrices": of["matrices"]}
        for share in (90, 99):
            row[f"rank, {share} % (most)"] = f"{of[f'rank_{share}']:g} ({of[f'rank_{share}_most']})"
        if "intruders" in of:
            row["intruder dimensions"] = of["intruders"]
            for name, words in (("patch_bytes", "stored"), ("patch_bytes_bf16", "bf16")):
                row[f"patch, {words} (MB)"] = f"{of[name] / 1e6:.3g}"
        rows.append(row)
    return pd.DataFrame(rows)


def beside_table(told: Mapping[str, Any]) -> pd.DataFrame:
    """Two updates of one base: a row a quantity, with what chance and what rounding alone would give."""
    columns = ["of the two updates", "value", "by chance", "by rounding alone"]
    if not (of := told["beside"]):
        return pd.DataFrame(columns=columns)
    degrees = METRICS["angle_mean"].show

    def percents(*names: str) -> list[str]:
        return [_PERCENT(of[name]) for name in names]

    rows = [
        ("cosine", f"{of['cosine']:.3g}", "0", ""),
        ("norm, this over the other", f"{of['norm_ratio']:.3g}", "", ""),
        ("mean principal angle, U", degrees(of["angle_u_mean"]), "", ""),
        ("mean principal angle, V", degrees(of["angle_v_mean"]), "", ""),
        ("energy orthogonal to the other", *percents("orthogonal_share"), "", ""),
        ("Sim_K of their subspaces", *percents("subspace_alignment", "subspace_alignment_chance"), ""),
        ("Jaccard of visible entries", *percents("jaccard", "jaccard_chance", "jaccard_rounding")),
        ("the other's entries that show here", *percents("coverage", "density", "coverage_rounding")),
    ]
    return pd.DataFrame(rows, columns=columns)


def outside_table(of: Tables) -> pd.DataFrame:
    """Embeddings and output heads, each by itself: how many of its rows nothing but decay moved
    (`untouched_rows`), and the share of unchanged weights without these rows."""
    values = ends(of.outside)
    rows = []
    for matrix in of.account["measured"]:
        if (name := (matrix["layer"], matrix["module"])) in values.index:
            one = values.loc[name]
            size = "{:,} × {:,}".format(*matrix["shape"])
            row = {"matrix": matrix["name"], "size": size, "rows untouched": f"{one['untouched_rows']:,.0f}"}
            row["weights unchanged"] = _PERCENT(one["update_sparsity"])
            row["in the other rows"] = _PERCENT(one["touched_sparsity"])
            for metric in (METRICS["relative_norm"], METRICS["stable_rank"]):
                row[metric.said] = metric.show(one[metric.name])
            rows.append(row)
    return pd.DataFrame(rows)


def left_out_table(account: Mapping[str, Any]) -> pd.DataFrame:
    """What was not measured: how many tensors for which reason, the first of each by name; failures first."""
    kinds = {"failed": account["failed"], **account["left_out"]}
    rows = [(kind, name, reason) for kind, names in kinds.items() for name, reason in names.items()]
    table = pd.DataFrame(rows, columns=["why", "such as", "reason"])
    groups = table.groupby(["why", "reason"], sort=False)["such as"]
    found = groups.agg(tensors="size", first="first").reset_index().rename(columns={"first": "such as"})
    return found[["why", "tensors", "such as", "reason"]]


def shown(table: pd.DataFrame, otherwise: str = "") -> Styler | Markdown:
    """A table for the page, with its names as text and not as mark-up; these words where it has no rows."""
    return Markdown(otherwise) if table.empty else table.style.hide().format(escape="html")


def maps_of(matrices: pd.DataFrame) -> list[Metric]:
    """Of these, the ones worth a map by layer."""
    return [axis for axis in axes_of(matrices) if axis in metrics_of("fig_by_layer")]


def _sentences(told: Mapping[str, Any]) -> list[str]:
    scales = {
        "paper": "On the scale of the paper (Qwen3-8B, width 4096)",
        "ours": f"Among the runs of this companion (width {placing.OUR_WIDTH})",
    }
    lines = []
    for column, name in scales.items():
        groups: dict[str, list[str]] = {}
        for metric, of in told["metrics"].items():
            groups.setdefault(of[column], []).append(METRICS[metric].said)
        said = [f"- {place} in {_list(metrics)}" for place, metrics in groups.items() if place]
        if said:
            lines.append("\n".join([f"{name}, this run lies\n", *said]))
    return lines


def _size(told: Mapping[str, Any]) -> list[str]:
    """What rounding alone explains of the metrics that an update's size may decide."""
    if told["verdicts"]["not-more-than-size"] is None:
        asks = "Whether these are more than the size of the update cannot be said: compare with `--nulls`."
        return [asks] if told["base"] != NO_BASE else []
    words: dict[str, list[str]] = {}
    for metric, of in told["metrics"].items():
        if metric in placing.BY_SIZE and of["explained_by"] is not None:
            words.setdefault(of["explained_by"], []).append(METRICS[metric].said)
    sentences = {
        "same_norm_gaussian": "**The norm of the update alone explains its {}**: a Gaussian update of the "
        "same norm, rounded alike, has the same. From these one cannot tell how the model was trained.",
        "permuted": "The magnitudes of its entries, in whatever places, explain its {}.",
        "": "Neither its norm nor the magnitudes of its entries explain its {}: which weights it changes "
        "together matters there.",
    }
    lines = [said.format(_list(words[null])) for null, said in sentences.items() if null in words]
    if told["verdicts"]["not-more-than-size"]:
        return ["**It is no more than its size**, in all of this and in its stable rank.", *lines]
    rank = told["metrics"]["stable_rank"]
    return [
        *lines,
        f"Its stable rank is {rank['value']:.3g}, where an update without structure has "
        f"{rank['same_norm_gaussian']:.3g}: the part of the picture that size cannot make.",
    ]


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(number: int) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _code(label: str) -> str:
    """A name as Markdown code, in which nothing is mark-up: on one line, in more backticks than it holds."""
    words = "".join(letter if letter.isprintable() else " " for letter in label)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    return f"{fence} {words} {fence}" if len(fence) > 1 else f"`{words}`"
