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
# **Question.** The paper compares three ways to train a model further (§3): supervised
# fine-tuning on demonstrations (SFT), on-policy distillation from a teacher (OPD), and
# reinforcement learning from a verified answer (RLVR). OPD and RLVR start where SFT
# ends. Can a study of this structure be trained on two cores? Does each objective
# improve its student, so that the geometry of the updates is worth looking at?
#
# **In this notebook**
#
# - The task, and the reasoning trace that gives every token something to learn from.
# - The objectives as one equation, and the runs that vary one thing at a time.
# - The training of all runs, in parallel, continued where an earlier call stopped.
# - The credit that each objective gives to every token of one completion.
# - Learning curves, beside the teacher.
# - To play with: a few completions token by token, under every objective's credit.
#
# Training takes about 1 minute (`smoke`), 12 to 20 (`laptop`) or hours (`reference`) on
# two cores. A run that is finished or measured is not trained again. Without any run on
# disk, the notebook shows what the tables hold. `02_extract` measures the weights that
# come out, and the other notebooks draw.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # whose rollout and curves are shown
data_dir: str = "data"  # runs go to runs/<profile>/ below it
figures_dir: str = "figures"  # figures go to <profile>/ below it
workers: int | None = None  # processes; None is one a core
force: bool = False  # where it trains, train again what is finished
train: bool | None = None  # train what is not measured; None: if no tables are shipped

# %%
from pathlib import Path

import pandas as pd

from paper_lib.figures import by_label, new_figure, use_style
from paper_lib.study.profiles import get_profile
from paper_lib.training.starts import Study

study = Study(profile=get_profile(profile), data_dir=Path(data_dir))
opd, figures = study.profile.run("opd"), Path(figures_dir) / profile
use_style()

# %% [markdown]
# ## The task
#
# A problem is a short sum. Its demonstration reduces the sum one operation at a time,
# from left to right, and ends with the answer. One token is one character: `?` opens a
# prompt and `$` ends a completion. The answer follows the last `=`, so a verifier needs
# no model. A hash of the prompt decides the split of a problem. No problem is ever in
# two splits, whatever the seed.

# %%
from paper_lib.study.tasks import corrupt, problems, seeded_generator, verify

drawn = problems(opd.tasks[0], split="train", number=20, seed=seed)
examples = sorted(drawn, key=lambda problem: len(problem.demonstration))[::9]
for problem in examples:
    assert verify(problem.demonstration, problem)
    print(f"{problem.prompt}{problem.demonstration}$   answer {problem.answer}")
noisy = corrupt(examples[-1].demonstration, 0.3, seeded_generator("example", seed))
print(f"{examples[-1].prompt}{noisy}$   with 30 % of its digits corrupted")

# %% [markdown]
# The base has learned the task in two stages: from clean traces, then from traces with
# some digits corrupted, as found text would be. It can do the task and samples badly,
# which leaves something to *elicit*. The teacher is a larger model that saw clean
# traces alone. SFT on demonstrations cleaner than the base's last ones makes the
# *anchor*. OPD, RLVR and most controls start from the anchor.

# %% [markdown]
# ## The objectives
#
# One form covers all objectives (§3.3). Completions $y$ come from somewhere, and every
# token has a credit $a_t$. The update follows
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
# The loss of $T$ tokens is $L = -\frac{1}{T} \sum_t a_t \log p_\theta(y_t)$, so that
# $-\nabla L = g / T$. With $a_t = 1$ the loss is the cross-entropy:

# %%
import torch

from paper_lib.training.objectives import credit_weighted_loss

generator = torch.Generator().manual_seed(seed)
logits, y = torch.randn(5, 7, generator=generator), torch.tensor([0, 3, 6, 2, 2])
log_p = logits.log_softmax(-1).gather(1, y[:, None]).T  # (1, T)
ones = torch.ones(1, 5)
loss = credit_weighted_loss(log_p, ones, ones.bool())
assert torch.isclose(loss, torch.nn.functional.cross_entropy(logits, y))

# %% [markdown]
# **OPD.** The gap to the teacher on the sampled token is
#
# $$r_t = \log \pi_\theta(y_t) - \log \pi_T(y_t).$$
#
# One sampled token with the credit $-r_t$ estimates the gradient of the reverse KL
# divergence at that place, the text before it taken as given:
#
# $$\mathbb{E}_{v \sim \pi_\theta} \bigl[ r_v \nabla_\theta \log \pi_\theta(v) \bigr]
# = \nabla_\theta \, \mathrm{KL}(\pi_\theta \,\Vert\, \pi_T).$$
#
# Over a vocabulary of seven words, the expectation is a sum and can be checked:

# %%
from paper_lib.training.objectives import reverse_kl, token_gap

student, teacher = torch.randn(2, 7, generator=generator)
log_p = student.requires_grad_().log_softmax(0)
gap = token_gap(log_p, teacher.log_softmax(0))
expected = (log_p.exp().detach() * gap * log_p).sum()
losses = (expected, reverse_kl(student, teacher))
one, other = (
    torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in losses
)
assert torch.allclose(one, other, atol=1e-6)

# %% [markdown]
# **RLVR.** The advantage of completion $i$ compares its reward $R_i$ with the other
# completions of the same prompt, its group of $G$ (GRPO):
#
# $$A_i = \frac{R_i - \bar R}{s_R + \varepsilon}, \qquad
# s_R^2 = \frac{1}{G - 1} \sum_{j=1}^{G} (R_j - \bar R)^2.$$
#
# All tokens of a completion have the same $A$. One right answer of four is worth 1.5,
# the others lose 0.5, and a group with equal rewards has no advantage. The mix turns
# from one credit to the other:

# %%
from paper_lib.training.objectives import group_advantages, mixed_credit

rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1])
advantage = group_advantages(rewards, 4)
planted = torch.tensor([1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0])
assert torch.allclose(advantage, planted, atol=1e-3)
gap = torch.randn(8, 3, generator=generator)
assert torch.equal(mixed_credit(gap, advantage, 1.0), -gap)
assert torch.equal(mixed_credit(gap, advantage, 0.0), advantage[:, None].expand(8, 3))

# %% [markdown]
# ### The runs
#
# Every further run changes one thing. `opd_exact` takes the divergence over the whole
# vocabulary. Controls keep a share of the tokens (`opd_tokens_…`), sample from the
# teacher (`opd_teacher_rollouts`), or change teacher or task. Others continue a run
# with its gradient or update projected on a subspace (`…_projected_…`). `sft_matched`
# is the run that the paper lacks: SFT at OPD's start, learning rate, batch and steps.
# `paper_lib.study.plan` says of every run what it changes and why. `reference` has all
# of them, `smoke` one of each kind.

# %%
from collections import Counter
from dataclasses import asdict

plan = pd.DataFrame([asdict(run) for run in study.profile.everything]).set_index("name")
plan["seeds"] = pd.Series(Counter(run.name for run, _ in study.profile.planned()))
plan["batch"] = plan["prompts_per_step"] * plan["samples_per_prompt"]
distilled = plan["objective"].isin(["opd", "mix"])
plan["teacher"] = plan["teacher"].where(distilled, "–")
main_runs = ["sft", "sft_matched", "opd", "rlvr"]

# %%
heads = {"learning_rate": "learning rate", "prompts_per_step": "prompts a step"}
heads |= {"samples_per_prompt": "samples a prompt"}
shown = [
    "start",
    "steps",
    "learning_rate",
    "schedule",
    *[*heads][1:],
    "batch",
    "teacher",
    "seeds",
]
print(f"{len(plan)} runs are planned, of which these are the main ones:")
by_label(plan.loc[main_runs, shown].rename(columns=heads))

# %% [markdown]
# In the paper, SFT takes 5,375 steps at a rate of $10^{-5}$. OPD takes 300 steps and
# RLVR 1,024 steps at $10^{-6}$. So SFT differs from the other two in its start, rate,
# schedule, length and batch at once. Our `sft` differs in the same ways. Our OPD and
# RLVR have equal batches and steps, which the paper's have not. What follows from the
# schedule shows between `sft` and `sft_matched`.
#
# One difference is left between `sft_matched` and OPD: the same batch holds other
# prompts. SFT reads one demonstration of each prompt, OPD and RLVR sample several
# completions.

# %% [markdown]
# ## Training
#
# Every run goes to a folder of its own, `runs/<profile>/<run>/seed_<seed>/`. It holds
# float32 snapshots, a table of curves, and `run.json`, written last. A run whose folder
# matches its configuration is left alone. A run that was stopped goes on from its last
# snapshot and ends in the same weights.
#
# Snapshots are large and stay on the machine that made them. The tables that
# `02_extract` makes of them are small. A run with rows in the tables, computed from
# what the profile plans now, is therefore not trained again, unless a missing run
# starts from it. Where the tables are committed, as those of `reference` are, nothing
# is trained unless `train` says so.

# %% tags=["remove-stdout"]
from paper_lib.training.study import train_study

options = {"workers": workers, "force": force, "train": train}
directories = train_study(profile, data_dir=data_dir, **options)

# %%
from paper_lib.measure.extract import training_curves

curves, used = training_curves(study)
snapshots = sum(len(list(folder.glob("step_*.safetensors"))) for folder in directories)
known = curves.groupby(["run", "seed"]).ngroups
print(f"{len(study.profile.planned())} runs are planned, five seeds counted as five.")
print(f"{known} have results: rows in the tables, or a folder on this disk.")
print(f"{len(directories)} have weights on this disk, {snapshots} snapshots in all.")

# %% [markdown]
# The figures of this notebook and of the later ones need the rows alone. The weights of
# a run are needed to measure something new in it, or to go on from it.

# %% [markdown]
# ## Credit, token by token
#
# The base samples completions of eight problems, and the teacher scores them. We take a
# long completion, a wrong one if there is any, and compare what the objectives would
# have the base learn from it. In the study, OPD and RLVR start from the anchor instead.
# The base is used here because it is there before any run.

# %%
from dataclasses import replace

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
gap = token_gap(log_p, teacher_log_p)
advantage = group_advantages(batch.rewards, 8)
lengths, wrong = batch.completion_mask.sum(1).tolist(), (1 - batch.rewards).tolist()
row = max(
    range(len(wrong)), key=lambda r: (wrong[r], lengths[r])
)  # wrong first, then long
length = lengths[row]
ids = batch.completion_ids[row, :length].tolist()
tokens = policy.tokenizer.convert_ids_to_tokens(ids)
prompt = policy.tokenizer.decode(batch.prompt_ids[row // 8], skip_special_tokens=True)
print(f"{prompt}{''.join(tokens)}")
print(f"reward {batch.rewards[row]:.0f}, advantage {advantage[row]:.2f}")

# %%
chances = {"student": log_p[row].exp(), "teacher": teacher_log_p[row].exp()}
table = {f"probability, {name}": p[:length].tolist() for name, p in chances.items()}
table |= {"token": tokens, "gap (nats)": gap[row, :length].tolist()}
table = pd.DataFrame(table).set_index("token").round(3) + 0.0  # −0 becomes 0
table.map("{:.3f}".format).T

# %% [markdown]
# **Claim (§3.3).** OPD's credit is dense: it differs from token to token and points at
# the mistakes. RLVR has one number for a whole completion. SFT never sees the
# completion. A gap that is spread evenly over right and wrong tokens would refute the
# claim.

# %%
from paper_lib.figures import draw_legend, save_figure
from paper_lib.teaching.rollout import draw_credit

models = study.models_folder
weights = [models / name / "model.safetensors" for name in ("base", "teacher")]
worst = int(gap[row, :length].argmax())
lost, said = gap[row, worst].item(), advantage[row].item()
words = f"OPD's credit falls to −{lost:.1f} nats, RLVR's is {said:.2f} on every token"

# %%
title = words.replace("-", "−")
fig, (dense, one) = new_figure(
    2, height=3.4, title=title, height_ratios=(3, 1), sharex=True
)
draw_credit(dense, one, tokens, gap[row, :length], advantage[row])
one.set_xlabel(f"completion of {prompt}")
draw_legend(fig)
caption = (
    "The credit that OPD and RLVR give to every token of one completion sampled by the "
    "base."
)
save_figure(fig, "fig_token_credit", figures, inputs=weights, caption=caption)

# %% [markdown]
# Each bar at the top of `fig_token_credit` is the teacher's verdict on one token that
# the student chose. The bar is near zero where teacher and student agree, and far below
# zero where the teacher would hardly have written the token. Beyond ±1 its axis is
# logarithmic. Find the first long bar and check the arithmetic there. The tokens after
# a mistake are judged with the mistake given, so a consistent continuation is likely to
# the teacher again.
#
# RLVR's credit is the same for all tokens. It is zero where all completions of a
# problem are right, and where all are wrong.

# %% [markdown]
# ## Learning curves
#
# **Claim (the premise of §3).** Every objective improves its student: SFT the base, OPD
# and RLVR the anchor, with headroom left below the teacher. Where a run has not
# improved, its geometry says nothing of learning.
#
# Accuracy (avg@8) is that of eight answers a problem, sampled at temperature 1. The
# *greedy* accuracy is that of one answer a problem, made of the likeliest tokens.
# Curves come from the tables where a run is measured, and otherwise from its folder.

# %%
from paper_lib.training.rollouts import accuracy

evaluation, home = study.profile.evaluation, opd.tasks[0]
number = evaluation.snapshot_problems
asked = problems(home, split="validation", number=number, seed="evaluation")
sampling = {"samples": evaluation.samples, "max_new_tokens": opd.max_new_tokens}
best = accuracy(policy.teacher, policy.tokenizer, asked, seed="teacher", **sampling)
print(
    f"teacher: {100 * best['sampled_accuracy']:.1f} % of the sampled answers are right,"
)
print(f"{100 * best['greedy_accuracy']:.1f} % of the greedy ones, on {number} problems")

# %%
from paper_lib.figures import scores

lines = {run: scores(curves, [run]).set_index("step") for run in main_runs}
first = pd.DataFrame({run: 100 * line.iloc[0] for run, line in lines.items()}).T
last = pd.DataFrame({run: 100 * line.iloc[-1] for run, line in lines.items()}).T
gain = last["mean"] - first["mean"]
error = (first["error"] ** 2 + last["error"] ** 2) ** 0.5
greedy = (
    curves.query("metric == 'greedy_accuracy'").groupby(["run", "step"])["value"].mean()
)
ends = 100 * greedy.groupby("run").agg(["first", "last"])

# %%
from paper_lib.figures import draw_accuracy, draw_beside, draw_chance, run_style

panels = {"from the base": ["sft"], "from the anchor": ["opd", "rlvr", "sft_matched"]}
panels["variants of OPD"] = [
    "opd",
    "opd_exact",
    "opd_small_teacher",
    "opd_teacher_rollouts",
]


def draw_greedy(ax, run):
    line, color = greedy[run], run_style(run).color
    label = "greedy answers, in the colour of the run"
    x = line.index / line.index.max()
    draw_beside(ax, x, line, label, color=color, linestyle=":", linewidth=1)


# %%
words = "Points gained: OPD {opd:.1f}, RLVR {rlvr:.1f}, matched SFT {sft_matched:.1f}"
fig, axes = new_figure(1, 3, height=3.5, sharey=True, title=words.format(**gain))
for ax, (title, runs) in zip(axes, panels.items(), strict=True):
    draw_accuracy(ax, curves, runs=runs)
    for run in runs:
        draw_greedy(ax, run)
    draw_chance(ax, best["sampled_accuracy"], "teacher")
    ax.set_title(title)
axes[0].set_ylabel("validation accuracy (avg@8)")
draw_legend(fig)
caption = (
    "Validation accuracy of the main runs and variants of OPD while they train, beside "
    "the teacher's."
)
save_figure(fig, "fig_training_curves", figures, inputs=used, caption=caption)

# %% [markdown]
# `fig_training_curves` shows the seeds that all runs of a panel have. The band and the
# bars at the right are the 95 % interval over seeds where there are three. With fewer
# they are the standard error of the evaluation, over problems and not over training.
# The runs of the middle and right panels start from the weights in which the left one
# ends. A curve that ends within the errors of its start is no evidence of learning.
#
# The dotted lines are the caveat of this study. Where a dotted line is at the top all
# along, the student knew every answer before the run, and sampling alone improved.

# %% [markdown]
# ## Try it: whose credit?
#
# Take a wrong completion and turn $\alpha$ from 1 (OPD) to 0 (RLVR): the credit leaves
# the wrong tokens and spreads over all. Then take a problem whose eight rewards are
# equal. There $A = 0$, and OPD alone has something to say.

# %%
from paper_lib.teaching.rollout import play_rollouts, rollout_record
from paper_lib.training.train import step_problems

posed = step_problems(from_base, seed, 0, from_base.prompts_per_step)
record = rollout_record(batch, log_p, teacher_log_p, policy.tokenizer, posed)
play_rollouts(record, row=row)

# %% [markdown]
# ## What we found
#
# The gain is the accuracy of the last snapshot less that of the first, on the same
# validation problems. Its error is computed as if the problems were drawn anew each
# time, so it is too large rather than too small. *Agrees* and *disagrees* need two
# errors. The greedy column has both ends.

# %%
claims = pd.DataFrame(columns=["claim", "paper, AIME 2024 (first draft)"])
claims.loc["sft"] = "SFT improves the base", "55.5 after SFT"
claims.loc["opd"] = "OPD improves the anchor", "55.5 → 63.3"
claims.loc["rlvr"] = "RLVR improves the anchor", "not printed"
claims.loc["sft_matched"] = "so does SFT at OPD's rate, batch and steps", "no such run"

# %%
steps = {"ours, sampled (%)": (first["mean"], last["mean"])}
steps["ours, greedy (%)"] = (ends["first"], ends["last"])
for head, (start, end) in steps.items():
    claims[head] = start.map("{:.1f} → ".format) + end.map("{:.1f}".format)
claims["gain (points)"] = gain.map("{:.1f} ± ".format) + error.map("{:.1f}".format)
words = ["disagrees", "unclear", "agrees"]
claims["agrees?"] = pd.cut(
    gain / error, [-float("inf"), -2, 2, float("inf")], labels=words
)
claims.reset_index(drop=True)

# %% [markdown]
# Compare the two columns of ours. A run whose greedy column is at 100 at both ends
# teaches its student no sum that the student could not do. Such a run *sharpens*:
# sampled at temperature 1, the student slips less often. A run whose greedy column
# rises teaches new sums. Three things follow for a run that sharpens.
#
# - Its accuracy, and its gain over the anchor, say how seldom sampling errs.
# - A loss under projected training (C11) is sharpening that was not gained, and no
#   skill that was lost.
# - Whether learning something new has the same geometry cannot be seen in it. The paper
#   reports avg@8 too, which does not tell the two kinds of gain apart.

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 01-1 — How much more does SFT see? (5 minutes)
#
# In the paper, SFT takes 5,375 steps of 256 sequences. OPD takes 300 steps of 64
# sequences, eight samples for each of eight prompts. How many times as many sequences
# does SFT see as OPD?
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
# SFT sees $5375 \cdot 256 = 1\,376\,000$ sequences and OPD $300 \cdot 64 = 19\,200$,
# about 72 times fewer: four times fewer a step, and nearly eighteen times fewer steps.
# The paper compares the two updates as if the objective were what differs.
# `sft_matched` is the run that has OPD's start, rate, steps and batch.
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
# Write RLVR's advantage (GRPO) for the completions of one prompt: the reward less the
# mean of the group, over the group's standard deviation (the one with $G - 1$). What
# must it be where all rewards are equal?
#
# <details><summary>Hint</summary>
#
# `rewards.std()` of a tensor divides by $G - 1$. Try it on `torch.ones(4)`, then divide
# by it.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of rewards, a (G,) tensor, that returns (G,)
check("01-2", answer)


# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# A small number is usually added to the deviation. It makes the advantage of a group
# without variance 0 and changes others by less than a thousandth. Such a group teaches
# RLVR nothing: its line in the figure on credit is at zero. OPD still learns from it,
# as the teacher judges every token of right answers too.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(rewards):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


verdict = check("01-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 01-3 — Why the negative gap is the right credit (25 minutes)
#
# OPD samples a token $v$ from the student's $p$ and gives it the credit
# $-r_v = \log q_v - \log p_v$, where $q$ is the teacher's distribution. Write the
# gradient of the reverse KL, $\sum_v p_v r_v$, with respect to the student's logits,
# without automatic differentiation. It is the mean over the student's samples of
# $r_v \nabla \log p_v$, although $r_v$ itself depends on the logits: why?
#
# <details><summary>Hint</summary>
#
# For a softmax, $\nabla \log p_v = e_v - p$, with $e_v$ the $v$-th unit vector. The
# term in which $r_v$ is differentiated is the mean of $\nabla \log p_v$ itself.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of logits and teacher_logits, (V,) tensors, that returns (V,)
check("01-3", answer)


# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Differentiate $\sum_v p_v r_v$ as a product. One part is
# $\sum_v p_v r_v \nabla \log p_v$, the mean that sampling estimates. The other part is
# $\sum_v p_v \nabla \log p_v = \nabla \sum_v p_v = \nabla 1 = 0$.
#
# With $\nabla \log p_v = e_v - p$, entry $v$ of the first part is
# $p_v (r_v - \sum_w p_w r_w)$: a token gains where its gap is below the mean gap.
# Averaged over the *teacher's* samples, the same credit is no longer this gradient,
# which makes teacher rollouts another experiment (C13).
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
