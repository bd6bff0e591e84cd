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
# **Question.** The paper changes OPD in three ways: it keeps a part of the tokens, takes the rollouts from
# the teacher, and mixes in RLVR's advantage. The first two leave the stable-rank trajectory as it was, it
# says, and the third leaves it only once OPD's share is small (§5, Figs 7 and 9). Do ours (C12–C14),
# measured against how far RLVR and SFT are from OPD and how much seeds matter, and does a trajectory that
# is kept mean that the learning is kept? At the end stands the whole ledger: C1–C15, and seventeen claims
# of three other papers, P1–P5, S1–S7 and M1–M5.
#
# **In this notebook**
#
# - Figure 7: stable rank along training for each control, and below it the accuracy;
# - how far each control moves from OPD, beside RLVR, SFT and what seeds do;
# - Figure 9: their norms and Hill indices;
# - is it size? what norm and evenness of an update predict of its sparsity, over all runs;
# - is it the objective? sparsity beside the noise of the credit, and the cosines of updates;
# - Figure 1: the regime in one picture, on the way from RLVR to SFT, with the paper's OPD beside ours;
# - the ledger: every claim, the paper's value, ours with its interval, and a verdict computed by one rule,
#   with SFT at its own schedule and with matched settings;
# - to play with: the α of the mix, between RLVR and OPD.
#
# It reads tables and draws: under a minute with every profile. `01_train` and `02_extract` make the tables,
# except those of `reference`, which come with the project.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
data_dir: str = "data"  # where results/<profile>/ holds the tables
figures_dir: str = "figures"  # figures and claims.md, claims.csv go to <profile>/ below it
modules: str = "attention"  # matrices averaged over in figures 7 and 9: attention (as the paper), mlp or all

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_lib.figures import ATTENTION, MODULE_GROUPS, in_order, open_results, plain_log, use_style
from paper_lib.ledger import label

results = open_results(profile, data_dir=data_dir, figures_dir=figures_dir)
study, chosen = results.study, MODULE_GROUPS[modules]
matrices, curves = results.table("matrices"), results.table("curves")
use_style()

# %%
runs = in_order(run.name for run in study.runs)
controls = {
    "tokens kept": [run for run in runs if run.startswith("opd_tokens")],
    "rollouts": ["opd_teacher_rollouts"],
    "advantages mixed": [run for run in runs if run.startswith("mix_")],
}
references = ["opd", "rlvr"]
everything = [*references, *(run for members in controls.values() for run in members)]
there = matrices[matrices["run"].isin(everything)].groupby("run")["seed"]
shared = sorted(set.intersection(*(set(seeds) for _, seeds in there)))
same_seeds = matrices[matrices["seed"].isin(shared)]
for title, members in controls.items():
    print(f"{title}: {', '.join(members)}")
print(f"seeds that all of them have: {shared}")

# %% [markdown]
# ## Which controls keep the trajectory?
#
# *Tokens kept*: the loss counts 25 or 50 % of each response's tokens, those with the largest gap between
# student and teacher or a uniform choice, rescaled to the same weight (§5.1). *Rollouts*: the teacher
# writes the responses, so that the sampled gap no longer estimates the reverse KL. *Advantages mixed*: α
# A_OPD + (1 − α) A_RLVR, raw as in the paper, so α also changes the gradient's scale.
#
# **Claim (§5, Fig. 7; C12–C14).** The first two keep OPD's stable-rank trajectory; a mix leaves it once α
# is small. By the rule of the ledger a trajectory is kept within a distance of 0.1 of OPD's (defined below),
# and that means something only where another objective, RLVR, does not stay within it. C14 is refuted by
# mixes that do not come nearer to RLVR than to OPD as α falls, and open where RLVR is no farther from OPD
# than OPD with other rollouts.
#
# Both quantities, of updates $\Delta W_t$ at the snapshots $t = 1, \dots, T$:
#
# $$\mathrm{srank}(\Delta W) = \frac{\lVert\Delta W\rVert_F^2}{\lVert\Delta W\rVert_2^2}, \qquad
# d^2 = \frac{1}{T} \sum_t
# \log^2 \frac{\mathrm{srank}(\Delta W_t)}{\mathrm{srank}(\Delta W^{\mathrm{OPD}}_t)}.$$
#
# An update with singular values 2, 1, 1 has a stable rank of 6 / 4, and so has one that is three times as
# long. Without its third direction the longer one has 45 / 36. Paths that stay at the two are log 1.2 apart:

# %%
import torch

from paper_lib.figures import distance, draw_accuracy, draw_legend, draw_ratios, draw_trajectory, seed_spread
from paper_lib.geometry import metrics_of, stable_rank

spectra = {"one": (2.0, 1.0, 1.0), "longer": (6.0, 3.0, 3.0), "other": (6.0, 3.0, 0.0)}
planted = {name: stable_rank(torch.diag(torch.tensor(sigma))).item() for name, sigma in spectra.items()}
assert planted == {"one": 1.5, "longer": 1.5, "other": 1.25}  # its size is forgotten
one, other = (pd.DataFrame({0: [planted[name]] * 4}) for name in ("one", "other"))
assert abs(distance(one, other)[0] - np.log(1.2)) < 1e-12
print(f"stable ranks {planted['one']} and {planted['other']}: distance {distance(one, other)[0]:.3f}")

# %%
paths = {
    metric: partial(results.path, metric=metric, modules=chosen)
    for metric in ("stable_rank", "frobenius_norm", "hill_index")
}
mixed = {"runs": [*controls["advantages mixed"], "rlvr"], "seeds": shared}


def draw_control(rank: plt.Axes, accuracy: plt.Axes, runs: list[str]) -> None:
    draw_trajectory(rank, same_seeds, "stable_rank", runs=runs, modules=chosen)
    draw_accuracy(accuracy, curves[curves["seed"].isin(shared)], runs=runs)


caption = (
    "Stable rank and validation accuracy along training, for OPD, RLVR and the controls of OPD. "
    "Mixes, at the right, are divided by OPD of their seed."
)

# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.2), layout="constrained")
for title, column in zip(("tokens kept", "rollouts"), axes.T, strict=False):
    draw_control(*column, [*references, *controls[title]])
draw_ratios(axes[0, 2], paths["stable_rank"], "stable rank", **mixed)
draw_ratios(axes[1, 2], results.learning, "accuracy", **mixed)
for title, ax in zip(controls, axes[0], strict=True):
    ax.set_title(title)
plt.setp(axes[:, :2], xlabel="training progress", xlim=(-0.03, 1.25))
axes[0, 0].set_ylabel("stable rank")
axes[1, 0].set_ylabel("validation accuracy (avg@8)")
draw_legend(fig)
results.save(fig, "fig7_controls_stable_rank", inputs=("matrices", "curves"), caption=caption)

# %% [markdown]
# All lines come from the seeds that all the controls have, so that they share their anchors and problems;
# accuracy is that of eight sampled answers a problem (avg@8).
# Bands, and the bars beside the end, are the 95 % interval over seeds; with fewer than three, seeds are dots
# above, and below the bars are one standard error over the problems. Read each control twice: a line that
# follows OPD above and not below has kept the rank and lost the function, and one that leaves it above and
# not below has done the reverse.
#
# The mixes lie too close together to be told apart so: at the right, each is divided by OPD of its own seed,
# snapshot by snapshot. Grey, where the profile has it, is OPD itself with other rollouts throughout. A mix
# has left OPD's trajectory where its line, and the bar beside its end, are off 1 and off the grey band; it
# has reached RLVR's where its line meets RLVR's.

# %%
opd, rlvr = map(paths["stable_rank"], references)
apart = {}
for run in [*everything[1:], "sft", "sft_matched"]:
    apart[label(run)] = distance(paths["stable_rank"](run), opd).mean()
print(f"seeds move RLVR's distance by {seed_spread(rlvr, opd):.3f} (standard deviation)")
pd.Series(apart, name="distance to OPD").sort_values().round(3).to_frame()

# %% [markdown]
# The distance is the root mean square, over the snapshots, of the logarithm of the ratio of two stable ranks
# from one anchor: 0.1 is about 10 % apart, and what C12 and C13 call preserved. Where RLVR lies within that
# margin too, or no farther than seeds move the distance, the stable rank does not separate the objectives,
# and keeping it says little about any control. In the reference set this is so: RLVR is at 0.054, and OPD on
# a random quarter of its tokens, at 0.107 ± 0.053, is farther from OPD than RLVR is.
#
# Whether a trajectory that is kept means a function that is learned shows best on teacher rollouts, where the
# sampled gap is no longer an estimate of the reverse KL:

# %%
common = list(results.learning("opd_teacher_rollouts"))
for run in ("opd", "opd_teacher_rollouts"):
    rank = paths["stable_rank"](run)[common].mean(axis=1)
    accuracy = results.learning(run)[common].mean(axis=1)
    print(f"{label(run)}: stable rank {rank.iloc[0]:.2f} → {rank.iloc[-1]:.2f}, ", end="")
    print(f"accuracy {accuracy.iloc[0]:.3f} → {accuracy.iloc[-1]:.3f} (n = {len(common)})")
print(f"distance of their stable ranks: {apart[label('opd_teacher_rollouts')]:.3f}, preserved below 0.1")

# %% [markdown]
# Means over the seeds of the control, from the first snapshot after W₀ to the last. A rank that is kept
# beside an accuracy that does not rise says that the rank does not measure the learning.
#
# ## Their scale and their tails
#
# **Claim (§5.1, Fig. 9; C12, C13).** The controls change the scale at most: the norm of the update moves,
# somewhat up for teacher rollouts, and the Hill index stays near OPD's. Refuted by a Hill index that leaves
# OPD's band for RLVR's or beyond, or by a smaller norm under teacher rollouts.


# %%
def draw_metric(ax: plt.Axes, metric: str, runs: list[str]) -> None:
    draw_trajectory(ax, same_seeds, metric, runs=runs, modules=chosen)
    if metric == "frobenius_norm":
        plain_log(ax)


# %%
measured = {metric.name: metric.axis for metric in metrics_of("fig9_controls_auxiliary")}

# %%
fig, axes = plt.subplots(2, 3, figsize=(7.2, 5.0), layout="constrained")
for row, (metric, words) in zip(axes, measured.items(), strict=True):
    for title, ax in zip(("tokens kept", "rollouts"), row, strict=False):
        draw_metric(ax, metric, [*references, *controls[title]])
    draw_ratios(row[2], paths[metric], words, **mixed)
    row[0].set_ylabel(words)
for title, ax in zip(controls, axes[0], strict=True):
    ax.set_title(title)
plt.setp(axes[:, :2], xticks=(0, 0.5, 1), xlim=(-0.03, 1.25))
draw_legend(fig)
caption = (
    "Norm and Hill index of the update along training, for OPD, RLVR and the controls of OPD. "
    "Mixes, at the right, are divided by OPD of their seed."
)
results.save(fig, "fig9_controls_auxiliary", inputs=("matrices",), caption=caption)

# %% [markdown]
# A norm below OPD's with the same stable rank is a smaller step of the same shape; the mixes' norms follow
# the scale of the mixed advantage as well as its direction, which this control cannot tell apart. The Hill
# index uses the largest singular values alone and is the noisier of the two: judge it by whether
# neighbouring snapshots agree.

# %%
ends = {
    metric: results.ends(metric, modules=chosen).query("seed in @shared").groupby("run")["value"].mean()
    for metric in ("stable_rank", "frobenius_norm", "hill_index", "drift_ratio")
}
accuracy = curves[(curves["metric"] == "sampled_accuracy") & curves["seed"].isin(shared)]
gained = accuracy.sort_values("step").groupby(["run", "seed"])["value"]
ends["accuracy gained"] = (gained.last() - gained.first()).groupby("run").mean()
pd.DataFrame(ends).loc[[*everything, "sft"]].rename(index=label).map("{:.3g}".format)

# %%
walks = results.ends("stable_rank", modules=chosen, nulls=True)
rank = walks[walks["null"] == "adam_walk"].groupby("run")["value"].mean()
print(f"stable rank of Adam's walk on noise: {rank['opd']:.3g} at OPD's rates, {rank['sft']:.3g} at SFT's")

# %% [markdown]
# The drift ratio is the root mean square of ΔW over √Σ lr², which is about 1 for Adam on pure noise. Near 1
# the norm alone does not tell a run from noise, and it does not say that the run is noise: look at its rank
# and its Sim_K. In the reference set teacher rollouts and SFT have ratios of about 1, and stable ranks of
# 4 to 5 where noise has 28. Accuracy gained is that on the validation problems.
#
# ## Is it size?
#
# **Claim (§3.2, Table 1; C1).** Objectives differ in which weights they change. Sparsity then needs more than
# two numbers of an update that know nothing of places: the norm of ΔW, and its evenness, the share $e$ of its
# energy in the largest tenth of its entries (0.1 for equal sizes, 0.50 for normal ones). We fit
#
# $$\log\frac{s}{1 - s} = a + b \log\lVert\Delta W\rVert_F + c \log e$$
#
# over all kinds of run but one and predict the sparsity $s$ of that one. Refuted, at this scale, by an error
# well below the distance of the objectives. Runs confined to a subspace or a subnetwork, of another width or
# under SGD are left out.

# %%
from paper_lib.ledger import draw_kinds, draw_overview, draw_size, end_values, in_words, slopes

ended = end_values(results)
named = [
    "sft",
    "sft_matched",
    *references,
    "opd_exact",
    "opd_as_sft",
    "opd_shuffled_credit",
    "opd_teacher_rollouts",
]
print(slopes(ended).round(2).to_dict())

# %%
fig, ax = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
draw_size(ax, ended, names=named)
ax.set_title(in_words(ended), fontsize=8)
ax.margins(x=0.1)
draw_legend(fig)
caption = "Update sparsity of every kind of run, measured and as norm and evenness predict it."
results.save(fig, "fig_size", inputs=("matrices",), caption=caption)

# %% [markdown]
# A mark is a kind of run, the mean over its seeds, predicted by the fit over all others; the title has the
# root mean square error over runs and seeds. Marks on the line need no word about the objective. A slope $b$
# near −1 is a fixed step of bf16, which a longer update passes more often; $c > 0$ says that an update which
# puts its energy into few entries leaves more of the others unchanged.

# %% [markdown]
# ## Is it the objective, or the noise of its credit?
#
# **Claim (ours, after C1).** The order of sparsity is that of the objectives. Refuted, at this scale, where
# one objective spans it: OPD with the exact reverse KL (less noise), with its credit shuffled over tokens
# (nothing but noise), at another batch, number of prompts or clipping. The drift ratio, the root mean square
# of ΔW over √Σ lr², grows with the signal to noise that Adam sees. Runs with OPD's rate and steps:

# %%
opd_config = study.run("opd")
settings = ("learning_rate", "steps")
alike = [
    run.name
    for run in study.everything
    if all(getattr(run, name) == getattr(opd_config, name) for name in settings)
]
at_one_rate = end_values(results, also=("drift_ratio",)).query("run in @alike")
kinds = at_one_rate.groupby("run")[["drift_ratio", "update_sparsity"]].mean()
rho = kinds.rank().corr().iloc[0, 1]
named = ["sft_matched", "sft_matched_32x8", "rlvr", "opd_exact", "opd_256x1", "opd_batch_64"]
named += ["opd_shuffled_credit", "opd_teacher_rollouts", "opd_tokens_random_25"]

# %%
fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
draw_kinds(ax, at_one_rate, "drift_ratio", names=named)
said = f"{rho:.2f} over {len(kinds)} kinds of run".replace("-", "−")
ax.set_title(f"Less noise in the credit, less sparse: rank correlation {said}", fontsize=8)
ax.set(xlabel="drift ratio")
ax.margins(x=0.16)
plain_log(ax, "x")
draw_legend(fig)
caption = "Update sparsity against the drift ratio, a mark a kind of run at one rate and number of steps."
results.save(fig, "fig_credit_noise", inputs=("matrices",), caption=caption)

# %% [markdown]
# OPD spans the axis by itself. With the exact reverse KL it is less sparse than OPD, by more than OPD and
# RLVR are apart; with shuffled credit it is sparser than both. Matched SFT has 256 prompts a step where OPD
# and RLVR have 32 with eight answers each: at 32 × 8 it comes most of the way to OPD.

# %%
sparsity = kinds["update_sparsity"].reindex(["sft_matched", "sft_matched_32x8", "opd_256x1", "opd"])
clipped = kinds["update_sparsity"].reindex(["opd_clip_100", "rlvr_clip_100", "opd_no_decay"])
pd.concat([sparsity, clipped]).rename(index=label).round(4).to_frame()

# %% [markdown]
# ## One direction for all?
#
# **Claim (§4.2, ours).** Each objective has a channel of its own. Refuted, at this scale, by updates of two
# objectives that point the same way as two runs of one objective do.

# %%
from paper_lib.figures import draw_cosines

pairs = results.table("pairs")
cosines = pairs.query("metric == 'update_cosine' and seed == other_seed and run == 'opd'")
means = cosines.groupby("other")["value"].mean()
same, other = means.get("opd_restream", np.nan), means.get("rlvr", np.nan)

# %%
fig, ax = plt.subplots(figsize=(6.0, 4.4), layout="constrained")
draw_cosines(ax, pairs, modules=MODULE_GROUPS["all"])
fig.suptitle(f"Update cosines: OPD with RLVR {other:.2f}, with OPD on other rollouts {same:.2f}", fontsize=9)
draw_legend(fig)
caption = "Cosines of the updates of two runs of one seed, or of a run and its next seed."
results.save(fig, "fig_update_cosine", inputs=("pairs",), caption=caption)

# %% [markdown]
# Two runs of one seed share their anchor, and OPD, RLVR and matched SFT also their problems. RLVR against
# itself on other problems is the noise that its distance to OPD is to be held against. Demonstrations,
# teacher and verifier push the same way here, a new anchor hardly changes it, and credit by chance has
# nothing of it: the direction belongs to the model and the task, which has one thing to learn.

# %% [markdown]
# ## The regime in one picture
#
# **Claim (§3–4, Fig. 1).** OPD is a regime of its own between RLVR and SFT. Each row is a scale from RLVR
# (0) to SFT (1); OPD would be a regime of its own if it stayed off both ends, and if matched SFT, which has
# its schedule, stayed away from it. It would be refuted by an OPD that sits at 0, or beside matched SFT,
# throughout.

# %%
fig, ax = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
draw_overview(ax, results)
draw_legend(fig, columns=5)
caption = "Where OPD and matched SFT lie on the way from RLVR (0) to SFT (1), metric by metric."
results.save(fig, "fig1_overview", inputs=("matrices", "nulls", "curves"), caption=caption)

# %% [markdown]
# Full markers are means over seeds with their interval, rings the seeds, an arrow at the edge is a mean
# beyond it, diamonds where the paper's OPD lies between the paper's RLVR and SFT. The numbers at the right
# are the end values themselves, of all matrices unless a row says attention. A position says nothing about
# the length of its scale: where our SFT and RLVR nearly agree, small differences look large, and where their
# seeds do not even agree on the order, the row is left blank.

# %% [markdown]
# ## Try it: how much OPD does a mix need?
#
# Turn α down from 1 (OPD) to 0 (RLVR) and look where the path leaves OPD's, in rank, norm, tail and accuracy.
# A mix whose shade holds both ends cannot be told from either with these seeds.

# %%
from paper_lib.teaching.mixing import play_mixing

play_mixing(same_seeds, curves[curves["seed"].isin(shared)], modules=chosen)

# %% [markdown]
# ## What we found
#
# Each claim has comparisons, and `claims.md` says when they were fixed: one number a seed, Student's 95 %
# interval, and a side that the claim is on. All hold: *reproduced*, or *order only* where one is less than a
# tenth of the paper's. None holds and one fails: *not
# reproduced*. In between: *partly*. A run that is missing, fewer than three seeds or nothing decided:
# *not decided by this design*. Nothing here was written by hand, and other seeds can change it.

# %%
from paper_lib.ledger import VERDICTS, claims_figure, claims_in_short, ledger, read_all, write_ledger

readings = read_all(results)
rows = ledger(results, readings=readings)
assert set(rows["verdict"]) | set(rows["verdict, matched"]) <= set(VERDICTS)
page, sheet = write_ledger(rows, results.figures, readings)
print(rows[["claim", "verdict", "verdict, matched"]].to_string(index=False))
fig = claims_figure(readings)
caption = "The ledger: each claim's comparisons by how far they clear what it allows, and its verdicts."
results.save(fig, "claims", inputs=("matrices", "nulls", "curves", sheet), caption=caption)

# %% [markdown]
# A dot is a comparison, at the distance of its mean from the edge of what its claim allows, in half widths of
# its interval: right of the band it holds, left of it it fails, inside it nothing is decided. The right panel
# reads the same rules with matched SFT in SFT's place (or what `claims.md` says at each claim). A claim that
# is reproduced in the first and not in the second holds for the paper's comparison and is explained, at this
# scale, by start, learning rate and steps. "no" under "> null" means that chance gives as much.

# %%
claims_in_short(rows)

# %% [markdown]
# Both differ from the paper's setting in one more way: our runs end at different norms. Where snapshots
# allow, these readings compare matched SFT, OPD and RLVR where each has come equally far, in norm or in
# accuracy.

# %%
equal = rows[rows["equal norm"] != "–"]
claims_in_short(equal, ("claim", "verdict, matched", "equal norm", "equal accuracy"))

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the whole line) and run
# the cell. `check` says whether it is right, and otherwise which mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 06-1 — The tokens that are kept (15 minutes)
#
# Write the weights of top-gap retention for one response: the ⌈ρT⌉ tokens with the largest r_t have weight
# T / ⌈ρT⌉, all others 0.
#
# <details><summary>Hint</summary>
#
# `gap.argsort(descending=True)` has the places of the largest first. A large positive r_t is a token that
# the student likes and the teacher does not.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of gap, a (T,) tensor, and keep, ρ in (0, 1], that returns (T,)
check("06-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The weights add up to T. Without the factor, keeping a quarter of the tokens would also make the loss
# smaller, and its gradient; Adam forgives a constant factor, a change of it along the way it does not.
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
# The mix adds α A_OPD and (1 − α) A_RLVR, raw. At which α would both parts have gradients of the same norm?
# Take as norms the means of `gradient_norm` (before clipping) in `curves`, over all steps and seeds of `opd`
# and of `rlvr`.
#
# <details><summary>Hint</summary>
#
# The gradient is linear in the credit: α times the credit has α times the gradient.
#
# </details>

# %% tags=["exercise"]
answer = ...  # one α in (0, 1)
check("06-2", answer, tables={"curves": curves})

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# From α ‖g_OPD‖ = (1 − α) ‖g_RLVR‖ follows α = ‖g_RLVR‖ / (‖g_OPD‖ + ‖g_RLVR‖). Where OPD's gradient is the
# longer one, as in the reference tables, the balance is below one half. "Leaves the trajectory once α is
# small" (C14) then says where the balance lies as much as which objective prevails; the runs `mix_…_unit`,
# where a profile has them, scale both credits first.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
norms = curves[curves["metric"] == "gradient_norm"].groupby("run")["value"].mean()
answer = norms["rlvr"] / (norms["opd"] + norms["rlvr"])
print(f"‖g‖ of OPD {norms['opd']:.2f}, of RLVR {norms['rlvr']:.2f}: α = {answer:.3f}")
verdict = check("06-2", answer, tables={"curves": curves})
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 06-3 — How many seeds? (20 minutes)
#
# OPD and RLVR are compared seed by seed. Write the smallest N ≥ 2 for which Student's 95 % interval of N
# paired differences, with the mean and the deviation of those given, would not reach 0. Then use it on the
# stable ranks of `opd` and `rlvr` at their ends.
#
# <details><summary>Hint</summary>
#
# The half width is t s / √N, with t the 97.5 % point for N − 1 degrees of freedom: `scipy.stats.t.ppf`.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of differences, a (seeds,) array, that returns a whole number
check("06-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# The cell prints what our seeds ask for, paired, and with every seed of OPD against another of RLVR. OPD
# and RLVR of one seed share their anchor, and what the anchor does to both cancels in the difference. A
# single seed, as in the paper, has no deviation at all.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from scipy.stats import t


def answer(differences):
    n = np.arange(2, 10_000)
    reach = t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return int(next(iter(n[reach < abs(differences.mean())]), n[-1] + 1))


rank = results.ends("stable_rank", modules=ATTENTION)
by_seed = rank.pivot(index="seed", columns="run", values="value")[["opd", "rlvr"]].dropna()
paired = (by_seed["opd"] - by_seed["rlvr"]).to_numpy()
mismatched = by_seed["opd"].to_numpy() - np.roll(by_seed["rlvr"].to_numpy(), 1)
print(f"{len(paired)} seeds, mean difference {paired.mean():.3f}")
if len(paired) > 1:
    print(f"seeds needed: {answer(paired)} paired, {answer(mismatched)} against another seed's")

# %% tags=["solution"] jupyter={"source_hidden": true}
verdict = check("06-3", answer)
assert verdict.right, verdict
verdict
