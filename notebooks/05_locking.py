# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does distillation lock into a subspace?
#
# **Question.** The paper says three things of the subspace in which a run moves. OPD's
# update keeps a narrow band of stable rank, while SFT's widens and RLVR's contracts
# (§4.1). Its leading directions are there from the first checkpoint on (§4.2, Fig. 5).
# And these directions are enough: training on inside them costs OPD nothing and SFT a
# lot (§4.2, Figs 6 and 8). Do our runs say so too (C7–C11), once a random walk, another
# run's subspace and a random one stand beside them?
#
# **In this notebook**
#
# - `fig4_intrinsic_geometry`: stable rank, norm and Hill index along training, in
#   attention and MLP, with the random walk's rank;
# - `fig5_subspace_emergence`: how early an update points where it ends, for the update
#   so far and for each stretch of training;
# - the K of projected training beside the stable rank that the paper's rule asks for;
# - `fig6_projected_training`: accuracy along training inside the early subspace and
#   others, and how far Adam leaves them;
# - `fig_projection_sweep`: the same over K and over the point at which the subspace is
#   taken, where a profile has such runs;
# - `fig8_projected_benchmarks`: the same at the end, on the test problems and on
#   variants that none of these runs trained on;
# - `fig_harder_confined`: the share that every confined arm keeps on two skills that
#   the anchor lacks, where there is something to learn;
# - to play with: the subspace, what is projected on it, its K and where it is taken.
#
# The notebook reads tables and draws: under a minute with every profile. `01_train` and
# `02_extract` make the tables, except those of `reference`, which come with the
# project.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures go to <profile>/ below it
harder_dir: str = "data"  # where results/headroom/ holds the committed harder runs
modules: str = "attention"  # matrices of figure 5: attention (as the paper), mlp or all

# %%
import matplotlib.pyplot as plt
import pandas as pd

from paper_lib.figures import ATTENTION, MLP, MODULE_GROUPS, open_results, use_style
from paper_lib.ledger import claims_in_short, kept_in_words, label, ledger
from paper_lib.ledger import retained_shares

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
names = ("matrices", "nulls", "curves", "pairs")
matrices, nulls, curves, pairs = map(results.table, names)
main_runs = ["sft", "sft_matched", "opd", "rlvr"]
use_style()

# %% [markdown]
# Runs differ in their number of steps, so the horizontal axis is each run's own
# progress. Lines are means over matrices, then over seeds. Bands are Student's 95 %
# interval of the mean over seeds where there are three or more; two seeds are small
# dots; the legend says how many there are. As elsewhere, `SFT, matched` is SFT with
# OPD's start, learning rate, batch and steps. It tells the objective from the schedule.

# %% [markdown]
# ## The shape of the update along training
#
# The stable rank counts the directions that carry the update $\Delta W$, weighted by
# how much they carry. The Hill index of its $k$ largest singular values $\sigma_i$ says
# how heavy their tail is (low is heavy):
#
# $$\mathrm{srank}(\Delta W) =
# \frac{\lVert\Delta W\rVert_F^2}{\lVert\Delta W\rVert_2^2}, \qquad
# \mathrm{Hill}_k =
# \Bigl[\frac{1}{k-1} \sum_{i<k} \log\frac{\sigma_i}{\sigma_k}\Bigr]^{-1}.$$
#
# Both forget the size of $\Delta W$, so the norm is drawn beside them. An update of
# five equal directions has a stable rank of 5. Singular values that fall like
# $i^{-1/3}$ have a tail of index near 3:

# %%
import torch

from paper_lib.geometry import hill_index, metrics_of, stable_rank

generator = torch.Generator().manual_seed(0)
noise = torch.randn(64, 48, generator=generator, dtype=torch.float64)
u, _, vh = torch.linalg.svd(noise, full_matrices=False)
update = 0.01 * u[:, :5] @ vh[:5]
tail = torch.arange(1, 1001, dtype=torch.float64) ** (-1 / 3)
assert torch.isclose(stable_rank(update), torch.tensor(5.0, dtype=torch.float64))
assert abs(hill_index(tail, 1000) - 3) < 0.05
print(f"stable rank: {stable_rank(update):.2f} of five equal directions")

# %% [markdown]
# Noise has a stable rank too. That of a Gaussian $m \times n$ matrix, which is also the
# rank of an update whose steps know nothing of each other, is about
#
# $$\frac{mn}{(\sqrt{m} + \sqrt{n})^2}.$$

# %%
expected = 64 * 48 / (64**0.5 + 48**0.5) ** 2
assert abs(stable_rank(noise) / expected - 1) < 0.15
print(f"stable rank of noise: {stable_rank(noise):.1f}, expected {expected:.1f} of 48")

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (§4.1, Fig. 4; C7–C9).** OPD's stable rank stays in a narrow low band, SFT's
# grows, RLVR's contracts. This is no effect of small updates, since OPD's norm is well
# above RLVR's. The Hill index drifts mildly for OPD, rises for SFT and falls for RLVR.
#
# By the rule of the ledger, OPD's band is narrow at half of another's or less, and its
# norm well above RLVR's at 1.5 times and more. Equal norms would leave size as an
# explanation.

# %% tags=["hide-input"]
from paper_lib.figures import draw_legend, draw_trajectory, plain_log

measured = metrics_of("fig4_intrinsic_geometry")
titles = [metric.axis for metric in measured]
titles.insert(1, "with its walks")
groups = {"attention": ATTENTION, "MLP": MLP}
walks = nulls[nulls["null"].isin(["random_walk", "adam_walk"]) & (nulls["layer"] >= 0)]
rank = results.paths("stable_rank", modules=ATTENTION).groupby(["run", "step"])["value"]
ends = rank.mean().groupby("run").agg(["first", "last"]).loc[main_runs].itertuples()
words = ", ".join(f"{label(run)} {start:.1f} → {end:.1f}" for run, start, end in ends)
caption = (
    "Stable rank, norm and Hill index of the update along training, in attention and "
    "in MLP matrices."
)

# %% slideshow={"slide_type": "subslide"}
fig, axes = plt.subplots(2, 4, figsize=(7.2, 4.6), layout="constrained", sharex=True)
for row, (where, group) in zip(axes, groups.items(), strict=True):
    look = {"runs": main_runs, "modules": group}
    for ax, metric in zip(row[[0, 2, 3]], measured, strict=True):
        draw_trajectory(ax, matrices, metric.name, **look)
    draw_trajectory(row[1], matrices, "stable_rank", null=walks, **look)
    row[0].set_ylabel(where)
for ax, title in zip(axes[0], titles, strict=True):
    ax.set(title=title, xlabel="", xticks=(0, 0.5, 1), xlim=(0, 1.05))
for ax in axes[:, 1:3].flat:
    plain_log(ax)
fig.suptitle(f"Stable rank in attention: {words}", fontsize=9)
draw_legend(fig, columns=5)
inputs = ("matrices", "nulls")
results.save(fig, "fig4_intrinsic_geometry", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# The second column has two walks, which lie on each other: Adam's on noise alone
# (dash-dotted, with the run's learning rates) and one with the run's own step lengths
# (dotted). A run far below them moves in few directions, whatever its size.
#
# Compare OPD with both SFT lines. The distance to the dashed one is the objective's.
# The distance of the dashed one to the solid one is the schedule's and the start's. The
# paper tracks the upper row only, while most of an update's energy may lie in the
# lower.

# %%
ends = {
    (metric.words, where): results.ends(metric.name, modules=group)
    for where, group in groups.items()
    for metric in measured
}
ends = {place: rows.groupby("run")["value"].mean() for place, rows in ends.items()}
assert all((values > 0).all() for values in ends.values())
pd.DataFrame(ends).loc[main_runs].rename(index=label).map("{:#.3g}".format)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## When does the update point where it will end?
#
# Let $V_K(t)$ hold the top $K$ right singular vectors of $\Delta W_t$, which has $n$
# columns. Then
#
# $$\mathrm{Sim}_K(t) = \tfrac{1}{K} \lVert V_K(t)^\top V_K(\mathrm{end})\rVert_F^2$$
#
# is 1 for the same span, and $K/n$ on average for random ones. Two updates that share
# three of five directions have $3/5$, whatever their size:

# %% slideshow={"slide_type": "-"}
from paper_lib.geometry import subspace_alignment, top_right_singular_vectors

other = u[:, :5] @ vh[2:7]  # the third to the seventh direction
spans = [top_right_singular_vectors(each, 5) for each in (update, other)]
planted = subspace_alignment(*spans)
assert torch.isclose(planted, torch.tensor(3 / 5, dtype=torch.float64))
print(f"Sim_5, three directions in common: {planted:.3f}; by chance {5 / 48:.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# There is a catch. The end *contains* the beginning, so this similarity climbs to 1 for
# a random walk too. It climbs sooner for a run with long early steps, such as SFT under
# a cosine schedule.
#
# The increments $W_t - W_s$ between neighbouring snapshots share no step. A run that is
# locked into one subspace keeps moving in it, and a walk stays at chance. (Adam's
# moments tie neighbouring stretches to each other, so the early ones are the surer
# evidence.)
#
# **Claim (§4.2, Fig. 5; C10).** OPD's subspace matches its final one from the first
# checkpoint on, SFT's and RLVR's later. The claim is refuted if OPD's line does not
# start above the others and above its walk. It is an emergence, rather than a shared
# prefix, only if its increments stay above chance.

# %%
K = study.diagnostics.K
by_chance = results.paths("subspace_alignment_chance", modules=chosen)
chance = by_chance["value"].mean()  # K/n of each matrix
starts = {
    "update so far": results.firsts("subspace_alignment", modules=chosen),
    "stretch": results.firsts("increment_alignment", modules=chosen),
}
of_walks = results.firsts("subspace_alignment", modules=chosen, nulls=True)
for null, rows in of_walks.groupby("null"):
    starts[f"its {null.replace('_', ' ').replace('adam', 'Adam')}"] = rows
first = {name: rows.groupby("run")["value"].mean() for name, rows in starts.items()}
first = pd.DataFrame(first).loc[main_runs]
assert first.stack().between(0, 1 + 1e-9).all()
print(f"K = {K}, chance K/n = {chance:.3f}; the paper: K = 16, K/n = {16 / 4096:.3f}")

# %% tags=["hide-input"]
from paper_lib.figures import draw_chance, draw_shared

last = matrices["step"] == matrices.groupby("run")["step"].transform("max")
one_by_definition = (matrices["metric"] == "increment_alignment") & last
stretches = matrices.assign(value=matrices["value"].mask(one_by_definition))
before_end = walks[walks["step"] < walks.groupby("run")["step"].transform("max")]
order = first["update so far"].sort_values(ascending=False)
values = ", ".join(f"{label(run)} {value:.2f}" for run, value in order.items())
words = f"$\\mathrm{{Sim}}_{{{K}}}$ at the first checkpoint: {values}"
look = {"runs": main_runs, "modules": chosen}
caption = (
    "How close an update, and a stretch of training, comes to the final subspace along "
    "training."
)

# %% slideshow={"slide_type": "subslide"}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.7), layout="constrained", sharey=True)
left, right = axes
draw_trajectory(left, matrices, "subspace_alignment", null=walks, **look)
draw_trajectory(right, stretches, "increment_alignment", null=before_end, **look)
for ax in axes:
    draw_chance(ax, chance, "chance, K/n")
draw_shared(left, pairs, **look)
left.set(title="update so far, with the whole update", ylim=(0, 1.03))
left.set_ylabel(rf"$\mathrm{{Sim}}_{{{K}}}$")
right.set(title="stretch of training, with the last one", xlim=left.get_xlim())
fig.suptitle(words, fontsize=9)
draw_legend(fig)
inputs = ("matrices", "nulls", "pairs")
results.save(fig, "fig5_subspace_emergence", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# At the left, the distance of a line from the dotted walk in its colour is what
# emergence adds to the shared prefix. The dash-dotted walk is Adam's, on noise alone
# with the run's learning rates.
#
# The short marks at the edge are whole updates compared across runs. A line still below
# the mark in its colour is no closer to its own end than another seed's whole update
# is. What the line shares with its end by then belongs to the model and the task. The
# two black marks compare objectives: OPD's whole update with RLVR's, and with matched
# SFT's.
#
# At the right, every point compares two stretches of training that share no step. (The
# last stretch is 1 with itself and is left out.) So chance is the dashed line, and
# everything above it is a direction that comes back. A run whose left line starts high
# while its right line sits at chance has made large early steps, and no more.

# %%
head = f"Sim_{K} at the first checkpoint"
first.rename(index=label).rename_axis(columns=head).round(3)

# %% [markdown]
# "The first checkpoint" is not the same share of every run. The paper's first of OPD is
# step 63 of 299, its first of SFT step 256 of 5,375. $\mathrm{Sim}_K$ with the end
# rises with progress in any run, a random walk included. A lead of OPD would show there
# even if both emerged alike. Ours are compared at one share. And as early steps may be
# long or short, each run is to be held against its *own* walk:

# %%
early = first.loc[["sft", "opd"], ["update so far", "its random walk"]]
early["beyond its walk"] = early["update so far"] - early["its random walk"]
steps = matrices.groupby("run")["step"]
early.insert(0, "first checkpoint, ours", steps.min() / steps.max())
early.insert(0, "first checkpoint, paper", [256 / 5375, 63 / 299])
early.rename(index=label).round(3)

# %% [markdown]
# The first two columns are shares of the run. In the reference set both of ours are at
# a tenth. There $\mathrm{Sim}_K$ sets OPD above SFT by little (0.621 and 0.593), and
# what each has beyond its own walk by more (0.545 and 0.424). Exercise 05-2 asks the
# same of RLVR and of matched SFT.

# %% [markdown]
# ## Is the early subspace enough?
#
# At a fifth of the run, $V_K$ is taken from the update so far, and training goes on
# with projected gradients:
#
# $$g \leftarrow g\, V_K V_K^\top.$$
#
# Projecting the gradient is not confining the update (§4.2 leaves this open). Adam
# divides every entry by its own scale, which turns a matrix of row space $V_K$ into one
# of another, and weight decay pulls along $W$. Let $P = V_K V_K^\top$. The share of a
# step $s$ inside the subspace is $\lVert sP\rVert_F^2 / \lVert s\rVert_F^2$. It is 1
# for a projected gradient, and less for Adam's first step on it, which is its sign:

# %%
V = spans[0]  # (48, 5), of the planted update
gradient = noise @ V @ V.mT
steps = {"the projected gradient": gradient, "Adam's first step on it": gradient.sign()}
for name, step in steps.items():
    share = (step @ V).square().sum() / step.square().sum()
    print(f"share inside V of {name}: {share:.3f}")
assert share < 0.9
assert torch.allclose(gradient @ V @ V.mT, gradient)

# %% [markdown]
# So we constrain three things in turn: the gradient (as the paper), the applied update,
# and both. And we record the share inside $V_K$ of the step that Adam proposed. Beside
# the run's own early $V_K$ stand the $V_K$ of a run with other rollouts, a random one,
# and the top of $W_0$. They tell whether *this* subspace is needed or any would do.
#
# The paper's $K = 16$ lies just below the stable rank at that point, in the attention
# matrices of OPD. Ours must scale with the model. The cell prints the stable rank where
# $V_K$ is taken, the whole number just below it, and the $K$ that the profile uses.

# %%
from math import ceil

branches = {run.branch for run in study.runs if run.branch is not None}
for parent, step in sorted(branches):
    for where, group in groups.items():
        ranks = results.paths("stable_rank", modules=group).groupby(["run", "step"])
        rank = ranks["value"].mean()[parent, step]
        rule = max(1, ceil(rank) - 1)
        place = f"{label(parent)} at step {step}, {where}"
        print(f"{place}: stable rank {rank:.2f}, rule K = {rule}")
projections = {run.name: run.projection for run in study.runs if run.projection}
print("K in use:", *sorted({projection.K for projection in projections.values()}))

# %% [markdown]
# Our constraint leaves embeddings, norms and the head free, so that a run confined to
# *no* direction ($K = 0$) still learns. Let $A$ be validation accuracy at the end. The
# ledger asks which share of what the matrices add is kept in $V$, seed by seed:
#
# $$f = \frac{A_V - A_{K=0}}{A_\mathrm{free} - A_{K=0}}.$$
#
# A run that ends at 0.89, between 0.80 at $K = 0$ and 0.90 when free, keeps nine
# tenths:

# %%
from dataclasses import replace

from paper_lib.ledger.rules.projection import retained

planted = {"opd": 0.90, "opd_projected_none": 0.80, "opd_projected_early": 0.89}
rows = [(run, "sampled_accuracy", 0, 100, planted[run]) for run in planted]
table = pd.DataFrame(rows, columns=["run", "metric", "seed", "step", "value"])
made_up = replace(results, tables={"curves": table})
share = retained(made_up, "opd", "opd_projected_early")
assert abs(share.item() - 0.9) < 1e-9
print(f"f = {share.item():.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (§4.2, Fig. 6; C11).** Inside $V_K$, OPD reaches the accuracy of free training
# and SFT does not. OPD is intact where the interval of $f$ lies above 0.8. SFT is
# degraded where it lies below that, and 0.1 below OPD's. Where free training does not
# end above $K = 0$ there is no such share, and nothing is decided. The subspace is
# special only if a random one of the same size keeps less.

# %%
from paper_lib.figures import scores

confined = (run for run in study.everything if run.projection is not None)
for parent, step in sorted({run.branch for run in confined}):
    line = scores(curves, [parent]).set_index("step")["mean"]
    ends = f"{line[step]:.3f} at step {step}, {line.iloc[-1]:.3f} at the end"
    print(f"{label(parent)}: {ends}")

# %% [markdown]
# In the reference set SFT learns nothing after its branch (0.794 → 0.787): confining it
# tests nothing. Matched SFT goes on learning, which makes it the run to confine. A
# profile that has `sft_matched_projected_early` shows it in a panel of its own.

# %% tags=["hide-input"]
trained = set(curves["run"])
probes = [run.name for run in study.probes if run.projection is not None]
families = {
    name: [name, *(run for run in projections if run.startswith(name))]
    for name in ("opd", "sft")
}
if matched := [r for r in probes if r.startswith("sft_matched") and r in trained]:
    of_early = [run for run in matched if run.endswith(("_early", "_random"))]
    families["sft_matched"] = ["sft_matched", *of_early]
confined = [run for runs in families.values() for run in runs[1:]]
starts = curves.query("run == 'opd' and step == 0 and metric == 'sampled_accuracy'")
anchor = starts["value"].mean()

# %% tags=["hide-input"]
from paper_lib.figures import draw_accuracy


def draw_family(ax: plt.Axes, parent: str, runs: list[str]) -> None:
    drawn = [run for run in (*runs, f"{parent}_projected_none") if run in trained]
    draw_accuracy(ax, curves, runs=drawn, since=study.run(runs[-1]).branch[1])
    draw_chance(ax, anchor, "anchor, where OPD starts")
    ax.set(title=label(parent), xlim=(0.15, 1.24), xticks=(0.2, 0.6, 1))


caption = (
    "Validation accuracy of training inside a subspace V, with the intervals as bars "
    "beside the end, and the share of its steps that lies in V."
)

# %% slideshow={"slide_type": "subslide"}
size = (2.4 + 1.8 * len(families), 4.3)
fig, axes = plt.subplots(1, len(families) + 1, figsize=size, layout="constrained")
for ax, (parent, runs) in zip(axes, families.items(), strict=False):
    ax.sharey(axes[0])
    ax.tick_params(labelleft=ax is axes[0])
    draw_family(ax, parent, runs)
draw_trajectory(axes[-1], curves, "share_inside", runs=confined)
plt.setp(axes[-1].lines, marker="")
axes[0].set_ylabel("validation accuracy (avg@8)")
axes[-1].set(title="inside V", ylabel="share of the step", ylim=(0, 1))
fig.suptitle(kept_in_words(results), fontsize=9)
draw_legend(fig, columns=3)
results.save(fig, "fig6_projected_training", inputs=("curves",), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Lines begin where $V$ is taken; accuracy is that of eight sampled answers a problem
# (avg@8). The band, and the bars beside the end, are the 95 % interval over seeds; with
# fewer than three seeds they are the standard error over the problems. A panel uses the
# seeds that all its runs have. Seeds share their anchor and problems, so that two runs
# differ by less than their intervals suggest.
#
# At the right, a line below 1 is an update that leaves the subspace although its
# gradient lies in it. Where only the update is constrained, the line says what the
# projection leaves of it.
#
# The lines to compare with are $K = 0$, which learns with embeddings, norms and head
# alone, and the random $V$. The table has the share $f$ of every confined run with its
# interval; "alone" freezes embeddings, norms and head as well.

# %%
retained_shares(results).astype({"seeds": int}).round(2)

# %% [markdown]
# And the share of the proposed step inside $V$, along training:

# %%
rows = curves[curves["metric"] == "share_inside"].groupby("run")["value"]
inside = rows.agg(["first", "mean", "last"])
assert inside.to_numpy().min() >= 0
assert inside.to_numpy().max() <= 1 + 1e-6
inside.loc[list(projections)].rename(index=label).round(3)

# %% [markdown]
# How much of this hangs on one $K$ and one branch point, the only ones the paper tries?
#
# **Claim (§4.2; C11).** The early subspace is enough: OPD loses nothing in it at any
# $K$ from the stable rank on, wherever $V$ is taken. A loss that closes only as $K$ or
# the branch point grows would refute the claim, since the projection would then cost
# what it leaves out. And the claim is special to the subspace only if a random $V$
# loses more.

# %% tags=["hide-input"]
from paper_lib.figures import accuracy_change, draw_change, draw_share_inside

home = study.run("opd").tasks[0]
changes = accuracy_change(study, curves, home.name)
assert changes["change"].abs().max() <= 1
own = changes.query("run.str.startswith('opd_projected_early') and usual_at")
by_k = 100 * own[own["constrain"] == "gradient"].groupby("K")["change"].mean()
values = ", ".join(f"{points:+.1f} at K = {k}" for k, points in by_k.items())
words = f"OPD in its own early V, points of accuracy: {values}".replace("-", "−")
caption = (
    "Accuracy lost to projection over K and over the branch point, and the share of a "
    "step inside V."
)

# %%
look = {"figsize": (7.2, 3.5), "layout": "constrained", "width_ratios": (4, 3, 4)}
fig, axes = plt.subplots(1, 3, **look)
axes[1].sharey(axes[0])
draw_change(axes[0], changes, "K")
draw_change(axes[1], changes, "at")
draw_share_inside(axes[2], study, curves)
for ax, title in zip(
    axes, ("over K", "over the branch", "what is projected"), strict=True
):
    ax.set_title(title)
axes[0].set_ylabel("test accuracy − free run's")
axes[1].tick_params(labelleft=False)
fig.suptitle(words, fontsize=9)
draw_legend(fig)
results.save(fig, "fig_projection_sweep", inputs=("curves",), caption=caption)

# %% [markdown]
# At the left and in the middle, test accuracy at the end is compared with the free run
# of the same seed. Bars are the interval over seeds, with fewer than three the error of
# the evaluation. A panel has as many points as the profile has runs. A level line at 0
# says that $K$ does not matter. Where the random $V$ is level too, neither does $V$.
#
# At the right, the share of the step that the optimizer proposed inside $V$. With the
# gradient projected that is the step taken, so the rest leaves the subspace. With the
# update projected the rest is cut off.

# %%
columns = {"K": "first", "at": "first", "change": "mean", "seed": "count"}
by_run = changes.groupby("run").agg(columns).rename(index=label)
heads = {"at": "V taken at", "change": "accuracy − free run's", "seed": "seeds"}
by_run.rename(columns=heads).round(3)

# %% [markdown]
# **Claim (§4.2, Fig. 8; C11).** The same holds on held-out benchmarks. Ours are the
# test problems of the home task and variants that none of these runs trained on. The
# ledger judges accuracy at home alone. Losses elsewhere that are far larger than at
# home would refute the claim.

# %% tags=["hide-input"]
from paper_lib.figures import draw_losses

tasks = [task.name for task in (home, *study.evaluation.variants)]
with_gain = {parent: runs for parent, runs in families.items() if parent != "sft"}
heights, lost = [len(runs) for runs in with_gain.values()], {}
size = (7.2, 1.3 + 0.27 * (sum(heights) + len(heights)))
grid = {"sharex": True, "squeeze": False, "height_ratios": heights}
words = "In its early V OPD loses at most {:.1f} points on a task, {:.1f} in a random V"
arms = ["opd_projected_early", "opd_projected_random"]
caption = (
    "Test accuracy that projected training loses, on the task, variants of it and a "
    "second domain."
)

# %%
shape = (len(heights), len(tasks))
fig, axes = plt.subplots(*shape, figsize=size, layout="constrained", **grid)
for row, (parent, runs) in zip(axes, with_gain.items(), strict=True):
    for ax, task in zip(row, tasks, strict=True):
        lost[parent, task] = draw_losses(ax, results, task, runs=runs[1:], free=parent)
        ax.tick_params(labelleft=ax is row[0])
for ax, task in zip(axes[0], tasks, strict=True):
    ax.set_title(task.replace("_", "\n"))
for ax in axes[-1]:
    ax.set_xlabel("points lost")
fig.suptitle(words.format(*pd.DataFrame(lost).max(axis=1)[arms]), fontsize=9)
draw_legend(fig)
results.save(fig, "fig8_projected_benchmarks", inputs=("curves",), caption=caption)

# %% [markdown]
# A row is a confined run against the free run of its own seed, so that what seeds share
# cancels; 0 is free training. The first task is the one trained on. The others show
# whether the projection costs or spares what was not. SFT, which has nothing to lose
# after its branch, is left out.
#
# A loss says little where there is little to lose. The table has what each run gains
# over the anchor, in points, with the error of the evaluation:

# %%
gain = {}
for task in tasks:
    ends = scores(curves, ["sft", *families["opd"]], task).set_index("run")
    points = 100 * (ends["mean"] - ends.loc["sft", "mean"])
    error = 100 * (ends["error"] ** 2 + ends.loc["sft", "error"] ** 2) ** 0.5
    gain[task.replace("_", " ")] = points.map("{:.1f}".format) + error.map(
        " ± {:.1f}".format
    )
pd.DataFrame(gain).loc[families["opd"]].rename(index=label)

# %% [markdown]
# What does a projected run lose? Beside the sampled accuracy, which all figures here
# draw, the tables have the accuracy of the greedy answer to the same test problems.
# Each is a mean over the seeds that the run has:

# %%
ways = {f"{way}_accuracy:{home.name}": way for way in ("greedy", "sampled")}
by_way = curves[curves["metric"].isin(ways)].replace({"metric": ways})
by_way = by_way.groupby(["run", "metric"])["value"].mean().unstack()
shown = dict.fromkeys(["sft", *(run for runs in families.values() for run in runs)])
heads = {way: f"{way} accuracy, %" for way in ways.values()}
(100 * by_way.loc[list(shown)]).rename(index=label, columns=heads).round(2)

# %% [markdown]
# In the reference set the greedy answers are right to 99.2 to 99.6 % throughout, in a
# random $V$ too. The whole distance from the anchor to free OPD is that sampling at
# temperature 1 slips less often. A projection keeps or loses this sharpening. "Intact"
# says that the sharpening is kept; it does not say that a skill is.

# %% [markdown]
# ## Where there is something to learn
#
# The runs so far have little to learn. The profile `headroom` has runs that have more:
# six seeds on two bases, trained on two skills that the anchor lacks. Its tables are
# committed, so every profile draws this section from them. The rules of C10 and C11
# were frozen before these runs were trained.
#
# Embeddings, norms and head are frozen in all of these runs. A run confined to $K = 0$
# would then stay where it branched. So the accuracy $A_{K=0}$ of the share $f$ is that
# of the free run at the branch, a fifth of the way. Accuracy is the greedy one, since
# the skill is new. A run that branches at 0.10 and reaches 0.50 when free and 0.42 in
# $V$ keeps eight tenths:

# %%
harder = open_results("headroom", data_dir=harder_dir, figures_dir=figures_dir)
branched = [("opd", 20, 0.10), ("opd", 100, 0.50), ("opd_projected_early", 100, 0.42)]
rows = [(run, "greedy_accuracy", 0, step, value) for run, step, value in branched]
table = pd.DataFrame(rows, columns=["run", "metric", "seed", "step", "value"])
made_up = replace(harder, tables={"curves": table})
share = retained(made_up, "opd", "opd_projected_early")
assert abs(share.item() - 0.8) < 1e-9
print(f"f = {share.item():.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (§4.2; C10, C11).** OPD stays above 0.8 in its own early $V$, and SFT falls
# below. The claim is refuted by an OPD whose interval lies below 0.8, or by a matched
# SFT whose interval lies above. Four questions go with it:
#
# - Is the *own* $V$ needed? Arms in the $V$ of other rollouts or of another objective
#   say so.
# - Would any $V$ do? Arms in a random $V$ say so.
# - Is the $V$ of SFT only too small? Arms whose $V$ holds 60, 80 or 90 % of the energy
#   of the update at the branch give each objective the $K$ that it needs.
# - Does OPD's update point where it will end sooner than the others' (C10)? Two runs on
#   credit by chance show how much of $\mathrm{Sim}_K$ comes without learning.

# %% tags=["hide-input"]
from paper_lib.figures import in_order, run_style
from paper_lib.figures.panels import draw_rows

learners, by_chance = ("opd", "sft_matched", "rlvr"), "opd_shuffled_credit"
kept = {}
for free in learners:
    arms = in_order(run for run in harder.runs if run.startswith(f"{free}_projected"))
    kept[free] = {arm: retained(harder, free, arm) for arm in arms}
sim = {
    run: harder.first(run, "subspace_alignment", modules=ATTENTION)
    for run in (*learners, by_chance, "rlvr_random_reward")
}

# %% tags=["hide-input"]
from paper_lib.summaries import say


def draw_values(ax: plt.Axes, free: str, values: dict[str, pd.Series]) -> None:
    names = {run: label(run).removeprefix(f"{label(free)}, ") for run in values}
    draw_rows(ax, [(names[run], values[run], run_style(run).mark) for run in values])


shares = [f"{label(run)} {say(kept[run][f'{run}_projected_early'])}" for run in kept]
words = f"In the own early V ({len(sim['opd'])} seeds), kept: {', '.join(shares)}"
caption = (
    "The share of its later gain that each confined run keeps on two skills that the "
    "anchor lacks, and how near the first update points to the last."
)

# %% slideshow={"slide_type": "subslide"}
grid = [["opd", "sft_matched"], ["opd", "rlvr"], ["opd", "first"]]
look = {"height_ratios": (11, 2.6, 5), "layout": "constrained"}
fig, axes = plt.subplot_mosaic(grid, figsize=(8.4, 6.4), **look)
for free in learners:
    draw_values(axes[free], free, kept[free])
    draw_chance(axes[free], 0, "K = 0, the branch", axis="x")
    draw_chance(axes[free], 0.8, "intact above 0.8", axis="x")
    draw_chance(axes[free], 1, "free training", axis="x")
    axes[free].set(title=label(free), xlim=(-0.5, 3.3))
    axes[free].set_xlabel("share kept, f; lines: K = 0, 0.8, free", fontsize=9)
draw_values(axes["first"], "", sim)
axes["first"].set(title="first snapshot", xlabel=r"$\mathrm{Sim}_3$ with the end")
fig.suptitle(words, fontsize=9)
inputs = [harder.folder / f"{name}.parquet" for name in ("curves", "matrices")]
results.save(fig, "fig_harder_confined", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# A row of `fig_harder_confined` is an arm, with its mean, its seeds as dots and
# Student's 95 % interval. The vertical lines are $K = 0$, the 0.8 of the ledger, and
# free training. A row without another word branches at a fifth of the run with $K = 3$.
#
# Read the interval before the mean. For OPD in its own early $V$ it lies across 0.8,
# because its seeds disagree. For matched SFT it is narrow, and lies across 0.8 too. So
# OPD is not shown to be intact, and matched SFT is not shown to be degraded. Where $V$
# holds 80 % of the energy, matched SFT keeps more than 0.8, and the interval of OPD is
# too wide to say.
#
# A random $V$ with $K = 3$ keeps little: not any $V$ will do. But for OPD the $V$ of
# RLVR, of SFT and of other rollouts keep shares in the range of its own $V$. So these
# runs give no sign that the $V$ has to be OPD's.
#
# At the lower right, OPD's first update points to its end no more than that of matched
# SFT or of RLVR does. Credit by chance comes close, so that most of this
# $\mathrm{Sim}_K$ is not learning.
#
# The cell prints the comparisons as the ledger makes them: ✓ holds, ✗ fails, ? is
# undecided.

# %%
from paper_lib.ledger.contrasts import above, below, more

opd, sft = (kept[run][f"{run}_projected_early"] for run in ("opd", "sft_matched"))
strict = [kept[run][f"{run}_projected_early_e80"] for run in ("opd", "sft_matched")]
judged = [
    above(opd, 0.8, "C11, OPD keeps more than 0.8"),
    below(sft, 0.8, "C11, matched SFT keeps less than 0.8"),
    more(opd, sft, "C11, OPD keeps more by 0.1", by=0.1),
    more(*strict, "C11, the same where V holds 80 % of the energy", by=0.1),
    more(sim["opd"], sim["sft_matched"], "C10, OPD points to its end above SFT"),
    more(sim["opd"], sim["rlvr"], "C10, OPD points to its end above RLVR"),
    more(sim["opd"], sim[by_chance], "OPD above credit by chance"),
]
print("\n".join(map(str, judged)))

# %% [markdown]
# And every share with its interval:

# %%
retained_shares(harder).astype({"seeds": int}).round(2)

# %% [markdown]
# ## Try it: which subspace is enough?
#
# Go from the run's own early $V$ to one that knows less of the run, and watch the
# distance to the free run and the share of the step inside $V$. Then raise $K$. With
# the committed tables these are runs on skills that the anchor lacks, where there is
# something to lose; otherwise the profile's own. Only measured runs can be chosen.

# %%
from paper_lib.teaching.charts import play_projection

there = (results.folder.parent / "headroom").is_dir() and study.committed
played = results.beside("headroom") if there else results
play_projection(played.study, played.table("curves"))

# %% [markdown]
# ## What we found
#
# The verdicts are computed from these tables by the rule of the ledger (`claims.md`
# beside the figures has it): with SFT at its own schedule, and with matched SFT in
# SFT's place.

# %%
rows = ledger(results, ("C7", "C8", "C9", "C10", "C11"))
print(rows[["claim", "verdict", "verdict, matched"]].to_string(index=False))
claims_in_short(rows)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 05-1 — Subspace alignment by hand (15 minutes)
#
# Write $\mathrm{Sim}_K = \lVert V_K(t)^\top V_K(\mathrm{end})\rVert_F^2 / K$ of two
# updates, from their singular value decompositions.
#
# <details><summary>Hint</summary>
#
# `torch.linalg.svd(d, full_matrices=False).Vh` has the right singular vectors as
# *rows*, the largest first.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of delta_t, delta_end, both (m, n), and K: in [0, 1]
check("05-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $\mathrm{Sim}_K$ is the mean of $\cos^2\theta$ over the $K$ principal angles. Signs
# and order of the vectors cancel. A comparison vector by vector would not survive that:
# two neighbouring singular values that swap would look like a turned update.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(delta_t, delta_end, K):
    v_t, v_end = (
        torch.linalg.svd(d, full_matrices=False).Vh[:K] for d in (delta_t, delta_end)
    )
    return (v_t @ v_end.mT).square().sum() / K


verdict = check("05-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 05-2 — Who gains most over its own walk? (10 minutes)
#
# Early emergence is what $\mathrm{Sim}_K$ has beyond a random walk with the same step
# lengths. Which of `sft`, `sft_matched`, `opd` and `rlvr` has most of it at its first
# snapshot, in attention, as a mean over seeds?
#
# <details><summary>Hint</summary>
#
# The table below figure 5 has both numbers, the run's as "update so far" and the walk's
# as "its random walk". Subtract row by row.
#
# </details>

# %% tags=["exercise"]
answer = ...  # the name of a run, in quotes
check("05-2", answer, tables={"matrices": matrices, "nulls": nulls})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell prints the excess of all four. In the reference tables it is matched SFT that
# has most, by far (0.770, against 0.545 for OPD, 0.538 for RLVR and 0.424 for SFT).
# With OPD's start, rate, steps and batch, demonstrations point where they will end
# sooner than rollouts do. SFT's own walk starts highest, since its early steps are the
# long ones: that part of its start is a shared prefix.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
own = results.firsts("subspace_alignment", modules=ATTENTION)
walk = results.firsts("subspace_alignment", modules=ATTENTION, nulls=True)
walk = walk[walk["null"] == "random_walk"]
excess = own.groupby("run")["value"].mean() - walk.groupby("run")["value"].mean()
excess = excess[["sft", "sft_matched", "opd", "rlvr"]]
print(excess.round(3).to_string())
answer = excess.idxmax()
verdict = check("05-2", answer, tables={"matrices": matrices, "nulls": nulls})
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 05-3 — A fair K for SFT (15 minutes)
#
# SFT's update has the higher stable rank, so its $V_K$ holds a smaller share of its
# energy than OPD's does. Write the smallest $K'$ at which SFT's $V_{K'}$ holds at least
# the share that OPD's $V_K$ holds, from the singular values of both updates.
#
# <details><summary>Hint</summary>
#
# The energy of $V_K$ is the sum of the $K$ largest $\sigma_i^2$; its share is of the
# sum of all of them.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of sigma_opd, sigma_sft, (r,) tensors, falling, and K: K'
check("05-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Degrading SFT at OPD's $K$ mixes two causes: the subspace is wrong, or it is too
# small. With $K'$ the second is gone. To run it, add a `Projection` with that $K'$ to a
# copy of the profile.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(sigma_opd, sigma_sft, K):
    energies = (sigma.square() for sigma in (sigma_opd, sigma_sft))
    opd, sft = (energy.cumsum(0) / energy.sum() for energy in energies)
    return int((sft < opd[K - 1]).sum()) + 1


verdict = check("05-3", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 05-4 — Adam's first step leaves the subspace (20 minutes)
#
# Let a gradient be $u v^\top$, so that its row space is the span of $v$. Adam's first
# step divides every entry by its own magnitude, and moves along
# $\mathrm{sign}(u)\,\mathrm{sign}(v)^\top$. Which share of the squared norm of the step
# is left when its rows are projected on the span of $v$? Write it as a function of $v$.
#
# <details><summary>Hint</summary>
#
# Every row of the step is $\pm\,\mathrm{sign}(v)$. Project $\mathrm{sign}(v)$ on the
# unit vector $v / \lVert v\rVert$, and compare squared lengths.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of v, an (n,) tensor without zeros: a share in [0, 1]
check("05-4", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The share is
#
# $$\frac{(\mathrm{sign}(v)^\top v)^2}{n \lVert v\rVert_2^2} =
# \frac{\lVert v\rVert_1^2}{n \lVert v\rVert_2^2},$$
#
# which is 1 only where all entries have one size. For normal entries it tends to
# $2/\pi = 0.64$. Projecting the gradient before Adam therefore does not confine the
# update. The right panel of `fig6_projected_training` has the share of real steps: with
# the gradient projected it is low at the branch, where Adam's moments still hold
# gradients from before it, and then settles below 1.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(v):
    return (v.abs().sum().square() / (len(v) * v.square().sum())).item()


long = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
print(f"normal entries: {answer(long):.3f}, 2/π = {2 / torch.pi:.3f}")
verdict = check("05-4", answer)
assert verdict.right, verdict
verdict
