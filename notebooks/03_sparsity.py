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
# # What bf16 shows of an update, and where
#
# **Question.** Stored in bf16, 8 % of the weights are unchanged after SFT, 52 % after OPD and 77 % after RLVR
# (§3.2, Table 1), and what does change avoids the principal weights and gathers on the small ones (§3.2, Fig.
# 3). Do our runs order the same way (C1, C2, C5, C6), and how much of it is left once an update of the same
# size, but without any structure, has been rounded to bf16 in the same way?
#
# **In this notebook**
#
# - *How much changes.* Table 1 with intervals, beside the paper's values, nulls, and the sparsity that an
#   update's size alone explains; three weights on their way through bf16.
# - *Where it changes.* Figure 3: the masks, whole and in part, and their overlaps with the visible update at
#   two α; what an overlap can be at all, given how dense the update is (the paper's α must have been 0.3).
# - *Why there.* Gate III entry by entry: does ½ ULP say which weights show, and what does the tolerance η
#   change? Do other runs and other seeds show the same weights, and what do rotated heads change?
# - *To play with:* the tolerance η, and the precision in which weights are stored.
#
# It reads tables and draws: well under a minute with every profile. `01_train` and `02_extract` make the
# tables, except those of `reference`, which come with the project.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # of the simulated weights in the rounding null
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures go to <profile>/ below it
modules: str = "all"  # matrices averaged over: all, attention or mlp
window: int = 48  # rows and columns shown of the masks

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_lib.figures import MODULE_GROUPS, at_end, open_results, run_style, use_style

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
names = ("matrices", "nulls", "masks", "pairs", "trajectories", "journeys")
matrices, nulls, masks, pairs, trajectories, journeys = map(results.table, names)
main_runs = ["sft", "sft_matched", "opd", "rlvr"]
use_style()

# %% [markdown]
# A weight counts as *changed* when its value at the end, rounded to bf16, differs from its value at the start
# by more than η = 10⁻³ of the larger of the two (App. C.3). The update sparsity is the share of weights that
# do not; over several matrices it counts weights, all other means here count matrices.
#
# `SFT` starts from the base and is trained as the paper trains it, at ten times the learning rate. `SFT,
# matched` starts where OPD and RLVR start, with their learning rate, batch and number of steps: it separates
# the objective from the schedule, which the paper's three runs do not.

# %% [markdown]
# ## Sparsity of every run
#
# **Claim (§3.2, Table 1; C1, C2).** SFT leaves the fewest weights unchanged, OPD more, RLVR the most, and
# OPD's share hardly depends on the teacher or the data. Refuted by another order, or by a variant of OPD more
# than 6 points from it (the ledger's margin); left without an explanation of its own if the nulls fall on the
# runs.

# %%
from paper_lib.figures import draw_legend, draw_paper, draw_points, in_order
from paper_lib.geometry import METRICS, overlap_bounds, update_sparsity

sparsity = results.ends("update_sparsity", modules=chosen)
null_sparsity = results.ends("update_sparsity", modules=chosen, nulls=True)
compared = [*main_runs, "opd_exact", "opd_small_teacher", "opd_second_domain"]
compared += [run for run in ("opd_small_student", "opd_moe_teacher") if run in set(sparsity["run"])]
shown = {run.name for run in study.runs} - {*compared, "opd_sibling"}
controls = [run for run in in_order(sparsity["run"]) if run in shown]
paper = METRICS["update_sparsity"].paper

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.0), layout="constrained", sharex=True)
draw_points(left, sparsity, runs=compared, nulls=null_sparsity)
draw_paper(left, {run: paper[run] for run in compared if run in paper}, runs=compared)
draw_points(right, sparsity, runs=controls, nulls=null_sparsity)
left.set(title="the paper's table", xlabel="update sparsity", xlim=(-0.03, 1.03))
right.set(title="our controls", xlabel="update sparsity")
draw_legend(fig)
caption = (
    "Share of the weights that every run leaves unchanged in bf16, beside the paper's values and nulls. "
    "Only SFT, matched SFT, OPD and RLVR have nulls."
)
results.save(fig, "table1_sparsity", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown]
# Filled markers are means over seeds, rings the seeds, bars Student's 95 % interval of the mean where there
# are three seeds or more (the legend says how many). Read the levels with care: sparsity depends on the
# learning rate and the number of steps, which are ours, so only the order can be compared with the diamonds.
# Then read each run against the grey marks below it. A mark straight below its run says that nothing but the
# size of the update, or the set of its magnitudes, is needed to explain the sparsity. SFT's update shrunk to
# the size of OPD's says what is left at equal size, and matched SFT's what is left at equal size, start, rate
# and steps. The variants and controls have no nulls of their own: the next section draws all of them against
# what their size alone gives.

# %%
shares = {
    group: results.ends("update_sparsity", modules=names).groupby("run")["value"].mean()
    for group, names in MODULE_GROUPS.items()
}
assert all(share.between(0, 1).all() for share in shares.values())
pd.DataFrame(shares).loc[compared].rename(index=lambda run: run_style(run).label).round(3)

# %% [markdown]
# ## The rounding null
#
# A bf16 number has eight significant bits, so a weight moves only when its update exceeds half the gap to the
# next such number, about |w| / 256 to |w| / 512. The threshold η does no work beyond that: neighbouring bf16
# numbers lie at least 2⁻⁸ apart, relative to the larger one, so that any smaller η means "not the same bits"
# (zeros aside).

# %%
import torch

positive = torch.arange(0x0080, 0x7F80, dtype=torch.int16).view(torch.bfloat16).double()
gaps = positive.diff() / positive[1:]
assert gaps.min() == 2**-8 > study.diagnostics.eta
print(f"{len(positive):,} positive normal bf16 numbers, smallest relative gap {gaps.min():.6f} = 2^-8")

# %% [markdown]
# **Claim (§3.3; C15c).** What shows of a weight is not how far it went, but whether it crossed half of such a
# gap. We follow three weights of one matrix: a quarter, a half and three quarters of OPD's entries move less
# than they do, counted in half gaps. The black line is the coloured one rounded, so the claim is arithmetic
# and cannot fail; the question is how far a weight goes unseen, and whether what shows is there to stay.

# %%
from paper_lib.figures import draw_journey

one = masks.query("run == 'opd'").iloc[0]  # the journeys' matrix too
pictured = f"{one['module']} of layer {one['layer']}, seed {one['seed']}"
quantiles = sorted(set(journeys["k"])) or [0.5]

# %%
size = {"figsize": (7.2, 1.6 * len(quantiles) + 0.8), "layout": "constrained"}
fig, axes = plt.subplots(len(quantiles), len(main_runs), squeeze=False, sharex=True, **size)
for row, quantile in zip(axes, quantiles, strict=True):
    for ax, run in zip(row, main_runs, strict=True):
        draw_journey(ax, journeys, run, quantile)
    row[0].set_ylabel(f"{100 * quantile:g} % move less")
for ax, run in zip(axes[0], main_runs, strict=True):
    ax.set_title(f"{run_style(run).label}\n{ax.get_title()}", fontsize=8.5)
axes[-1, 0].set_xlabel("training progress")
fig.suptitle(f"three weights of {pictured}", fontsize=9)
draw_legend(fig)
caption = "Three weights of the middle layer's query matrix, one seed: the float32 value, what bf16 shows."
results.save(fig, "fig_bf16_journey", inputs=("journeys",), caption=caption)

# %% [markdown]
# Across is training progress, up the weight itself; grey lines are the numbers that bf16 has, where they are
# few enough to draw. A weight may wander through its whole cell and not show, or cross its edge by a little,
# show a whole step, and go back. SFT starts from other weights than the rest, so its cells lie elsewhere. All
# is seen at the snapshots alone.

# %% [markdown]
# **Claim to test (ours; §3.2 leaves it open).** The order of the sparsities is the order of the update sizes.
# We draw sparsity against ‖ΔW‖/‖W₀‖ along every run, and behind it what bf16 makes of normal noise added to
# normal weights. The claim is refuted where a run leaves the curve by more than its seeds differ.

# %%
generator = torch.Generator().manual_seed(seed)
weights = torch.randn(512, 512, generator=generator).bfloat16().float()
noise = torch.randn(512, 512, generator=generator)
sizes = 10.0 ** torch.linspace(-4.5, -1, 36)
expected = [update_sparsity(weights, weights + size * noise).item() for size in sizes]

# %%
from paper_lib.figures import draw_beside, draw_chance, draw_plane

columns = {"size": "relative_norm", "sparsity": "update_sparsity"}
path = results.side_by_side(columns, modules=chosen)
others = at_end(path[~path["run"].isin([*main_runs, "opd_sibling"])])
place, kinds = ["run", "seed", "step"], dict(iter(null_sparsity.groupby("null")))
same_size = kinds["same_norm_gaussian"].set_index(place)["value"]
excess = sparsity.set_index(place)["value"].sub(same_size).dropna().reset_index()
tails = kinds["permuted"].set_index([*place, "null"])["value"].sub(same_size).reset_index()

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained", width_ratios=(3, 2))
black, dots = {"color": "black"}, {"marker": "o", "markersize": 2, "linestyle": "none"}
draw_beside(left, sizes, expected, "normal weights and noise", linestyle=":", **black)
draw_beside(left, others["size"], others["sparsity"], "other runs, at their end", **dots, **black)
draw_plane(left, path, x="size", y="sparsity", runs=main_runs)
left.set(xscale="log", xlabel=r"$\Vert\Delta W\Vert_F\,/\,\Vert W_0\Vert_F$", ylabel="update sparsity")
draw_points(right, excess, runs=main_runs, nulls=tails)
draw_chance(right, 0, "Gaussian of the same norm", axis="x")
right.set(title="beyond its size", xlabel="sparsity − Gaussian's")
right.margins(x=0.1)
draw_legend(fig)
caption = "Update sparsity against the size of the update, and what it has beyond that of a Gaussian update."
results.save(fig, "fig_rounding_null", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown]
# Left, a run travels down and to the right as its update grows, and a cross at its end is the interval over
# seeds; runs that share one curve differ in how far
# they have gone, not in how they move. Right, what each run's sparsity has beyond that of a Gaussian update
# of the same norm on the same weights: zero means that its size explains it. An update whose entries are of
# more equal size than normal ones shows more of itself at the same norm, one with heavier tails less. The
# permuted null has the run's own entries in random places. Where it stands beside the run, even the rest is
# explained without asking which weights moved.

# %%
size = results.ends("relative_norm", modules=chosen)
orders = {}
for name, frame in {"update size, falling": size, "sparsity, rising": sparsity}.items():
    means = frame.groupby("run")["value"].mean()[main_runs]
    orders[name] = [run_style(r).label for r in means.sort_values(ascending=name.endswith("rising")).index]
print(pd.DataFrame(orders).to_string(index=False))
print("\nthe same order" if len(set(map(tuple, orders.values()))) == 1 else "\ntwo different orders")

# %% [markdown]
# ## Where the visible updates fall
#
# The *principal* weights are the top α of W₀ by magnitude in its rank-r reconstruction, the *low-magnitude*
# weights the bottom α by magnitude. The overlap is the share of visible entries inside a mask; chance is α,
# because an update that knows nothing of the weights lands in a mask in proportion to its size. But an update
# that knows nothing of the weights is still rounded, and the threshold of visibility grows with |w|: even
# then it shows on small weights first. Hence the nulls, which go through the same rounding.
#
# Of N weights, d N are visible and α N in the mask, so at least (α − (1 − d)) N and at most min(α, d) N are
# both. An overlap is therefore confined to [(α − (1 − d)) / d, min(1, α / d)], which closes on α as the
# update gets dense. The paper's appendix gives α = 0.5, its text a chance of 30 %; its own densities decide
# between them.

# %%
reported = pd.DataFrame({"density": METRICS["update_density"].paper})
for mask in ("principal", "low_magnitude"):
    reported[mask] = METRICS[f"{mask}_overlap"].paper
overlap = reported[["principal", "low_magnitude"]]
for alpha in (0.3, 0.5):
    bounds = np.array([overlap_bounds(alpha, density) for density in reported["density"]])
    reported[f"from ({alpha})"], reported[f"to ({alpha})"] = bounds.T
    inside = (bounds[:, :1] <= overlap) & (overlap <= bounds[:, 1:])
    reported[f"possible ({alpha})"] = inside.all(axis=1)
assert reported["possible (0.3)"].all()
assert not reported.loc["sft", "possible (0.5)"]
reported.round(3)

# %% [markdown]
# So α was 0.3: at 0.5 no mask could overlap as little with SFT's update as both of the paper's do. We show
# both. The rank r has to scale with the model, and here is ours beside the paper's:

# %%
diagnostics = study.diagnostics
width = matrices.query("metric == 'parameters' and module == 'q'")["value"].max() ** 0.5  # q is square
print(f"r = {diagnostics.principal_rank} of {width:.0f}; the paper has 64 of 4,096, and of 1,024 for k and v")
print(f"pictured: {pictured}")

# %% [markdown]
# **Claim (§3.2, Fig. 3; C5, C6).** The overlap with the principal mask falls from SFT to OPD to RLVR, the
# last two below chance; that with the low-magnitude mask rises in the same order, far above chance. Refuted
# by another order or the other side of chance, and explained by rounding where the nulls do the same.

# %%
from paper_lib.figures import draw_mask, draw_overlap

overlaps = [
    (mask, alpha, reported[mask] if alpha == 0.3 else None)
    for mask in ("principal", "low_magnitude")
    for alpha in diagnostics.alphas[:2]
]

# %%
fig, axes = plt.subplots(2, 4, figsize=(7.2, 5.2), layout="constrained", height_ratios=(4, 3))
draw_mask(axes[0, 0], masks, "opd", window=window, of="weights")
for ax, run in zip(axes[0, 1:], ("sft", "opd", "rlvr"), strict=True):
    draw_mask(ax, masks, run, window=window)
    ax.set_title(run_style(run).label)
for ax, (mask, alpha, paper) in zip(axes[1], overlaps, strict=True):
    draw_overlap(ax, matrices, nulls, mask, alpha=alpha, runs=main_runs, modules=chosen, paper=paper)
    ax.tick_params(labelleft=ax is axes[1, 0])
axes[0, 0].set(title="$W_0$ of OPD", ylabel=pictured)
draw_legend(fig)
caption = (
    "One corner of the masks of the middle layer's query matrix, one seed. "
    "How much of each run's visible update lies in them, over all matrices and seeds."
)
results.save(fig, "fig3_mask_overlap", inputs=("matrices", "nulls", "masks"), caption=caption)

# %% [markdown]
# Top, one corner of one matrix: the weights that count as principal, as small, or as both, and the entries
# that each update changed visibly. Bottom, the overlaps with intervals, those with principal weights on a
# stretch of the axis that just holds the marks. The grey bar, the same for both masks, is the range that the
# density of the update leaves to any overlap, the grey marks are nulls. An overlap says something about the
# training where it differs from chance *and* from the nulls; a run whose bar is short could not have shown a
# preference for any weights.

# %% [markdown]
# ### The whole matrix
#
# **Claim to test (the picture behind Fig. 3).** A visible update is spread over the whole matrix. Rows and
# columns that leave the shade, where 95 % of them would be if entries were independent at one rate, refute
# it: then whole input or output directions of the matrix take part more than others do.

# %%
from paper_lib.figures import ORANGE, PURPLE, draw_density, draw_update_density, line_spread, mask_of

weight_masks = {"principal": PURPLE, "low_magnitude": ORANGE}
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.2), layout="constrained")
for ax, run in zip(axes.flat, ("sft", "opd", "rlvr", "sft_matched"), strict=False):
    image = draw_update_density(ax, masks, run)
for ax, (mask, color) in zip(axes[1, 1:], weight_masks.items(), strict=True):
    draw_density(ax, mask_of(masks, "opd", mask), color)
    ax.set_title(f"{mask.replace('_', ' ')} weights")
axes[0, 0].set_ylabel(pictured)
fig.colorbar(image, ax=axes, shrink=0.5, label="share of a block that is marked")
caption = "Visible updates and masks of the middle layer's query matrix, one seed: by block, row, column."
results.save(fig, "fig_update_masks", inputs=("masks",), caption=caption)

# %% [markdown]
# Squares are blocks of the matrix, darker where more of their entries are marked; the strips hold the share
# of every column (above) and row (right), from 0 to 1. The table says how much more the lines differ than
# with independent entries, where it is 1 on average. Read an update's rows against those of the small
# weights, on which rounding shows first: what these do not have is the update's own.

# %%
pictures = {run_style(run).label: mask_of(masks, run, "update") for run in main_runs}
pictures |= {f"{mask.replace('_', ' ')} weights": mask_of(masks, "opd", mask) for mask in weight_masks}
over_chance = {"rows": 0, "columns": 1}
pd.DataFrame(
    {
        name: {line: line_spread(mask, axis) for line, axis in over_chance.items()}
        for name, mask in pictures.items()
    }
).T.round(1)

# %% [markdown]
# ## At equal density
#
# **Claim to test (ours).** At equal density, the objectives do not differ in which weights they touch. We
# draw the overlap against the density along every run. The claim is refuted where two runs pass through the
# same density with different overlaps, and rounding is not the whole story where a run is off its nulls.

# %%
from paper_lib.figures import draw_reach_curve

alpha, panels = diagnostics.alphas[0], ("principal", "low_magnitude")
columns = {"density": "update_density", **{mask: (f"{mask}_overlap", alpha) for mask in panels}}
path = results.side_by_side(columns, modules=chosen)
null_path = results.side_by_side(columns, modules=chosen, nulls=True)

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.3), layout="constrained", sharey=True)
diamonds = {"color": "black", "marker": "D", "markerfacecolor": "none", "linestyle": "none"}
for ax, mask in zip(axes, panels, strict=True):
    draw_reach_curve(ax, alpha=alpha)
    draw_chance(ax, alpha)
    draw_plane(ax, path, x="density", y=mask, runs=main_runs, nulls=null_path)
    draw_beside(ax, reported["density"], reported[mask], "paper, 8B", **diamonds)
    ax.set(title=f"{mask.replace('_', ' ')} weights", xlabel="update density", xlim=(0, 1), ylim=(0, 1.02))
axes[0].set_ylabel(rf"overlap, $\alpha$ = {alpha:g}")
lift = axes[1].secondary_yaxis("right", functions=(lambda y: y / alpha, lambda y: y * alpha))
lift.set_ylabel("lift over chance")
draw_legend(fig)
caption = "Overlap of the visible update with the principal and the small weights, against its density."
results.save(fig, "fig3_matched_density", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown]
# Lines follow a run from its first snapshot to the marker at its end; the shade is what can be reached.
# Compare runs where they pass through the same density, and each with the grey marks of its own density. The
# paper's diamonds lie at three densities, so their order along the vertical alone cannot separate the
# objective from the size of the update.

# %%
ends = at_end(path).groupby("run")[["density", *panels]].mean().loc[main_runs]
for mask in panels:
    recall = results.ends(f"{mask}_recall", k=alpha, modules=chosen)
    ends[f"recall, {mask}"] = recall.groupby("run")["value"].mean()
    ends[f"lift, {mask}"] = ends.pop(mask) / alpha
assert ends.filter(like="recall").stack().between(0, 1).all()
ends.rename(index=lambda run: run_style(run).label).round(3)

# %% [markdown]
# Lift is the overlap over chance, recall the visible share of the weights in the mask. Read recall against
# the density: above it the mask is preferred, below it avoided. Unlike the overlap, recall is not squeezed
# where the update is dense. How little room the paper's SFT had, whichever weights it touched:

# %%
density = reported.loc["sft", "density"]
for share in (0.3, 0.1):
    low, high = overlap_bounds(share, density)
    print(f"density {density:.1%}, chance {share:.0%}: any overlap lies between {low:.1%} and {high:.1%}")
    print(f"    so no lift below {low / share:.2f} or above {high / share:.2f}, whatever SFT did")
assert low / share <= 1 <= high / share

# %% [markdown]
# ## Gate III, entry by entry
#
# **Claim (§3.3, App. D; C15c).** An entry shows where |ΔW| exceeds half a unit in the last place of W₀.
# Refuted by filled marks off the diagonal on the left; and it is arithmetic, not geometry, where the rings,
# which deal the same sizes out at random, lie on the diagonal too.

# %%
from paper_lib.figures import draw_prediction, draw_tolerances

ended = sorted(matrices["run"].unique())
fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.3), layout="constrained")
draw_prediction(axes[0], matrices, runs=main_runs, others=ended)
axes[0].set(title="which weights show", aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
for ax, run in zip(axes[1:], ("opd", "sft"), strict=True):
    draw_tolerances(ax, trajectories, run, eta=study.diagnostics.eta)
axes[2].set(ylabel="")
draw_legend(fig, columns=5)
caption = "Visible density as half a bf16 step predicts it and as observed; sparsity against the tolerance η."
results.save(fig, "fig_gate3_visibility", inputs=("matrices", "trajectories"), caption=caption)

# %% [markdown]
# Left, a filled mark on the dashed diagonal is a run (grey: all others) whose visible weights are those that
# ½ ULP names. The distance of a ring from the diagonal is what the *placing* of large entries on
# large or small weights adds: none on it, fewer visible weights than their sizes give where it lies below.
# Right, in bf16 the line is level up to 2⁻⁸ whatever the run, so that the paper's η = 10⁻³ is a test for
# equal bits. The same update stored in fp16 or fp32 has no such floor, and there its sparsity is a choice of
# η.

# %%
bf16 = trajectories[trajectories["metric"] == "update_sparsity_bfloat16"]
levels = bf16.assign(below=bf16["k"] < 2**-8).groupby(["below", "run", "seed"])["value"]
spans = levels.max() - levels.min()
assert spans[True].max() == 0, "below 2^-8 every tolerance asks for the same bits"
assert study.diagnostics.eta < 2**-9
print(
    f"{len(spans[True])} runs: η from 0 to just below 2^-8 changes bf16's sparsity by {spans[True].max():g}"
)
print(f"and from just above 2^-8 to {bf16['k'].max():g} by up to {spans[False].max():.2f}")
agreement = results.paths("prediction_agreement", modules=chosen).groupby("run")["value"].mean()
print(f"½ ULP is right on {agreement.min():.2%} of the entries or more, run by run")

# %% [markdown]
# ## The same weights in other runs?
#
# **Claim (Zhu et al. 2025; P2, P3).** Runs from one model show on the same weights, and no longer where the
# heads were rotated, the function unchanged. Refuted by Jaccard indices at chance, or by rotated layers that
# share as much as untouched ones; and explained by rounding where its mark lies on the run's.

# %%
from paper_lib.figures import draw_jaccard, draw_rotated

fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.9), layout="constrained", width_ratios=(3, 2))
draw_jaccard(left, pairs, modules=chosen)
draw_rotated(right, pairs, results.rotated)
left.set_title("runs of one seed, and seeds of one run")
right.set_title("OPD, heads rotated")
draw_legend(fig)
caption = "How much the visible updates of two runs, or of two seeds, meet: Jaccard indices beside two nulls."
results.save(fig, "fig_cross_run_masks", inputs=("pairs",), caption=caption)

# %% [markdown]
# Each row is the share of the weights that either run shows which both show: a marker the mean over seeds, a
# bar its interval, dots above it the seeds. Two grey marks are what independent masks of the same densities
# share, and what updates of these sizes share by rounding alone, as both show where W₀ is small; only what
# is right of *both* says that training picks weights. Consecutive seeds start from anchors of their own (SFT
# from the base), so their weights, and with them the rounding null, are not quite the same. Right, where the
# profile has such a run, attention matrices in layers with rotated heads against the others.

# %% [markdown]
# ## Try it: how small is unchanged?
#
# Move η with bf16: the picture stays as it is until 2⁻⁸. Then store the same update in fp16 or fp32, at η = 0
# and 10⁻³: the shares change at once, and the question is whether the order of the runs does.

# %%
from paper_lib.teaching.play import play_tolerance

play_tolerance(trajectories, runs=main_runs, eta=study.diagnostics.eta)

# %% [markdown]
# ## What we found
#
# The verdicts are computed from these tables by the rule of the ledger (`claims.md` beside the figures has
# it): with SFT at its own schedule, and with matched SFT in SFT's place.

# %%
from paper_lib.ledger import claims_in_short, ledger

rows = ledger(results, ("C1", "C2", "C5", "C6", "C15c", "P2", "P3"))
print(rows[["claim", "verdict", "verdict, matched"]].to_string(index=False))
claims_in_short(rows)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the whole line) and run
# the cell. `check` says whether it is right, and otherwise which mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 03-1 — Which α was it? (10 minutes)
#
# The paper prints for SFT a density of 92.73 %, an overlap of 29.66 % with the principal mask and one of
# 31.88 % with the low-magnitude mask, both masks of the same α. The cell above tried two α. Give the least
# and the largest α that allow both overlaps.
#
# <details><summary>Hint</summary>
#
# Which bounds does the section on overlaps put on an overlap, for a given α? Here the overlap is what is
# given. Which α does each of the two leave open, and which do both?
#
# </details>

# %% tags=["exercise"]
answer = ...  # two numbers, the least and the largest α, as shares
check("03-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Both inequalities solved for α give o d ≤ α ≤ o d + (1 − d). The larger overlap gives the lower end and
# the smaller one the upper end: α lies between 0.296 and 0.348. The 30 % of the paper's text are inside,
# the 0.5 of its appendix is not. Nothing but printed numbers was needed; a bound is worth deriving before a
# run.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
dense, principal_overlap, low_overlap = 0.9273, 0.2966, 0.3188
answer = max(principal_overlap, low_overlap) * dense, min(principal_overlap, low_overlap) * dense + 1 - dense
verdict = check("03-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 03-2 — The principal weights (20 minutes)
#
# Write the principal mask: the round(α m n) entries that are largest in magnitude in the rank-r
# reconstruction of W₀. `mark_largest(values, alpha)` of `paper_lib.geometry` marks the largest values.
#
# <details><summary>Hint</summary>
#
# `torch.linalg.svd(w_0, full_matrices=False)` gives U, σ and Vᵀ. Keep r columns of U, r values, r rows of
# Vᵀ.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, alpha and rank that returns a boolean (m, n) tensor
check("03-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The reconstruction is what the leading directions alone make of each entry. Ranking |W₀| itself would make
# the principal mask the opposite of the low-magnitude one, and C5 a restatement of C6; as it is, an entry
# can be principal and small.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from paper_lib.geometry import mark_largest


def answer(w_0, alpha, rank):
    u, s, vh = torch.linalg.svd(w_0, full_matrices=False)
    leading = (u[:, :rank] * s[:rank]) @ vh[:rank]
    return mark_largest(leading.abs(), alpha)


verdict = check("03-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 03-3 — Sparsity at equal size (15 minutes)
#
# How much sparser is OPD's update than SFT's when both have the same norm? Give OPD's sparsity at its end
# less that of SFT's update shrunk to OPD's norm (the null `rescaled_sft` of the run `opd`), in points, as a
# mean over seeds. Sparsity over several matrices counts weights, not matrices.
#
# <details><summary>Hint</summary>
#
# `sparsity` and `null_sparsity` above hold one row a seed. One point is a share of 0.01.
#
# </details>

# %% tags=["exercise"]
answer = ...  # points of sparsity, OPD less SFT's update at OPD's norm
check("03-3", answer, tables={"matrices": matrices, "nulls": nulls})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Compare it with the gap between OPD and SFT as they are, which the cell prints beside it. What is left at
# equal norm is what everything but the distance has done to the sparsity: the objective, and also the start,
# the rate and the schedule, which may cancel. Matched SFT shares these with OPD, and its update at OPD's norm
# (`rescaled_sft_matched`, printed too) need not agree with SFT's: `fig_rounding_null` shows that an update
# whose entries are of more equal size is less sparse at the same norm. The ledger says of both readings of C1
# whether they go beyond their null.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
ours = results.ends("update_sparsity").groupby("run")["value"].mean()
shrunk = results.ends("update_sparsity", nulls=True)
shrunk = shrunk[shrunk["run"] == "opd"].groupby("null")["value"].mean()
answer = 100 * (ours["opd"] - shrunk["rescaled_sft"])
print(f"as they are {100 * (ours['opd'] - ours['sft']):.2f} points, at equal norm {answer:.2f}")
print(f"less matched SFT's at that norm {100 * (ours['opd'] - shrunk['rescaled_sft_matched']):.2f}")
verdict = check("03-3", answer, tables={"matrices": matrices, "nulls": nulls})
assert verdict.right, verdict
verdict
