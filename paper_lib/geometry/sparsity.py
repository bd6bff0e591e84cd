"""Gate III: which entries of an update bf16 can show, and what it would show of these sizes anywhere else.

A stored weight moves where |ΔW_ij| exceeds ½ ULP of W_0,ij (Shen et al. 2026, §3.3, App. D): a statement on
single entries, which is tested here entry by entry.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from paper_lib.geometry.spectra import require_finite, require_matrix

# --- What bf16 storage shows of an update, and which weights it falls on (Shen et al. 2026, §3.2, C.3).

Factors = tuple[Tensor, Tensor, Tensor]
_ROWS = 32  # at a time where a float64 copy of the whole would leave the cache


def visible_mask(
    w_0: Tensor, w_t: Tensor, *, eta: float = 1e-3, precision: torch.dtype = torch.bfloat16
) -> Tensor:
    """Entries that changed as stored: |a − b| > η max(|a|, |b|), a, b = W_0, W_t in `precision` (App. C.3).

    w_0, w_t: (..., m, n), any floating dtype. Returns that shape, bool. Two bf16 numbers that differ do so by
    at least 2⁻⁸ of the larger, so any smaller η, 0 included, means "not equal"; +0 and −0 are equal. Raises
    ValueError for unequal shapes, entries that are not finite in `precision`, or η outside [0, 1).

    >>> visible_mask(torch.ones(1, 2), torch.tensor([[1.003, 1.005]])).tolist()
    [[False, True]]
    """
    _require_one_shape(w_0, w_t)
    if not 0 <= eta < 1 or not precision.is_floating_point:
        raise ValueError(f"eta must lie in [0, 1) and precision be floating, got {eta} and {precision}")
    before, after = w_0.to(precision), w_t.to(precision)
    require_finite(f"w_0 in {precision}", before)
    require_finite(f"w_t in {precision}", after)
    if eta < torch.finfo(precision).eps / 2:
        return before != after
    wide = torch.promote_types(precision, torch.float32)
    before, after = before.to(wide), after.to(wide)
    return (before - after).abs() > eta * torch.maximum(before.abs(), after.abs())


def update_sparsity(
    w_0: Tensor, w_t: Tensor, *, eta: float = 1e-3, precision: torch.dtype = torch.bfloat16
) -> Tensor:
    """Share of entries that `visible_mask` leaves unmarked (§3.2, Table 1).

    w_0, w_t: (..., m, n). Returns (...,), float64, in [0, 1]; the update density is its complement. Raises as
    `visible_mask` does.

    >>> update_sparsity(torch.ones(4, 3), torch.ones(4, 3) + torch.eye(4, 3)).item()
    0.75
    """
    changed = visible_mask(w_0, w_t, eta=eta, precision=precision)
    return 1 - _count(changed).double() / changed.shape[-2:].numel()


def untouched_rows(w_0: Tensor, w_t: Tensor) -> Tensor:
    """Rows that no gradient need have reached, such as those of tokens that never occurred: each entry stayed
    or shrank, as weight decay alone makes it, to the precision of W_t.

    w_0, w_t: (m, n). Returns (m,), bool. Noise would shrink n entries at once with probability 2⁻ⁿ.

    >>> untouched_rows(torch.tensor([[1.0, -2], [1, -2]]), torch.tensor([[0.9, -1.8], [0.9, -2.2]])).tolist()
    [True, False]
    """
    _require_one_shape(w_0, w_t)
    before = w_0.to(w_t.dtype)
    return ((before.clamp(max=0) <= w_t) & (w_t <= before.clamp(min=0))).all(dim=1)


def absolute_sparsity(w_0: Tensor, w_t: Tensor, *, threshold: float = 1e-5) -> Tensor:
    """Share of entries with |ΔW| ≤ threshold (Yu et al. 2026), ΔW taken in float64.

    w_0, w_t: (..., m, n). Returns (...,), float64, in [0, 1]. Raises ValueError for unequal shapes,
    non-finite entries or a threshold that is not finite and ≥ 0.

    >>> absolute_sparsity(torch.zeros(1, 4), torch.tensor([[0.0, 1e-6, 1e-4, 1.0]])).item()
    0.5
    """
    _require_one_shape(w_0, w_t)
    require_finite("w_0", w_0)
    require_finite("w_t", w_t)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be finite and >= 0, got {threshold} for shape {tuple(w_0.shape)}")
    small = torch.zeros(w_0.shape[:-2], dtype=torch.int64, device=w_0.device)
    for before, after in zip(w_0.split(_ROWS, -2), w_t.split(_ROWS, -2), strict=True):
        small += _count((after.double() - before.double()).abs() <= threshold)
    return small.double() / w_0.shape[-2:].numel()


def principal_mask(w_0: Tensor, *, alpha: float, rank: int) -> Tensor:
    """The top-α entries by magnitude of the rank-r SVD reconstruction of W_0 (§3.2; the paper has r = 64).

    w_0: (..., m, n). Returns (..., m, n), bool, with exactly round(α m n) entries a matrix, ties going to the
    earlier position. Raises ValueError for α outside (0, 1) or a rank outside [1, min(m, n)]. Cost: one
    float64 SVD.

    >>> principal_mask(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), alpha=0.25, rank=1).tolist()
    [[True, False], [False, False]]
    """
    _require_alpha(w_0, alpha)
    return mark_largest(principal_magnitude(w_0, rank=rank), alpha)


def principal_magnitude(w_0: Tensor, *, rank: int, factors: Factors | None = None) -> Tensor:
    """|Σ_{i≤r} σ_i u_i v_iᵀ|, which `principal_mask` ranks: (..., m, n), float64. Raises as it does, and for
    factors, (U, S, Vh) of W_0 where they are known, that do not fit W_0 or have fewer than `rank` columns."""
    require_matrix("w_0", w_0)
    require_finite("w_0", w_0)
    rows, columns = w_0.shape[-2:]
    if not 1 <= rank <= min(rows, columns):
        raise ValueError(f"rank must lie in [1, {min(rows, columns)}], got {rank} for w_0 {tuple(w_0.shape)}")
    u, s, vh = torch.linalg.svd(w_0.double(), full_matrices=False) if factors is None else factors
    u, s, vh = u[..., :rank].double(), s[..., :rank].double(), vh[..., :rank, :].double()
    found = [tuple(factor.shape) for factor in (u, s, vh)]
    batch = tuple(w_0.shape[:-2])
    if found != [(*batch, rows, rank), (*batch, rank), (*batch, rank, columns)]:
        raise ValueError(f"factors {found} are no rank-{rank} SVD of w_0 of shape {tuple(w_0.shape)}")
    return ((u * s.unsqueeze(-2)) @ vh).abs_()  # (..., m, r) @ (..., r, n)


def low_magnitude_mask(w_0: Tensor, *, alpha: float) -> Tensor:
    """The bottom-α entries by |W_0| (§3.2), compared in W_0's own dtype.

    w_0: (..., m, n). Returns (..., m, n), bool, with exactly round(α m n) entries a matrix, ties going to the
    earlier position. Raises ValueError for α outside (0, 1) or non-finite entries.

    >>> low_magnitude_mask(torch.tensor([[1.0, -0.1], [0.5, 2.0]]), alpha=0.25).tolist()
    [[False, True], [False, False]]
    """
    _require_alpha(w_0, alpha)
    require_finite("w_0", w_0)
    if w_0.dtype in (torch.bfloat16, torch.float16):  # the bits of a magnitude are in its order
        return mark_largest(-(w_0.view(torch.int16) & 0x7FFF), alpha)
    return mark_largest(-w_0.abs(), alpha)


def mask_overlap(mask: Tensor, update: Tensor) -> Tensor:
    """|mask ∩ update| / |update| (§3.2, Fig. 3): the share of visible entries in a mask; chance is its α.

    mask, update: (..., m, n), bool. Returns (...,), float64, in [0, 1]; NaN where no entry is visible. Raises
    ValueError for unequal shapes or another dtype.

    >>> mask_overlap(torch.eye(4).bool(), torch.ones(4, 4).bool()).item()
    0.25
    """
    _require_masks(mask, update)
    return _count(mask & update).double() / _count(update).double()


def overlap_bounds(alpha: float, density: float) -> tuple[float, float]:
    """What any α-mask can reach on an update of density d: [max(0, α − (1 − d)) / d, min(1, α / d)].

    The overlaps of a dense update are pinned near α, whatever the weights it prefers. Returns (low, high);
    both NaN for d = 0, where the overlap is not defined. Raises ValueError for α outside (0, 1) or d outside
    [0, 1].

    >>> [round(bound, 3) for bound in overlap_bounds(0.3, 0.9273)]
    [0.245, 0.324]
    """
    if not 0 < alpha < 1 or not 0 <= density <= 1:
        raise ValueError(f"alpha must lie in (0, 1), density in [0, 1], got {alpha} and {density}")
    if density == 0:
        return math.nan, math.nan
    return max(0.0, alpha - (1 - density)) / density, min(1.0, alpha / density)


def half_ulp(w_0: Tensor, precision: torch.dtype = torch.bfloat16) -> Tensor:
    """½ ULP of W_0 as stored (Gate III, App. D): half the gap to the next larger magnitude in `precision`.

    w_0: any shape. Returns that shape, float64. A stored weight moves visibly when |ΔW| is above it and stays
    when below. Two edges: a tie rounds to the even neighbour, so exactly ½ ULP shows on every second weight,
    and towards zero from a power of two the gap, hence the threshold, is half as wide. Raises ValueError for
    non-finite entries.

    >>> half_ulp(torch.tensor([1.0, 256.0])).tolist()  # bf16 has 8 significant bits: 2⁻⁸ and 1
    [0.00390625, 1.0]
    """
    stored = w_0.to(precision).double()
    require_finite(f"w_0 in {precision}", stored)
    grid = torch.finfo(precision)
    _, exponent = torch.frexp(stored.abs().clamp(min=grid.smallest_normal))
    return torch.ldexp(torch.full_like(stored, grid.eps / 2), exponent - 1)


def mark_largest(values: Tensor, alpha: float) -> Tensor:
    """The round(α m n) largest values of each matrix (..., m, n), bool; of equal ones the earlier first.

    NumPy's selection, linear in the size, finds the cut.
    """
    flat = values.reshape(-1, values.shape[-2:].numel())  # (matrices, m n)
    count = round(alpha * flat.shape[-1])
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    return torch.stack([_largest(row, count) for row in flat]).view(values.shape)


def _largest(row: Tensor, count: int) -> Tensor:
    array = row.numpy(force=True)
    place = len(array) - count
    cut = np.partition(array, place)[place]
    marked = row >= cut.item()
    if surplus := int(marked.count_nonzero()) - count:
        marked[(row == cut.item()).nonzero()[-surplus:, 0]] = False
    return marked


def _count(mask: Tensor) -> Tensor:
    """Marked entries of each matrix (..., m, n), int64: (...,)."""
    return mask.flatten(-2).count_nonzero(-1) if mask.ndim > 2 else mask.count_nonzero()


def _require_alpha(w_0: Tensor, alpha: float) -> None:
    require_matrix("w_0", w_0)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha} for w_0 of shape {tuple(w_0.shape)}")


def _require_masks(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 2 or a.dtype != torch.bool or b.dtype != torch.bool:
        found = f"{a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        raise ValueError(f"expected two bool masks of one shape (..., m, n), got {found}")


def _require_one_shape(w_0: Tensor, w_t: Tensor) -> None:
    if w_0.shape != w_t.shape:
        raise ValueError(f"w_0 and w_t need one shape, got {tuple(w_0.shape)} and {tuple(w_t.shape)}")
    require_matrix("w_0", w_0)
    require_matrix("w_t", w_t)


def predicted_mask(w_0: Tensor, w_t: Tensor, *, precision: torch.dtype = torch.bfloat16) -> Tensor:
    """Entries that Gate III lets through: |ΔW_ij| > ½ ULP(W_0,ij) (App. D).

    w_0, w_t: (..., m, n). Returns that shape, bool. It differs from `visible_mask` at η = 0 where W_0 is not
    itself stored in `precision`, in ties, and towards zero from a power of two (see `half_ulp`). Raises
    ValueError for unequal shapes and for entries that are not finite.

    >>> predicted_mask(torch.ones(1, 2), torch.tensor([[1.003, 1.005]])).tolist()
    [[False, True]]
    """
    return _update(w_0, w_t).abs() > half_ulp(w_0, precision)


def prediction_agreement(w_0: Tensor, w_t: Tensor, *, eta: float = 1e-3) -> Tensor:
    """Share of entries at which `predicted_mask` and `visible_mask` say the same: (...,), float64, in [0, 1].

    Read it against 1 − d_p − d_o + 2 d_p d_o, what two unrelated masks of these densities would reach. Raises
    as the two masks do.

    >>> prediction_agreement(torch.ones(1, 2), torch.tensor([[1.003, 1.005]])).item()
    1.0
    """
    observed = visible_mask(w_0, w_t, eta=eta)
    return (predicted_mask(w_0, w_t) == observed).double().mean((-2, -1))


def showing_probability(w_0: Tensor, w_t: Tensor, *, precision: torch.dtype = torch.bfloat16) -> Tensor:
    """P(|ΔW_J| > ½ ULP(W_0,ij)) for a uniformly random entry J of the same update: how likely entry ij shows
    when the update's sizes are dealt out at random.

    w_0, w_t: (m, n). Returns (m, n), float64, in [0, 1]: the exact mean over all permutations of ΔW, from the
    two sets of magnitudes alone. Its mean over entries is the density of an update that has this one's sizes
    and is independent of W_0. Raises ValueError for another number of dimensions, else as `predicted_mask`.
    Cost: one sort.

    >>> showing_probability(torch.tensor([[1.0, 0.001]]), torch.tensor([[1.001, 0.002]])).tolist()
    [[0.0, 1.0]]
    """
    if w_0.ndim != 2:
        raise ValueError(f"showing_probability takes one matrix (m, n), got shape {tuple(w_0.shape)}")
    sizes = _update(w_0, w_t).abs().flatten().sort().values  # (m n,)
    not_above = torch.searchsorted(sizes, half_ulp(w_0, precision).flatten(), right=True)
    return (1 - not_above.double() / sizes.numel()).view(w_0.shape)


def top_coordinate_energy(delta_w: Tensor, fraction: float) -> Tensor:
    """Share of ‖ΔW‖_F² on the ⌈fraction · mn⌉ entries that moved most (Yu et al. 2026).

    delta_w: (..., m, n). Returns (...,), float64, in [fraction, 1], NaN where ΔW = 0; equal sizes give
    `fraction` and normal ones 0.44 at 0.1. Raises ValueError for a fraction outside (0, 1].

    >>> top_coordinate_energy(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), 0.25).item()
    0.75
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction} for {tuple(delta_w.shape)}")
    energy = delta_w.double().square().flatten(-2)  # (..., m n)
    count = math.ceil(fraction * energy.shape[-1] - 1e-9)
    return energy.topk(count, sorted=False).values.sum(-1) / energy.sum(-1)


def _update(w_0: Tensor, w_t: Tensor) -> Tensor:
    _require_one_shape(w_0, w_t)
    delta_w = w_t.double() - w_0.double()
    require_finite("w_t − w_0", delta_w)
    return delta_w


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B| of two masks (Zhu et al. 2025).

    a, b: (..., m, n), bool. Returns (...,), float64, in [0, 1]; NaN where both are empty. Raises ValueError
    for unequal shapes or another dtype.

    >>> jaccard(torch.eye(2).bool(), torch.ones(2, 2).bool()).item()
    0.5
    """
    _require_masks(a, b)
    return (a & b).sum((-2, -1)).double() / (a | b).sum((-2, -1)).double()


def chance_jaccard(a: Tensor, b: Tensor) -> Tensor:
    """d_a d_b / (d_a + d_b − d_a d_b): the Jaccard index of independent masks with the densities of a and b.

    a, b: (..., m, n), bool, or the probabilities with which independent entries are in the masks, where it is
    Σ p_a p_b / Σ (p_a + p_b − p_a p_b). Returns (...,), float64; NaN where both are 0.

    >>> chance_jaccard(torch.eye(2).bool(), torch.ones(2, 2).bool()).item()
    0.5
    """
    if a.dtype == torch.bool:
        a, b = (mask.double().mean((-2, -1), keepdim=True) for mask in (a, b))
    both = (a * b).sum((-2, -1))
    return both / ((a + b).sum((-2, -1)) - both)
