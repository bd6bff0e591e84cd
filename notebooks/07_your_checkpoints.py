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
# # Where does a run lie between SFT, OPD and RLVR?
#
# **Question.** Two checkpoints of a model differ by an update of each matrix. The paper
# describes the updates of SFT, OPD and RLVR (§3.2, §4.1; C1–C9). Did this one train at
# all? Which of the three does it resemble, metric by metric? How much of the
# resemblance is no more than its size?

# %% [markdown] tags=["notebook"]
# **In this notebook**
#
# - the answer in words, computed from the tables, and what each of its lines means;
# - every metric on one scale with the paper's values, our reference runs and the nulls;
# - the rank that a LoRA would need, intruder dimensions and the size of a patch;
# - another update of the same base beside this one, where there is one (`--with`);
# - the update by layer and module, its path, and what was left out.
#
# `python -m paper_lib compare BASE FINETUNED --out DIR` fills a folder with tables and
# runs this notebook on it. By itself it compares two models of the profile, the student
# before and after it read sloppy text: under half a minute with every profile.

# %% tags=["parameters"]
profile: str = "laptop"  # whose models are compared where results_dir is empty
data_dir: str = "data"  # where the profile's models are
figures_dir: str = "figures"  # <profile>/ below it, or <results_dir>/figures/
results_dir: str = ""  # a folder that `compare` filled; empty: the profile's two models

# %% tags=["setup", "remove-stdout"]
from pathlib import Path

from paper_lib.compare.placing import REFERENCE
from paper_lib.compare.run import compare_profile
from paper_lib.compare.summary import read_comparison, summary
from paper_lib.figures import use_style
from paper_lib.ground.tables import read_table
from paper_lib.study.profiles import get_profile

study = get_profile(profile)
folder = Path(results_dir) if results_dir else compare_profile(study, data_dir)
compared = read_comparison(folder)
reference, inputs = read_table(REFERENCE), [REFERENCE, *compared.paths]
told = summary(compared, reference)
figures = folder / "figures" if results_dir else Path(figures_dir) / profile
use_style()

# %% [markdown]
# ## The answer

# %%
from IPython.display import Markdown

from paper_lib.compare.answer import answer

Markdown(answer(told))

# %% [markdown] tags=["notebook"]
# Read it from the top, and stop where a line says that there is nothing to read.
#
# | line | what it means |
# |---|---|
# | *A against B: n matrices* | what was compared; an embedding is told apart |
# | *never moved* | frozen, or an update below the resolution of what is stored |
# | *no step of Adam can move …* | weights that cannot train in bf16 alone |
# | *identical* | nothing changed, and nothing else is said |
# | *at, near, between, beyond* | the place among the three, metric by metric |
# | *the norm alone explains …* | these metrics do not tell how it was trained |
# | *no more than its size* | neither does anything else here |
# | *stable rank* | few directions (small) or all of them (the value of the null) |
# | *of the norm is rounding* | what storing 16 bits added to the update |
#
# The same is in `summary.json` for machines; `compare --fail-if` makes it an exit
# status.

# %% [markdown]
# A metric is *at* a regime inside the values that are printed for it, *near* it within
# a quarter of the gap to the next regime, *between* two in the rest of the gap, and
# *beyond* the outermost past that quarter. Gaps are measured in log-odds for shares and
# in logarithms for all else. Nothing is averaged over metrics: where they disagree, the
# run resembles no single one of the three. A null *explains* a value when the two
# differ by no more than a point, or a tenth for what is no share. Sparsity counts every
# weight alike, all else every matrix, in these sentences as in the figure and the
# tables.

# %% [markdown] tags=["notebook"]
# The null behind "the norm alone explains" keeps one number of the update, its norm,
# and forgets the rest:
#
# $$ \Delta\tilde W = \Vert\Delta W\Vert_F \, \frac{Z}{\Vert Z\Vert_F},
# \qquad Z_{ij} \sim \mathcal N(0, 1). $$
#
# A weight shows it where $|\Delta\tilde W_{ij}| > \frac{1}{2}\mathrm{ULP}(W_{0,ij})$.
# Two planted updates of equal norm, one of rank four and one without structure, then
# have about the same sparsity, and not the same stable rank.

# %% tags=["notebook"]
import torch

from paper_lib.geometry import stable_rank, update_sparsity
from paper_lib.geometry.nulls import same_norm_gaussian

seed = torch.Generator().manual_seed(0)
w = torch.randn(256, 256, generator=seed).bfloat16()
u, v = (torch.randn(*shape, generator=seed) for shape in ((256, 4), (4, 256)))
planted = 0.005 * u @ v
null = same_norm_gaussian(planted, seed)

# %% tags=["notebook"]
shares = [100 * update_sparsity(w, w + delta).item() for delta in (planted, null)]
ranks = [stable_rank(delta).item() for delta in (planted, null)]
assert abs(shares[0] - shares[1]) < 5
assert ranks[0] < 4 < 50 < ranks[1]
words = "sparsity {:.1f} and {:.1f} %, stable rank {:.3g} and {:.3g}"
print(words.format(*shares, *ranks))

# %% [markdown]
# ## On one scale
#
# **Claim (§3.2, §4.1; C1–C9).** SFT, OPD and RLVR are in this order in sparsity,
# overlaps, rotation and spectral shift. A run of one of these kinds should lie by its
# own kind in all of them, and clear of the nulls; it does not, where the star falls
# elsewhere or on the grey marks.

# %%
import matplotlib.pyplot as plt

from paper_lib.compare.answer import draw_place
from paper_lib.compare.placing import PAPER_WIDTH, axes_of, comparable
from paper_lib.figures import draw_legend, save_figure

caption = (
    "This run, its nulls, our reference runs and the paper's values; a title has the "
    "run's value, and its place on the paper's scale or else on ours. Rotation is the "
    "mean principal angle of U and V; the paper leaves open which its values are."
)

# %%
drawn = axes_of(compared.matrices)
size = {"figsize": (4, 1.25 * len(drawn) + 0.7), "layout": "constrained"}
fig, axes = plt.subplots(len(drawn), 1, squeeze=False, **size)
for ax, axis in zip(axes.flat, drawn, strict=True):
    fits = comparable(axis, compared.account["width"], PAPER_WIDTH)
    paper = axis.spans() if fits else {}
    draw_place(ax, axis, compared.matrices, compared.nulls, reference, paper=paper)
    found = told["metrics"][axis.name]
    words = [axis.show(found["value"]), found["paper"] or found["ours"]]
    ax.set_title(f"this run: {', '.join(filter(None, words))}", fontsize=8)
draw_legend(fig, columns=2)
save_figure(fig, "fig_where_it_lies", figures, inputs=inputs, caption=caption)

# %% [markdown]
# Diamonds are the paper's values for an 8B model, a line where it prints several; rings
# are the seeds of our runs of width 128. The star is this run. Just below it stand its
# nulls: an update of the same norm with Gaussian entries, and the run's own entries in
# random places, rounded as the checkpoint is. The dashed line is chance. The paper's
# relative norms are those of its sibling (OPD, and distillation offline for SFT); its
# drift ratios follow from norms of a withdrawn draft. Stable rank grows with the width,
# so it is compared with models of at most four times the width or a quarter of it.

# %%
from paper_lib.compare.answer import null_table, place_table, shown

shown(place_table(told))

# %%
sparsity = compared.matrices.query("metric == 'update_sparsity'")["value"]
assert sparsity.between(0, 1).all()
no_nulls = "There are no nulls: `--nulls` measures what rounding alone gives."
shown(null_table(told), otherwise=no_nulls)

# %% [markdown] tags=["notebook"]
# ## Try it: place your own numbers
#
# Type or paste the sparsity, the relative norm and the stable rank of a run of your
# own, any of the three; this run's are there to begin with. The rule is the one above,
# beside our runs of width 128. Absolute values depend on the model's size, the steps
# and the learning rate: read the position among the regimes at this scale.

# %% tags=["notebook"]
from paper_lib.compare.placing import end_value
from paper_lib.geometry.metrics import METRICS
from paper_lib.teaching.placing import NULL_ENDS, RANGES, play_placing

mine = {name: end_value(compared.matrices, METRICS[name]) for name in RANGES}
play_placing(reference, read_table(NULL_ENDS), mine)

# %% [markdown]
# ## Ranks, intruders and patches
#
# The rank of an energy is the least that a LoRA would need to hold this share of the
# squared norm: the median over layers, and the most. An intruder dimension is one of
# the ten leading left singular vectors of the trained matrix whose cosine with every
# one of the base is below one half (Shuttleworth et al. 2024). A lossless patch is the
# smallest of three: all values; a bit for each entry and the changed values; or a place
# of four bytes and a value for each change.

# %% [markdown] tags=["notebook"]
# By Eckart and Young, a LoRA of rank $k$ holds at best
# $\sum_{i \le k} \sigma_i^2 \,/\, \Vert\Delta W\Vert_F^2$ of an update.

# %% tags=["notebook"]
from paper_lib.geometry import singular_values
from paper_lib.geometry.spectra import energy_rank

two = torch.diag(torch.tensor([3.0, 1.0, 0.0]))  # nine tenths are in one direction
assert [energy_rank(singular_values(two), share) for share in (0.9, 0.99)] == [1, 2]

# %%
from paper_lib.compare.answer import beside_table, module_table

shown(module_table(told))

# %% [markdown]
# ## Beside another update
#
# Cosine and orthogonal share take each update as one vector over all matrices; all else
# is a mean over matrices. Masks meet by chance, and more often where both show on small
# weights, which rounding alone makes them do: each null has its own column.

# %% [markdown] tags=["notebook"]
# The share of the energy of $A$ that is orthogonal to $B$ is $1 - \cos^2(A, B)$.

# %% tags=["notebook"]
from paper_lib.measure.matrix import update_cosine

cosine = update_cosine(torch.eye(4), torch.ones(4, 4)).item()
assert abs(1 - cosine**2 - 0.75) < 1e-12

# %%
alone = "There is no other: `--with B` sets the update from BASE to B beside this one."
shown(beside_table(told), otherwise=alone)

# %% [markdown] tags=["notebook"]
# ## How much of a norm is rounding
#
# What 16 bits store of an update is not the update. Where weights are small the steps
# $u$ of their grid are, too. These entries give the mean square of $\Delta W$ as that
# of what is stored less $u^2/12$; elsewhere rounding adds to it or hides it. A run in
# float32 and its bf16 copy say by how much, which the copy alone has to guess.

# %% tags=["notebook"]
from paper_lib.geometry.rounding import rounding_share

masters = 0.02 * torch.randn(512, 512, generator=seed, dtype=torch.float64)
steps = 3e-5 * torch.randn(512, 512, generator=seed, dtype=torch.float64)
stored = masters.bfloat16(), (masters + steps).bfloat16()
share = 1 - (steps.norm() / (stored[1].double() - stored[0].double()).norm()).item()
by_copy = rounding_share(*stored)
assert abs(by_copy - share) < 0.04
print(f"{100 * share:.0f} % of the norm is rounding;")
print(f"by the copy alone {100 * by_copy:.0f} %")

# %% [markdown]
# ## Embeddings and output heads
#
# They are told apart from the rest, since most of their rows may belong to tokens that
# never occurred. Such a row stays, or weight decay shrinks it; an update without
# structure has none, so that rows and not size make a sparse embedding.

# %%
from paper_lib.compare.answer import outside_table

none = "None was measured: `--modules embed` or `--modules lm_head` measures them."
shown(outside_table(compared), otherwise=none)

# %% [markdown]
# ## Layer by layer
#
# **Claim (App. C).** One representative layer, or the mean over matrices, stands for
# the model. Colours that change much from row to row, or from column to column, refute
# it for this run.

# %%
from paper_lib.compare.answer import draw_map, maps_of

maps = maps_of(compared.matrices)
caption = (
    "Sparsity, rotation, relative norm and stable rank by layer (down) and module "
    "(across), with the least and the largest value in each title."
)
size = {"figsize": (4, 2 * len(maps)), "layout": "constrained"}
fig, axes = plt.subplots(len(maps), 1, squeeze=False, **size)
for ax, axis in zip(axes.flat, maps, strict=True):
    draw_map(ax, compared.matrices, axis)
save_figure(fig, "fig_by_layer", figures, inputs=compared.paths, caption=caption)

# %% [markdown]
# Rows are layers, columns modules; every panel has its own scale. Columns that differ
# say that an average over attention alone, as the paper's trajectories are, is not the
# average over the model.

# %% [markdown]
# ## Along the path
#
# **Claim (§4; C7, C10).** OPD keeps its stable rank and points early where it ends;
# crosses, which compare stretches of training that share no step, tell a channel from a
# shared beginning.

# %%
from paper_lib.compare.answer import path_figure

path_figure(compared, figures)

# %% [markdown]
# Where there is a figure, dotted is a random walk with the run's own step lengths, and
# dashed is chance. The plane of the first two components bends even for a random walk:
# read it beside the crosses.

# %% [markdown]
# ## What was left out

# %%
from paper_lib.compare.answer import left_out_table

shown(left_out_table(compared.account), otherwise="Nothing.")

# %% [markdown] tags=["notebook"]
# ## What we found
#
# The answer above is computed from the tables by fixed rules; it names every metric on
# which the run disagrees with the regime that the others suggest.

# %% [markdown] tags=["notebook"]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like.

# %% tags=["notebook"]
from paper_lib.teaching.exercises import check

# %% [markdown] tags=["notebook"]
# ### Exercise 07-1 — Is it more than noise? (5 minutes)
#
# The paper's first draft gives $\Vert\Delta W\Vert_F = 0.452$ a matrix for OPD (300
# steps) and 0.168 for RLVR (1,024 steps), both at a constant learning rate of
# $10^{-6}$. The four attention matrices of the 8B model have $\sqrt{mn} = 3072$ on
# average. What are the drift ratios, $\mathrm{RMS}(\Delta W) \,/\, \sqrt{\sum_t
# \eta_t^2}$?
#
# <details><summary>Hint</summary>
#
# $\Vert\Delta W\Vert_F$ belongs to a whole matrix, the RMS to one entry: how many
# entries share it? And what does the sum of squares of a constant rate come to?
#
# </details>

# %% tags=["notebook", "exercise"]
answer = ...  # two numbers, OPD's and RLVR's
check("07-1", answer)

# %% [markdown] tags=["notebook", "solution"]
# <details><summary>Solution</summary>
#
# About 8.5 for OPD and 1.7 for RLVR. RLVR took more than three times as many steps and
# ended at little more than a third of the norm: its steps hardly agree with each other.
# Near 1 the *norm* is what Adam makes of noise, and so is what follows from the norm.
# This does not make the run noise. SFT in our reference set has a ratio of 1.07 and a
# stable rank of 5.5 where noise has 39: look at rank and Sim_K, which the norm does not
# decide.
#
# </details>

# %% tags=["notebook", "solution"] jupyter={"source_hidden": true}
norm_and_steps = {"opd": (0.452, 300), "rlvr": (0.168, 1024)}
answer = [norm / 3072 / (1e-6 * steps**0.5) for norm, steps in norm_and_steps.values()]
verdict = check("07-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown] tags=["notebook"]
# ### Exercise 07-2 — The size of rounding (10 minutes)
#
# A float32 checkpoint is stored in bf16. How large is what rounding adds,
# $\Vert\mathrm{bf16}(W) - W\Vert \,/\, \Vert W\Vert$, for a matrix of normal entries?
# Measure it, and compare it with `relative_norm` of the runs above.
#
# <details><summary>Hint</summary>
#
# `w.bfloat16().float()` rounds. A matrix of 512 × 512 is enough for three digits.
#
# </details>

# %% tags=["notebook", "exercise"]
answer = ...  # one share, the norm of the rounding error over that of W
check("07-2", answer)

# %% [markdown] tags=["notebook", "solution"]
# <details><summary>Solution</summary>
#
# About 0.17 %, below the half step of 0.2 to 0.4 % that bounds it. The sibling paper's
# OPD has moved by 0.036 to 0.142 % of the norm. A comparison of a float32 checkpoint
# with a bf16 one therefore measures rounding before anything else, in every metric of
# ΔW; the sparsity, which rounds both, does not notice it.
#
# </details>

# %% tags=["notebook", "solution"] jupyter={"source_hidden": true}
w = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
answer = ((w.bfloat16().float() - w).norm() / w.norm()).item()
verdict = check("07-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown] tags=["notebook"]
# ### Exercise 07-3 — Other weights, the same function (20 minutes)
#
# A head's values $W_v x$, of size $d$, reach the output through the head's $d$ columns
# of $W_o$. Write a function that rotates the values by an orthogonal $R$ and changes
# $W_o$ so that the head computes what it did.
#
# <details><summary>Hint</summary>
#
# The output is $W_o W_v x$. What has $W_o$ to undo, and on which side of it does that
# have to stand?
#
# </details>

# %% tags=["notebook", "exercise"]
answer = ...  # a function of w_v (d, n), w_o (n, d), rotation (d, d): both, changed
check("07-3", answer)

# %% [markdown] tags=["notebook", "solution"]
# <details><summary>Solution</summary>
#
# $W_v$ becomes $R W_v$ and $W_o$ becomes $W_o R^\top$. Each matrix has new principal
# weights and new small weights, and no logit has changed; masks that follow the weights
# move with them. Singular values stay, and so do norm, stable rank and Hill index of an
# update that is turned in the same way; masks and sparsity do not.
# `paper_lib.training.rotations` does this for whole models, where query heads share a
# value head too.
#
# </details>


# %% tags=["notebook", "solution"] jupyter={"source_hidden": true}
def answer(w_v, w_o, rotation):
    return rotation @ w_v, w_o @ rotation.mT


verdict = check("07-3", answer)
assert verdict.right, verdict
verdict
