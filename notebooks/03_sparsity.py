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
# **Question.** Stored in bf16, 8 % of the weights are unchanged after SFT, 52 % after
# OPD and 77 % after RLVR (§3.2, Table 1). The weights that do change avoid the
# principal weights and gather on the small ones (§3.2, Fig. 3). Do our runs order in
# the same way (C1, C2, C5, C6)? How much of the order is left for an update of the same
# size that has no structure and is rounded in the same way?
#
# **In this notebook**
#
# - *How much changes.* Table 1 with intervals, beside the paper's values and nulls.
#   Then the sparsity that the size of an update alone explains, and three weights on
#   their way through bf16.
# - *Where it changes.* Two masks of $W_0$ and their overlaps with the visible update.
#   Then the range that the density of an update leaves to any overlap. By that range
#   the paper's $\alpha$ was 0.3.
# - *Why there.* Half a step of bf16, entry by entry, and what the tolerance $\eta$
#   changes. Then whether other runs and other seeds show the same weights.
# - *To play with:* the tolerance $\eta$ and the precision in which weights are stored.
#
# The notebook reads tables and draws, in well under a minute. Where the profile has no
# tables of its own, it opens the committed reference tables and says so.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # of the simulated weights in the rounding null
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures go to <profile>/ below it
modules: str = "all"  # matrices averaged over: all, attention or mlp

# %%
import numpy as np
import pandas as pd

from paper_lib.figures import MODULE_GROUPS, at_end, by_label, new_figure
from paper_lib.figures import open_results, run_style, use_style

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
names = ("matrices", "nulls", "masks", "pairs", "trajectories", "journeys")
matrices, nulls, masks, pairs, trajectories, journeys = map(results.table, names)
main_runs = ["sft", "sft_matched", "opd", "rlvr"]
use_style()

# %% [markdown]
# ## What counts as changed
#
# Let $a$ and $b$ be $W_0$ and $W_t$ rounded to bf16. The *update sparsity* is the share
# of entries that are equal up to the tolerance $\eta = 10^{-3}$ (App. C.3):
#
# $$\mathrm{sparsity}(W_0, W_t) = \frac{1}{mn} \, \bigl|\{(i, j) :
# |a_{ij} - b_{ij}| \le \eta \max(|a_{ij}|, |b_{ij}|)\}\bigr|.$$
#
# The *update density* is one minus the sparsity. Over several matrices, sparsity counts
# weights alike. All other means count matrices alike.
#
# A small example: three of sixteen weights move by one step of bf16, four others by an
# eighth of a step. The three show, the four do not.

# %%
import torch

from paper_lib.geometry import update_sparsity

before = torch.ones(4, 4)
after = before.clone()
after[0, :3] += 2**-7  # the step of bf16 above 1
after[1] += 2**-10
assert update_sparsity(before, after) == 13 / 16

# %% [markdown]
# Neighbouring bf16 numbers lie at least $2^{-8}$ apart, relative to the larger one. So
# every $\eta$ below $2^{-8}$ asks for the same thing: equal bits, zeros aside. The next
# cell checks the gap between all positive normal numbers.

# %%
bits = torch.arange(0x0080, 0x7F80, dtype=torch.int16)
positive = bits.view(torch.bfloat16).double()
gaps = positive.diff() / positive[1:]
assert gaps.min() == 2**-8 > study.diagnostics.eta
print(f"{len(positive):,} numbers, smallest relative gap {gaps.min():.6f} = 2^-8")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Sparsity of every run
#
# `SFT` starts from the base and is trained at ten times the learning rate, as in the
# paper. `SFT, matched` has OPD's start, learning rate, batch and number of steps. It
# separates the objective from the schedule, which the paper's three runs do not.
#
# **Claim (§3.2, Table 1; C1, C2).** SFT leaves the fewest weights unchanged, OPD more,
# RLVR the most. OPD's share hardly depends on the teacher or the data. Another order
# would refute the claim, and so would a variant of OPD more than 6 points from it (the
# ledger's margin). Where the nulls fall on the runs, size explains the order.

# %%
from paper_lib.figures import draw_chance, draw_legend, draw_paper, draw_points
from paper_lib.figures import in_order
from paper_lib.geometry import METRICS

sparsity = results.ends("update_sparsity", modules=chosen)
null_sparsity = results.ends("update_sparsity", modules=chosen, nulls=True)
levels = results.levels("update_sparsity", scale=100, modules=chosen)
variants = ("exact", "small_teacher", "second_domain", "small_student", "moe_teacher")
compared = [*main_runs, *(f"opd_{v}" for v in variants if f"opd_{v}" in levels)]
shown = {run.name for run in study.runs} - {*compared, "opd_sibling"}
controls = [run for run in in_order(levels.index) if run in shown]

# %% slideshow={"slide_type": "subslide"}
words = "Unchanged weights: SFT {sft:.0f} %, OPD {opd:.0f} %, RLVR {rlvr:.0f} %"
fig, (left, right) = new_figure(1, 2, height=4.4, title=words.format(**levels))
draw_points(left, sparsity, runs=compared, nulls=null_sparsity)
paper = METRICS["update_sparsity"].paper
draw_paper(left, {run: paper[run] for run in compared if run in paper}, runs=compared)
draw_points(right, sparsity, runs=controls)
draw_chance(right, levels["opd"] / 100, "OPD", axis="x")
left.set(title="the paper's table", xlabel="update sparsity", xlim=(0, 0.82))
right.set(title="our controls", xlabel="update sparsity", xlim=(0, 0.62))
draw_legend(fig, columns=3)
caption = (
    "Share of the weights that every run leaves unchanged in bf16, beside the paper's "
    "values and nulls. Only SFT, matched SFT, OPD and RLVR have nulls."
)
results.save(fig, "table1_sparsity", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Filled markers are means over seeds, rings are the seeds, and bars are Student's 95 %
# interval of the mean. Sparsity depends on the learning rate and on the number of
# steps, and ours are not the paper's. Compare the order with the diamonds, not the
# level.
#
# Then compare each run with the grey marks below it. A mark straight below its run says
# that the size of the update, or the set of its magnitudes, is enough to explain the
# sparsity. The mark of SFT's update at OPD's norm shows what differs at equal norm. The
# mark of matched SFT's update shows it at equal norm, start, rate and steps.

# %%
table = pd.DataFrame(
    {
        f"unchanged, {group} (%)": results.levels(
            "update_sparsity", scale=100, modules=m
        )
        for group, m in MODULE_GROUPS.items()
    }
)
assert table.stack().between(0, 100).all()
by_label(table.loc[compared]).round(1)

# %% [markdown]
# ## The rounding null
#
# A stored weight moves when its update exceeds half of the gap to the next bf16 number,
# half a *unit in the last place* (Gate III; §3.3, App. D):
#
# $$|\Delta W_{ij}| > \tfrac{1}{2} \mathrm{ULP}(W_{0,ij}).$$
#
# The gap grows with the weight. The same change shows on a small weight and not on a
# large one. In the example, changes of 0.9 half gaps stay unseen and changes of 1.1
# show, whatever the size of the weight.

# %%
from paper_lib.geometry import half_ulp, visible_mask

weights = torch.tensor([[0.01, 1.5, 100.0]]).bfloat16().double()
for share in (0.9, 1.1):
    moved = weights + share * half_ulp(weights)
    assert (visible_mask(weights, moved) == (share > 1)).all()

# %% [markdown]
# **Claim (§3.3; C15c).** A weight shows when it crosses half a gap, however far it went
# in between. We follow three weights of one matrix. A quarter, a half and three
# quarters of OPD's entries, counted in half gaps, move less than they do. The black
# line is the coloured one rounded, so the claim is arithmetic and cannot fail. The open
# questions are how far a weight goes unseen, and whether a change that shows stays.

# %% tags=["hide-input"]
from paper_lib.figures import draw_journey

one = masks.query("run == 'opd'").iloc[0]  # the journeys' matrix too
pictured = f"{one['module']} of layer {one['layer']}, seed {one['seed']}"
quantiles = sorted(set(journeys["k"])) or [0.5]
stored = journeys.sort_values("step").groupby(["run", "k"])["stored"]
unseen = (stored.first() == stored.last()).sum()

# %%
words = f"{unseen} of {len(stored)} paths end where they began, as bf16 stores them"
size = {"height": 1.6 * len(quantiles) + 0.8, "squeeze": False, "sharex": True}
fig, axes = new_figure(len(quantiles), len(main_runs), title=words, **size)
for row, quantile in zip(axes, quantiles, strict=True):
    for ax, run in zip(row, main_runs, strict=True):
        draw_journey(ax, journeys, run, quantile)
    row[0].set_ylabel(f"half gaps\n{100 * quantile:g} % of OPD's\nmove less")
for ax, run in zip(axes[0], main_runs, strict=True):
    ax.set_title(f"{run_style(run).label}\n{ax.get_title()}", fontsize=8.5)
axes[-1, 0].set_xlabel("training progress")
draw_legend(fig)
caption = "Three weights of one query matrix: the float32 value, and what bf16 shows."
results.save(fig, "fig_bf16_journey", inputs=("journeys",), caption=caption)

# %% [markdown]
# Each row of `fig_bf16_journey` is one weight, each column a run. Up the axis is the
# distance from the first stored number in half gaps, so the shaded cell ends at 1. Grey
# lines are the numbers that bf16 has. A weight may wander through its whole cell and
# not show. It may also cross the edge by a little, show a whole step, and go back. SFT
# starts from the base, so its cells are those of other weights. Only the snapshots are
# drawn.

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim to test (ours; §3.2 leaves it open).** The order of the sparsities is the
# order of the update sizes. We draw sparsity against
# $\Vert\Delta W\Vert_F / \Vert W_0\Vert_F$ along every run. Behind the runs is what
# bf16 makes of normal noise added to normal weights. A run that leaves the curve by
# more than its seeds differ refutes the claim.

# %%
generator = torch.Generator().manual_seed(seed)
weights = torch.randn(512, 512, generator=generator).bfloat16().float()
noise = torch.randn(512, 512, generator=generator)
sizes = 10.0 ** torch.linspace(-4.5, -1, 36)
expected = [update_sparsity(weights, weights + size * noise).item() for size in sizes]
assert sorted(expected, reverse=True) == expected  # a longer update is never sparser

# %% [markdown]
# Size is one number of an update. A second number tells how even its entries are: the
# share $e$ of the energy that lies in the largest tenth of the entries,
#
# $$e = \sum_{(i,j) \,\in\, \text{largest tenth}} \Delta W_{ij}^2
# \;\Big/\; \Vert\Delta W\Vert_F^2.$$
#
# Equal sizes give 0.1. One large entry among small ones gives nearly 1.

# %%
from paper_lib.geometry.sparsity import top_coordinate_energy

even, spike = torch.ones(10, 10), torch.full((10, 10), 1e-3)
spike[0, 0] = 1.0
assert torch.isclose(top_coordinate_energy(even, 0.1), torch.tensor(0.1).double())
assert top_coordinate_energy(spike, 0.1) > 0.999
normal = 100 * top_coordinate_energy(noise, 0.1).item()
print(f"normal entries: the largest tenth has {normal:.1f} % of the energy")

# %%
from paper_lib.figures import draw_beside, draw_plane

axis = METRICS["relative_norm"].axis
columns = {"size": "relative_norm", "sparsity": "update_sparsity"}
path = results.side_by_side(columns, modules=chosen)
others = at_end(path[~path["run"].isin([*main_runs, "opd_sibling"])])
place, kinds = ["run", "seed", "step"], dict(iter(null_sparsity.groupby("null")))
gaussian = kinds["same_norm_gaussian"].set_index(place)["value"]
excess = sparsity.set_index(place)["value"].sub(gaussian).mul(100).dropna()
tails = kinds["permuted"].set_index([*place, "null"])["value"].sub(gaussian).mul(100)
excess, tails = excess.reset_index(), tails.reset_index()
beyond = excess.groupby("run")["value"].mean()

# %% slideshow={"slide_type": "subslide"}
words = "Points beyond a Gaussian's: OPD {opd:+.1f}, matched SFT {sft_matched:+.1f}"
title = words.format(**beyond).replace("-", "−")
fig, (left, right) = new_figure(1, 2, height=3.4, title=title)
look = {"color": "black", "markersize": 2}
draw_beside(left, sizes, expected, "normal weights and noise", linestyle=":", **look)
look |= {"marker": "o", "linestyle": "none", "label": "other runs, at their end"}
draw_beside(left, others["size"], others["sparsity"], **look)
draw_plane(left, path, x="size", y="sparsity", runs=main_runs)
draw_points(right, excess, runs=main_runs, nulls=tails)
draw_chance(right, 0, "Gaussian of the same norm", axis="x")
left.set(xscale="log", xlim=(3e-4, 6e-2), xlabel=axis, ylabel="update sparsity")
right.set(xlabel="sparsity, points above Gaussian's", xmargin=0.1)
draw_legend(fig)
caption = "Update sparsity against the size of the update, and beyond a Gaussian's."
results.save(fig, "fig_rounding_null", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Left in `fig_rounding_null`, a run travels down and to the right as its update grows.
# Runs that share one curve differ in how far they have gone, not in how they move.
# Right is the sparsity of each run less that of a Gaussian update of the same norm on
# the same weights. Zero means that size explains it. The permuted null has the run's
# own entries in random places. Where it stands below the run, the set of magnitudes
# explains the rest, and the choice of weights adds nothing.
#
# The table names the reason for the rest. A run whose entries are more even than normal
# ones shows more weights at the same norm, so its sparsity is lower.

# %%
even = results.levels("coordinate_energy", k=0.1, modules=chosen, scale=100)
size = results.levels("relative_norm", modules=chosen, scale=100)
table = pd.DataFrame({"size of the update (% of the start's)": size})
table["unchanged weights (%)"] = levels
table["points above Gaussian's"] = beyond
table["energy in the largest tenth (%)"] = even
ranks = table.loc[main_runs].rank().to_numpy()
reverse = (ranks[:, 0] + ranks[:, 1] == len(main_runs) + 1).all()
print("longer is denser throughout" if reverse else "the two orders differ")
by_label(table.loc[main_runs]).round(2)

# %% [markdown]
# ## Where the visible updates fall
#
# Two masks mark weights of $W_0$ (§3.2). The *principal* mask has the share $\alpha$
# that is largest in magnitude in the rank-$r$ reconstruction of $W_0$. The
# *low-magnitude* mask has the share $\alpha$ that is smallest in magnitude. The overlap
# of a mask $M_\star$ with the visible entries $M$ is
#
# $$\mathrm{overlap} = \frac{|M_\star \cap M|}{|M|}.$$
#
# Chance is $\alpha$: an update that knows nothing of the weights lands in a mask in
# proportion to its size. But even that update is rounded, and the threshold of
# visibility grows with $|w|$. So it shows on small weights first. The nulls go through
# the same rounding for this reason.
#
# The density $d$ of the update limits the overlap. Of $N$ weights, $dN$ are visible and
# $\alpha N$ are in the mask, so at least $(\alpha - (1 - d)) N$ and at most
# $\min(\alpha, d) N$ are both:
#
# $$\frac{\max(0,\, \alpha - (1 - d))}{d} \;\le\; \mathrm{overlap} \;\le\;
# \min\Bigl(1, \frac{\alpha}{d}\Bigr).$$
#
# The range closes on $\alpha$ as the update gets dense. With three of ten entries in
# the mask and nine visible, the two extreme cases meet both bounds:

# %%
from paper_lib.geometry import mask_overlap, overlap_bounds

mask, all_in, one_out = (torch.ones(1, 10, dtype=torch.bool) for _ in range(3))
mask[0, 3:] = False
all_in[0, 9] = False  # the one entry that does not show lies outside the mask
one_out[0, 0] = False  # it lies inside
reached = [mask_overlap(mask, visible).item() for visible in (one_out, all_in)]
assert np.allclose(reached, overlap_bounds(0.3, 0.9))

# %% [markdown] slideshow={"slide_type": "slide"}
# The paper's appendix gives $\alpha = 0.5$, and its text gives a chance of 30 %. Its
# own densities decide between the two.

# %%
printed = {
    name: METRICS[f"{name}_overlap"].paper for name in ("principal", "low_magnitude")
}
reported = pd.DataFrame({"density": METRICS["update_density"].paper, **printed})
possible = {}
for alpha in (0.3, 0.5):
    low, high = np.array([overlap_bounds(alpha, d) for d in reported["density"]]).T
    inside = reported[[*printed]].ge(low, axis=0) & reported[[*printed]].le(
        high, axis=0
    )
    spans = [f"{a:.1f} to {b:.1f}" for a, b in zip(100 * low, 100 * high, strict=True)]
    possible[f"range for α = {alpha} (%)"] = spans
    possible[f"both inside, {alpha}"] = inside.all(axis=1).tolist()
assert all(possible["both inside, 0.3"])
assert not possible["both inside, 0.5"][0], "SFT's overlaps rule 0.5 out"

# %% slideshow={"slide_type": "-"}
heads = {
    "density": "density (%)",
    "principal": "principal (%)",
    "low_magnitude": "small (%)",
}
by_label((100 * reported).round(2).rename(columns=heads).assign(**possible))

# %% [markdown] slideshow={"slide_type": "fragment"}
# At $\alpha = 0.5$ no mask could overlap as little with SFT's update as both of the
# paper's masks do. So $\alpha$ was 0.3, and 0.3 is used from here on. The rank $r$ of
# the reconstruction scales with the width of the model:

# %%
diagnostics = study.diagnostics
sides = (
    matrices.query("metric == 'parameters' and module == 'q'")["value"] ** 0.5
)  # square
print(f"ours:  r = {diagnostics.principal_rank} of {sides.max():.0f}")
print("paper: r = 64 of 4,096, and of 1,024 for k and v")

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (§3.2, Fig. 3; C5, C6).** The overlap with the principal mask falls from SFT
# to OPD to RLVR, the last two below chance. The overlap with the low-magnitude mask
# rises in the same order, far above chance. Another order, or the other side of chance,
# would refute the claim. Where the nulls do the same, rounding explains it.

# %%
from paper_lib.figures import draw_overlap

alpha, weight_masks = diagnostics.alphas[0], ("principal", "low_magnitude")
which = {"k": alpha, "modules": chosen, "scale": 100}
overlaps = {mask: results.levels(f"{mask}_overlap", **which) for mask in weight_masks}
label = {name: run_style(name).label for name in main_runs}
label |= {"principal": "principal weights", "low_magnitude": "small weights"}

# %% slideshow={"slide_type": "subslide"}
means = {mask: overlaps[mask].loc[["opd", "rlvr"]].mean() for mask in weight_masks}
words = "OPD and RLVR: {principal:.0f} % principal, {low_magnitude:.0f} % small weights"
title = words.format(**means)
fig, axes = new_figure(1, 2, height=3.6, title=title)
for ax, mask in zip(axes, weight_masks, strict=True):
    where = {"alpha": alpha, "runs": main_runs, "modules": chosen}
    draw_overlap(ax, results, mask, paper=reported[mask], **where)
    ax.set_title(label[mask])
axes[0].set_xlabel("overlap (its axis spans the marks)")
axes[1].tick_params(labelleft=False)
draw_legend(fig, columns=3)
caption = (
    "How much of each run's visible update lies on principal and on small weights."
)
results.save(fig, "fig3_mask_overlap", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# The grey bar in `fig3_mask_overlap` is the range that the density of the update leaves
# to any overlap. It is the same for both masks. Grey marks are the nulls. An overlap
# says something about the training where it differs from chance *and* from the nulls. A
# run with a short bar could not have shown a preference for any weights.

# %% [markdown]
# ### The whole matrix
#
# A mask can be fuller in some rows than in others. Let $\rho_i$ be the density of row
# $i$ of $n$ entries, and $\rho$ that of the mask. Independent entries at one rate would
# give the rows a variance of $\rho (1 - \rho) / n$. The *spread* of the rows is
#
# $$\mathrm{spread} = \frac{\mathrm{Var}_i(\rho_i)}{\rho (1 - \rho) / n},$$
#
# which is 1 on average for independent entries. The spread of the columns is the same
# with the sides exchanged. We plant rows that are half full and rows that are a tenth
# full:

# %%
from paper_lib.figures import line_spread

rng = np.random.default_rng(seed)
rates = np.where(np.arange(400) % 2, 0.1, 0.5)[:, None]
planted = rng.random((400, 400)) < rates
assert line_spread(planted, 0) > 20  # the rows differ
assert line_spread(planted, 1) < 1.5  # the columns do not

# %% [markdown]
# **Claim to test (the picture behind Fig. 3).** A visible update is spread over the
# whole matrix. A spread far above 1 refutes the claim. Then whole input or output
# directions of the matrix take part more than others do.

# %%
from paper_lib.figures import ORANGE, PURPLE, draw_density, mask_of

shown = {
    run: (mask_of(masks, run, "update"), run_style(run).color) for run in main_runs
}
for mask, color in zip(weight_masks, (PURPLE, ORANGE), strict=True):
    shown[mask] = mask_of(masks, "opd", mask), color
spreads = {
    name: [line_spread(shown[name][0], side) for side in (0, 1)] for name in shown
}
rows, columns = np.mean([spreads[run] for run in ("opd", "rlvr")], axis=0)

# %%
words = (
    f"Rows of OPD and RLVR spread {rows:.1f} times chance, columns {columns:.1f} times"
)
fig, axes = new_figure(2, 3, height=5.6, title=f"{words} ({pictured})")
for ax, (name, (mask, color)) in zip(axes.flat, shown.items(), strict=True):
    image = draw_density(ax, mask, color)
    rows, columns = spreads[name]
    ax.set_title(f"{label[name]}\nrows {rows:.1f}, columns {columns:.1f}", fontsize=8.5)
fig.colorbar(image, ax=axes, shrink=0.5, label="share of a block that is marked")
caption = (
    "Visible updates and both masks of one query matrix, by block, row and column."
)
results.save(fig, "fig_update_masks", inputs=("masks",), caption=caption)

# %% [markdown]
# Squares are blocks of the matrix, darker where more of their entries are marked. The
# strips hold the share of every column (above) and of every row (right), from 0 to 1.
# The shade in a strip holds 95 % of the lines where entries are independent. The title
# gives the spread of the rows, then of the columns.
#
# Read the rows of an update against the rows of the small weights, on which rounding
# shows first. An excess over the small weights' spread is the update's own.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## At equal density
#
# **Claim to test (ours).** At equal density, the objectives do not differ in which
# weights they touch. We draw the overlap against the density along every run. Two runs
# that pass through the same density with different overlaps refute the claim. A run
# that is off its nulls shows that rounding is not the whole story.

# %%
from paper_lib.figures import draw_reach_curve

columns = {"density": "update_density"}
columns |= {mask: (f"{mask}_overlap", alpha) for mask in weight_masks}
path = results.side_by_side(columns, modules=chosen)
null_path = results.side_by_side(columns, modules=chosen, nulls=True)
ends = at_end(path).groupby("run")[["density", *weight_masks]].mean().loc[main_runs]
pair = 100 * ends.loc[["opd", "rlvr"]]

# %% slideshow={"slide_type": "subslide"}
words = "On small weights: OPD {:.1f}, RLVR {:.1f} %, at densities {:.0f} and {:.0f} %"
title = words.format(*pair["low_magnitude"], *pair["density"])
fig, axes = new_figure(1, 2, height=3.5, title=title)
look = {"color": "black", "marker": "D", "markerfacecolor": "none", "linestyle": "none"}
for ax, mask, most in zip(axes, weight_masks, (0.35, 1.02), strict=True):
    draw_reach_curve(ax, alpha=alpha)
    draw_chance(ax, alpha)
    draw_plane(ax, path, x="density", y=mask, runs=main_runs, nulls=null_path)
    draw_beside(ax, reported["density"], reported[mask], "paper, 8B", **look)
    ax.set(title=label[mask], xlabel="update density", xlim=(0.2, 1), ylim=(0.2, most))
axes[0].set_ylabel(rf"overlap, $\alpha$ = {alpha:g}")
draw_legend(fig)
caption = "Overlap of the visible update with both masks, against the update's density."
results.save(fig, "fig3_matched_density", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Lines in `fig3_matched_density` follow a run from its first snapshot to the marker at
# its end. The shade is what can be reached; the two panels have axes of their own.
# Compare runs where they pass through the same density, and each run with the grey
# marks at its own density. The paper's diamonds lie at three densities. Their order
# along the vertical alone cannot separate the objective from the size of the update.
#
# Two more numbers put overlaps of different densities side by side. The *lift* is the
# overlap over chance. The *recall* is the visible share of the weights in the mask,
#
# $$\mathrm{lift} = \frac{1}{\alpha} \frac{|M_\star \cap M|}{|M|}, \qquad
# \mathrm{recall} = \frac{|M_\star \cap M|}{|M_\star|} = d \cdot \mathrm{lift}.$$
#
# A recall above the density prefers the mask, a recall below it avoids the mask. A
# dense update does not squeeze the recall as it squeezes the overlap.

# %%
table = pd.DataFrame({"density (%)": 100 * ends["density"]})
for mask in weight_masks:
    table[f"recall, {label[mask]} (%)"] = results.levels(f"{mask}_recall", **which)
    table[f"lift, {label[mask]}"] = ends[mask] / alpha
assert table.filter(like="recall").stack().between(0, 100).all()
by_label(table).round(2)

# %% [markdown]
# How little room the paper's SFT had, whichever weights it touched:

# %%
density = reported.loc["sft", "density"]
for share in (0.3, 0.1):
    low, high = overlap_bounds(share, density)
    reach = f"overlap {100 * low:.1f} to {100 * high:.1f} %"
    print(f"density {100 * density:.1f} %, chance {100 * share:.0f} %: {reach},")
    lifts = f"{low / share:.2f} to {high / share:.2f}"
    print(f"    so a lift from {lifts}, whatever SFT did")
    assert low / share <= 1 <= high / share

# %% [markdown]
# ## Gate III, entry by entry
#
# **Claim (§3.3, App. D; C15c).** An entry shows where
# $|\Delta W_{ij}| > \tfrac{1}{2} \mathrm{ULP}(W_{0,ij})$. Filled marks off the diagonal
# at the left would refute the claim. The rings deal the same sizes out at random. Where
# they lie on the diagonal too, sizes alone give the density, and where the large
# entries lie does not matter.

# %%
from paper_lib.figures import draw_prediction, draw_tolerances

ended = sorted(matrices["run"].unique())
right = 100 * results.paths("prediction_agreement", modules=chosen)["value"].min()
words = f"Half a step is right on at least {right:.1f} % of the entries of a run"
fig, axes = new_figure(1, 3, height=3.5, title=words)
draw_prediction(axes[0], matrices, runs=main_runs, others=ended)
axes[0].set(title="which weights show", aspect="equal")
for ax, run in zip(axes[1:], ("opd", "sft"), strict=True):
    draw_tolerances(ax, trajectories, run, eta=study.diagnostics.eta)
axes[2].set(ylabel="")
draw_legend(fig, columns=5)
caption = "Visible density, predicted by half a step and observed; sparsity against η."
tables = ("matrices", "trajectories")
results.save(fig, "fig_gate3_visibility", inputs=tables, caption=caption)

# %% [markdown]
# Left in `fig_gate3_visibility`, a filled mark on the dashed diagonal is a run whose
# visible weights are the ones that half a step names. Grey dots are all other runs. The
# distance of a ring from the diagonal is what the *placing* of large entries adds. A
# ring below the diagonal means fewer visible weights than the sizes alone give.
#
# Right, the line of bf16 is level up to $2^{-8}$ for every run. There, the paper's
# $\eta = 10^{-3}$ is a test for equal bits. The same update stored in fp16 or fp32 has
# no such floor, and its sparsity is a choice of $\eta$.

# %%
bf16 = trajectories[trajectories["metric"] == "update_sparsity_bfloat16"]
groups = bf16.assign(below=bf16["k"] < 2**-8).groupby(["below", "run", "seed"])["value"]
spans, most = groups.max() - groups.min(), bf16["k"].max()
assert spans[True].max() == 0, "below 2^-8 every tolerance asks for the same bits"
print(f"η below 2^-8 changes the sparsity of no run of {len(spans[True])}")
print(f"η from 2^-8 to {most:g} changes it by up to {spans[False].max():.2f}")

# %% [markdown]
# ## The same weights in other runs?
#
# Two visible updates $M$ and $M'$ share, of the weights that either shows, the Jaccard
# index (Zhu et al. 2025)
#
# $$J(M, M') = \frac{|M \cap M'|}{|M \cup M'|}, \qquad
# J_\mathrm{chance} = \frac{d\,d'}{d + d' - d\,d'},$$
#
# where $J_\mathrm{chance}$ is that of independent masks with densities $d$ and $d'$.
# Two large random masks of densities 0.5 and 0.4 come near their chance, and a mask
# shares all with itself:

# %%
from paper_lib.geometry.sparsity import chance_jaccard, jaccard

one, other = (torch.rand(1000, 1000, generator=generator) < d for d in (0.5, 0.4))
assert jaccard(one, one) == 1
assert abs(jaccard(one, other) - 0.2 / 0.7) < 0.005
assert abs(jaccard(one, other) - chance_jaccard(one, other)) < 0.005

# %% [markdown]
# **Claim (Zhu et al. 2025; P2, P3).** Runs from one model show on the same weights, and
# no longer do so where the heads were rotated, the function unchanged. Jaccard indices
# at chance would refute the claim, and so would rotated layers that share as much as
# untouched ones. Where the mark of rounding lies on the run's, rounding explains the
# claim.

# %%
from paper_lib.figures import draw_jaccard, draw_rotated

kinds = ("jaccard", "jaccard_rounding")
shared = [100 * results.pair("opd", "rlvr", m, module=chosen).mean() for m in kinds]
words = "OPD and RLVR share {:.0f} % of what either shows, by rounding alone {:.0f} %"
grid = {"width_ratios": (3, 2), "title": words.format(*shared)}
fig, (left, right) = new_figure(1, 2, height=4.6, **grid)
draw_jaccard(left, pairs, modules=chosen)
draw_rotated(right, pairs, results.rotated)
left.set_title("runs of one seed, and seeds of one run", fontsize=8.5)
right.set(title="OPD, heads rotated", xlabel="beyond rounding")
draw_legend(fig)
caption = (
    "How much more visible updates of two runs or seeds meet than by rounding alone."
)
results.save(fig, "fig_cross_run_masks", inputs=("pairs",), caption=caption)

# %% [markdown]
# Each row of `fig_cross_run_masks` is a pair. A marker is the mean over seeds, a bar
# its interval, dots above it are the seeds. Drawn is the index beyond that of rounding:
# updates of these sizes share some weights by rounding alone, because both show where
# $W_0$ is small. Only the excess says that training picks weights.
#
# The two runs of a pair with one seed saw the same prompts, unless its name says
# otherwise. Two seeds saw other prompts, and start from anchors of their own (SFT from
# the base). Right, where the profile has such a run, are attention matrices in layers
# with rotated heads and in untouched layers.

# %% [markdown]
# ## Try it: how small is unchanged?
#
# Move $\eta$ with bf16: the picture stays as it is until $2^{-8}$. Then store the same
# update in fp16 or fp32, at $\eta = 0$ and $10^{-3}$. The shares change at once. Does
# the order of the runs change?

# %%
from paper_lib.teaching.charts import play_tolerance

play_tolerance(trajectories, runs=main_runs, eta=study.diagnostics.eta)

# %% [markdown]
# ## What we found
#
# The verdicts are computed from these tables by the rules of the ledger (`claims.md`
# beside the figures has them): once with SFT at its own schedule, and once with matched
# SFT in its place.

# %%
from paper_lib.ledger import claims_in_short, ledger

rows = ledger(results, ("C1", "C2", "C5", "C6", "C15c", "P2", "P3"))
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
# ### Exercise 03-1 — Which α was it? (10 minutes)
#
# The paper prints for SFT a density of 92.73 %, an overlap of 29.66 % with the
# principal mask and one of 31.88 % with the low-magnitude mask, both masks of the same
# $\alpha$. The cell above tried two $\alpha$. Give the least and the largest $\alpha$
# that allow both overlaps.
#
# <details><summary>Hint</summary>
#
# Which bounds does the section on overlaps put on an overlap, for a given $\alpha$?
# Here the overlap is given. Which $\alpha$ does each of the two leave open, and which
# do both?
#
# </details>

# %% tags=["exercise"]
answer = ...  # two numbers, the least and the largest α, as shares
check("03-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Both inequalities solved for $\alpha$ give $o\,d \le \alpha \le o\,d + (1 - d)$ for an
# overlap $o$. The larger overlap gives the lower end and the smaller one the upper end,
# so $\alpha$ lies between 0.296 and 0.348. The 30 % of the paper's text are inside, the
# 0.5 of its appendix is not. Printed numbers were enough, and a bound is worth deriving
# before a run.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
density, least, most = 0.9273, 0.2966, 0.3188
answer = most * density, least * density + 1 - density
verdict = check("03-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 03-2 — The principal weights (20 minutes)
#
# Write the principal mask: the round($\alpha m n$) entries that are largest in
# magnitude in the rank-$r$ reconstruction of $W_0$. `mark_largest(values, alpha)` of
# `paper_lib.geometry` marks the largest values.
#
# <details><summary>Hint</summary>
#
# `torch.linalg.svd(w_0, full_matrices=False)` gives $U$, $\sigma$ and $V^\top$. Keep
# $r$ columns of $U$, $r$ values and $r$ rows of $V^\top$.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, alpha and rank that returns a boolean (m, n) tensor
check("03-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The reconstruction is the part of each entry that the leading directions make. Ranking
# $|W_0|$ itself would make the principal mask the opposite of the low-magnitude one,
# and C5 a restatement of C6. With the reconstruction, an entry can be principal and
# small.
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
# How much sparser is OPD's update than SFT's when both have the same norm? Give OPD's
# sparsity at its end less that of SFT's update shrunk to OPD's norm (the null
# `rescaled_sft` of the run `opd`), in points, as a mean over seeds. Sparsity over
# several matrices counts weights, not matrices. Take all matrices.
#
# <details><summary>Hint</summary>
#
# `sparsity` above holds one row for each run and seed, `null_sparsity` one for each
# run, seed and null. One point is a share of 0.01.
#
# </details>

# %% tags=["exercise"]
answer = ...  # points of sparsity, OPD less SFT's update at OPD's norm
check("03-3", answer, tables={"matrices": matrices, "nulls": nulls})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Compare the answer with the gap between OPD and SFT as they are, which the cell prints
# beside it. At equal norm, everything but the distance is left: the objective, and also
# the start, the rate and the schedule, which may cancel. Matched SFT shares start, rate
# and schedule with OPD. Its update at OPD's norm (`rescaled_sft_matched`, printed too)
# need not agree with SFT's: an update whose entries are more even is less sparse at the
# same norm (`fig_rounding_null`). The ledger says of both readings of C1 whether they
# go beyond their null.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
ours = results.ends("update_sparsity").groupby("run")["value"].mean()
shrunk = results.ends("update_sparsity", nulls=True)
shrunk = shrunk[shrunk["run"] == "opd"].groupby("null")["value"].mean()
answer = 100 * (ours["opd"] - shrunk["rescaled_sft"])
print(f"as they are {100 * (ours['opd'] - ours['sft']):.2f} points")
print(f"at equal norm {answer:.2f} points")
print(
    f"matched SFT's {100 * (ours['opd'] - shrunk['rescaled_sft_matched']):.2f} points"
)
verdict = check("03-3", answer, tables={"matrices": matrices, "nulls": nulls})
assert verdict.right, verdict
verdict
