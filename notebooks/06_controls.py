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
# # What does the trajectory of distillation depend on?
#
# **Question.** The paper changes OPD in three ways. It keeps a part of the tokens,
# takes the rollouts from the teacher, and mixes in RLVR's advantage. The first two
# leave the stable-rank trajectory as it was, the paper says, and the third leaves it
# only once OPD's share is small (§5, Figs 7 and 9). Do ours (C12–C14), measured against
# how far RLVR and SFT are from OPD and how much seeds matter? And does a trajectory
# that is kept mean that the learning is kept? At the end stands the whole ledger:
# C1–C15, and seventeen claims of three other papers, P1–P5, S1–S7 and M1–M5.
#
# **In this notebook**
#
# - `fig7_controls_stable_rank`: stable rank and accuracy along training for each
#   control;
# - how far each control moves from OPD, beside RLVR, SFT and what seeds do;
# - `fig9_controls_auxiliary`: their norms and Hill indices;
# - `fig_size`: what norm and evenness of an update predict of its sparsity, over all
#   runs;
# - `fig_credit_noise` and `fig_update_cosine`: sparsity beside the noise of the credit,
#   and the cosines of updates;
# - `fig_budgets`: the three objectives at the paper's own budgets, and at one budget;
# - `fig_sizes` and `fig_pretrained`: models from 0.1 to 135 million weights, of which
#   the largest, SmolLM2, was pretrained on text;
# - `fig1_overview`: the regime in one picture, on the way from RLVR to SFT, with the
#   paper's OPD beside ours;
# - `claims`, the ledger: every claim, the paper's value, ours with its interval, and a
#   verdict computed by one rule, with SFT at its own schedule and with matched
#   settings;
# - to play with: the $\alpha$ of the mix, between RLVR and OPD.
#
# The notebook reads tables and draws: under a minute with every profile. `01_train` and
# `02_extract` make the tables, except those of `reference`, which come with the
# project.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures, claims.md and claims.csv go to <profile>/
budgets_dir: str = "data"  # where results/budgets/ holds the committed tables
modules: str = "attention"  # of figures 7 and 9: attention (as the paper), mlp or all

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_lib.figures import ATTENTION, MODULE_GROUPS, in_order, open_results
from paper_lib.figures import plain_log, use_style
from paper_lib.ledger import label

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
matrices, curves = results.table("matrices"), results.table("curves")
use_style()

# %%
runs, references = in_order(run.name for run in study.runs), ["opd", "rlvr"]
controls = {
    "tokens kept": [run for run in runs if run.startswith("opd_tokens")],
    "rollouts": ["opd_teacher_rollouts"],
    "advantages mixed": [run for run in runs if run.startswith("mix_")],
}
everything = [*references, *(run for members in controls.values() for run in members)]
by_run = matrices[matrices["run"].isin(everything)].groupby("run")["seed"]
shared = sorted(set.intersection(*(set(seeds) for _, seeds in by_run)))
same_seeds = matrices[matrices["seed"].isin(shared)]
for title, members in controls.items():
    print(f"{title}:", *members, sep="\n  ")
print(f"seeds that all of them have: {shared}")

# %% [markdown]
# ## Which controls keep the trajectory?
#
# The controls are three. *Tokens kept*: the loss counts 25 or 50 % of each response's
# tokens, the ones with the largest gap between student and teacher or a uniform choice,
# rescaled to the same weight (§5.1). *Rollouts*: the teacher writes the responses, so
# that the sampled gap no longer estimates the reverse KL. *Advantages mixed* (§5.2):
# the credit is
#
# $$A = \alpha\, A_\mathrm{OPD} + (1 - \alpha)\, A_\mathrm{RLVR},$$
#
# raw as in the paper, so that $\alpha$ also changes the gradient's scale.
#
# **Claim (§5, Fig. 7; C12–C14).** The first two keep OPD's stable-rank trajectory; a
# mix leaves it once $\alpha$ is small. By the rule of the ledger a trajectory is kept
# within a distance of 0.1 of OPD's (defined below). That means something only where
# another objective, RLVR, does not stay within it. C14 is refuted by mixes that do not
# come nearer to RLVR than to OPD as $\alpha$ falls. It is open where RLVR is no farther
# from OPD than OPD with other rollouts.
#
# The stable rank of an update, and the distance $d$ of two paths of updates over the
# snapshots $t = 1, \dots, T$, are
#
# $$\mathrm{srank}(\Delta W) =
# \frac{\lVert\Delta W\rVert_F^2}{\lVert\Delta W\rVert_2^2}, \qquad
# d^2 = \frac{1}{T} \sum_t
# \log^2 \frac{\mathrm{srank}(\Delta W_t)}{\mathrm{srank}(\Delta W^{\mathrm{OPD}}_t)}.$$
#
# An update with singular values 2, 1, 1 has a stable rank of 6 / 4, and so has one that
# is three times as long. Without its third direction the longer one has 45 / 36. Paths
# that stay at the two are $\log 1.2$ apart:

# %%
import torch

from paper_lib.figures import distance, seed_spread
from paper_lib.geometry import metrics_of, stable_rank

spectra = {"one": (2.0, 1.0, 1.0), "longer": (6.0, 3.0, 3.0), "other": (6.0, 3.0, 0.0)}
planted = {
    name: stable_rank(torch.diag(torch.tensor(sigma))).item()
    for name, sigma in spectra.items()
}
assert planted == {"one": 1.5, "longer": 1.5, "other": 1.25}  # its size is forgotten
one, other = (pd.DataFrame({0: [planted[name]] * 4}) for name in ("one", "other"))
assert abs(distance(one, other)[0] - np.log(1.2)) < 1e-12
print(f"stable ranks 1.5 and 1.25: distance {distance(one, other)[0]:.3f}")

# %% tags=["hide-input"]
from paper_lib.figures import draw_accuracy, draw_legend, draw_ratios, draw_trajectory


def path_of(run: str, metric: str = "stable_rank") -> pd.DataFrame:
    return results.path(run, metric, modules=chosen)


def draw_control(rank: plt.Axes, accuracy: plt.Axes, runs: list[str]) -> None:
    draw_trajectory(rank, same_seeds, "stable_rank", runs=runs, modules=chosen)
    draw_accuracy(accuracy, curves[curves["seed"].isin(shared)], runs=runs)


# %%
others = [*everything[1:], "sft", "sft_matched"]
apart = {run: distance(path_of(run), path_of("opd")) for run in others}
mixed = {"runs": [*controls["advantages mixed"], "rlvr"], "seeds": shared}
farthest = 100 * max(apart[run].mean() for run in mixed["runs"])
teacher = 100 * apart["opd_teacher_rollouts"].mean()
words = (
    f"RLVR and every mix stay within {farthest:.0f} % of OPD's stable rank; "
    f"teacher rollouts are {teacher:.0f} % off"
)
caption = (
    "Stable rank and validation accuracy along training, for OPD, RLVR and the "
    "controls of OPD, with the accuracy's intervals as bars beside the end. Mixes, at "
    "the right, are divided by OPD of their seed."
)
inputs = ("matrices", "curves")

# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.2), layout="constrained")
for left, middle, _ in axes:
    middle.sharey(left)
for title, column in zip(("tokens kept", "rollouts"), axes.T, strict=False):
    draw_control(*column, [*references, *controls[title]])
draw_ratios(axes[0, 2], path_of, "stable rank", **mixed)
draw_ratios(axes[1, 2], results.learning, "accuracy", **mixed)
for title, ax in zip(controls, axes[0], strict=True):
    ax.set_title(title)
plt.setp(axes[:, :2], xlabel="training progress", xlim=(-0.03, 1.25))
axes[0, 0].set_ylabel("stable rank")
axes[1, 0].set_ylabel("validation accuracy (avg@8)")
fig.suptitle(words, fontsize=9)
draw_legend(fig)
results.save(fig, "fig7_controls_stable_rank", inputs=inputs, caption=caption)

# %% [markdown]
# All lines come from the seeds that all the controls have, so that they share their
# anchors and problems. Accuracy is that of eight sampled answers a problem (avg@8). In
# its panels OPD has a band, and every other run a bar beside its end: both are the 95 %
# interval over seeds. With fewer than three seeds, the seeds are dots in the upper
# panels. In the lower ones, bars are then one standard error over the problems.
#
# Read each control twice. A line that follows OPD above and not below has kept the rank
# and lost the function. One that leaves OPD above and not below has done the reverse.
#
# At the right, a row is a mix over OPD of its own seed, the geometric mean over the
# snapshots. Shaded, where the profile has it, is the interval of OPD itself with other
# rollouts throughout. A mix has left OPD's trajectory where its bar is off 1 and off
# the shade. It has reached RLVR's where its bar meets RLVR's.

# %%
from paper_lib.summaries import t_interval

spread = seed_spread(path_of("rlvr"), path_of("opd"))
print(f"standard deviation over seeds of RLVR's distance: {spread:.3f}")
rows = {}
for run, by_seed in apart.items():
    low, high = t_interval(by_seed.to_numpy())
    rows[label(run)] = (by_seed.mean(), (high - low) / 2)
table = pd.DataFrame(rows, index=["distance to OPD", "half of its interval"]).T
table.sort_values("distance to OPD").round(3)

# %% [markdown]
# The distance 0.1 is about 10 % apart, and C12 and C13 call it preserved. Where RLVR
# lies within that margin too, or no farther than seeds move the distance, the stable
# rank does not separate the objectives. Keeping it then says little about any control.
# In the reference set this is so: RLVR lies within 0.1, and OPD on a random quarter of
# its tokens is farther from OPD than RLVR is.
#
# Does a trajectory that is kept mean a function that is learned? Teacher rollouts show
# it best, because the sampled gap is no longer an estimate of the reverse KL there:

# %%
common = list(results.learning("opd_teacher_rollouts"))
ends = {}
for run in ("opd", "opd_teacher_rollouts"):
    rank, accuracy = path_of(run)[common], 100 * results.learning(run)[common]
    values = [*rank.mean(axis=1).iloc[[0, -1]], *accuracy.mean(axis=1).iloc[[0, -1]]]
    ends[label(run)] = np.round(values, 2)
places = ("first", "end")
heads = [f"{name}, {at}" for name in ("stable rank", "accuracy %") for at in places]
pd.DataFrame(ends, index=heads).T

# %% [markdown]
# These are means over the seeds of the control, from the first snapshot after $W_0$ to
# the last. A rank that is kept beside an accuracy that does not rise says that the rank
# does not measure the learning.
#
# ## Their scale and their tails
#
# **Claim (§5.1, Fig. 9; C12, C13).** The controls change the scale at most: the norm of
# the update moves, somewhat up for teacher rollouts, and the Hill index stays near
# OPD's. A Hill index that leaves OPD's band for RLVR's or beyond would refute the
# claim, and so would a smaller norm under teacher rollouts.


# %% tags=["hide-input"]
def draw_metric(ax: plt.Axes, metric: str, runs: list[str]) -> None:
    draw_trajectory(ax, same_seeds, metric, runs=runs, modules=chosen)
    if metric == "frobenius_norm":
        plain_log(ax)


# %% tags=["hide-input"]
measured = metrics_of("fig9_controls_auxiliary")
norms = {run: path_of(run, "frobenius_norm") for run in everything}
norm_off = max(distance(norms[run], norms["opd"]).mean() for run in mixed["runs"])
half = (norms["opd_teacher_rollouts"] / norms["opd"]).iloc[-1].mean()
words = (
    f"RLVR and every mix stay within {100 * norm_off:.0f} % of OPD's norm; "
    f"teacher rollouts end at {half:.2f} of it"
)
caption = (
    "Norm and Hill index of the update along training, for OPD, RLVR and the controls "
    "of OPD. Mixes, at the right, are divided by OPD of their seed."
)

# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.0), layout="constrained")
for row, metric in zip(axes, measured, strict=True):
    row[1].sharey(row[0])
    for title, ax in zip(("tokens kept", "rollouts"), row, strict=False):
        draw_metric(ax, metric.name, [*references, *controls[title]])
    draw_ratios(row[2], partial(path_of, metric=metric.name), metric.axis, **mixed)
    row[0].set_ylabel(metric.axis)
for title, ax in zip(controls, axes[0], strict=True):
    ax.set_title(title)
plt.setp(axes[:, :2], xticks=(0, 0.5, 1), xlim=(-0.03, 1.03))
fig.suptitle(words, fontsize=9)
draw_legend(fig)
results.save(fig, "fig9_controls_auxiliary", inputs=("matrices",), caption=caption)

# %% [markdown]
# A norm below OPD's with the same stable rank is a smaller step of the same shape. The
# mixes' norms follow the scale of the mixed advantage as well as its direction, and
# this control cannot tell the two apart. The Hill index uses the largest singular
# values alone and is the noisier of the two: judge it by whether neighbouring snapshots
# agree.

# %%
names = ("stable_rank", "frobenius_norm", "hill_index", "drift_ratio")
ends = {}
for name in names:
    rows = results.ends(name, modules=chosen).query("seed in @shared")
    ends[name.replace("_", " ")] = rows.groupby("run")["value"].mean()
accuracy = curves[
    (curves["metric"] == "sampled_accuracy") & curves["seed"].isin(shared)
]
gained = accuracy.sort_values("step").groupby(["run", "seed"])["value"]
points = 100 * (gained.last() - gained.first()).groupby("run").mean()
ends = pd.DataFrame(ends).join(points.rename("accuracy gained, points"))
ends.loc[[*everything, "sft"]].rename(index=label).map("{:.3g}".format)

# %%
walks = results.ends("stable_rank", modules=chosen, nulls=True)
rank = walks[walks["null"] == "adam_walk"].groupby("run")["value"].mean()
ranks = f"{rank['opd']:.3g} at OPD's rates, {rank['sft']:.3g} at SFT's"
print(f"stable rank of Adam's walk on noise: {ranks}")

# %% [markdown]
# The drift ratio (defined with `fig_credit_noise`) is about 1 for Adam on pure noise.
# Near 1 the norm alone does not tell a run from noise, and it does not say that the run
# is noise: look at its rank and its $\mathrm{Sim}_K$. In the reference set teacher
# rollouts and SFT have ratios of about 1, and stable ranks far below the noise's. The
# accuracy gained is that on the validation problems.

# %% [markdown]
# ## Is it size?
#
# **Claim (§3.2, Table 1; C1).** Objectives differ in which weights they change.
# Sparsity then needs more than two numbers of an update that know nothing of places:
# the norm of $\Delta W$, and its evenness. Let the entries be sorted by size. The
# evenness is the share of energy in the largest tenth of the $N$ entries:
#
# $$e = \frac{\sum_{i \le N/10} \Delta w_{(i)}^2}{\sum_i \Delta w_i^2}.$$
#
# It is 0.1 for entries of one size, and 0.44 for normal ones:

# %%
from paper_lib.geometry.sparsity import top_coordinate_energy

normal = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
even = {"one size": torch.ones(200, 300), "normal": normal}
planted = {name: top_coordinate_energy(d, 0.1).item() for name, d in even.items()}
assert abs(planted["one size"] - 0.1) < 1e-9
assert abs(planted["normal"] - 0.44) < 0.02
print({name: round(share, 3) for name, share in planted.items()})

# %% [markdown]
# We fit the log-odds of the sparsity $s$ by both,
#
# $$\log\frac{s}{1 - s} = a + b \log\lVert\Delta W\rVert_F + c \log e,$$
#
# over all kinds of run but one, and predict the sparsity of that one. Made-up runs that
# follow $a = -3$, $b = -1$, $c = 1$ give the three back:

# %%
from paper_lib.ledger import slopes

rng = np.random.default_rng(0)
norms, shares = rng.uniform(0.01, 0.1, 40), rng.uniform(0.2, 0.6, 40)
columns = {"frobenius_norm": norms, "coordinate_energy": shares}
odds = np.exp(-3 - np.log(norms) + np.log(shares))
made_up = pd.DataFrame(columns).assign(update_sparsity=odds / (1 + odds))
assert np.allclose(slopes(made_up), (-3, -1, 1))
print(slopes(made_up).round(3).to_dict())

# %% [markdown]
# The claim is refuted, at this scale, by an error of the prediction well below the
# distance of the objectives. Runs confined to a subspace or a subnetwork, of another
# width or under SGD are left out.

# %%
from paper_lib.ledger import draw_size, end_values, in_words

ended = end_values(results)
named = ["sft", "sft_matched", *references, "opd_exact", "opd_as_sft"]
named += ["opd_shuffled_credit", "opd_teacher_rollouts"]
names = ("a", "b, of the norm", "c, of the evenness")
print(dict(zip(names, slopes(ended).round(2), strict=True)))

# %%
fig, ax = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
draw_size(ax, ended, names=named)
ax.set_title(in_words(ended), fontsize=8)
ax.margins(x=0.1)
draw_legend(fig)
caption = (
    "Update sparsity of every kind of run, measured and as norm and evenness "
    "predict it."
)
results.save(fig, "fig_size", inputs=("matrices",), caption=caption)

# %% [markdown]
# A mark is a kind of run, the mean over its seeds, predicted by the fit over all
# others. The title has the root mean square error over runs and seeds. For a mark on
# the line, norm and evenness give the sparsity, and the objective adds nothing. A slope
# $b$ near −1 is a fixed step of bf16, which a longer update passes more often. A
# positive $c$ says that an update which puts its energy into few entries leaves more of
# the others unchanged.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Is it the objective, or the noise of its credit?
#
# **Claim (ours, after C1).** The order of sparsity is that of the objectives. It is
# refuted, at this scale, where one objective spans it: OPD with the exact reverse KL
# (less noise), with its credit shuffled over tokens (nothing but noise), at another
# batch, number of prompts or clipping.
#
# The drift ratio grows with the signal to noise that Adam sees. It compares the root
# mean square of the $mn$ entries of $\Delta W$ with the learning rates $\eta_t$:
#
# $$\frac{\lVert\Delta W\rVert_F / \sqrt{mn}}{\sqrt{\sum_t \eta_t^2}}.$$
#
# Steps of $\pm\eta$ at random have a drift ratio of 1. A hundred steps of one sign have
# 10:

# %% slideshow={"slide_type": "-"}
from paper_lib.geometry import drift_ratio

signs = torch.randn(100, 64, 48, generator=torch.Generator().manual_seed(0)).sign()
random, one_way = 1e-3 * signs.sum(0), 1e-3 * torch.ones(100, 64, 48).sum(0)
planted = [drift_ratio(delta, [1e-3] * 100).item() for delta in (random, one_way)]
assert abs(planted[0] - 1) < 0.05
assert abs(planted[1] - 10) < 1e-3
print(f"drift ratio: {planted[0]:.2f} of random signs, {planted[1]:.2f} of one sign")

# %% [markdown]
# The figure has the runs with OPD's learning rate and number of steps:

# %% tags=["hide-input"]
from paper_lib.ledger import draw_kinds

opd = study.run("opd")
same = (opd.learning_rate, opd.steps)
alike = [r.name for r in study.everything if (r.learning_rate, r.steps) == same]
ended = end_values(results, also=("drift_ratio",))
at_one_rate = ended[ended["run"].isin(alike)]
kinds = at_one_rate.groupby("run")[["drift_ratio", "update_sparsity"]].mean()
rho = f"{kinds.rank().corr().iloc[0, 1]:.2f}".replace("-", "−")
named = ["sft_matched", "sft_matched_32x8", "rlvr", "opd_exact", "opd_256x1"]
named += ["opd_batch_64", "opd_shuffled_credit", "opd_teacher_rollouts"]
named += ["opd_tokens_random_25"]
words = f"rank correlation {rho} over {len(kinds)} kinds of run"

# %% slideshow={"slide_type": "subslide"}
fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
draw_kinds(ax, at_one_rate, "drift_ratio", names=named)
ax.set_title(f"Less noise in the credit, less sparse: {words}", fontsize=8)
ax.set(xlabel="drift ratio")
ax.margins(x=0.25)
plain_log(ax, "x")
draw_legend(fig)
caption = (
    "Update sparsity against the drift ratio, a mark a kind of run at one rate and "
    "number of steps."
)
results.save(fig, "fig_credit_noise", inputs=("matrices",), caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# OPD spans the axis by itself. With the exact reverse KL it is less sparse than OPD, by
# more than OPD and RLVR are apart. With shuffled credit it is sparser than both.
# Matched SFT has 256 prompts a step, where OPD and RLVR have 32 with eight answers
# each. At 32 × 8 matched SFT comes most of the way to OPD.

# %%
compared = ["sft_matched", "sft_matched_32x8", "opd_256x1", "opd", "rlvr"]
compared += ["opd_clip_100", "rlvr_clip_100", "opd_no_decay"]
sparsity = 100 * kinds["update_sparsity"].reindex(compared).dropna()
sparsity.rename("update sparsity, %").rename(index=label).round(1).to_frame()

# %% [markdown]
# ## One direction for all?
#
# **Claim (§4.2, ours).** Each objective has a channel of its own. It is refuted, at
# this scale, by updates of two objectives that point the same way as two runs of one
# objective do. The cosine of two updates, with the inner product over all entries of a
# matrix, is
#
# $$\cos(\Delta W, \Delta W') =
# \frac{\langle \Delta W, \Delta W' \rangle}
# {\lVert\Delta W\rVert_F\, \lVert\Delta W'\rVert_F}.$$
#
# Two updates with a common part and independent parts of the same length have a cosine
# near one half. Independent updates have one near 0:

# %%
from paper_lib.geometry.subspaces import path_gram

generator = torch.Generator().manual_seed(0)
common, one, other = torch.randn(3, 64, 48, generator=generator)
gram = path_gram([common + one, common + other, one])
cosines = gram / gram.diag().outer(gram.diag()).sqrt()
assert abs(cosines[0, 1] - 0.5) < 0.05
assert abs(cosines[1, 2]) < 0.05
print(f"cosines: {cosines[0, 1]:.2f} with a common part, {cosines[1, 2]:.2f} without")

# %%
from paper_lib.figures import draw_cosines

pairs = results.table("pairs")
of_opd = "metric == 'update_cosine' and seed == other_seed and run == 'opd'"
means = pairs.query(of_opd).groupby("other")["value"].mean()
same, other = means.get("opd_restream", np.nan), means.get("rlvr", np.nan)
words = (
    f"Update cosines: OPD with RLVR {other:.2f}, with OPD on other rollouts {same:.2f}"
)
caption = (
    "Cosines of the updates of two runs of one seed, or of a run and its next seed."
)

# %%
fig, ax = plt.subplots(figsize=(6.0, 4.4), layout="constrained")
draw_cosines(ax, pairs, modules=MODULE_GROUPS["all"])
fig.suptitle(words, fontsize=9)
draw_legend(fig)
results.save(fig, "fig_update_cosine", inputs=("pairs",), caption=caption)

# %% [markdown]
# Two runs of one seed share their anchor, and OPD, RLVR and matched SFT also their
# problems. RLVR against itself on other problems is the noise that its distance to OPD
# is to be held against.
#
# Demonstrations, teacher and verifier push the same way here. A new anchor hardly
# changes it, and credit by chance has nothing of it. The direction belongs to the model
# and the task, which has one thing to learn.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## The regime in one picture
#
# **Claim (§3–4, Fig. 1).** OPD is a regime of its own between RLVR and SFT. Each row is
# a scale from RLVR (0) to SFT (1). For a metric $x$ of one seed, OPD lies at
#
# $$\frac{x_\mathrm{OPD} - x_\mathrm{RLVR}}{x_\mathrm{SFT} - x_\mathrm{RLVR}},$$
#
# or at the same of the logarithms where a metric spans decades. At 10 between 1 and 100
# that is one half:

# %% slideshow={"slide_type": "-"}
from paper_lib.ledger.pictures import OVERVIEW, position, regime_ends

rlvr, opd, sft = (pd.Series([value]) for value in (1.0, 10.0, 100.0))
assert abs(position(opd, rlvr, sft, log=True).item() - 0.5) < 1e-12
print(f"on the logarithmic scale: {position(opd, rlvr, sft, log=True).item():.2f}")

# %% [markdown] slideshow={"slide_type": "fragment"}
# OPD would be a regime of its own if it stayed off both ends, and if matched SFT, which
# has its schedule, stayed away from it. An OPD that sits at 0, or beside matched SFT,
# throughout would refute the claim.

# %% tags=["hide-input"]
from paper_lib.ledger import draw_overview

places = []
for metric in OVERVIEW:
    ends = regime_ends(results, metric)
    of_run = [ends[run] for run in ("opd", "rlvr", "sft")]
    places.append(position(*of_run, log=metric.log).mean())
span = f"{min(places):.2f} to {max(places):.2f}".replace("-", "−")
words = f"From RLVR (0) to SFT (1), OPD lies at {span} on {len(places)} scales"
caption = (
    "Where OPD and matched SFT lie on the way from RLVR (0) to SFT (1), metric by "
    "metric. An arrow at the edge is a mean beyond it."
)

# %% slideshow={"slide_type": "subslide"}
fig, ax = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
draw_overview(ax, results)
fig.suptitle(words, fontsize=9)
draw_legend(fig, columns=5)
inputs = ("matrices", "nulls", "curves")
results.save(fig, "fig1_overview", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# Full markers are means over seeds with their interval, rings the seeds. Diamonds are
# where the paper's OPD lies between the paper's RLVR and SFT. The numbers at the right
# are the end values themselves, of all matrices unless a row says attention; shares are
# of 1.
#
# A position says nothing about the length of its scale. Where our SFT and RLVR nearly
# agree, small differences look large. Where their seeds do not even agree on the order,
# the row is left blank.

# %% [markdown]
# ## Try it: how much OPD does a mix need?
#
# Turn $\alpha$ down from 1 (OPD) to 0 (RLVR) and look where the path leaves OPD's, in
# rank, norm, tail and accuracy. A mix whose shade holds both ends cannot be told from
# either with these seeds.

# %%
from paper_lib.teaching.charts import play_mixing

play_mixing(same_seeds, curves[curves["seed"].isin(shared)], modules=chosen)

# %% [markdown]
# ## The paper's budgets
#
# **Claim (§3, Table 1; C1, C3, C4, C8).** The objective sets the order. But the paper
# gives each objective a budget of its own: OPD 64 answers in each of 300 steps, RLVR
# 512 in each of 1,024, SFT 256 in each of 5,375 at ten times the rate. Budget and
# objective cannot be told apart there. The profile `budgets` trains the three as
# printed, and each at the budget of OPD and at that of RLVR (three seeds, two bases).
# Its rules were frozen before. How much more does RLVR see than OPD?

# %% tags=["hide-input"]
printed = open_results("budgets", data_dir=budgets_dir, figures_dir=figures_dir)
seen = {}
for name in ("opd", "rlvr"):
    run = printed.study.run(name)
    seen[name] = run.steps * run.prompts_per_step * run.samples_per_prompt
assert seen == {"opd": 64 * 300, "rlvr": 512 * 1024}
print(f"RLVR sees {seen['rlvr'] / seen['opd']:.1f} times OPD's answers")

# %% [markdown]
# If the objective sets the order, it is the same in all three groups of rows below. It
# is the budget that sets it where the order of OPD and RLVR turns over between the
# runs as printed and the runs at one budget.

# %% tags=["hide-input"]
from paper_lib.figures import run_style
from paper_lib.figures.panels import draw_rows
from paper_lib.summaries import paired, say

groups = {
    "as printed": ("sft", "opd", "rlvr"),
    "64 × 300": ("sft_short", "opd", "rlvr_short"),
    "512 × 1,024": ("sft_long", "opd_long", "rlvr"),
}
shown = (
    ("update_sparsity", "unchanged at bf16 (%)", 100),
    ("frobenius_norm", "norm of the update", 1),
    ("spectral_shift", r"NSS ($10^{-3}$)", 1000),
)

# %% tags=["hide-input"]
named = [
    (f"{label(role)}, {budget}", run, run_style(role).mark)
    for budget, runs in groups.items()
    for role, run in zip(("sft", "opd", "rlvr"), runs, strict=True)
]
gaps = []
for budget, (_, opd, rlvr) in groups.items():
    a, b = paired(*(100 * printed.end(run, "update_sparsity") for run in (rlvr, opd)))
    gaps.append(f"{budget}: {say(a - b)}")
words = f"Points of sparsity, RLVR less OPD, {'; '.join(gaps)}".replace("-", "−")
caption = (
    "Sparsity, norm and spectral shift of the three objectives at the paper's "
    "budgets, and with one budget for all."
)

# %%
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.4), sharey=True, layout="constrained")
for ax, (metric, words_of_axis, scale) in zip(axes, shown, strict=True):
    ends = [(n, scale * printed.end(run, metric), look) for n, run, look in named]
    draw_rows(ax, ends)
    ax.set_xlabel(words_of_axis)
for ax in axes[1:]:
    plain_log(ax, "x")
fig.suptitle(words, fontsize=9)
inputs = [printed.folder / "matrices.parquet"]
results.save(fig, "fig_budgets", inputs=inputs, caption=caption)

# %% [markdown]
# A row is an objective at a budget, with its mean, its seeds as dots and Student's 95 %
# interval. As printed, RLVR has the longer update and leaves fewer weights unchanged
# than OPD, against the paper. At either budget alone RLVR is the sparser one, with the
# paper, by a small part of the paper's distance. SFT is the least sparse as printed,
# where it takes 5,375 steps at ten times the rate. At one budget it lies beside OPD.
#
# So the budget decides here, through the length of the update. The order of the paper
# at its budgets needs an RLVR whose updates hardly add up over its steps. On this task
# the reward says nearly what the teacher says, and they do add up.

# %% [markdown]
# ## From small models to real weights
#
# **Claim (§3 and §6).** The geometry is OPD's, not that of one model. It is refuted by
# orders that turn over, or distances that vanish, as the model grows. The profile
# `widths` takes a base of 0.1 million weights through the stages of ours of 0.8
# million, and trains it alike (three seeds). The profile `smollm2` trains SmolLM2-135M,
# which was pretrained on text, on the same task: 60 steps of 32 answers, products in
# bf16 (three seeds). Its rules were frozen before.

# %% tags=["hide-input"]
from paper_lib.figures import by_size

opened = partial(open_results, data_dir=budgets_dir, figures_dir=figures_dir)
*small, real = [opened(name) for name in ("widths", "reference", "smollm2")]
sizes = by_size([*small, real], lambda r: r.end("opd", "update_sparsity"))["step"]
measured = ", ".join(f"{size / 1e6:.3g} M" for size in sorted(set(sizes)))
print(f"{measured} weights in the measured matrices")

# %% tags=["hide-input"]
panels = {
    "unchanged at bf16 (%)": ("update_sparsity", None, 100),
    r"NSS ($10^{-3}$)": ("spectral_shift", None, 1000),
    "stable rank": ("stable_rank", None, 1),
    "on principal weights (%)": ("principal_overlap", 0.3, 100),
    "on small weights (%)": ("low_magnitude_overlap", 0.3, 100),
}


def read_end(panel, run, results):
    metric, k, scale = panel
    return scale * results.end(run, metric, k=k)


# %% tags=["hide-input"]
trained = ("sft", "sft_matched", "opd", "rlvr")
reads = {
    words: {run: partial(read_end, panel, run) for run in trained}
    for words, panel in panels.items()
}
reads["cosine with OPD's update"] = {
    run: lambda results, run=run: results.pair("opd", run, "update_cosine")
    for run in ("sft_matched", "rlvr")
}

# %% tags=["hide-input"]
from paper_lib.figures.seeds import draw_bar, draw_means, spread


def draw_sizes(ax, run, rows, named, **look):
    style, line = run_style(run), spread(rows)
    look |= {"color": style.color, "marker": style.marker, "unit": 1e6}
    draw_means(ax, rows, style.label + named, path=True, **look)
    draw_bar(ax, [line["step"] / 1e6] * 2, [line["low"], line["high"]], style.color)


# %% tags=["hide-input"]
def gap(results):
    ends = [results.end(run, "update_sparsity") for run in ("rlvr", "opd")]
    rlvr, opd = paired(*ends)
    return 100 * (rlvr - opd)


gaps = by_size([*small, real], gap).groupby("step")["value"].mean()
turns = by_size([*small, real], reads["cosine with OPD's update"]["rlvr"])
turns = turns.groupby("step")["value"].mean()
words = (
    f"From {min(sizes) / 1e6:.1g} to {max(sizes) / 1e6:.0f} M weights: RLVR less OPD, "
    f"{', '.join(f'{x:.1f}' for x in gaps)} points; "
    f"their cosine {', '.join(f'{x:.2f}' for x in turns)}"
).replace("-", "−")

# %% tags=["hide-input"]
tables = ("matrices", "pairs")
inputs = [r.folder / f"{name}.parquet" for r in (*small, real) for name in tables]
caption = (
    "Six measures of the update at its end, for models of three sizes, the largest "
    "pretrained on text."
)

# %%
fig, axes = plt.subplots(2, 3, figsize=(8.4, 5.4), sharex=True, layout="constrained")
for ax, (words_of_axis, of_run) in zip(axes.flat, reads.items(), strict=True):
    for run, read in of_run.items():
        ours, theirs = by_size(small, read), by_size([real], read)
        draw_sizes(ax, run, ours, "", linestyle=run_style(run).linestyle)
        draw_sizes(ax, run, theirs, ", SmolLM2", fillstyle="none")
    ax.set_ylabel(words_of_axis)
    plain_log(ax, "x", subs=(1,))
plain_log(axes[0, 1])
plt.setp(axes[1], xlabel="million weights measured")
fig.suptitle(words, fontsize=9)
draw_legend(fig, columns=4)
results.save(fig, "fig_sizes", inputs=inputs, caption=caption)

# %% [markdown]
# A mark is the mean over the seeds of one model, with its interval. Hollow marks are
# SmolLM2's. Chance is 30 % on principal and on small weights.
#
# The order of SFT, matched SFT, OPD and RLVR is the same for all three models, in
# sparsity, spectral shift and stable rank: no order turns over with the size. The
# step from OPD to RLVR is small at every size, where the paper's is 26 points. The
# levels change. SmolLM2's update is a smaller part of its weights, so that bf16 hides
# most of it, and what shows lies on small weights. What fades is the common direction.
# SmolLM2's drift ratios are near one, so that much of an update is noise of its own,
# and its profile has no OPD on other rollouts to say how much. Size, pretraining, batch
# and number of steps change together here: the figure says what holds across them, not
# which of them moves a level.
#
# SmolLM2 has 210 matrices in a run, enough to ask two findings from above of matrices
# in place of runs. Is it size? We fit the log-odds of a matrix's sparsity by the
# relative norm of its update and by its evenness, over six kinds of matrix, and predict
# the seventh. One direction? We take the cosines of the updates again.

# %% tags=["hide-input"]
from paper_lib.figures.words import tell
from paper_lib.ledger.size import held_out

rows = real.table("matrices").query("run in @trained")
last = rows["step"] == rows.groupby(["run", "seed"])["step"].transform("max")
single = rows["k"].isna() | (rows["k"] == 0.1)
matrix = ["run", "seed", "layer", "module"]
by_matrix = rows[last & single].pivot_table("value", matrix, "metric").reset_index()
sized = by_matrix.assign(
    run=by_matrix["module"], frobenius_norm=by_matrix["relative_norm"]
)
predicted, found = held_out(sized), sized["update_sparsity"]
error = 100 * ((predicted - found) ** 2).mean() ** 0.5
print(f"{len(sized)} matrices: off by {error:.1f} points of sparsity, root mean square")

# %% tags=["hide-input"]
cosine = real.pair("opd", "rlvr", "update_cosine")
words = (
    f"SmolLM2-135M: norm and evenness predict a matrix's sparsity to {error:.1f} "
    f"points; OPD and RLVR have cosine {cosine.mean():.2f}"
)
caption = (
    "SmolLM2's matrices: sparsity as norm and evenness predict it, and cosines of "
    "updates."
)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.8), layout="constrained")
for run in trained:
    mine, style = by_matrix["run"] == run, run_style(run)
    look = {"color": style.color, "label": style.label, "linestyle": "none"}
    left.plot(100 * predicted[mine], 100 * found[mine], ".", markersize=3, **look)
    tell(left, style.label, 100 * found[mine].agg(["min", "max"]), of="measured within")
left.axline((50, 50), slope=1, color="grey", linewidth=0.8)
left.set(xlabel="predicted, unchanged (%)", ylabel="measured, unchanged (%)")
draw_cosines(right, real.table("pairs"), modules=MODULE_GROUPS["all"])
fig.suptitle(words, fontsize=9)
draw_legend(fig)
inputs = [real.folder / f"{name}.parquet" for name in tables]
results.save(fig, "fig_pretrained", inputs=inputs, caption=caption)

# %% [markdown]
# Does an early channel hold what these weights learn (C11)? After a fifth of the run,
# OPD and matched SFT go on with each update confined to its own $K = 8$ leading right
# singular directions, or with all measured matrices frozen ($K = 0$). $A$ is the
# accuracy on 256 test problems at the end; of what the matrices add to it, a confined
# run keeps $f = (A_V - A_0) / (A_\mathrm{free} - A_0)$.

# %%
kept = {}
for run in ("opd", "sft_matched"):
    arms = [run, f"{run}_projected_early", f"{run}_projected_none"]
    free, inside, none = paired(*(real.score(arm)[0] for arm in arms))
    kept[label(run)] = {
        "what the matrices add (points)": say(free - none, 100),
        "what the channel adds (points)": say(inside - none, 100),
        "lost in the channel (points)": say(free - inside, 100),
        "f of the means": f"{(inside - none).mean() / (free - none).mean():.2f}",
    }
pd.DataFrame(kept).T

# %% [markdown]
# In each seed the frozen runs end below free training, and the confined ones beside it:
# eight directions of 576 hold what either objective still learns. Matched SFT loses a
# little, no more than its interval. The paper's SFT loses ten points. Accuracy is that
# of sampled answers; greedy ones hardly gain under OPD, which sharpens what the model
# can do already.

# %% [markdown]
# ## What we found
#
# Each claim has comparisons, and `claims.md` says when they were fixed. A comparison is
# one number $x_s$ a seed, of $n$ seeds with mean $\bar x$ and standard deviation $s_x$,
# and an edge $e$ that the claim puts the mean above (or below: then all signs turn).
# Student's 95 % interval has the half width $h = t_{n-1}\, s_x / \sqrt n$. The
# clearance
#
# $$c = \frac{\bar x - e}{h}$$
#
# decides: the comparison holds where $c > 1$, fails where $c < -1$, and is undecided in
# between. Fewer than three seeds decide nothing. Three made-up seeds with mean 2 and
# standard deviation 1 have $h = 4.30 / \sqrt 3 = 2.48$:

# %%
from paper_lib.ledger.contrasts import more

ours = pd.Series([1.0, 2.0, 3.0])
comparisons = {edge: more(ours, 0 * ours, "made up", by=edge) for edge in (0, -1, 5)}
clearances = {edge: (2 - edge) / (4.303 / 3**0.5) for edge in comparisons}
for edge, comparison in comparisons.items():
    assert abs(comparison.clearance - clearances[edge]) < 1e-3
    print(f"edge {edge}: c = {comparison.clearance:.2f}, {comparison.outcome}")
outcomes = [comparison.outcome for comparison in comparisons.values()]
assert outcomes == ["undecided", "holds", "fails"]

# %% [markdown] slideshow={"slide_type": "slide"}
# The outcomes of a claim make its verdict:
#
# - All hold: *reproduced*, or *order only* where one is less than a tenth of the
#   paper's.
# - None holds and one fails: *not reproduced*.
# - A run that is missing, or nothing decided: *not decided by this design*.
# - Anything else: *partly*.
#
# No verdict was written by hand, and other seeds can change it.

# %% slideshow={"slide_type": "-"}
from paper_lib.ledger import VERDICTS, claims_figure, ledger, read_all, write_ledger

readings = read_all(results)
rows = ledger(results, readings=readings)
assert set(rows["verdict"]) | set(rows["verdict, matched"]) <= set(VERDICTS)
page, sheet = write_ledger(rows, results.figures, readings)
counts = rows[["verdict", "verdict, matched"]].apply(pd.Series.value_counts)
counts.fillna(0).astype(int)

# %% slideshow={"slide_type": "subslide"}
caption = (
    "The ledger: each claim's comparisons by how far they clear what it allows, and "
    "its verdicts."
)
fig = claims_figure(readings)
inputs = ("matrices", "nulls", "curves", sheet)
results.save(fig, "claims", inputs=inputs, caption=caption)

# %% [markdown] slideshow={"slide_type": "notes"}
# A dot of `claims` is a comparison, at its clearance. Right of the band it holds, left
# of the band it fails, and inside nothing is decided.
#
# The right panel reads the same rules with matched SFT in SFT's place (or what
# `claims.md` says at each claim). A claim that is reproduced at the left and not at the
# right holds for the paper's comparison and is explained, at this scale, by start,
# learning rate and steps. "no" under "> null" means that chance gives as much.

# %%
from paper_lib.ledger import claims_in_short
from paper_lib.ledger.page import SUMMARY

claims_in_short(rows, SUMMARY)

# %% [markdown]
# Both readings differ from the paper's setting in one more way: our runs end at
# different norms. Where snapshots allow, the next readings compare matched SFT, OPD and
# RLVR where each has come equally far, in norm or in accuracy.

# %%
equal = rows[rows["equal norm"] != "–"]
columns = ("claim", "verdict, matched", "equal norm", "equal accuracy")
claims_in_short(equal, columns)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 06-1 — The tokens that are kept (15 minutes)
#
# Write the weights of top-gap retention for one response: the $\lceil\rho T\rceil$
# tokens with the largest gap $r_t$ have weight $T / \lceil\rho T\rceil$, all others 0.
#
# <details><summary>Hint</summary>
#
# `gap.argsort(descending=True)` has the places of the largest first. A large positive
# $r_t$ is a token that the student likes and the teacher does not.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of gap, a (T,) tensor, and keep, ρ in (0, 1]: (T,) weights
check("06-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The weights add up to $T$. Without the factor, keeping a quarter of the tokens would
# also make the loss smaller, and its gradient. Adam forgives a constant factor. It does
# not forgive a factor that changes along the way.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from math import ceil


def answer(gap, keep):
    weights, kept = gap.new_zeros(len(gap)), ceil(keep * len(gap))
    weights[gap.argsort(descending=True)[:kept]] = len(gap) / kept
    return weights


verdict = check("06-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 06-2 — The α that balances (15 minutes)
#
# The mix adds $\alpha\, A_\mathrm{OPD}$ and $(1 - \alpha)\, A_\mathrm{RLVR}$, raw. At
# which $\alpha$ would both parts have gradients of the same norm? Take as norms the
# means of `gradient_norm` (before clipping) in `curves`, over all steps and seeds of
# `opd` and of `rlvr`.
#
# <details><summary>Hint</summary>
#
# The gradient is linear in the credit: $\alpha$ times the credit has $\alpha$ times the
# gradient.
#
# </details>

# %% tags=["exercise"]
answer = ...  # one α in (0, 1)
check("06-2", answer, tables={"curves": curves})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# With $g$ for a gradient,
# $\alpha \lVert g_\mathrm{OPD}\rVert = (1 - \alpha) \lVert g_\mathrm{RLVR}\rVert$ gives
#
# $$\alpha = \frac{\lVert g_\mathrm{RLVR}\rVert}
# {\lVert g_\mathrm{OPD}\rVert + \lVert g_\mathrm{RLVR}\rVert}.$$
#
# Where OPD's gradient is the longer one, as in the reference tables, the balance is
# below one half. "Leaves the trajectory once $\alpha$ is small" (C14) then says where
# the balance lies as much as which objective prevails. The runs `mix_…_unit`, where a
# profile has them, scale both credits first.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
norms = curves[curves["metric"] == "gradient_norm"].groupby("run")["value"].mean()
answer = norms["rlvr"] / (norms["opd"] + norms["rlvr"])
both = f"OPD {norms['opd']:.2f}, RLVR {norms['rlvr']:.2f}"
print(f"norms of the gradients: {both}; α = {answer:.3f}")
verdict = check("06-2", answer, tables={"curves": curves})
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 06-3 — How many seeds? (20 minutes)
#
# OPD and RLVR are compared seed by seed. Write the smallest $N \ge 2$ for which
# Student's 95 % interval of $N$ paired differences, with the mean and the sample
# deviation of those given, would not reach 0. Then use it on the stable ranks of `opd`
# and `rlvr` at their ends.
#
# <details><summary>Hint</summary>
#
# The half width is $t\, s / \sqrt N$, with $t$ the 97.5 % point for $N - 1$ degrees of
# freedom: `scipy.stats.t.ppf`. The ends are the rows of
# `results.ends("stable_rank", modules=chosen)`, one a run and seed: `pivot` them, with
# a row for each seed, and subtract.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of differences, a (seeds,) array, that returns a whole number
check("06-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell prints what our seeds ask for, paired, and with every seed of OPD against
# another of RLVR. OPD and RLVR of one seed share their anchor, and what the anchor does
# to both cancels in the difference. A single seed, as in the paper, has no deviation at
# all.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from scipy.stats import t


def answer(differences):
    n = np.arange(2, 10_000)
    reach = t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return int(next(iter(n[reach < abs(differences.mean())]), n[-1] + 1))


rank = results.ends("stable_rank", modules=ATTENTION)
by_run = rank.pivot(index="seed", columns="run", values="value")
by_seed = by_run[["opd", "rlvr"]].dropna()
paired = (by_seed["opd"] - by_seed["rlvr"]).to_numpy()
mismatched = by_seed["opd"].to_numpy() - np.roll(by_seed["rlvr"].to_numpy(), 1)
print(f"{len(paired)} seeds, mean difference {paired.mean():.3f}")
if len(paired) > 1:
    needed = f"{answer(paired)} paired, {answer(mismatched)} against another seed's"
    print(f"seeds needed: {needed}")

# %% tags=["solution"] jupyter={"source_hidden": true}
verdict = check("06-3", answer)
assert verdict.right, verdict
verdict
