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
# **Question.** The paper measures how far training turns the leading singular subspaces
# of the weights: SFT by more than 10°, OPD by about 1°, RLVR by less than 0.5°. Their
# singular values shift in the same order (§3.2, Fig. 2; C3, C4). Do our runs order the
# same way? Do they still when their updates have the same norm? And what does a
# principal component analysis of a run's path (the picture behind C7) draw when the
# path is a random walk?
#
# **In this notebook**
#
# - `fig2_rotation_drift`: principal angles and the normalised spectral shift, beside
#   nulls of the same norm;
# - `fig2_matched_norm`: both per unit of norm, along training;
# - `fig_gates_norm_curvature`: the norm against how far the policy moved, and how steep
#   the directions are in which it moved;
# - `fig_pca_trajectory`: the paths of OPD, RLVR and matched SFT in one plane, and the
#   share of variance of each component beside a random walk's;
# - `fig_pca_animation`: the same paths in time.
#
# The notebook reads tables and draws: well under a minute with every profile.
# `01_train` and `02_extract` make the tables, except those of `reference`, which come
# with the project.

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
import torch

from paper_lib.figures import ANGLE_MEAN, MODULE_GROUPS, at_end, by_label
from paper_lib.figures import open_results, t_interval, use_style
from paper_lib.ledger import label

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
names = ("matrices", "nulls", "trajectories", "curvature")
matrices, nulls, trajectories, curvature = map(results.table, names)
main_runs = ["sft", "sft_matched", "opd", "rlvr"]
use_style()

# %% [markdown]
# ## Rotation and spectral shift
#
# Let $U_{0,k}$ hold the left singular vectors of the $k$ largest singular values of a
# matrix before training, and $U_{+,k}$ those after it. The principal angles $\theta_i$
# between the two spans follow from their cosines:
#
# $$\cos\theta_i = \sigma_i(U_{0,k}^\top U_{+,k}).$$
#
# The right singular vectors $V$ have angles of their own, by the same formula. In the
# planted example one of two leading directions is turned by 30° towards a third, and
# the other stays:

# %%
from paper_lib.geometry import principal_angles

generator = torch.Generator().manual_seed(0)
noise = torch.randn(8, 8, generator=generator, dtype=torch.float64)
u_0 = torch.linalg.qr(noise).Q  # eight orthonormal directions
turned = np.cos(np.pi / 6) * u_0[:, 1] + np.sin(np.pi / 6) * u_0[:, 2]
u_t = torch.stack([u_0[:, 0], turned], 1)
planted = torch.rad2deg(principal_angles(u_0[:, :2], u_t))
assert torch.allclose(planted, torch.tensor([0.0, 30.0], dtype=torch.float64))
print(f"principal angles: {planted[0]:.1f} and {planted[1]:.1f} degrees")

# %% [markdown]
# The normalised spectral shift (NSS) compares the singular values alone, sorted by
# size:
#
# $$\mathrm{NSS} =
# \frac{\lVert\sigma(W_+) - \sigma(W_0)\rVert_2}{\lVert\sigma(W_0)\rVert_2}.$$
#
# A matrix that shrinks by a share $s$ has an NSS of exactly $s$, and turns nothing:

# %%
from paper_lib.geometry.spectra import spectral_shift

sigma = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
assert abs(spectral_shift(sigma, (1 - 0.03) * sigma) - 0.03) < 1e-12
print(f"NSS of a shrink by 3 %: {spectral_shift(sigma, (1 - 0.03) * sigma):.3f}")

# %% [markdown]
# Both numbers are zero where nothing moved, and both grow with *any* update. Wedin
# bounds the angle by the norm of the update over the gap $\gamma_k$ below $\sigma_k$,
# and Mirsky bounds the shift:
#
# $$\sin\theta \le \frac{\lVert\Delta W\rVert_2}{\gamma_k}, \qquad
# \mathrm{NSS} \le \frac{\lVert\Delta W\rVert_F}{\lVert W_0\rVert_F}.$$
#
# So each run is drawn beside updates of its own norm that have no structure. The number
# $k$ of directions has to scale with the model, because larger subspaces meet whatever
# happens:

# %%
layers = sorted(matrices["layer"].unique())
shown = layers[len(layers) // 2] if layer < 0 else layer
angles_of = matrices[(matrices["layer"] == shown) & (matrices["module"] == module)]
assert len(angles_of) > 0, f"no matrix {module} in layer {shown}; layers are {layers}"
size = angles_of.query("metric == 'angle_u_max'")["k"].max()
squares = matrices.query("metric == 'parameters' and module == 'q'")["value"]
width, asked = squares.max() ** 0.5, study.diagnostics.angle_k  # q is square
share = 100 * size / width
print(f"k = {size:.0f} of {width:.0f} directions, {share:.1f} % (asked: {asked})")
print("the paper: k = 512 of 4,096 directions, 12.5 %")
print(f"the matrix shown by itself: {module} of layer {shown}")

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (§3.2, Fig. 2; C3, C4).** Rotation and spectral shift both fall from SFT to
# OPD to RLVR, by about an order of magnitude each time. Another order would refute the
# claim. Nulls that fall in the same order would explain it by the size of the update.

# %% tags=["hide-input"]
from paper_lib.figures import draw_angles, draw_layers, draw_legend, draw_paper
from paper_lib.figures import draw_points, plain_log
from paper_lib.geometry import Metric, metrics_of

measures = metrics_of("fig2_rotation_drift")
angle = results.ends(ANGLE_MEAN, modules=chosen).groupby("run")["value"].mean()
further = angle["sft"] / angle["opd"], angle["opd"] / angle["rlvr"]
words = "SFT turns the weights {:.1f} times as far as OPD, OPD {:.2f} times RLVR's"
every_layer = at_end(matrices[matrices["module"].isin(chosen)])
caption = (
    "Principal angles by index and layer; mean principal angle of U and V, and "
    "spectral shift, of each run. The paper leaves open which angle its values are: "
    "they stand on the mean."
)


# %% tags=["hide-input"]
def draw_ends(ax: plt.Axes, metric: Metric) -> None:
    values, theirs = results.ends(metric.name, modules=chosen), metric.spans()
    of_nulls = results.ends(metric.name, modules=chosen, nulls=True)
    draw_points(ax, values, runs=main_runs, nulls=of_nulls, scale=metric.scale)
    draw_paper(ax, theirs, runs=main_runs, scale=metric.scale)


# %% slideshow={"slide_type": "subslide"}
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.2), layout="constrained")
for ax, side in zip(axes[0], "uv", strict=False):
    draw_angles(ax, angles_of, side, runs=main_runs)
    ax.set_title(f"{module} of layer {shown}, ${side.upper()}$")
draw_layers(axes[0, 2], every_layer, "angle_u_max", runs=main_runs)
axes[0, 2].set_title("largest angle, $U$")
for ax, metric in zip(axes[1], measures, strict=True):
    draw_ends(ax, metric)
    plain_log(ax, "x", subs=(1, 3) if metric.unit else (1,))
    ax.set_xlabel(metric.axis)
    ax.tick_params(labelleft=ax is axes[1, 0])
fig.suptitle(words.format(*further), fontsize=9)
draw_legend(fig)
results.save(fig, "fig2_rotation_drift", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# The upper row shows one matrix angle by angle, then the largest angle of every layer.
# The lower row shows means over all matrices with intervals over seeds. An interval
# that reaches zero runs out of a logarithmic axis.
#
# The black marks are what the paper's text gives for one layer: an arrow head is a
# bound, a diamond a value. The paper does not say of which angle. The largest angles
# belong to the last of the $k$ directions, which lie closest in singular value to the
# directions left out. They say as much about the gap of $W_0$ there as about the run.
#
# Where the Gaussian mark lies below its run, the update turns the leading subspace more
# than its size alone would. Where SFT's update at OPD's norm lies on OPD, the
# objectives do not differ in rotation.

# %% [markdown]
# "Rotation" is thus several numbers. Where one number stands for it, in a figure or in
# C3 of the ledger, it is the *mean* principal angle of $U$ and of $V$ over all
# matrices. Does the choice of statistic matter?

# %%
sides = [ANGLE_MEAN, *(f"angle_{s}_{which}" for which in ("mean", "max") for s in "uv")]
per_seed = {
    side: results.ends(side, modules=chosen).set_index(["seed", "run"])
    for side in sides
}
turned = pd.DataFrame({side: frame["value"] for side, frame in per_seed.items()})
apart = np.log(turned.xs("opd", level="run") / turned.xs("rlvr", level="run")).dropna()
order = {s: (log.mean(), *t_interval(log.to_numpy(), 0.95)) for s, log in apart.items()}
order = pd.DataFrame(order, ["log(OPD / RLVR)", "low", "high"]).T
statistics = ["judged: mean, U and V", "mean, U", "mean, V", "largest, U", "largest, V"]
order.set_axis(statistics, axis=0).round(3)

# %% [markdown]
# Above 0 OPD turns the weights more than RLVR; `low` and `high` bound Student's 95 %
# interval over seeds. In the reference set the means have this order by 5 %. By the
# largest angle of $U$ the order is undecided ($0.027 \pm 0.032$). So the order of OPD
# and RLVR in C3 is the order of the statistic that is judged.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## At equal norm
#
# **Claim to test (ours; the paper compares only the ends).** The order of the rotations
# is the order of the norms. A run passes through every norm up to its last, so runs can
# be compared where they have moved equally far. One line above another at the same norm
# would refute the claim.
#
# A small update turns and shifts in proportion to its norm. So we divide both by the
# relative norm $\lVert\Delta W\rVert_F / \lVert W_0\rVert_F$, and look for the height
# of the lines:

# %%
from paper_lib.figures import DEGREES, draw_plane

rotation = {"angle": ANGLE_MEAN, "shift": "spectral_shift"}
path = results.side_by_side({"norm": "relative_norm", **rotation}, modules=chosen)
assert (path["shift"] <= path["norm"]).all(), "Mirsky's bound"
length = at_end(path)[["run", "seed", "norm"]]
null_path = results.side_by_side(rotation, modules=chosen, nulls=True).merge(length)
for frame in (path, null_path):
    frame["angle"] *= DEGREES / frame["norm"]
    frame["shift"] /= frame["norm"]
per_norm = at_end(path).groupby("run")[["norm", "angle", "shift"]].mean().loc[main_runs]

# %% slideshow={"slide_type": "subslide"}
fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.3), layout="constrained")
for ax, name in zip(axes, ("angle", "shift"), strict=True):
    draw_plane(ax, path, x="norm", y=name, runs=main_runs, nulls=null_path)
    plain_log(ax, "x", subs=(1, 3))
    ax.set(xlabel=metrics_of("fig2_matched_norm")[0].axis, ylim=(0, None))
axes[0].set_ylabel("mean angle per unit of norm (°)")
axes[1].set_ylabel("NSS per unit of norm")
words = "A unit of norm turns the weights by {:.0f} to {:.0f} degrees in every run"
fig.suptitle(words.format(*per_norm["angle"].agg(["min", "max"])), fontsize=9)
draw_legend(fig)
caption = "Rotation and spectral shift per unit of norm, of each run along training."
results.save(fig, "fig2_matched_norm", inputs=("matrices", "nulls"), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Lines follow the runs from their first snapshot to the marker at their end. Grey marks
# are nulls at the norm of that end. In a level line rotation is proportional to the
# norm. What distinguishes a run is how high its line lies, not where it ends.
#
# The table divides one mean over matrices by another. The mean of the quotients, matrix
# by matrix, is another number, and exercise 04-3 asks for it.

# %%
per_norm["norm / OPD's"] = per_norm["norm"] / per_norm.loc["opd", "norm"]
heads = {"norm": "relative norm", "angle": "degrees per unit", "shift": "NSS per unit"}
digits = {"relative norm": 4, "degrees per unit": 1, "NSS per unit": 3}
by_label(per_norm.rename(columns=heads)).round(digits | {"norm / OPD's": 2})

# %% [markdown]
# How much of an NSS may weight decay alone give? Decoupled decay at rate 0.1 shrinks
# every weight by the same factor a step. After all steps, with learning rates $\eta_t$,
# it has taken away the share
#
# $$s = 1 - \prod_t (1 - 0.1\,\eta_t),$$
#
# and a shrink by $s$ has an NSS of $s$, as planted above. The paper prints its rates:
# SFT has $10^{-5}$ with a tenth of warm-up and a cosine to $10^{-6}$ over 5,375 steps,
# OPD has $10^{-6}$ over 299 steps.

# %%
warm, rest = np.linspace(0, 1e-5, 538), np.linspace(0, np.pi, 5375 - 538)
rates = np.concatenate([warm, 1e-6 + 9e-6 * (1 + np.cos(rest)) / 2])
shrunk = {"SFT": 1 - np.prod(1 - 0.1 * rates), "OPD": 1 - (1 - 0.1 * 1e-6) ** 299}
assert abs(shrunk["SFT"] - 2.9e-3) < 1e-4
assert abs(spectral_shift(sigma, (1 - shrunk["SFT"]) * sigma) - shrunk["SFT"]) < 1e-12
print({name: f"{share:.1e}" for name, share in shrunk.items()})

# %% [markdown]
# If decay acts on all projections, SFT's decay gives more than the $10^{-3}$ that the
# paper reads from its Figure 2, and OPD's a third of its $10^{-4}$. Our rates and steps
# are far too small for such a shrink: without decay SFT and OPD keep their sparsity.

# %% [markdown]
# ## Gates I and II
#
# The paper's account has three gates (§3.3, App. D; C15); `03_sparsity` draws the
# third. Gate I says that an anchor bounds the norm. Let $\delta$ be how far the policy
# may move in KL, and $\mu$ how steep the KL is. Then
#
# $$\lVert\Delta W\rVert_F \le \sqrt{2\delta/\mu}, \qquad
# \mathrm{KL}(\pi_0 \,\Vert\, \pi_t) \approx
# \tfrac{1}{2}\,\mu\,\lVert\Delta W\rVert_F^2,
# \qquad \mu = \frac{\Delta w^\top F\, \Delta w}{\lVert\Delta w\rVert^2},$$
#
# with $F$ the Fisher matrix at $W_0$ and $\Delta w$ the entries of $\Delta W$ in a row.
# The middle equation is the expansion of the KL to second order, for the $\mu$ of the
# update's own direction. A policy of four answers, whose Fisher matrix is known, shows
# it:

# %%
logits = torch.tensor([1.0, 0.5, 0.0, -1.0], dtype=torch.float64)
step = 0.01 * torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)
policy = logits.softmax(0)
fisher = torch.diag(policy) - torch.outer(policy, policy)
mu = step @ fisher @ step / step.square().sum()
kl = (policy * (policy.log() - (logits + step).log_softmax(0))).sum()
assert abs(kl / (mu * step.square().sum() / 2) - 1) < 0.02
print(f"KL {kl:.3e}, to second order {mu * step.square().sum() / 2:.3e}")

# %% [markdown]
# Gate II says that the geometry of the model steers the update away from the principal
# directions of $W_0$, which are steep. Let $U_r$ and $V_r$ hold the top $r$ singular
# vectors of an $m \times n$ matrix $W_0$. The share of an update in the principal
# subspaces, and its mean for a random update, are
#
# $$e_r = \frac{\lVert U_r^\top \Delta W\, V_r\rVert_F^2}{\lVert\Delta W\rVert_F^2},
# \qquad \mathbb{E}\, e_r = \frac{r^2}{mn}.$$
#
# The identity of four rows has a quarter of its energy in one pair of directions, where
# chance gives a sixteenth:

# %%
from paper_lib.geometry.subspaces import principal_energy

identity = torch.eye(4, dtype=torch.float64)
inside = principal_energy(identity, identity[:, :1], identity[:, :1])
assert abs(inside / (1 / 16) - 4) < 1e-12
print(f"energy inside {inside:.4f}, by chance {1 / 16:.4f}")

# %% [markdown]
# **Claim (§3.3, App. D; C15).** OPD's and RLVR's small norms come with small KL, within
# their bound. Principal directions are steeper than others, and the runs avoid them.
#
# By the rule of the ledger, a KL above SFT's refutes Gate I. The bound itself decides
# nothing, whichever side of it a norm lies on, since it is an identity to second order.
# Principal directions no steeper than the others refute Gate II, and so does more
# energy of OPD's in the principal subspaces than a random update has. Gate II also asks
# that OPD and RLVR rotate a tenth less than SFT's update at their norms, and that they
# show less on principal weights that are not small than with their entries permuted.

# %% tags=["hide-input"]
from paper_lib.figures import draw_curvature, draw_kl_and_norm, draw_principal_energy

energy, by_chance = (
    results.ends(f"principal_energy{null}", modules=chosen).query("run in @main_runs")
    for null in ("", "_chance")
)
energy, by_chance = (x.groupby("run")["value"].mean() for x in (energy, by_chance))
assert energy.between(0, 1).all()
spans = *(100 * energy).agg(["min", "max"]), *(energy / by_chance).agg(["min", "max"])
words = "{:.1f} to {:.1f} % of an update is principal, {:.0f} to {:.0f} times chance"
caption = (
    "KL to the start against the squared norm; curvature by direction; energy in "
    "principal subspaces."
)

# %%
places = [["kl", "curvature"], ["kl", "energy"]]
look = {"figsize": (7.2, 4.6), "layout": "constrained", "height_ratios": (5, 3)}
fig, axes = plt.subplot_mosaic(places, **look)
draw_kl_and_norm(axes["kl"], results, runs=main_runs)
draw_curvature(axes["curvature"], curvature)
draw_principal_energy(axes["energy"], results, runs=main_runs, modules=chosen)
axes["kl"].set_title("Gate I: norm and KL")
axes["curvature"].set_title("Gate II: curvature and energy")
fig.suptitle(words.format(*spans), fontsize=9)
draw_legend(fig)
inputs = ("trajectories", "matrices", "curvature")
results.save(fig, "fig_gates_norm_curvature", inputs=inputs, caption=caption)

# %% [markdown]
# At the left, dots are snapshots; the large one is the end, with the interval of its
# KL. Dashed is the second-order KL with the $\mu$ measured at the end of the run. A
# snapshot off its dashed line has another $\mu$, or lies beyond the second order. A run
# above another at the same norm has spent its norm in steeper directions. SFT starts
# from other weights than the rest.
#
# At the top right, small dots are seeds. Where an update (full) is steeper than its own
# entries in random places (hollow), training has sought steep directions. That is the
# opposite of being steered away from them. Below, an update right of the dashed line
# has more of its energy in the principal subspaces than chance gives. The title has
# both the share and its ratio to chance: the ratio is large, and most of the update
# lies outside all the same.

# %%
mu = curvature[curvature["metric"] == "curvature"]
steep = mu.groupby(["run", "direction"])["value"].mean()
assert (steep >= 0).all(), "a Fisher matrix has no negative curvature"
relative = (steep / steep["start", "gaussian"]).rename("times a Gaussian direction's")
relative = relative.map("{:,.1f}".format)
relative.to_frame().rename_axis(["run", "curvature along"]).rename(index=label, level=0)

# %%
moved = trajectories[trajectories["metric"].isin(["forward_kl", "reverse_kl"])]
kl = at_end(moved).groupby(["run", "metric"])["value"].mean().unstack()
heads = {"forward_kl": "KL(start, end), nats", "reverse_kl": "KL(end, start), nats"}
kl = kl.rename(columns=heads).reindex(main_runs).dropna(how="all")
by_label(kl.map("{:.2e}".format))

# %% [markdown]
# ## The path
#
# A principal component analysis (PCA) of a trajectory finds the directions in weight
# space along which the snapshots $\Delta W_1, \dots, \Delta W_T$ spread most. It is
# tempting to read a high share of variance on two components, and a smooth arc in their
# plane, as a sign that training happens in a low-dimensional space.
#
# A random walk in many dimensions has both. Its $k$-th component has the share
#
# $$\frac{6}{\pi^2 k^2}, \qquad 61\ \%,\ 15\ \%,\ \dots$$
#
# of the variance, and its coordinate is a cosine wave of $k$ half periods, so that the
# first against the second draw a parabola (Antognini & Sohl-Dickstein 2018). A walk of
# 200 steps through 6,000 dimensions has these shares:

# %%
from paper_lib.geometry import random_walk, random_walk_explained_variance
from paper_lib.geometry.subspaces import path_gram, path_pca

walk = random_walk([1.0] * 200, (60, 100), torch.Generator().manual_seed(0))
_, planted = path_pca(path_gram(walk))
expected = [random_walk_explained_variance(k) for k in range(1, 6)]
assert np.allclose(planted, expected, atol=0.02)
assert f"{expected[0]:.0%}, {expected[1]:.0%}" == "61%, 15%"
print("planted ", *(f"{share:.3f}" for share in planted))
print("expected", *(f"{share:.3f}" for share in expected))

# %% [markdown]
# Two more facts follow from arithmetic. $T$ points always fit into $T - 1$ dimensions.
# And centring makes any steady drift the first component.
#
# Two readings survive. Runs from one $W_0$ in *one* PCA share its axes, so that a plane
# shows where they part. And a share of variance can be held against that of a walk with
# the same step lengths: what exceeds it is drift.

# %%
mine = trajectories[trajectories["seed"] == seed]
joined = mine.loc[mine["metric"] == "joint_pca_coordinate", "run"].unique()
together = [run for run in ("sft_matched", "opd", "rlvr") if run in joined]
assert together, f"no joint path of seed {seed}; in {set(trajectories['seed'])}"
walks = nulls[nulls["null"].isin(["random_walk", "adam_walk"]) & (nulls["layer"] == -1)]
share = mine[mine["run"].str.startswith("joint:")].query("k <= 2")["value"].sum()
print(f"one PCA of {'; '.join(map(label, together))}:")
print(f"two components hold {100 * share:.0f} % of the variance")

# %% [markdown]
# A plane is no measure of angles. The cosines of the whole updates (defined beside
# `fig_update_cosine`) say what the plane leaves out. In the reference set OPD's update
# is a little nearer to matched SFT's than to RLVR's, although matched SFT's path parts
# from both in the plane: it is longer.

# %%
cosines = results.table("pairs").query("metric == 'update_cosine' and run == 'opd'")
cosines = cosines[cosines["seed"] == cosines["other_seed"]].groupby("other")["value"]
cosines = cosines.mean().reindex(["rlvr", "sft_matched"]).round(3)
by_label(cosines.to_frame("with OPD"))

# %% [markdown] slideshow={"slide_type": "slide"}
# **Claim (the picture behind C7).** Training follows a smooth path of few dimensions.
# The claim would be without content if a random walk with the run's own step lengths
# drew the same path and had the same shares. More than its shares is evidence of a
# persistent direction.

# %% tags=["hide-input"]
from paper_lib.figures import draw_beside, draw_explained_variance, draw_paths

shares = trajectories[trajectories["metric"] == "explained_variance_ratio"]
ours = shares.query("run in @main_runs").groupby(["run", "k"])["value"].mean().unstack()
assert ours.sum(axis=1).max() <= 1 + 1e-9
of_walks = walks[(walks["metric"] == "explained_variance_ratio") & (walks["k"] == 1)]
first = of_walks.groupby(["run", "null"])["value"].mean().unstack()
held = 100 * ours.loc["opd", 1], 100 * first.loc["opd", "random_walk"]
words = (
    "OPD's first component holds {:.0f} % of the variance, its random walk's {:.0f} %"
)
caption = (
    "Paths of the updates of one seed on their principal components, beside a random "
    "walk, and shares of variance over all seeds."
)

# %% slideshow={"slide_type": "subslide"}
fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.4), layout="constrained")
own_walk = walks[walks["null"] == "random_walk"]
draw_paths(axes[0], mine, runs=together, seed=seed, metric="joint_pca_coordinate")
draw_paths(axes[1], mine, runs=["opd"], seed=seed, null=own_walk)
draw_explained_variance(axes[2], trajectories, walks, runs=main_runs)
draw_beside(axes[2], range(1, 6), expected, r"$6/(\pi^2k^2)$", color="black")
titles = (f"from one $W_0$, seed {seed}", f"OPD and a walk, seed {seed}", "all seeds")
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title)
fig.suptitle(words.format(*held), fontsize=9)
draw_legend(fig, of="shares of variance")
inputs = ("trajectories", "nulls")
results.save(fig, "fig_pca_trajectory", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# At the left, rings mark the common start and dots the snapshots, in units of the
# weights. In the middle, the same OPD run in axes of its own, beside a walk that shares
# only its step lengths; both are in standard deviations of their own first component.
# What the two have in common is no property of training.
#
# At the right, a run above its own dotted line on the first component drifts. A run on
# that line has shown no structure. The dash-dotted line is Adam's walk on noise alone,
# which has the run's learning rates and none of its step lengths. With few snapshots a
# walk's shares differ from the formula, which holds for long walks: compare with the
# thin lines.

# %%
ours = (100 * ours).rename(columns=lambda k: f"component {k:.0f} (%)").loc[main_runs]
heads = {"adam_walk": "first of Adam's walk (%)"}
heads["random_walk"] = "first of its walk (%)"
by_label(ours.join(100 * first.rename(columns=heads))).round(1)

# %% [markdown]
# The next figure plays the paths of `fig_pca_trajectory` in time, with SFT beside them
# in a plane of its own, since it starts from other weights. What time adds is the pace:
# where dots lie close, steps are short.
#
# **Claim to test (behind C7).** The runs go one way. A path that turns back along its
# first component would refute it. A path that does not turn back is no evidence, as a
# walk's goes one way too and bends in the second component.

# %% tags=["hide-input"]
from paper_lib.figures import animate_paths

caption = (
    "The paths of the updates in the plane of their first two components as training "
    "goes on."
)


def draw(progress: float) -> None:
    words = f"training progress {100 * progress:3.0f} %"
    clock.set_text(words.replace("  ", " \u2007"))
    for plane in planes:
        plane(progress)


# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.0), layout="constrained")
own = {"runs": ["sft"], "seed": seed, "metric": "pca_coordinate"}
planes = [animate_paths(left, mine, runs=together, seed=seed)]
planes.append(animate_paths(right, mine, **own))
left.set_title("from one $W_0$, together")
right.set_title("SFT, from the base")
draw_legend(fig, seeds=False)
clock = fig.suptitle("training progress 100 %", fontsize=9)
inputs = ("trajectories",)
results.animate(fig, "fig_pca_animation", inputs=inputs, draw=draw, caption=caption)

# %% [markdown]
# The picture is the last frame; `fig_pca_animation.gif` plays the way there, once. Dots
# are snapshots. Between two of them the line is drawn straight, and nothing was
# measured. All runs move on one clock, their own progress, whatever their number of
# steps.

# %%
first_axis = mine[(mine["metric"] == "joint_pca_coordinate") & (mine["k"] == 1)]
along = first_axis.pivot(index="step", columns="run", values="value")[together].diff()
back = (along.iloc[1:] * along.sum() < 0).sum()
print("snapshots that turn back along component 1:", back.to_dict())

# %% [markdown]
# ## What we found
#
# The verdicts are computed from these tables by the rule of the ledger (`claims.md`
# beside the figures has it): with SFT at its own schedule, and with matched SFT in
# SFT's place. C7 is about the stable rank, which `05_locking` draws. The paths above
# are why we do not test it by PCA.

# %%
from paper_lib.ledger import claims_in_short, ledger

rows = ledger(results, ("C3", "C4", "C7", "C15a", "C15b"))
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
# ### Exercise 04-1 — A walk looks low-dimensional (5 minutes)
#
# The $k$-th principal component of a long random walk in many dimensions has a share of
# $6 / (\pi^2 k^2)$ of the variance. How many components hold 90 % of it?
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
# Six, in a million dimensions as in a hundred. "Six components explain 90 % of the
# path" says nothing of the training; the share of the *first*, against the walk's 61 %,
# at least says whether there is drift.
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
# Write the largest principal angle, in degrees, between the spans of the $k$ leading
# *right* singular vectors of $W_0$ and $W_t$.
#
# <details><summary>Hint</summary>
#
# The cosines of the angles are the singular values of $V_0^\top V_t$. Which of them
# belongs to the largest angle?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, w_t and k that returns degrees
check("04-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The smallest cosine has the largest angle. This is good enough for angles of a degree.
# For one of 1e-9 it would return 0 or noise, as the cosine is flat there:
# `principal_angles` takes small angles from the sine.
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
# SFT turns the weights farther than OPD, and its update is longer. Divide, matrix by
# matrix, the mean angle `angle_u_mean` at the end by `relative_norm`, and take the mean
# of these quotients over matrices and seeds. What is SFT's mean quotient divided by
# OPD's?
#
# <details><summary>Hint</summary>
#
# `at_end(matrices)` keeps the last step of each run. Make run, layer, module and seed
# the index of both metrics. What comes first, the division or the mean?
#
# </details>

# %% tags=["exercise"]
answer = ...  # one number, SFT's angle per unit of norm over OPD's
check("04-3", answer, tables={"matrices": matrices})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell prints it beside the quotient of the angles as they are. Where the first is
# near 1, SFT and OPD turn the weights alike per unit of norm, and C3 is an order of
# norms. Dividing the two means, as the table below `fig2_matched_norm` does, gives
# another number: matrices with a long update count more in it.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
ended = at_end(matrices).set_index(["run", "layer", "module", "seed"])
angle, norm = (
    ended.loc[ended["metric"] == name, "value"]
    for name in ("angle_u_mean", "relative_norm")
)
per_unit, as_is = (angle / norm).groupby("run").mean(), angle.groupby("run").mean()
answer = per_unit["sft"] / per_unit["opd"]
print(f"as they are {as_is['sft'] / as_is['opd']:.2f}, per unit of norm {answer:.2f}")
verdict = check("04-3", answer, tables={"matrices": matrices})
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 04-4 — What NSS does not see (20 minutes)
#
# Write a function that takes any $W_0$ and returns a $W_t$ with NSS = 0 whose two
# leading right singular vectors span a plane at a largest angle of 90° to those of
# $W_0$.
#
# <details><summary>Hint</summary>
#
# Which of the three factors of $W_0 = U\,\mathrm{diag}(\sigma)\,V^\top$ does NSS see?
# And what makes two of $V$'s vectors the *leading* ones?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0, (m, n) with m and n at least 4, that returns w_t
check("04-4", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $U\,\mathrm{diag}(\sigma)\,V'^\top$ has the singular values of $W_0$ for any
# orthonormal $V'$. Taking $V$ in the reverse order hands the largest values to the
# vectors that had the smallest. The other way round,
# $U\,(2\,\mathrm{diag}(\sigma))\,V^\top$ has a large NSS and turns nothing. So C3 and
# C4 are two claims; that they agree run by run is because both follow the norm.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w_0):
    u, s, vh = torch.linalg.svd(w_0, full_matrices=False)
    return (u * s) @ vh.flip(0)


verdict = check("04-4", answer)
assert verdict.right, verdict
verdict
