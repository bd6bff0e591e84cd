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
# # One base, three objectives
#
# **Question.** The paper compares three ways to train a model further: supervised fine-tuning on
# demonstrations (SFT), on-policy distillation from a teacher (OPD), and reinforcement learning from a
# verified answer (RLVR), the last two from the end of the first (§3). Can a study with this structure be
# trained on two cores, with each objective improving its student, so that the geometry of the updates is
# worth looking at?
#
# **In this notebook**
#
# - the task, and the reasoning trace that gives every token something to learn from;
# - the objectives as one equation that differs in two places, and the runs that vary one thing at a time;
# - the training of all of them, in parallel, continued where an earlier call stopped;
# - the credit that each objective gives to every token of one completion;
# - learning curves, beside the teacher;
# - to play with: a few completions token by token, under every objective's credit.
#
# Training takes about 1 minute (`smoke`), 12 to 20 (`laptop`) or hours (`reference`) on two cores; what is
# finished or measured is not trained again, and without any run on disk this notebook shows what the tables
# hold. `02_extract` measures the weights that come out, the other notebooks draw.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # whose rollout and curves are shown
data_dir: str = "data"  # runs go to runs/<profile>/ below it
figures_dir: str = "figures"  # figures go to <profile>/ below it
workers: int | None = None  # processes; None is one a core
force: bool = False  # where it trains, train again what is finished
train: bool | None = None  # train what is not measured; None: unless the profile's tables are committed

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from paper_lib.figures import use_style
from paper_lib.study.profiles import get_profile
from paper_lib.training.starts import Study

study = Study(profile=get_profile(profile), data_dir=Path(data_dir))
opd, figures = study.profile.run("opd"), Path(figures_dir) / profile
use_style()

# %% [markdown]
# ## The task
#
# A problem is a short sum; its demonstration reduces it one operation at a time, left to right, and ends with
# the answer. One token is one character, `?` opens a prompt and `$` ends a completion. The answer is what
# follows the last `=`, so that a verifier needs no model. Problems are split by a hash of their prompt: none
# is ever in two splits, whatever the seed.

# %%
from paper_lib.study.tasks import corrupt, problems, seeded_generator, verify

drawn = problems(opd.tasks[0], split="train", number=20, seed=seed)
examples = sorted(drawn, key=lambda problem: len(problem.demonstration))[::9]
for problem in examples:
    assert verify(problem.demonstration, problem)
    print(f"{problem.prompt}{problem.demonstration}$   answer {problem.answer}")
noisy = corrupt(examples[-1].demonstration, 0.3, seeded_generator("example", seed))
print(f"{examples[-1].prompt}{noisy}$   the last one with 30 % of its digits corrupted")

# %% [markdown]
# The base has learned this from clean traces first, then from traces with some digits corrupted, as found
# text would be. It can do the task but samples badly, which leaves something to *elicit*. The teacher, a
# larger model, saw clean traces alone. SFT on cleaner demonstrations than the base's last ones makes the
# *anchor*, from which OPD, RLVR and most controls start.

# %% [markdown]
# ## The objectives
#
# One form covers all of them (§3.3): completions $y$ come from somewhere, and every token has a credit $a_t$,
#
# $$g = \sum_t a_t \, \nabla_\theta \log p_\theta(y_t \mid x, y_{<t}).$$
#
# | objective | completions | credit |
# |---|---|---|
# | SFT | demonstrations | $a_t = 1$ |
# | OPD | the student's own | $a_t = -r_t$ |
# | RLVR | the student's own | $a_t = A$ |
# | mix | the student's own | $a_t = -\alpha\, r_t + (1 - \alpha) A$ |
#
# Here $r_t = \log \pi_\theta(y_t) - \log \pi_T(y_t)$ is the gap to the teacher on the sampled token. $A$ is
# the reward less the mean of its group (the completions of one prompt), over their standard deviation: one
# number for all tokens.
#
# OPD's credit estimates, from one sampled token, the gradient of the reverse KL divergence to the teacher at
# that place, the text before it taken as given; `opd_exact` takes that divergence over the whole vocabulary
# instead. Controls keep a share of the tokens (`opd_tokens_…`), sample from the teacher
# (`opd_teacher_rollouts`), change teacher or task, or continue a run with its gradient or update projected on
# a subspace (`…_projected_…`). `sft_matched` is SFT at OPD's start, learning rate, batch and steps, the run
# that the paper lacks. Further probes, which `reference` has in full and `smoke` one of each kind, change one
# thing more: `paper_lib.study.plan` says which and why.

# %%
from collections import Counter
from dataclasses import asdict

plan = pd.DataFrame([asdict(run) for run in study.profile.everything]).set_index("name")
plan["seeds"] = pd.Series(Counter(run.name for run, _ in study.profile.planned()))
plan["batch"] = plan["prompts_per_step"] * plan["samples_per_prompt"]
shown = ["objective", "start", "steps", "learning_rate", "schedule", "batch", "teacher", "seeds"]
plan[shown].assign(teacher=plan["teacher"].where(plan["objective"].isin(["opd", "mix"]), "–"))

# %% [markdown]
# Prompts times samples a prompt make the batch. Compare with the paper's scale: SFT takes 5,375 steps at
# 10⁻⁵, OPD 300 and RLVR 1,024 steps at 10⁻⁶, so that SFT differs from the other two in its start, rate,
# schedule, length and batch at once. Ours differs in the same ways, except that OPD and RLVR have equal
# batches and steps; what follows from the schedule then shows between `sft` and `sft_matched`.

# %% [markdown]
# ## Training
#
# Every run goes to its own folder, `runs/<profile>/<run>/seed_<seed>/`: float32 snapshots, a table of curves,
# and `run.json`, written last. A run whose folder matches its configuration is left alone; one that was
# stopped goes on from its last snapshot and ends in the same weights as if it had not been.
#
# Trajectories are large and stay on the machine that made them, while the tables that `02_extract` makes of
# them are small. A run whose rows are in the tables, computed from what the profile plans now, is therefore
# not trained again, whether its folder is still there or not, unless something that is missing starts from
# it. Where the tables are committed, as those of `reference` are, nothing is trained unless `train` says so.

# %% tags=["remove-stdout"]
from paper_lib.training.study import train_study

directories = train_study(profile, data_dir=data_dir, workers=workers, force=force, train=train)

# %%
from paper_lib.measure.join import training_curves

curves, used = training_curves(study)
snapshots = sum(len(list(folder.glob("step_*.safetensors"))) for folder in directories)
known = curves.groupby(["run", "seed"]).ngroups
print(f"{len(study.profile.planned())} runs are planned, a run of five seeds counted as five.")
print(f"{known} of them have results: rows in the tables, or a folder on this disk.")
print(f"{len(directories)} of them have their weights on this disk, {snapshots} snapshots in all.")

# %% [markdown]
# What is drawn here and in the notebooks after it needs the rows alone. The weights of a run are needed to
# measure something new in it, or to go on from it; where none are on this disk, nothing can be.

# %% [markdown]
# ## Credit, token by token
#
# We let the base, which is there before any run is, sample completions of eight problems, and score them with
# the teacher. On a long one, wrong if there is any, we compare what the objectives would have it learn from.
# In the study, OPD and RLVR start from the anchor instead.

# %%
from dataclasses import replace

import torch

from paper_lib.training.objectives import group_advantages, token_gap
from paper_lib.training.rollouts import completion_logits, token_log_probs
from paper_lib.training.starts import load_policy
from paper_lib.training.train import collect

from_base = replace(opd, start="base", prompts_per_step=8, samples_per_prompt=8)
policy = load_policy(study, from_base, seed)
batch = collect(policy, from_base, seed, 0)
with torch.no_grad():
    log_p, teacher_log_p = (
        token_log_probs(completion_logits(model, batch), batch.completion_ids)
        for model in (policy.student, policy.teacher)
    )

# %%
gap, advantage = token_gap(log_p, teacher_log_p), group_advantages(batch.rewards, 8)
lengths, wrong = batch.completion_mask.sum(1).tolist(), (1 - batch.rewards).tolist()
row = max(range(len(wrong)), key=lambda r: (wrong[r], lengths[r]))  # a wrong one, and of these a long one
length = lengths[row]
tokens = policy.tokenizer.convert_ids_to_tokens(batch.completion_ids[row, :length].tolist())
prompt = policy.tokenizer.decode(batch.prompt_ids[row // 8], skip_special_tokens=True)
print(f"{prompt}{''.join(tokens)}   reward {batch.rewards[row]:.0f}, advantage {advantage[row]:.2f}")
values = {"student": log_p[row].exp(), "teacher": teacher_log_p[row].exp(), "r_t": gap[row]}
pd.DataFrame({"token": tokens} | {name: line[:length].tolist() for name, line in values.items()}).round(3)

# %% [markdown]
# **Claim (§3.3).** OPD's credit is dense: it differs from token to token and points at the mistakes, where
# RLVR has one number for a whole completion and SFT never sees it. Refuted by a gap that is spread evenly
# over right and wrong tokens.

# %%
from paper_lib.figures import draw_legend, save_figure
from paper_lib.teaching.rollout import draw_credit
from paper_lib.training.models import models_directory

models = models_directory(study.profile, study.data_dir)
weights = [models / name / "model.safetensors" for name in ("base", "teacher")]
fig, ax = plt.subplots(figsize=(7.2, 2.6), layout="constrained")
draw_credit(ax, tokens, gap[row, :length], advantage[row])
ax.set_xlabel(f"completion of {prompt}")
draw_legend(fig)
caption = "The credit that OPD and RLVR give to every token of one completion sampled by the base."
save_figure(fig, "fig_token_credit", figures, inputs=weights, caption=caption)

# %% [markdown]
# Each bar is the teacher's verdict on one token that the student chose: near zero where they agree, far below
# where the teacher would hardly have written it. Find the first long bar and check the arithmetic there; the
# tokens after it are judged given the mistake, so a consistent continuation is likely to the teacher again.
# RLVR's line is the same for all tokens, and at zero when all completions of a problem are right, or all
# wrong.

# %% [markdown]
# ## Learning curves
#
# **Claim (the premise of §3).** Every objective improves its student: SFT the base, OPD and RLVR the anchor,
# with headroom left below the teacher. Where a run has not improved, its geometry says nothing of learning.
#
# Curves come from the tables where a run is measured, and from its folder where it is not yet.

# %%
from paper_lib.training.rollouts import accuracy

evaluation, home = study.profile.evaluation, opd.tasks[0]
asked = problems(home, split="validation", number=evaluation.snapshot_problems, seed="evaluation")
sampling = {"samples": evaluation.samples, "max_new_tokens": opd.max_new_tokens, "seed": "teacher"}
best = accuracy(policy.teacher, policy.tokenizer, asked, **sampling)
print(f"teacher: {best['sampled_accuracy']:.3f} ± {best['sampled_accuracy_se']:.3f} sampled")
print(f"         {best['greedy_accuracy']:.3f} greedy, on {len(asked)} validation problems")

# %%
from paper_lib.figures import draw_accuracy, draw_chance, scores

panels = {"from the base": ["sft"], "from the anchor": ["opd", "rlvr", "sft_matched"]}
panels["variants of OPD"] = ["opd", "opd_exact", "opd_small_teacher", "opd_teacher_rollouts"]
fig, axes = plt.subplots(1, 3, figsize=(7.2, 3.3), layout="constrained", sharey=True)
for ax, (title, runs) in zip(axes, panels.items(), strict=True):
    draw_accuracy(ax, curves, runs=runs)
    draw_chance(ax, best["sampled_accuracy"], "teacher")
    ax.set_title(title)
axes[0].set_ylabel("validation accuracy (avg@8)")
draw_legend(fig)
caption = "Validation accuracy of the main runs and variants of OPD while they train, beside the teacher's."
save_figure(fig, "fig_training_curves", figures, inputs=used, caption=caption)

# %% [markdown]
# Accuracy (avg@8) is that of eight answers a problem, sampled at temperature 1, for the seeds that all runs
# of a panel have. The band and the bars at the right are the 95 % interval over seeds where there are three.
# With fewer they are the standard error of the evaluation, over problems and not over training. The runs of
# the middle and right panels start from the weights in which the left one ends. A curve that ends within the
# errors of its start is no evidence of learning.

# %% [markdown]
# ## Try it: whose credit?
#
# Take a wrong completion and turn α from 1 (OPD) to 0 (RLVR): the credit leaves the wrong tokens and spreads
# over all. Then take a problem whose eight rewards are equal, where A = 0 and OPD alone has something to say.

# %%
from paper_lib.teaching.rollout import play_rollouts
from paper_lib.training.train import step_problems

posed = step_problems(from_base, seed, 0, from_base.prompts_per_step)
play_rollouts(batch, log_p, teacher_log_p, policy.tokenizer, posed, row=row)

# %% [markdown]
# ## What we found
#
# The gain is that of the last over the first snapshot on the same validation problems. Its error is taken as
# if they were drawn anew each time, which makes it too large rather than too small; *agrees* and *disagrees*
# need two of them. *greedy* is the accuracy at both ends without sampling, the likeliest token taken each
# time.

# %%
claims = pd.DataFrame(columns=["claim", "paper, AIME 2024 (first draft)"])
claims.loc["sft"] = "SFT improves the base", "55.5 after SFT"
claims.loc["opd"] = "OPD improves the anchor", "55.5 → 63.3"
claims.loc["rlvr"] = "RLVR improves the anchor", "not printed"
claims.loc["sft_matched"] = "so does SFT at OPD's rate, batch and steps", "no such run"
lines = {run: scores(curves, [run]).set_index("step") for run in claims.index}
first, last = (pd.DataFrame({run: line.iloc[at] for run, line in lines.items()}).T for at in (0, -1))
gain, error = last["mean"] - first["mean"], (first["error"] ** 2 + last["error"] ** 2) ** 0.5
claims["ours"] = first["mean"].map("{:.3f} → ".format) + last["mean"].map("{:.3f}".format)
claims["gain"] = [f"{a:.3f} ± {b:.3f}" for a, b in zip(gain, error, strict=True)]
greedy = curves[curves["metric"] == "greedy_accuracy"].groupby(["run", "seed"])["value"]
greedy = greedy.agg(["first", "last"]).groupby("run").mean()
claims["greedy"] = greedy["first"].map("{:.3f} → ".format) + greedy["last"].map("{:.3f}".format)
claims["agrees?"] = pd.cut(gain / error, [-np.inf, -2, 2, np.inf], labels=["disagrees", "unclear", "agrees"])
claims.reset_index(drop=True)

# %% [markdown]
# Compare the two kinds of accuracy. In the reference set the anchor's greedy answer is right on every
# validation problem, and so it is after OPD, RLVR and matched SFT. These runs teach their student no sum that
# it could not do. They *sharpen* it: sampled at temperature 1, it slips less often. Only SFT, from the base,
# gets more of the greedy answers right (0.906 → 1.000). Three things follow.
#
# - Accuracy in this study, and what OPD gains over the anchor, say how seldom sampling errs.
# - A loss under projected training (C11) is sharpening that was not gained, and no skill that was lost.
# - Whether learning something new has the same geometry cannot be seen here. avg@8, which the paper reports
#   too, does not tell the two kinds of gain apart.

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the whole line) and run
# the cell. `check` says whether it is right, and otherwise which mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 01-1 — How much more does SFT see? (5 minutes)
#
# In the paper, SFT takes 5,375 steps of 256 sequences. OPD takes 300 steps of 64 sequences, eight samples
# for each of eight prompts. How many times as many sequences does SFT see as OPD?
#
# <details><summary>Hint</summary>
#
# Steps times batch, for each. Is a batch counted in prompts or in sequences?
#
# </details>

# %% tags=["exercise"]
answer = ...  # one number, SFT's sequences over OPD's
check("01-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# SFT sees 5,375 · 256 = 1,376,000 sequences and OPD 300 · 64 = 19,200, about 72 times fewer: four times
# fewer a step, and nearly eighteen times fewer steps. The paper compares the two updates as if the objective
# were what differs. `sft_matched` is the run that has OPD's start, rate, steps and batch.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
steps, batch = {"sft": 5375, "opd": 300}, {"sft": 256, "opd": 64}
sequences = {run: steps[run] * batch[run] for run in steps}
answer = sequences["sft"] / sequences["opd"]
verdict = check("01-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 01-2 — The advantage of a group (10 minutes)
#
# Write RLVR's advantage (GRPO) for the completions of one prompt: the reward less the mean of the group,
# over the group's standard deviation (the one with G − 1). What must it be where all rewards are equal?
#
# <details><summary>Hint</summary>
#
# `rewards.std()` of a tensor divides by G − 1. Try it on `torch.ones(4)`, then divide by it.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of rewards, a (G,) tensor, that returns (G,)
check("01-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Adding a small number to the deviation, as is usual, makes a group without variance 0 and changes others
# by less than a thousandth. Such a group teaches RLVR nothing: its line in the figure on credit is at zero.
# OPD still learns from it, as the teacher judges every token of right answers too.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


verdict = check("01-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 01-3 — Why −r_t is the right credit (25 minutes)
#
# OPD samples a token $v$ from the student's $p$ and gives it the credit $-r_v = \log q_v - \log p_v$, where
# $q$ is the teacher's distribution. Write the gradient of the reverse KL, $\sum_v p_v r_v$, with respect to
# the student's logits, without automatic differentiation. It is the mean over the student's samples of $r_v
# \nabla \log p_v$, although $r_v$ itself depends on the logits: why?
#
# <details><summary>Hint</summary>
#
# For a softmax, ∇ log p_v = e_v − p, with e_v the v-th unit vector. The term in which r_v is differentiated
# is the mean of ∇ log p_v itself.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of logits and teacher_logits, (V,) tensors, that returns (V,)
check("01-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Differentiate Σ p_v r_v as a product. One part is Σ p_v r_v ∇ log p_v, the mean that sampling estimates;
# the other is Σ p_v ∇ log p_v = ∇ Σ p_v = ∇ 1 = 0. With ∇ log p_v = e_v − p the first is p_v (r_v − Σ_w p_w
# r_w) in its v-th entry: a token gains where its gap is below the mean gap. Averaged over the *teacher's*
# samples the same credit is no longer this gradient, which is what is odd about teacher rollouts (C13).
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(logits, teacher_logits):
    p = logits.softmax(0)
    r = logits.log_softmax(0) - teacher_logits.log_softmax(0)
    return p * (r - p @ r)


verdict = check("01-3", answer)
assert verdict.right, verdict
verdict
