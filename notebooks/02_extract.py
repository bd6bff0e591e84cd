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
# # From weights to tables
#
# **Question.** The paper describes an update by a handful of numbers per weight matrix
# (§3.2, §4.1, §4.2, App. C). What is each of these numbers exactly? What does it show
# of an update that we made ourselves? And what does it become on our runs?
#
# **In this notebook**
#
# - every diagnostic as an equation, beside a cell that tries it on a case with a known
#   answer;
# - the nulls: what an update without structure would show;
# - the extraction itself: every matrix of every snapshot of every run, into tidy
#   tables;
# - the identities and inequalities that the tables have to satisfy, checked on all
#   rows.
#
# Extraction takes under a minute (`smoke`), 2 to 3 minutes (`laptop`) or half an hour
# (`reference`) on two cores. Tables that are up to date are not computed again, and
# runs that are no longer on disk keep their rows.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # of the made-up updates below
data_dir: str = "data"  # runs/<profile>/ is read, results/<profile>/ written
workers: int | None = None  # processes; None is one a core
force: bool = False  # measure again what is up to date

# %%
import numpy as np
import pandas as pd
import torch

from paper_lib.study.profiles import get_profile

study = get_profile(profile)
sizes, generator = study.diagnostics, torch.Generator().manual_seed(seed)

# %% [markdown]
# ## Notation and sizes
#
# Throughout, $W_0$ is a matrix at the start of a run, $W_t$ the same matrix at a
# snapshot, and $\Delta W_t = W_t - W_0$ the update. Its singular values are
# $\sigma_1 \ge \sigma_2 \ge \dots$, and a matrix has $m$ rows and $n$ columns. Weights
# are compared in the precision in which they are stored. Spectra are computed in
# float64.
#
# Sizes such as $k$ and $K$ belong to the model, so the profile has its own. The table
# has them beside the paper's, which are for a width of 4,096:

# %%
meaning = {
    "alphas": ("share of the weights that a mask marks", "0.3"),
    "principal_rank": ("directions of W_0 behind the principal mask, r", "64"),
    "angle_k": ("directions of W_0 and W_t in the angles, k", "512"),
    "K": ("directions of the update in V_K and Sim_K", "16"),
    "hill_k": ("singular values of the update in the Hill index", "–"),
    "energy_k": ("directions of the update whose energy is added up", "–"),
    "eta": ("relative change that still counts as none", "0.001"),
}
rows = {name: (*words, getattr(sizes, name)) for name, words in meaning.items()}
pd.DataFrame(rows, index=["what it is", "paper", "this profile"]).T

# %% [markdown] slideshow={"slide_type": "slide"}
# ## What bf16 shows
#
# Let $a$ and $b$ be a weight before and after, as bf16 stores both. The change is
# *visible* (App. C.3) when
#
# $$|a - b| > \eta \max(|a|, |b|), \qquad \eta = 10^{-3}.$$
#
# The *update density* is the share of visible entries, the *update sparsity* its
# complement. bf16 stores a float32 weight as the nearest of its own numbers. A change
# shows once it is longer than half of the gap to the next number. The gap grows with
# the weight. So one change of $2^{-7}$ shows on the weights 0.01 and 1, and not on 100:

# %% slideshow={"slide_type": "-"}
from paper_lib.geometry import half_ulp, visible_mask

weights = torch.tensor([[0.01, 1.0, 100.0]]).bfloat16().float()
change = torch.full_like(weights, 2.0**-7)
visible = visible_mask(weights, weights + change, eta=sizes.eta)
assert visible.tolist() == [[True, True, False]]
assert torch.equal(visible, change > half_ulp(weights))
columns = {"weight": weights[0], "half a gap": half_ulp(weights)[0]}
pd.DataFrame(columns | {"shows": visible[0]})

# %% [markdown]
# ## Two masks of the weights
#
# Let $W_0 = \sum_i \sigma_i u_i v_i^\top$ be the singular value decomposition. Two
# masks mark a share $\alpha$ of the entries of $W_0$ (§3.2). The *principal* mask takes
# the entries that are largest in magnitude in the reconstruction of rank $r$,
#
# $$W_0^{(r)} = \sum_{i \le r} \sigma_i u_i v_i^\top,$$
#
# and the *low-magnitude* mask takes the smallest entries of $|W_0|$. The overlap of a
# mask $M_\star$ with the visible entries $M$ is
#
# $$\mathrm{overlap} = \frac{|M_\star \cap M|}{|M|},$$
#
# and chance is $\alpha$. Four weights, two of which are marked: where three entries
# show and two of the three are marked, the overlap is two thirds.

# %%
from paper_lib.geometry import low_magnitude_mask, mask_overlap, principal_mask

marked = torch.tensor([[True, True], [False, False]])
shows = torch.tensor([[True, True], [True, False]])
assert np.isclose(mask_overlap(marked, shows).item(), 2 / 3)
small = torch.tensor([[0.1, -0.2], [3.0, -4.0]])
assert torch.equal(low_magnitude_mask(small, alpha=0.5), marked)

# %% [markdown]
# Chance is not what an update without structure has. Normal noise on normal weights
# knows nothing of the weights. But it shows on small weights first, since bf16 has the
# smaller gap there. So it overlaps with the low-magnitude mask above chance, and with
# the principal mask below:

# %%
weights = torch.randn(256, 256, generator=generator).bfloat16().float()
noise = 1e-3 * torch.randn(256, 256, generator=generator)
visible = visible_mask(weights, weights + noise)
low = mask_overlap(low_magnitude_mask(weights, alpha=0.3), visible)
principal = mask_overlap(principal_mask(weights, alpha=0.3, rank=8), visible)
assert low > 0.3 > principal
print(f"visible: {visible.double().mean():.3f} of the weights")
print(f"overlap: low-magnitude {low:.3f}, principal {principal:.3f}, chance 0.300")

# %% [markdown]
# ## Size and spectrum of the update
#
# The stable rank counts directions by the energy that they carry (§4.1). The Hill index
# measures how fast the $k$ largest singular values fall; low is a heavy tail:
#
# $$\mathrm{srank}(\Delta W) =
# \frac{\lVert\Delta W\rVert_F^2}{\lVert\Delta W\rVert_2^2}, \qquad
# \mathrm{Hill}_k =
# \Bigl[\frac{1}{k-1} \sum_{i<k} \log\frac{\sigma_i}{\sigma_k}\Bigr]^{-1}.$$
#
# Five equal directions have a stable rank of 5. Singular values that fall like
# $i^{-1/3}$ have a tail of index 3, which the estimate reaches for many of them:

# %%
from paper_lib.geometry import hill_index, stable_rank

double = {"generator": generator, "dtype": torch.float64}
basis = torch.linalg.qr(torch.randn(128, 5, **double)).Q
assert np.isclose(stable_rank(basis @ basis.mT).item(), 5)
tail = torch.arange(1, 1001, dtype=torch.float64) ** (-1 / 3)
assert abs(hill_index(tail, 1000) - 3) < 0.05
for k in (1000, 16):
    print(f"Hill index over {k} singular values: {hill_index(tail, k):.2f}")

# %% [markdown]
# White noise has a stable rank too. For a square matrix it tends to a quarter of the
# width. An update far below the noise moves in few directions.

# %%
noise = torch.randn(128, 128, generator=generator)
assert abs(stable_rank(noise) / (128 / 4) - 1) < 0.15
print(f"stable rank of noise: {stable_rank(noise):.1f}, in the limit {128 / 4:.1f}")

# %% [markdown]
# The drift ratio is ours. It compares the root mean square of $\Delta W$ with the
# learning rates $\mathrm{lr}_t$ of the steps:
#
# $$\mathrm{drift} =
# \frac{\lVert\Delta W\rVert_F / \sqrt{mn}}{\sqrt{\sum_t \mathrm{lr}_t^2}}.$$
#
# Adam divides by the size of the gradient. So a run whose gradients are noise still
# moves every weight by about $\mathrm{lr} \sqrt{\text{steps}}$, whatever the size of
# the gradients, and its drift ratio is near 1. A hundred steps of one sign have 10.

# %%
from paper_lib.geometry import drift_ratio

weight, rate, steps = torch.nn.Parameter(torch.zeros(64, 64)), 1e-5, 120
adam = torch.optim.AdamW([weight], lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
for _ in range(steps):
    weight.grad = torch.randn(64, 64, generator=generator)
    adam.step()
drift = drift_ratio(weight.detach(), [rate] * steps).item()
one_way = drift_ratio(torch.full((64, 64), 100 * rate), [rate] * 100).item()
assert abs(one_way - 10) < 1e-5
assert 0.8 < drift < 1.3
print(
    f"drift ratio: AdamW on noise alone {drift:.2f}, one sign throughout {one_way:.2f}"
)

# %% [markdown]
# A ratio well above 1 is drift: successive steps agree. The reverse does not follow.
# Near 1 the norm alone does not tell a run from noise. The stable rank of the run and
# its $\mathrm{Sim}_K$ (below) may, as a walk neither has leading directions nor keeps
# any.

# %% [markdown]
# ## Rotation of the weights
#
# Let $U_{0,k}$ and $U_{t,k}$ hold the leading $k$ left singular vectors of $W_0$ and
# $W_t$. The principal angles between the two subspaces (§3.2), and the same for the
# right singular vectors, are
#
# $$\cos\theta_i = \sigma_i(U_{0,k}^\top U_{t,k}).$$
#
# A cosine is flat at 0, so it loses a small angle: $10^{-9}$ comes back as 0. A sine is
# flat at a right angle. So small angles come from their sine and large ones from their
# cosine. We turn one of two directions by a known angle:

# %%
from paper_lib.geometry import principal_angles

rows = []
for angle in (1e-9, 1e-3, 1.0, torch.pi / 2):
    before = torch.eye(6, 2, dtype=torch.float64)
    after = before.clone()
    after[:, 1] = torch.tensor([0, np.cos(angle), np.sin(angle), 0, 0, 0])
    measured = principal_angles(before, after)[-1].item()
    assert abs(measured - angle) < 1e-15
    rows.append((angle, measured, np.arccos(np.cos(angle))))
heads = ["planted, radians", "measured", "from the cosine alone"]
pd.DataFrame(rows, columns=heads).map("{:.3e}".format)

# %% [markdown]
# The normalised spectral shift compares the singular values themselves (§3.2):
#
# $$\mathrm{NSS} =
# \frac{\lVert\sigma(W_t) - \sigma(W_0)\rVert_2}{\lVert\sigma(W_0)\rVert_2}.$$
#
# From the values 4 and 3 to 4 and 3.5 it is $0.5 / 5$. A rotation of $W_0$ leaves it at
# 0, so angles and shift are two questions:

# %%
from paper_lib.geometry import singular_values
from paper_lib.geometry.spectra import spectral_shift

shift = spectral_shift(torch.tensor([4.0, 3.0]), torch.tensor([4.0, 3.5]))
turn = torch.linalg.qr(torch.randn(48, 48, **double)).Q
matrix = torch.randn(48, 32, **double)
both = singular_values(matrix), singular_values(turn @ matrix)
assert np.isclose(shift.item(), 0.5 / 5)
assert spectral_shift(*both) < 1e-12
print(f"spectral shift: {shift:.3f} planted, {spectral_shift(*both):.0e} of a rotation")

# %% [markdown]
# ## Where the update points
#
# Let $V_K(t)$ hold the top $K$ right singular vectors of $\Delta W_t$ (§4.2). Then
#
# $$\mathrm{Sim}_K(t) =
# \frac{1}{K} \lVert V_K(t)^\top V_K(\mathrm{end})\rVert_F^2$$
#
# is 1 for the same subspace, and $K/n$ on average for random ones. Two spans of five
# directions that share three have $3/5$:

# %%
from paper_lib.geometry import chance_alignment, random_walk
from paper_lib.geometry import subspace_alignment, top_right_singular_vectors

directions = torch.eye(48, dtype=torch.float64)
planted = subspace_alignment(directions[:, :5], directions[:, 2:7]).item()
assert np.isclose(planted, 3 / 5)
print(f"Sim_5, three directions in common: {planted:.2f}, by chance {5 / 48:.2f}")

# %% [markdown]
# The end of a run contains its beginning. So $\mathrm{Sim}_K$ rises for a random walk
# too. This is why the tables also have the alignment of the *increments* between
# neighbouring snapshots, which share no step. For a walk the increments stay at chance:

# %%
walk = random_walk([1.0] * 10, (128, 128), generator)
spans = [top_right_singular_vectors(position, sizes.K) for position in walk]
so_far = [subspace_alignment(span, spans[-1]).item() for span in spans]
first, last = walk[0], walk[-1] - walk[-2]
ends = [top_right_singular_vectors(part, sizes.K) for part in (first, last)]
apart, chance = subspace_alignment(*ends).item(), chance_alignment(sizes.K, 128)
assert so_far[0] < so_far[5] < so_far[-2]
assert apart < 3 * chance
print("update so far with the end:", np.round(so_far, 2))
print(f"first with last increment: {apart:.3f}, chance: {chance:.3f}")

# %% [markdown]
# ## The extraction
#
# Each matrix is read from its snapshots one at a time, so memory does not grow with the
# model. The tables of `01_train` are joined by these:
#
# - the values of every run, matrix by matrix;
# - nulls of each main run: a Gaussian of the same norm, the same entries in random
#   places, and a random walk with the same step lengths;
# - what Adam does with the same learning rates on noise, and the updates of SFT and
#   matched SFT at the norm of OPD's and RLVR's;
# - pairs of runs, the KL to the start, and the curvature of $W_0$ along the updates.

# %% tags=["remove-stdout"]
from paper_lib.measure.extract import extract_study

paths = extract_study(profile, data_dir=data_dir, workers=workers, force=force)

# %%
from paper_lib.figures import open_results

results = open_results(profile, data_dir=data_dir)
tables = {path.stem: results.table(path.stem) for path in paths}
counts = {name: table.shape for name, table in tables.items()}
matrices = tables["matrices"]
pd.DataFrame(counts, index=["rows", "columns"]).T.map("{:,}".format)

# %% [markdown]
# One row of `matrices` is one value: of one metric, of one matrix, at one snapshot of
# one run and seed. `k` is the size that the metric was asked for, where the metric has
# one.


# %%
def asked_for(k):
    sizes = [f"{size:g}" for size in sorted(k.dropna().unique())]
    return ", ".join(sizes if len(sizes) < 6 else [*sizes[:2], "…", sizes[-1]])


groups = matrices.query("metric != 'parameters'").groupby("metric")
ends = {"least": ("value", "min"), "most": ("value", "max")}
kinds = groups.agg(values=("value", "size"), **ends, k=("k", asked_for))
looks = {"values": "{:,}", "least": "{:.3g}", "most": "{:.3g}"}
kinds.assign(**{head: kinds[head].map(look.format) for head, look in looks.items()})

# %%
one = "run == 'opd' and layer == 0 and module == 'q' and metric == 'stable_rank'"
matrices.query(one).head(8)

# %% [markdown]
# ## What must hold
#
# **Claim.** The tables satisfy the laws that hold for all matrices. One row that breaks
# a law would refute the extraction.
#
# The density complements the sparsity. An overlap lies within the range that the
# density leaves (`03_sparsity` derives it). The stable rank is the quotient of the two
# norms and lies between 1 and $\min(m, n) \le \sqrt{mn}$. A mean angle does not exceed
# the largest one. An update agrees with itself. And by Mirsky's inequality
#
# $$\lVert\sigma(W_t) - \sigma(W_0)\rVert_2 \le \lVert\Delta W\rVert_F,$$
#
# so that the spectral shift stays below the relative norm. The *room* of a row is how
# far it stays from breaking its law. An equation has room 0 less its rounding error.

# %%
from paper_lib.figures import at_end

several = "overlap|chance|angle_[uv]$|coordinate_energy"  # one value for each k
single = matrices[~matrices["metric"].str.contains(several)]
place = ["run", "seed", "step", "layer", "module"]
wide = single.pivot(index=place, columns="metric", values="value")

# %%
complement = wide["update_density"] + wide["update_sparsity"]
quotient = (wide["frobenius_norm"] / wide["operator_norm"]) ** 2
room = {
    "density = 1 − sparsity": -(complement - 1).abs(),
    "stable rank = quotient of norms": -(wide["stable_rank"] / quotient - 1).abs(),
    "1 ≤ stable rank": wide["stable_rank"] - 1,
    "stable rank ≤ √(m n)": wide["parameters"] ** 0.5 - wide["stable_rank"],
    "spectral shift ≤ relative norm": wide["relative_norm"] - wide["spectral_shift"],
    "mean angle ≤ largest": wide["angle_u_max"] - wide["angle_u_mean"],
}

# %%
from paper_lib.geometry import overlap_bounds

kept = matrices["metric"].isin(["principal_overlap", "low_magnitude_overlap"])
density = wide["update_density"].rename("density")
overlaps = matrices[kept].merge(density, on=place).dropna(subset="value")
of_rows = zip(overlaps["k"], overlaps["density"], strict=True)
low, high = np.array([overlap_bounds(*alpha_density) for alpha_density in of_rows]).T
room["overlap ≥ its least"] = overlaps["value"] - low
room["overlap ≤ its most"] = high - overlaps["value"]
end = at_end(matrices).query("metric == 'subspace_alignment'")["value"]
room["Sim_K of the end with itself = 1"] = -(end - 1).abs()

# %% [markdown]
# ## What we found
#
# The table has the least room of all rows. The range of an overlap is exact for masks
# of exactly $\alpha$. Ours hold a whole number of entries, hence the tolerance of
# $10^{-3}$.

# %%
rows = {law: (len(x.dropna()), x.min()) for law, x in room.items()}
laws = pd.DataFrame(rows, index=["rows", "least room"]).T.astype({"rows": int})
laws["agrees?"] = np.where(laws["least room"] > -1e-3, "agrees", "disagrees")
assert (laws["agrees?"] == "agrees").all(), laws[laws["agrees?"] != "agrees"]
laws["least room"] = (laws["least room"] + 0.0).map("{:.1e}".format)  # −0 becomes 0
laws.assign(rows=laws["rows"].map("{:,}".format))

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the
# whole line) and run the cell. `check` says whether it is right, and otherwise which
# mistake it looks like. Try the metrics by hand, without those of `paper_lib`.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 02-1 — What forgets the size of the update? (5 minutes)
#
# Which of these do not change when $\Delta W$ is doubled and $W_0$ stays as it is?
# `update_sparsity`, `frobenius_norm`, `relative_norm`, `spectral_shift`, `stable_rank`,
# `hill_index`, `top_energy` (the share of $\lVert\Delta W\rVert_F^2$ in its leading
# directions), `drift_ratio`.
#
# <details><summary>Hint</summary>
#
# Write each as a formula and put $2 \Delta W$ in. Where does the 2 cancel?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a set of names, such as {"frobenius_norm"}
check("02-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Three are quotients of singular values of $\Delta W$ alone, in which a common factor
# cancels. The norm doubles. All others compare $\Delta W$ with something that did not
# grow: with $W_0$, with the gaps of bf16 or with learning rates. This is why the claims
# of §3 need nulls of the same norm, and the stable rank of §4.1 does not.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from paper_lib.geometry import singular_values, top_energy

delta = torch.randn(64, 48, generator=torch.Generator().manual_seed(seed))
sigma, doubled = singular_values(delta), singular_values(2 * delta)
quotients = {"stable_rank": (stable_rank(delta), stable_rank(2 * delta))}
quotients["hill_index"] = hill_index(sigma, 8), hill_index(doubled, 8)
quotients["top_energy"] = top_energy(sigma, 8), top_energy(doubled, 8)
answer = {
    name for name, (before, after) in quotients.items() if torch.isclose(before, after)
}
verdict = check("02-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 02-2 — Sparsity by hand (10 minutes)
#
# Write the update sparsity of two float32 matrices as the paper defines it: the share
# of entries that do not change when both are rounded to bf16, with the tolerance
# $\eta = 10^{-3}$ of the larger magnitude.
#
# <details><summary>Hint</summary>
#
# Which of the two is rounded, the weights or their difference?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0 and w_t, (m, n) float32, to a share in [0, 1]
check("02-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Round the *weights*: a small difference has a bf16 value of its own and is never lost
# by rounding it. The tolerance then does no work, as two bf16 numbers that differ do so
# by at least $2^{-8}$ of the larger. Applied to float32 values it would be a threshold
# that the paper does not have.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(w_0, w_t, eta=1e-3):
    a, b = w_0.bfloat16().float(), w_t.bfloat16().float()
    unchanged = (a - b).abs() <= eta * torch.maximum(a.abs(), b.abs())
    return unchanged.double().mean()


verdict = check("02-2", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 02-3 — Stable rank by hand (10 minutes)
#
# Write $\lVert\Delta W\rVert_F^2 / \lVert\Delta W\rVert_2^2$ from the singular values.
#
# <details><summary>Hint</summary>
#
# $\lVert\Delta W\rVert_F^2$ is the sum of the squared singular values,
# $\lVert\Delta W\rVert_2$ the largest of them.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of delta_w, (m, n) float64, that returns one number
check("02-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Every direction counts by its energy relative to the strongest one's, so that many
# weak ones add little. The rank proper would be $\min(m, n)$ for every update in these
# tables.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(delta_w):
    sigma = torch.linalg.svdvals(delta_w)
    return (sigma / sigma[0]).square().sum()


verdict = check("02-3", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 02-4 — The end contains the beginning (15 minutes)
#
# A long random walk takes equal steps in very many dimensions. Let $\Delta W_f$ be the
# walk after a fraction $f$ of its steps. What is the cosine
#
# $$\frac{\langle \Delta W_f, \Delta W_\mathrm{end} \rangle}
# {\lVert\Delta W_f\rVert_F\, \lVert\Delta W_\mathrm{end}\rVert_F}\,?$$
#
# Derive it, or measure it with a `random_walk` of a hundred steps.
#
# <details><summary>Hint</summary>
#
# $\Delta W_\mathrm{end}$ is $\Delta W_f$ plus steps that are nearly orthogonal to it.
# Squared lengths of orthogonal steps add up.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of f in (0, 1] that returns a cosine
check("02-4", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Let the end have length 1. Then $\lVert\Delta W_f\rVert_F^2 = f$, and
# $\Delta W_\mathrm{end}$ is $\Delta W_f$ plus a rest that is orthogonal to it. So the
# inner product is $f$, the norms are $\sqrt f$ and 1, and the cosine is $\sqrt f$. It
# depends on the fraction alone and not on the number of steps. $\mathrm{Sim}_K$ of a
# walk starts lower, since top singular vectors do not follow the whole matrix, but
# rises to 1 for the same reason. The cell prints both.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(f):
    return f**0.5


long_walk = random_walk([1.0] * 20, (128, 128), torch.Generator().manual_seed(seed))
end_span = top_right_singular_vectors(long_walk[-1], sizes.K)
for at in (2, 5, 10):
    ends = long_walk[at - 1].flatten(), long_walk[-1].flatten()
    cosine = torch.nn.functional.cosine_similarity(*ends, dim=0)
    span = top_right_singular_vectors(long_walk[at - 1], sizes.K)
    sim, root = subspace_alignment(span, end_span), answer(at / 20)
    print(f"f = {at / 20}: cosine {cosine:.3f}, √f {root:.3f}, Sim_K {sim:.3f}")
verdict = check("02-4", answer)
assert verdict.right, verdict
verdict
