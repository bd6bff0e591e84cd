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
# # Can the channel be watched, and held, while a model trains?
#
# **Question.** The paper finds that OPD's update enters a narrow channel early (§4.2,
# Fig. 5) and that training inside it costs nothing (Fig. 6). Its advice is to monitor
# the subspace of the update, or to constrain it. Do two callbacks on TRL's own trainers
# show the channel as it forms? Is it OPD's alone, once SFT and RLVR train with the same
# rate, batch and steps? And what does each of them lose inside its own channel?
#
# **In this notebook**
#
# - two planted cases: what a random walk looks like to such a monitor, and what a
#   projected step leaves outside;
# - thirty lines: `SFTTrainer`, `DistillationTrainer` and `GRPOTrainer`, each watched by
#   a `GeometryCallback`;
# - `fig_live_channel`: stable rank, $\mathrm{Sim}_K$ and the share of each new stretch
#   inside the channel, beside chance;
# - `fig_live_confined`: the same runs, confined by a `SubspaceProjection` from a fifth
#   of the way on, beside the free ones.
#
# Everything here is trained anew when the notebook runs, with every profile: six runs
# of twenty steps, half a minute on two free cores. It needs TRL, which every
# `make` installs, and `pip install .[live]`.

# %% tags=["parameters"]
profile: str = "laptop"  # whose models and problems
data_dir: str = "data"  # the runs go to live/<profile>/ below it
figures_dir: str = "figures"  # figures go to <profile>/ below it
seed: int = 0  # of problems and trainers
steps: int = 20  # of each run
rate: float = 1e-4  # learning rate of all runs
K: int = 8  # directions of the channel, of each matrix

# %% tags=["setup"]
from pathlib import Path

import pandas as pd
import torch
from huggingface_hub import constants

from paper_lib.figures import use_style
from paper_lib.live.callbacks import require_trl
from paper_lib.study.profiles import get_profile

constants.HF_HUB_DISABLE_TELEMETRY = True  # TRL would report the run
torch.set_num_threads(1)  # a model this small gains nothing from two
study, version = get_profile(profile), require_trl()
models, folder = Path(data_dir) / study.models, Path(data_dir) / "live" / profile
figures = Path(figures_dir) / profile
use_style()
print(f"TRL {version}, models of {models}, runs in {folder}")

# %% [markdown]
# ## What a monitor may be fooled by
#
# Let $V_K(t)$ hold the top $K$ right singular vectors of $\Delta W_t = W_t - W_0$, a
# matrix with $n$ columns, and let $s < t$ be two steps at which it is measured. Two
# numbers say whether the update stays where it was:
#
# $$\mathrm{Sim}_K = \tfrac{1}{K} \lVert V_K(s)^\top V_K(t)\rVert_F^2, \qquad
# \frac{\lVert (W_t - W_s)\, V_K(s)\rVert_F^2}{\lVert W_t - W_s\rVert_F^2}.$$
#
# Both are $K/n$ by chance. The first is not evidence, since $\Delta W_t$ *contains*
# $\Delta W_s$. Twenty steps of a random walk, measured at 18 and at 20, look aligned.
# The second is the share of the new stretch inside the channel. It shares no step with
# what the channel was taken from, and the walk has what chance gives it:

# %%
from paper_lib.geometry import random_walk, subspace_alignment
from paper_lib.geometry import top_right_singular_vectors
from paper_lib.live.watch import inside

generator = torch.Generator().manual_seed(0)
walk = random_walk([1.0] * 20, (64, 64), generator).double()
before, after = (top_right_singular_vectors(walk[t - 1], 8) for t in (18, 20))
similarity = subspace_alignment(before, after).item()
share = inside(walk[19] - walk[17], before)
assert similarity > 3 * 8 / 64
assert abs(share - 8 / 64) < 0.05
print(f"a walk has Sim_8 = {similarity:.2f}, stretch {share:.2f}; chance {8 / 64:.2f}")

# %% [markdown]
# ## What a projected step leaves outside
#
# `SubspaceProjection` takes $V_K$ from the run's own update and from then on replaces
# each step of the optimizer by its part inside:
#
# $$W \leftarrow W + (W' - W)\, V_K V_K^\top.$$
#
# $W'$ is what the optimizer made of $W$, its weight decay included. (The paper projects
# the gradient instead, and Adam leaves the subspace again: exercise 05-4.) It is two
# hooks of a `torch.optim.Optimizer`, so it works in any loop, here in one of two steps.
# The first is free and gives the channel; the second is confined:

# %%
from paper_lib.live import GeometryCallback, SubspaceProjection
from paper_lib.study.tasks import problems, verify
from paper_lib.training.models import load_model

student, tokenizer = load_model(models / "base")
optimizer = torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=0.1)
projection = SubspaceProjection(K=K, after=0.5)
projection.attach(student, optimizer, steps=2)
query = student.model.layers[0].self_attn.q_proj.weight
for ids in torch.randint(8, 18, (2, 4, 12), generator=generator):
    start = query.detach().double()
    student(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()

# %%
v_k = projection.bases["right.model.layers.0.self_attn.q_proj.weight"]
outside = 1 - inside(query.detach().double() - start, v_k)
assert outside < 1e-6
lost = 100 * (1 - projection.share_inside)
print(f"of AdamW's step {lost:.0f} % lay outside the channels")
print(f"of the step that was taken {max(outside, 0):.0e}")

# %% [markdown]
# ## Three trainers, watched
#
# All three start from the same student and see the same problems. They have one
# learning rate, one batch of 32 completions and one number of steps, which no table of
# the paper has: there SFT sees far more data at a far higher rate.

# %%
from datasets import Dataset, disable_progress_bars
from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer
from trl import SFTConfig, SFTTrainer

run = study.run("opd")
drawn = problems(run.tasks[0], split="train", number=32 * steps, seed=("live", seed))
by_prompt = {problem.prompt: problem for problem in drawn}
rows = [{"prompt": p.prompt, "completion": p.demonstration} for p in drawn]
demonstrations = Dataset.from_list(rows)
prompts = demonstrations.remove_columns("completion")
teacher, _ = load_model(models / run.teacher)
disable_progress_bars()


# %%
def reward(prompts, completions, **_):
    pairs = zip(prompts, completions, strict=True)
    return [float(verify(text, by_prompt[prompt])) for prompt, text in pairs]


common = {"max_steps": steps, "learning_rate": rate, "lr_scheduler_type": "constant"}
common |= {"per_device_train_batch_size": 32, "seed": seed, "logging_steps": 1}
common |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
sampled = {"max_completion_length": run.max_new_tokens}

# %%
data = {"train_dataset": prompts, "processing_class": tokenizer}
taught = data | {"teacher_model": teacher}
shown = data | {"train_dataset": demonstrations}
graded = data | {"reward_funcs": reward}
kinds = {
    "sft": (SFTTrainer, SFTConfig, {}, shown),
    "opd": (DistillationTrainer, DistillationConfig, sampled, taught),
    "rlvr": (GRPOTrainer, GRPOConfig, sampled | {"num_generations": 8}, graded),
}


# %% [markdown]
# `add_to` is all that a trainer needs. The callback counts the optimizer's steps, reads
# eight matrices at every second one, logs the means through the trainer's own log, and
# leaves a table. $\Delta W$ is taken against the weights at the start, so that no
# checkpoint has to be saved.

# %%
from transformers import PrinterCallback


def trainer_of(kind, name):
    Trainer, Config, more, given = kinds[kind]
    args = Config(**common, **more, output_dir=str(folder / name), run_name=name)
    return Trainer(load_model(models / "base")[0], args=args, **given)


logs = {}
for kind in kinds:
    trainer = trainer_of(kind, kind)
    trainer.remove_callback(PrinterCallback)  # a line a step
    GeometryCallback(every=2, spectra_every=2, K=K).add_to(trainer)
    trainer.train()
    trainer.save_state()
    logs[kind] = pd.DataFrame(trainer.state.log_history).set_index("step")

# %% [markdown]
# What the trainer logs is what TensorBoard, trackio or W&B would be sent. A warning
# says when the channel *locks* ($\mathrm{Sim}_K$ above 0.9 twice in a row; its $V_K$ is
# then kept) and when a stretch *leaves* it. The table has the columns of every other
# table here, and `compare` reads it:

# %%
from paper_lib.compare.summary import read_comparison

geometry = [folder / kind / "geometry" for kind in kinds]
watched = pd.concat(read_comparison(each).matrices for each in geometry)
means = watched.groupby(["run", "step", "metric"])["value"].mean().unstack("metric")
measured = ["frobenius_norm", "drift_ratio", "update_sparsity", "null_update_sparsity"]
assert means["update_sparsity"].between(0, 1).all()
ends = means.xs(steps, level="step")[measured].loc[list(kinds)].map("{:#.3g}".format)
ends.rename(index=str.upper, columns=lambda metric: metric.replace("_", " "))

# %% [markdown]
# A drift ratio near 1 is what Adam makes of noise, and the sparsity's null is a
# Gaussian update of the same norm, so that these four say how far the run went more
# than where to.
#
# **Claim (§4.1, §4.2; C7, C10).** OPD's update has a low stable rank and points early
# where it will go on. A monitor would refute it if the rank were that of noise, or if
# the new stretches fell to chance. The claim is of OPD alone, and the other two lines
# refute *that* if they look alike.

# %%
import matplotlib.pyplot as plt

from paper_lib.figures import draw_chance, draw_legend, draw_trajectory, plain_log
from paper_lib.figures import save_figure

panels = {
    "stable_rank": ("stable rank", "null_stable_rank"),
    "alignment_to_last": (r"$\mathrm{Sim}_K$ to the last", "null_alignment"),
    "channel_share_of_stretch": ("stretch inside channel", "null_alignment"),
}
stays = means["channel_share_of_stretch"].groupby("run").last()
chance = means["null_alignment"].iloc[-1]
words = ", ".join(f"{kind.upper()} {100 * stays[kind]:.0f} %" for kind in kinds)
tables = [each / "matrices.parquet" for each in geometry]

# %%
caption = (
    "Three trainers of TRL at one rate, batch and number of steps, watched while they "
    "train: stable rank, similarity to the last measurement, and the share of each new "
    "stretch inside the channel."
)

# %%
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
for ax, (metric, (title, null)) in zip(axes, panels.items(), strict=True):
    draw_trajectory(ax, watched, metric, runs=list(kinds), against="step")
    draw_chance(ax, means[null].iloc[-1])
    ax.set(title=title, xlim=(0, steps + 1))
for ax in axes[1:]:
    ax.set_ylim(0, 1)
plain_log(axes[0])
words += f" (chance {100 * chance:.0f} %)"
fig.suptitle(f"Of the last stretch inside: {words}", fontsize=9)
draw_legend(fig, seeds=False)
save_figure(fig, "fig_live_channel", figures, inputs=tables, caption=caption)

# %% [markdown]
# Dashed is chance: the rank of a Gaussian matrix, and $K/n$. The middle panel rises for
# a walk too; the right one does not. Its line begins where the channel has locked.
# Compare the three colours before reading one of them: a channel that SFT and RLVR have
# as well, at the same settings, belongs to the model and to Adam, and not to an
# objective.

# %% [markdown]
# ## The same runs, confined
#
# **Claim (§4.2, Figs 6 and 8; C11).** Inside the subspace that a fifth of the run has
# found, OPD trains as well as outside, and SFT does not. It would be refuted by an OPD
# that falls behind its free run, or by an SFT that keeps up.

# %%
shares = {}
for kind in kinds:
    trainer = trainer_of(kind, f"{kind}_projected_early")
    trainer.remove_callback(PrinterCallback)
    GeometryCallback(every=2, spectra_every=2, K=K).add_to(trainer)
    projection = SubspaceProjection(K=K, after=0.2).add_to(trainer)
    trainer.train()
    trainer.save_state()
    logs[f"{kind}_projected_early"] = pd.DataFrame(trainer.state.log_history)
    shares[kind] = projection.share_inside

# %% [markdown]
# Until the channel is taken, a confined run *is* its free run, number for number:

# %%
scores = {"sft": "loss", "opd": "loss", "rlvr": "reward"}
curves = {name: log.reset_index().set_index("step") for name, log in logs.items()}
curves = {name: c[scores[name.split("_")[0]]].dropna() for name, c in curves.items()}
branch = max(1, round(0.2 * steps))
for kind in kinds:
    free, confined = curves[kind], curves[f"{kind}_projected_early"]
    assert (free - confined)[:branch].abs().max() < 1e-3, kind

# %%
from paper_lib.figures import run_style
from paper_lib.figures.words import tell

late = {name: curve.tail(steps // 4).mean() for name, curve in curves.items()}
gaps = {kind: late[f"{kind}_projected_early"] - late[kind] for kind in kinds}
titles = {"sft": "negative log-likelihood", "opd": "reverse KL", "rlvr": "share right"}
words = ", ".join(f"{kind.upper()} {gap:+.3f}" for kind, gap in gaps.items())
words = words.replace("-", "−")
states = [folder / name / "trainer_state.json" for name in curves]
caption = (
    "Free and confined runs: what SFT and OPD minimise and the share of right answers "
    "in RLVR, step by step. From the dashed line on each step is projected on the "
    "run's own early channel."
)

# %%
fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
for ax, kind in zip(axes, kinds, strict=True):
    for name in (kind, f"{kind}_projected_early"):
        style = run_style(name)
        ax.plot(curves[name], label=style.label, **style.line)
        tell(ax, style.label, curves[name])
    draw_chance(ax, branch, "channel taken", axis="x")
    ax.set(title=titles[kind], xlabel="step", xlim=(0, steps + 1))
fig.suptitle(f"Confined less free, last quarter: {words}", fontsize=9)
draw_legend(fig, seeds=False)
save_figure(fig, "fig_live_confined", figures, inputs=states, caption=caption)

# %% [markdown]
# Losses are per token, lower is better; in the right panel higher is. Each point is one
# batch of 32 completions, so that two lines of RLVR differ by some hundredths for no
# reason. Where a confined line lies on its free one, the steps that were thrown away
# were not needed. How much was thrown away, of the last step:

# %%
named = [f"{kind}_projected_early" for kind in kinds]
held = pd.concat(read_comparison(folder / name / "geometry").matrices for name in named)
ends = pd.concat([watched, held])[["run", "step", "metric", "value"]]
ends = ends[ends["step"] == steps].groupby(["metric", "run"])["value"].mean()
table = pd.DataFrame({"inside, of the last proposed step": shares})
for metric, words in (("stable_rank", "stable rank"), ("frobenius_norm", "norm")):
    table[f"{words}, free"] = ends[metric].loc[list(kinds)].to_numpy()
    table[f"{words}, confined"] = ends[metric].loc[named].to_numpy()
assert table.iloc[:, 0].between(0, 1).all()
table.rename(index=str.upper).map("{:#.3g}".format)

# %% [markdown]
# ## What we found
#
# | claim | paper | ours, one seed | agrees? |
# |---|---|---|---|
# | the update has few directions | OPD's band is narrow | in all three | for all |
# | it stays in its channel | OPD, from the start | stretches above chance | for all |
# | the channel is enough | for OPD, not for SFT | gaps in the last title | for all |
#
# The callbacks see the channel within twenty steps, and hold a run in it. At equal
# settings it is no mark of OPD. One seed decides nothing: the ledger of `06_controls`
# judges these claims over seeds, with SFT matched and with K = 0 beside them.

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 08-1 — What does watching cost? (5 minutes)
#
# You train Qwen3-8B in bf16 and watch the query matrix of all its 36 layers, each of
# $4{,}096 \times 4{,}096$. The callback keeps $W_0$ and the weights at the last
# measurement of every watched matrix as they are stored, and takes one matrix at a time
# into float64, as $W_t$ and as $W_0$. How many GB ($10^9$ bytes) of memory is that?
#
# <details><summary>Hint</summary>
#
# A number in bf16 has two bytes, one in float64 has eight. Which of the two terms grows
# with the number of layers?
#
# </details>

# %% tags=["exercise"]
answer = ...  # one number, in GB
check("08-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Two copies of 36 matrices in two bytes, and two of one matrix in eight: about 2.7 GB,
# a tenth of which is float64. All 252 projection matrices would ask for ten times as
# much, which is why a sample of eight is the default.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
entries = 4096 * 4096
answer = (2 * 36 * entries * 2 + 2 * entries * 8) / 1e9
verdict = check("08-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 08-2 — Has it left the channel? (10 minutes)
#
# Write the number that tells a locked run from a walk: the share of the new stretch
# $W_t - W_s$ inside the span of $V_K$, which has orthonormal columns.
#
# <details><summary>Hint</summary>
#
# What is $\lVert X V_K\rVert_F^2$ if every row of $X$ lies in the span?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of tensors, w_0, w_s, w_t (m, n), v_k (n, K): energy's share
check("08-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $W_0$ has no part in it. With $W_t - W_0$ in place of the stretch one measures what
# the update did before $s$ once more, and a run that left its channel a moment ago
# still looks locked.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w_0, w_s, w_t, v_k):
    stretch = w_t - w_s
    return (stretch @ v_k).square().sum() / stretch.square().sum()


verdict = check("08-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 08-3 — Confined from both sides (10 minutes)
#
# `SubspaceProjection(side="both")` keeps rows of a step in the span of $V_K$, and its
# columns in that of $U_K$. Write what it does to a matrix that the optimizer has moved
# from $W$ to $W'$.
#
# <details><summary>Hint</summary>
#
# Start from $W \leftarrow W + (W' - W)\, V_K V_K^\top$. On which side of a matrix do
# its columns get projected?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w, w_new (m, n), u_k (m, K), v_k (n, K): the weights
check("08-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# $W + U_K U_K^\top (W' - W) V_K V_K^\top$. The step alone is projected: projecting $W'$
# would throw the pretrained weights away. The free step has $mn$ numbers, one that is
# confined on the right $mK$, and this one $K^2$.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w, w_new, u_k, v_k):
    return w + u_k @ (u_k.mT @ (w_new - w) @ v_k) @ v_k.mT


verdict = check("08-3", answer)
assert verdict.right, verdict
verdict
