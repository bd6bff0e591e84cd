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
# **Question.** The paper describes an update by a handful of numbers per weight matrix (§3.2, §4.1, §4.2,
# App. C). What exactly is each of them, what does it show of an update that we made ourselves, and what do
# they become on our runs?
#
# **In this notebook**
#
# - every diagnostic as an equation, and a cell that tries it on a case with a known answer;
# - the nulls: what an update without structure would show;
# - the extraction itself, every matrix of every snapshot of every run, into tidy tables;
# - the identities and inequalities that the tables have to satisfy, checked on all rows.
#
# Extraction takes under a minute (`smoke`), 2 to 3 minutes (`laptop`) or half an hour (`reference`) on two
# cores; what is up to date is not computed again, and runs that are no longer on disk keep their rows.

# %% tags=["parameters"]
profile: str = "laptop"  # which study: smoke, laptop or reference
seed: int = 0  # of the made-up updates below
data_dir: str = "data"  # runs are read from runs/<profile>/ below it, tables go to results/<profile>/
workers: int | None = None  # processes; None is one a core
force: bool = False  # measure again what is up to date

# %%
import numpy as np
import pandas as pd
import torch

from paper_lib.study.profiles import get_profile

study = get_profile(profile)
sizes, generator = study.diagnostics, torch.Generator().manual_seed(seed)

# %%
meaning = {
    "alphas": "α, the share of the weights that a mask marks",
    "principal_rank": "r, directions of W₀ behind the principal mask",
    "angle_k": "k, directions of W₀ and W_t in the angles",
    "K": "K, directions of ΔW in V_K and Sim_K",
    "hill_k": "singular values of ΔW in the Hill index",
    "energy_k": "directions of ΔW whose energy is added up",
    "eta": "η, the relative change that still counts as none",
}
pd.DataFrame({"value": {name: getattr(sizes, name) for name in meaning}, "what it is": meaning})

# %% [markdown]
# Throughout, $W_0$ is a matrix at the start of a run, $W_t$ at a snapshot, $\Delta W_t = W_t - W_0$ and
# $\sigma_1 \ge \sigma_2 \ge \dots$ are singular values. Weights are compared in the precision they are stored
# in, spectra are computed in float64. Sizes such as $k$ and $K$ belong to the model, so the profile has its
# own (above). The paper's are α = 0.3, r = 64, k = 512, K = 16 and η = 10⁻³, at a width of 4,096.

# %% [markdown]
# ## What bf16 shows
#
# An entry is *visible* when the two stored values differ, $|a - b| > \eta \max(|a|, |b|)$ with $\eta =
# 10^{-3}$ (App. C.3). The update sparsity is the share that is not, the update density its complement. One
# change, three weights:

# %%
from paper_lib.geometry import half_ulp, visible_mask

weights = torch.tensor([[0.01, 1.0, 100.0]]).bfloat16().float()
change = torch.full_like(weights, 2.0**-7)
visible = visible_mask(weights, weights + change, eta=sizes.eta)
assert visible.tolist() == (change > half_ulp(weights)).tolist() == [[True, True, False]]
pd.DataFrame({"weight": weights[0], "half a step": half_ulp(weights)[0], "visible": visible[0]})

# %% [markdown]
# Two masks mark the weights that matter: the *principal* mask, the top $\alpha$ by magnitude of the rank-$r$
# reconstruction $\sum_{i \le r} \sigma_i u_i v_i^\top$ of $W_0$, and the *low-magnitude* mask, the bottom
# $\alpha$ by $|W_0|$ (§3.2). The overlap of a mask $M_\star$ with the visible entries $M$ is $|M_\star \cap
# M| / |M|$, at chance $\alpha$. Even an update that knows nothing of the weights is above chance on the small
# ones:

# %%
from paper_lib.geometry import low_magnitude_mask, mask_overlap, principal_mask

weights = torch.randn(256, 256, generator=generator).bfloat16().float()
noise = 1e-3 * torch.randn(256, 256, generator=generator)
visible = visible_mask(weights, weights + noise)
low = mask_overlap(low_magnitude_mask(weights, alpha=0.3), visible)
principal = mask_overlap(principal_mask(weights, alpha=0.3, rank=8), visible)
assert low > 0.3 > principal
print(
    f"visible {visible.double().mean():.3f}, low-magnitude {low:.3f}, principal {principal:.3f}, chance 0.300"
)

# %% [markdown]
# ## Size and spectrum of the update
#
# The stable rank counts directions by the energy they carry. The Hill index measures how fast the leading
# singular values fall (low is a heavy tail). The drift ratio compares the root mean square of $\Delta W$ with
# what Adam does on pure noise (§4.1; the last one is ours):
#
# $$\mathrm{srank} = \frac{\lVert\Delta W\rVert_F^2}{\lVert\Delta W\rVert_2^2}, \qquad
# \mathrm{Hill}_k = \Bigl[\frac{1}{k-1} \sum_{i<k} \log\frac{\sigma_i}{\sigma_k}\Bigr]^{-1}, \qquad
# \mathrm{drift} = \frac{\mathrm{RMS}(\Delta W)}{\sqrt{\sum_t \mathrm{lr}_t^2}}.$$

# %%
from paper_lib.geometry import hill_index, stable_rank

basis = torch.linalg.qr(torch.randn(128, 5, generator=generator, dtype=torch.float64)).Q
assert np.isclose(stable_rank(basis @ basis.mT).item(), 5)  # five equal directions
power = torch.arange(1, 101, dtype=torch.float64) ** (-1 / 3)  # a tail with index 3
full = torch.randn(128, 128, generator=generator)
print(f"srank of white noise in 128 dimensions: {stable_rank(full):.1f}; its limit is 128 / 4")
for k in (100, 16):
    print(f"Hill index of σ_i = i^(-1/3) over {k}: {hill_index(power, k):.2f}")

# %%
from paper_lib.geometry import drift_ratio

weight, rate, steps = torch.nn.Parameter(torch.zeros(64, 64)), 1e-5, 120
adam = torch.optim.AdamW([weight], lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
for _ in range(steps):
    weight.grad = torch.randn(64, 64, generator=generator)
    adam.step()
print(f"drift ratio of AdamW on noise alone: {drift_ratio(weight.detach(), [rate] * steps):.2f}")

# %% [markdown]
# A ratio well above this is drift: successive steps agree. Adam divides by the size of the gradient, so the
# ratio does not depend on it, and a run whose gradients are noise still moves every weight by about
# $\mathrm{lr}\sqrt{\text{steps}}$. The reverse does not follow. Near 1 the norm alone does not tell a run
# from noise, but its stable rank and its Sim_K may, as a walk neither has leading directions nor keeps any.

# %% [markdown]
# ## Rotation of the weights
#
# Principal angles $\cos\theta_i = \sigma_i(U_{0,k}^\top U_{t,k})$ between the leading $k$-dimensional
# subspaces of $W_0$ and $W_t$, the same for the right ones, and the normalised spectral shift $\mathrm{NSS} =
# \lVert\sigma(W_t) - \sigma(W_0)\rVert_2 / \lVert\sigma(W_0)\rVert_2$ (§3.2). Small angles come from their
# sine and large ones from their cosine, since either function is flat where the other is needed:

# %%
from paper_lib.geometry import principal_angles

for angle in (1e-9, 1e-3, 1.0, torch.pi / 2):
    before = torch.eye(6, 2, dtype=torch.float64)
    after = before.clone()
    after[:, 1] = torch.tensor([0, np.cos(angle), np.sin(angle), 0, 0, 0])
    found = principal_angles(before, after)[-1].item()
    assert abs(found - angle) < 1e-15
    print(f"planted {angle:.3e}, found {found:.3e}, from the cosine alone {np.arccos(np.cos(angle)):.3e}")

# %% [markdown]
# ## Where the update points
#
# $\mathrm{Sim}_K(t) = \lVert V_K(t)^\top V_K(\mathrm{end})\rVert_F^2 / K$, with $V_K$ the top $K$ right
# singular vectors of $\Delta W$ (§4.2): 1 for the same subspace, $K/n$ by chance. As it compares an update
# with an end that contains it, it rises for a random walk too, which is why the tables also have the
# alignment of the *increments* between snapshots.

# %%
from paper_lib.geometry import chance_alignment, random_walk, subspace_alignment, top_right_singular_vectors

walk = random_walk([1.0] * 10, (128, 128), generator)
spans = [top_right_singular_vectors(position, sizes.K) for position in walk]
cumulative = [subspace_alignment(span, spans[-1]).item() for span in spans]
ends = [top_right_singular_vectors(part, sizes.K) for part in (walk[0], walk[-1] - walk[-2])]
print("random walk, Sim of the update so far with the end:", np.round(cumulative, 2))
print(f"first with last increment: {subspace_alignment(*ends):.3f}", end=", ")
print(f"chance: {chance_alignment(sizes.K, 128):.3f}")

# %% [markdown]
# ## The extraction
#
# Each matrix is read from its snapshots one at a time, so memory does not grow with the model. Beside each
# main run's own values come those of nulls: a Gaussian of the same norm, the same entries in random places,
# and a random walk with the same step lengths. Two more are what Adam does with the same learning rates on
# noise, and the updates of SFT and matched SFT at the norm of OPD's and RLVR's. Pairs of runs, the KL to the
# start and the curvature of W_0 along the updates come with it.

# %% tags=["remove-stdout"]
from paper_lib.measure.extract import extract_study

paths = extract_study(profile, data_dir=data_dir, workers=workers, force=force)

# %%
from paper_lib.figures import open_results

results = open_results(profile, data_dir=data_dir)
for name in (path.stem for path in paths):
    table = results.table(name)
    print(f"{name:12} {len(table):>9,} rows: {', '.join(table.columns)}")
matrices = results.table("matrices")

# %% [markdown]
# One row is one value: of one metric, of one matrix, at one snapshot of one run and seed. `k` is the size of
# metrics that have one.

# %%
kinds = matrices.groupby("metric").agg(
    values=("value", "size"), least=("value", "min"), most=("value", "max")
)
kinds["k"] = matrices.groupby("metric")["k"].agg(
    lambda k: ", ".join(f"{x:g}" for x in sorted(k.dropna().unique())[:8])
)
kinds.round(4)

# %%
matrices.query("run == 'opd' and layer == 0 and module == 'q' and metric == 'stable_rank'").head(8)

# %% [markdown]
# ## What must hold
#
# **Claim.** The tables satisfy what holds for any matrices whatever. The density complements the sparsity. An
# overlap lies within its range. The stable rank is the quotient of the two norms, at least 1 and at most
# $\min(m, n) \le \sqrt{mn}$. By Mirsky's inequality $\lVert\sigma(W_t) - \sigma(W_0)\rVert_2 \le \lVert\Delta
# W\rVert_F$. A mean angle does not exceed the largest one, and an update agrees with itself. One row that
# violates one of these would refute the extraction.

# %%
from paper_lib.figures import at_end

several = matrices["metric"].str.contains("overlap|chance|angle_[uv]$|coordinate_energy")  # several k
place = ["run", "seed", "step", "layer", "module"]
wide = matrices[~several].pivot(index=place, columns="metric", values="value")
quotient = (wide["frobenius_norm"] / wide["operator_norm"]) ** 2
end = at_end(matrices).query("metric == 'subspace_alignment'")["value"]
slack = {
    "density = 1 − sparsity": -(wide["update_density"] + wide["update_sparsity"] - 1).abs(),
    "srank = (Frobenius / operator)²": -(wide["stable_rank"] / quotient - 1).abs(),
    "1 ≤ srank": wide["stable_rank"] - 1,
    "srank ≤ √(m n)": wide["parameters"] ** 0.5 - wide["stable_rank"],
    "NSS ≤ relative norm": wide["relative_norm"] - wide["spectral_shift"],
    "mean angle ≤ largest": wide["angle_u_max"] - wide["angle_u_mean"],
}

# %%
from paper_lib.geometry import overlap_bounds

overlaps = matrices[matrices["metric"].isin(["principal_overlap", "low_magnitude_overlap"])]
overlaps = overlaps.merge(wide["update_density"].rename("density"), on=place).dropna(subset="value")
pairs = [
    overlap_bounds(alpha, density) for alpha, density in zip(overlaps["k"], overlaps["density"], strict=True)
]
low, high = np.array(pairs).T
slack["Sim_K of the end with itself = 1"] = -(end - 1).abs()
slack["overlap ≥ its least"], slack["overlap ≤ its most"] = overlaps["value"] - low, high - overlaps["value"]
rows = [(law, len(room.dropna()), room.min(), room.min() > -1e-3) for law, room in slack.items()]
laws = pd.DataFrame(rows, columns=["law", "rows", "least room", "holds"])
assert laws["holds"].all(), laws[~laws["holds"]]

# %% [markdown]
# ## What we found
#
# The least room is how near the closest row comes to breaking a law; an equation has room 0 less its rounding
# error. The range of an overlap is exact for masks of exactly $\alpha$, and ours hold a whole number of
# entries, hence the tolerance.

# %%
laws.assign(**{"agrees?": np.where(laws["holds"], "agrees", "disagrees")}).drop(columns="holds")

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `...` (for a function, `def answer(…):` in place of the whole line) and run
# the cell. `check` says whether it is right, and otherwise which mistake it looks like. Try the metrics by
# hand, without those of `paper_lib`.

# %%
from paper_lib.teaching.exercises import check

# %% [markdown]
# ### Exercise 02-1 — What forgets the size of the update? (5 minutes)
#
# Which of these do not change when ΔW is doubled and W₀ stays as it is? `update_sparsity`,
# `frobenius_norm`, `relative_norm`, `spectral_shift`, `stable_rank`, `hill_index`, `top_energy` (the share
# of ‖ΔW‖² in its leading directions), `drift_ratio`.
#
# <details><summary>Hint</summary>
#
# Write each as a formula and put 2 ΔW in. Where does the 2 cancel?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a set of names, such as {"frobenius_norm"}
check("02-1", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Three are quotients of singular values of ΔW alone, in which a common factor cancels. The norm doubles,
# and all others compare ΔW with something that did not grow: with W₀, bf16's steps or learning rates. This
# is why the claims of §3 need nulls of the same norm, and the stable rank of §4.1 does not.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
from paper_lib.geometry import singular_values, top_energy

delta = torch.randn(64, 48, generator=torch.Generator().manual_seed(seed))
sigma, doubled = singular_values(delta), singular_values(2 * delta)
quotients = {"stable_rank": (stable_rank(delta), stable_rank(2 * delta))}
quotients["hill_index"] = hill_index(sigma, 8), hill_index(doubled, 8)
quotients["top_energy"] = top_energy(sigma, 8), top_energy(doubled, 8)
answer = {name for name, (before, after) in quotients.items() if torch.isclose(before, after)}
verdict = check("02-1", answer)
assert verdict.right, verdict
verdict

# %% [markdown]
# ### Exercise 02-2 — Sparsity by hand (10 minutes)
#
# Write the update sparsity of two float32 matrices as the paper defines it: the share of entries that do
# not change when both are rounded to bf16, with the tolerance η = 10⁻³ of the larger magnitude.
#
# <details><summary>Hint</summary>
#
# Which of the two is rounded, the weights or their difference?
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of w_0 and w_t, (m, n) float32, that returns a share in [0, 1]
check("02-2", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Round the *weights*: a small difference has a bf16 value of its own and is never lost by rounding it. The
# tolerance then does no work, as two bf16 numbers that differ do so by at least 2⁻⁸ of the larger. Applied
# to float32 values it would be a threshold that the paper does not have.
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
# Write ‖ΔW‖_F² / ‖ΔW‖₂² from the singular values.
#
# <details><summary>Hint</summary>
#
# ‖ΔW‖_F² is the sum of the squared singular values, ‖ΔW‖₂ the largest of them.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of delta_w, (m, n) float64, that returns one number
check("02-3", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# Every direction counts by its energy relative to the strongest one's, so that many weak ones add little.
# The rank proper would be min(m, n) for every update in these tables.
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
# A long random walk takes equal steps in very many dimensions. What is the cosine ⟨ΔW_f, ΔW_end⟩ / (‖ΔW_f‖
# ‖ΔW_end‖) between where it is after a fraction f of its steps and where it ends? Derive it, or measure it
# with `random_walk`.
#
# <details><summary>Hint</summary>
#
# ΔW_end is ΔW_f plus steps that are nearly orthogonal to it. Squared lengths of orthogonal steps add up.
#
# </details>

# %% tags=["exercise"]
answer = ...  # a function of f in (0, 1] that returns a cosine
check("02-4", answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# With unit end, ‖ΔW_f‖² = f, and ΔW_end = ΔW_f + rest with the rest orthogonal to ΔW_f. So the inner
# product is f, the norms are √f and 1, and the cosine is √f. It depends on the fraction alone and not on
# the number of steps. Sim_K of a walk starts lower, since top singular vectors do not follow the whole
# matrix, but rises to 1 for the same reason: compare both below.
#
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
def answer(f):
    return f**0.5


long_walk = random_walk([1.0] * 20, (128, 128), torch.Generator().manual_seed(seed))
end_span = top_right_singular_vectors(long_walk[-1], sizes.K)
for at in (2, 5, 10):
    cosine = torch.nn.functional.cosine_similarity(long_walk[at - 1].flatten(), long_walk[-1].flatten(), 0)
    sim = subspace_alignment(top_right_singular_vectors(long_walk[at - 1], sizes.K), end_span)
    print(f"f = {at / 20}: cosine {cosine:.3f}, √f {answer(at / 20):.3f}, Sim_K {sim:.3f}")
verdict = check("02-4", answer)
assert verdict.right, verdict
verdict
