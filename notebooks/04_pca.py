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
# # How far the weights turn, and the path they take
#
# **Question.** SFT turns the leading singular subspaces of the weights by more than 10°, OPD by about 1° and
# RLVR by less than 0.5°, and their singular values shift in the same order (§3.2, Fig. 2). Do our runs order
# the same way (C3, C4), and do they still when their updates have the same norm? And when a principal
# component analysis draws a run's path as a smooth, low-dimensional arc (the picture behind C7), what does it
# draw of a random walk?
#
# **In this notebook**
#
# - Figure 2: principal angles in one matrix and in all, and the normalised spectral shift (NSS), beside nulls
#   of the same norm;
# - the same two along training, against the norm of the update;
# - Gates I and II: the norm against how far the policy moved, and how steep the directions are it moved in;
# - the paths of OPD, RLVR and matched SFT in one plane, from the weights they share;
# - the same paths as an animation;
# - the share of variance per component, beside a random walk with the run's own step lengths.
#
# It reads tables and draws: well under a minute with every profile. `01_train` and `02_extract` make the
# tables, except those of `reference`, which come with the project.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # whose path is drawn
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures go to <profile>/ below it
modules: str = "all"  # matrices averaged over: all, attention or mlp
module: str = "q"  # of the one matrix shown by itself: q, k, v, o, gate, up or down
layer: int = -1  # its layer, from 0; -1 is the middle one

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_lib.figures import ANGLE_MEAN, MODULE_GROUPS, at_end, open_results, t_interval, use_style

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
names = ("matrices", "nulls", "trajectories", "curvature")
matrices, nulls, trajectories, curvature = map(results.table, names)
main_runs = ["sft", "sft_matched", "opd", "rlvr"]
use_style()

# %% [markdown]
# ## Rotation and spectral shift
#
# Let $U_{0,k}$ and $U_{+,k}$ hold the left singular vectors of the $k$ largest singular values of a matrix
# before and after training. The principal angles between what they span follow from
#
# $$\cos\theta_i = \sigma_i(U_{0,k}^\top U_{+,k}), \qquad
# \mathrm{NSS} = \frac{\lVert\sigma(W_+) - \sigma(W_0)\rVert_2}{\lVert\sigma(W_0)\rVert_2},$$
#
# and the same for the right ones, $V$. Both are zero where nothing moved and both grow with *any* update: by
# Wedin, $\sin\theta \le \lVert\Delta W\rVert_2 / \gamma_k$ with $\gamma_k$ the gap below $\sigma_k$, and by
# Mirsky, $\mathrm{NSS} \le \lVert\Delta W\rVert_F / \lVert W_0\rVert_F$. So each is drawn beside updates of
# the run's own norm that have no structure. The subspace has to scale with the model:

# %%
layers = sorted(matrices["layer"].unique())
shown = layers[len(layers) // 2] if layer < 0 else layer
angles_of = matrices[(matrices["layer"] == shown) & (matrices["module"] == module)]
assert len(angles_of) > 0, f"no matrix {module} in layer {shown}; layers are {layers}"
size = angles_of.query("metric == 'angle_u_max'")["k"].max()
width = matrices.query("metric == 'parameters' and module == 'q'")["value"].max() ** 0.5  # q is square
asked = study.diagnostics.angle_k  # cut to half the shorter side: larger subspaces meet whatever happens
print(f"k = {size:.0f} (asked {asked}) of {width:.0f}, {size / width:.1%}; the paper has 512 of 4,096, 12.5%")
print(f"the matrix shown by itself: {module} of layer {shown}")

# %% [markdown]
# **Claim (§3.2, Fig. 2; C3, C4).** Rotation and spectral shift both fall from SFT to OPD to RLVR, by about an
# order of magnitude each time. Refuted by another order; explained by the size of the update where the nulls
# fall in the same order.

# %%
from paper_lib.figures import draw_angles, draw_layers, draw_legend, draw_paper, draw_points, plain_log
from paper_lib.geometry import Metric, metrics_of, random_walk_explained_variance

measures = metrics_of("fig2_rotation_drift")
ends = {each.name: results.ends(each.name, modules=chosen) for each in measures}
null_ends = {each.name: results.ends(each.name, modules=chosen, nulls=True) for each in measures}


def draw_ends(ax: plt.Axes, metric: Metric) -> None:
    draw_points(ax, ends[metric.name], runs=main_runs, nulls=null_ends[metric.name], scale=metric.scale)
    draw_paper(ax, {run: metric.scale * x for run, x in metric.paper.items()}, runs=main_runs)
    plain_log(ax, "x", subs=(1, 3) if metric.unit else (1,))
    ax.set_xlabel(metric.axis)


# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.0), layout="constrained")
for ax, side in zip(axes[0], ("u", "v"), strict=False):
    draw_angles(ax, angles_of, side, runs=main_runs)
    ax.set_title(f"{module} of layer {shown}, ${side.upper()}$")
draw_layers(axes[0, 2], at_end(matrices[matrices["module"].isin(chosen)]), "angle_u_max", runs=main_runs)
axes[0, 2].set_title("largest angle, $U$")
for ax, metric in zip(axes[1], measures, strict=True):
    draw_ends(ax, metric)
    ax.tick_params(labelleft=ax is axes[1, 0])
draw_legend(fig)
caption = (
    "Principal angles by index and layer; mean principal angle of U and V, and spectral shift, of each run. "
    "The paper leaves open which angle its values are: they stand on the mean."
)
results.save(fig, "fig2_rotation_drift", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown]
# Top, one matrix angle by angle, then the largest angle of every layer; bottom, means over all matrices with
# intervals over seeds (an interval that reaches zero runs out of a logarithmic axis). The paper's diamonds
# are what its text gives for one layer, a bound on either side and a value in between; it does not say of
# which angle. The largest angles are those of the last of the k directions, which lie closest in singular
# value to what is left out: they say as much about the gap of W₀ there as about the run. Where the Gaussian
# mark lies below its run, the update turns the leading subspace more than its size alone would; where SFT's
# update at OPD's norm lies on OPD, the objectives do not differ in it.
#
# "Rotation" is thus several numbers. Where one number stands for it, in a figure or in the ledger's C3, it is
# the *mean* principal angle, that of U and that of V averaged, over all matrices. Does the choice matter?

# %%
sides = [ANGLE_MEAN, *(f"angle_{side}_{which}" for which in ("mean", "max") for side in "uv")]
per_seed = {side: results.ends(side, modules=chosen).set_index(["seed", "run"]) for side in sides}
turned = pd.DataFrame({side: frame["value"] for side, frame in per_seed.items()})
turned = turned.rename(columns={ANGLE_MEAN: "judged: mean, U and V"})
apart = np.log(turned.xs("opd", level="run") / turned.xs("rlvr", level="run")).dropna()
order = {side: (log.mean(), *t_interval(log.to_numpy(), 0.95)) for side, log in apart.items()}
pd.DataFrame(order, ["log(OPD / RLVR)", "low", "high"]).T.round(3)

# %% [markdown]
# Above 0 OPD turns the weights more than RLVR, and `low` and `high` bound Student's 95 % interval over seeds.
# In the reference set the means have this order, but by 5 %, and by the largest angles it is undecided
# (0.027 ± 0.032 for U). The order of OPD and RLVR in C3 is that of the statistic which is judged.

# %% [markdown]
# ## At equal norm
#
# **Claim to test (ours; the paper compares only the ends).** The order of the rotations is the order of the
# norms. A run passes through every norm up to its last, so runs can be compared where they have moved equally
# far. The claim is refuted where one line lies above another at the same norm.

# %%
from paper_lib.figures import DEGREES, draw_plane

rotation = {"angle": ANGLE_MEAN, "shift": "spectral_shift"}
path = results.side_by_side({"norm": "relative_norm", **rotation}, modules=chosen)
path["angle"] *= DEGREES
length = at_end(path)[["run", "seed", "norm"]]
null_path = results.side_by_side(rotation, modules=chosen, nulls=True)
null_path = null_path.merge(length).assign(angle=lambda rows: DEGREES * rows["angle"])
assert (path["shift"] <= path["norm"]).all(), "Mirsky's bound"

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
norm, *turned = metrics_of("fig2_matched_norm")
for ax, name, metric in zip(axes, ("angle", "shift"), turned, strict=True):
    draw_plane(ax, path, x="norm", y=name, runs=main_runs, nulls=null_path)
    plain_log(ax, "xy", subs=(1, 3))
    ax.set(xlabel=norm.axis, ylabel=metric.axis)
draw_legend(fig)
caption = "Rotation and spectral shift of each run against the norm of its update, all along training."
results.save(fig, "fig2_matched_norm", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown]
# Lines follow the runs from their first snapshot to the marker at their end; the grey marks are nulls at the
# norm of that end. A small update rotates and shifts in proportion to its norm, a straight line of slope one
# here, so what distinguishes a run is how high its line lies, not where it ends.
#
# The table divides one mean over matrices by another. The mean of the quotients, matrix by matrix, is another
# number, and the one that exercise 04-3 asks for.

# %%
per_norm = at_end(path).assign(angle=lambda rows: rows["angle"] / rows["norm"])
per_norm["shift"] /= per_norm["norm"]
table = per_norm.groupby("run")[["norm", "angle", "shift"]].mean().loc[main_runs]
table["norm / OPD's"] = table["norm"] / table.loc["opd", "norm"]
table.rename(columns={"angle": "degrees per unit norm", "shift": "NSS per unit norm"}).round(4)

# %% [markdown]
# How much of an NSS may weight decay alone give? Decoupled decay shrinks every weight by the same factor,
# $\prod_t (1 - 0.1\,\eta_t)$, and the NSS of a pure shrink is what that takes away. With the rates that the
# paper prints, SFT's (1e-5, a tenth of warm-up, a cosine to 1e-6, 5,375 steps) gives more than the 1e-3 that
# it reads from Figure 2, OPD's (1e-6, 299 steps) a third of its 1e-4, if decay acts on all projections.
# Our rates and steps are far too small for that: without decay SFT and OPD keep their sparsity.

# %%
warm, rest = np.linspace(0, 1e-5, 538), np.linspace(0, np.pi, 5375 - 538)
rates = np.concatenate([warm, 1e-6 + 9e-6 * (1 + np.cos(rest)) / 2])
shrunk = {"SFT": 1 - np.prod(1 - 0.1 * rates), "OPD": 1 - (1 - 0.1 * 1e-6) ** 299}
spectrum = np.array([3.0, 2.0, 1.0])
after = (1 - shrunk["SFT"]) * spectrum
shift = np.linalg.norm(after - spectrum) / np.linalg.norm(spectrum)
assert abs(shrunk["SFT"] - 2.9e-3) < 1e-4
assert abs(shift - shrunk["SFT"]) < 1e-12
print({name: f"{share:.1e}" for name, share in shrunk.items()})

# %% [markdown]
# ## Gates I and II
#
# The paper's account (§3.3, App. D; C15) has three gates; `03_sparsity` draws the third. Gate I: an anchor
# bounds the norm, ‖ΔW‖_F ≤ √(2δ/μ), where δ is how far the policy may move in KL and μ how steep that KL
# is. Gate II: the geometry of the model steers the update away from the principal directions, which are
# steep. To second order the KL of a step ΔW *is* ½ μ ‖ΔW‖_F² with the μ of its own direction. A point on
# the dashed line of its run thus says that the expansion holds, not that anything bound the norm.
#
# **Claim (§3.3, App. D; C15).** OPD's and RLVR's small norms come with small KL, within their bound;
# principal directions are steeper than others, and the runs avoid them. By the rule of the ledger, Gate I
# is refuted by a KL above SFT's; the bound, an identity to second order, decides nothing, whichever side of
# it a norm lies on. Gate II is refuted by principal directions no
# steeper than the others, and by more energy of OPD's in the principal subspaces than a random update has.
# It also asks that OPD and RLVR rotate a tenth less than SFT's update at their norms, and show less on
# principal weights that are not small than with their entries permuted.

# %%
from paper_lib.figures import draw_curvature, draw_kl_and_norm, draw_principal_energy

places = [["kl", "curvature"], ["kl", "energy"]]
look = {"figsize": (7.2, 4.4), "layout": "constrained", "height_ratios": (5, 3)}
fig, axes = plt.subplot_mosaic(places, **look)
draw_kl_and_norm(axes["kl"], trajectories, matrices, curvature, runs=main_runs)
draw_curvature(axes["curvature"], curvature)
draw_principal_energy(axes["energy"], matrices, runs=main_runs, modules=chosen)
axes["kl"].set_title("Gate I: norm and KL")
axes["curvature"].set_title("Gate II: curvature and energy")
draw_legend(fig)
used = ("trajectories", "matrices", "curvature")
caption = "KL to the start against the squared norm; curvature by direction; energy in principal subspaces."
results.save(fig, "fig_gates_norm_curvature", inputs=used, caption=caption)

# %% [markdown]
# Left, dots are snapshots (large: the end, with the interval of its KL). A run above another at the same
# norm has spent its norm in steeper directions; SFT starts from other weights than the rest. Top right,
# small dots are seeds: where an update (full) is steeper than its own entries in random places (hollow),
# training has sought steep directions, which is the opposite of being steered away from them. Below, an
# update right of the dashed line has more of its energy in the principal subspaces than chance gives, and
# one left of it less. In the reference set all four runs have 25 to 32 times what chance gives: principal
# directions are steep, and the runs go there all the same.

# %%
steep = curvature[curvature["metric"] == "curvature"].groupby(["run", "direction"])["value"].mean()
moved = trajectories[trajectories["metric"].isin(["forward_kl", "reverse_kl"])]
ends_at = moved.groupby(["run", "seed"])["step"].transform("max")
kl = moved[moved["step"] == ends_at].groupby(["run", "metric"])["value"].mean().unstack()
assert (steep >= 0).all(), "a Fisher matrix has no negative curvature"
print((steep / steep["start", "gaussian"]).round(2).rename("μ over a Gaussian direction's").to_string())
kl.loc[[run for run in main_runs if run in kl.index]].map("{:.2e}".format)

# %% [markdown]
# ## The path
#
# PCA of a trajectory finds the directions in weight space along which the snapshots ΔW₁, …, ΔW_T spread most.
# It is tempting to read a high share of variance on two components, and a smooth arc in their plane, as a
# sign that training happens in a low-dimensional space. It is not one. For a random walk in many dimensions
# the k-th component has a share of 6 / (π² k²), 61 % and 15 % for the first two. Its coordinate is a cosine
# wave of k half periods, so that the first against the second draw a parabola (Antognini & Sohl-Dickstein
# 2018). T points always fit into T − 1 dimensions, and centring makes any steady drift the first component.
#
# Two readings survive. Runs from one W₀ in *one* PCA share its axes, so that the directions in which they
# part are real. And a share of variance can be held against that of a walk with the same step lengths: what
# exceeds it is drift.

# %%
from paper_lib.figures import draw_beside, draw_explained_variance, draw_paths

components = range(1, 6)
expected = [random_walk_explained_variance(k) for k in components]
assert f"{expected[0]:.0%}" == "61%"
mine = trajectories[trajectories["seed"] == seed]
joined = mine.loc[mine["metric"] == "joint_pca_coordinate", "run"].unique()
together = [run for run in ("sft_matched", "opd", "rlvr") if run in joined]
assert together, f"no joint path of seed {seed}; there are {sorted(trajectories['seed'].unique())}"
walks = nulls[nulls["null"].isin(["random_walk", "adam_walk"]) & (nulls["layer"] == -1)]
share = mine[mine["run"].str.startswith("joint:")].query("k <= 2")["value"].sum()
print(f"joint PCA of {', '.join(together)}: the first two components have {share:.0%} of the variance")

# %% [markdown]
# **Claim (the picture behind C7).** Training follows a smooth path of few dimensions. The claim would be
# without content if a random walk with the run's own step lengths drew the same path and had the same shares;
# more than its shares is evidence of a persistent direction.

# %%
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 3.1), layout="constrained")
draw_paths(left, mine, runs=together, seed=seed, metric="joint_pca_coordinate")
left.set_title(f"from one $W_0$, seed {seed}")
draw_paths(middle, mine, runs=["opd"], seed=seed, null=walks[walks["null"] == "random_walk"])
middle.set_title(f"OPD and a walk, seed {seed}")
draw_explained_variance(right, trajectories, walks, runs=main_runs)
draw_beside(right, components, expected, r"$6/(\pi^2k^2)$", color="black", linewidth=0.8)
right.set_title("shares of variance")
draw_legend(fig, of="shares of variance")
caption = (
    "Paths of the updates of one seed on their principal components, beside a random walk, and shares of "
    "variance over all seeds."
)
results.save(fig, "fig_pca_trajectory", inputs=("trajectories", "nulls"), caption=caption)

# %% [markdown]
# Left, rings mark the common start and dots the snapshots; where the paths part, the objectives lead to
# different weights. Middle, the same run in axes of its own, beside a walk that shares only its step lengths:
# what the two have in common is no property of training. Right, the shares per component; a run above its own
# dotted line on the first component drifts, one on it has shown no structure. The dash-dotted line is Adam's
# walk on noise alone, which has the run's learning rates and none of its step lengths. With few snapshots a
# walk's shares differ from the formula, which holds for long walks: compare with the thin lines.

# %% [markdown]
# The same paths as training goes on, and SFT's beside them, in a plane of its own since it starts from other
# weights. **Claim to test (behind C7).** The runs go one way. A path that turns back along its first
# component would refute it; one that does not is no evidence, as a walk's goes one way too, and bends in the
# second.

# %%
from paper_lib.figures import animate_paths


def draw(progress: float) -> None:
    clock.set_text(f"training progress {100 * progress:3.0f} %".replace("  ", " \u2007"))
    for plane in planes:
        plane(progress)


# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.0), layout="constrained")
planes = [animate_paths(left, mine, runs=together, seed=seed)]
planes.append(animate_paths(right, mine, runs=["sft"], seed=seed, metric="pca_coordinate"))
left.set_title("from one $W_0$, together")
right.set_title("SFT, from the base")
draw_legend(fig, seeds=False)
clock = fig.suptitle("training progress 100 %", fontsize=9)
caption = "The paths of the updates in the plane of their first two components as training goes on."
results.animate(fig, "fig_pca_animation", inputs=("trajectories",), draw=draw, caption=caption)

# %% [markdown]
# The picture above is the last frame, `fig_pca_animation.gif` plays the way there, once. Dots are snapshots;
# between two of them the line is drawn straight and nothing was measured. All runs move on one clock, their
# own progress, whatever their number of steps.

# %%
shares = trajectories[trajectories["metric"] == "explained_variance_ratio"]
ours = shares[shares["run"].isin(main_runs)].groupby(["run", "k"])["value"].mean().unstack().loc[main_runs]
of_walks = walks[(walks["metric"] == "explained_variance_ratio") & (walks["k"] == 1)]
first = of_walks.groupby(["run", "null"])["value"].mean().unstack().add_prefix("PC1, ")
assert ours.sum(axis=1).max() <= 1 + 1e-9
ours.rename(columns=lambda k: f"PC{k:.0f}").join(first).round(3)

# %% [markdown]
# ## What we found
#
# The verdicts are computed from these tables by the rule of the ledger (`claims.md` beside the figures has
# it): with SFT at its own schedule, and with matched SFT in SFT's place. C7 is about the stable rank, which
# `05_locking` draws; the paths above are why we do not test it by PCA.

# %%
from paper_lib.ledger import claims_in_short, ledger

rows = ledger(results, ("C3", "C4", "C7", "C15a", "C15b"))
print(rows[["claim", "verdict", "verdict, matched"]].to_string(index=False))
claims_in_short(rows)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the whole line) and run
# the cell. `check` says whether it is right, and otherwise which mistake it looks like.

# %%
import torch

from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 04-1 — A walk looks low-dimensional (5 minutes)
#
# The k-th principal component of a long random walk in many dimensions has a share of 6 / (π² k²) of the
# variance. How many components hold 90 % of it?
#
# <details><summary>Hint</summary>
#
# `random_walk_explained_variance(k)` is the share. Add them up until they pass 0.9.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a whole number of components
check("04-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Six, in a million dimensions as in a hundred. "Six components explain 90 % of the path" says nothing of
# the training; the share of the *first*, against the walk's 61 %, at least says whether there is drift.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from itertools import accumulate, count

cumulative = accumulate(random_walk_explained_variance(k) for k in count(1))
answer = next(k for k, share in enumerate(cumulative, start=1) if share >= 0.9)
verdict = check("04-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 04-2 — The largest angle (15 minutes)
#
# Write the largest principal angle, in degrees, between the spans of the k leading *right* singular vectors
# of W₀ and W_t.
#
# <details><summary>Hint</summary>
#
# The cosines of the angles are the singular values of V_0ᵀ V_t. Which of them belongs to the largest angle?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, w_t and k that returns degrees
check("04-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The smallest cosine has the largest angle. This is good enough for angles of a degree. For one of 1e-9 it
# would return 0 or noise, as the cosine is flat there: `principal_angles` takes small angles from the sine.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w_0, w_t, k):
    v_0, v_t = (torch.linalg.svd(w, full_matrices=False).Vh[:k] for w in (w_0, w_t))
    cosines = torch.linalg.svdvals(v_0 @ v_t.mT)
    return torch.rad2deg(cosines.min().clamp(max=1).acos())


verdict = check("04-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 04-3 — Rotation per unit of norm (15 minutes)
#
# SFT turns the weights farther than OPD, and its update is longer. Divide, matrix by matrix,
# the mean angle `angle_u_mean` at the end by `relative_norm`, and take the mean of these quotients over
# matrices and seeds. What is SFT's mean quotient divided by OPD's?
#
# <details><summary>Hint</summary>
#
# Make run, layer, module and seed the index of both metrics. What comes first, the division or the mean?
#
# </details>

# %% tags=["exercise"]
answer = ...  # one number, SFT's angle per unit of norm over OPD's
check("04-3", answer, tables={"matrices": matrices})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell prints it beside the quotient of the angles as they are. Where the first is near 1, SFT and OPD
# turn the weights alike for each step they take, and C3 is an order of norms. Dividing the two means, as the
# table below `fig2_matched_norm` does, gives another number: matrices with a long update count more in it.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
ended = at_end(matrices).set_index(["run", "layer", "module", "seed"])
angle, norm = (ended.loc[ended["metric"] == name, "value"] for name in ("angle_u_mean", "relative_norm"))
per_unit, as_is = (angle / norm).groupby("run").mean(), angle.groupby("run").mean()
answer = per_unit["sft"] / per_unit["opd"]
print(f"as they are {as_is['sft'] / as_is['opd']:.2f}, per unit of norm {answer:.2f}")
verdict = check("04-3", answer, tables={"matrices": matrices})
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 04-4 — What NSS does not see (20 minutes)
#
# Write a function that takes any W₀ and returns a W_t with NSS = 0 whose two leading right singular vectors
# span a plane at a largest angle of 90° to those of W₀.
#
# <details><summary>Hint</summary>
#
# Which of the three factors of W₀ = U diag(σ) Vᵀ does NSS see? And what makes two of V's vectors the
# *leading* ones?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, (m, n) with m and n at least 4, that returns w_t
check("04-4", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# U diag(σ) V'ᵀ has W₀'s singular values for any orthonormal V'. Taking V in the reverse order hands the
# largest values to the vectors that had the smallest. The other way round, U (2 diag(σ)) Vᵀ has a large NSS
# and turns nothing. So C3 and C4 are two claims; that they agree run by run is because both follow the
# norm.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w_0):
    u, s, vh = torch.linalg.svd(w_0, full_matrices=False)
    return (u * s) @ vh.flip(0)


verdict = check("04-4", answer)
assert verdict.right, verdict
verdict
