"""What bf16 storage shows of an update, and which weights it falls on (Shen et al. 2026, §3.2, App. C.3)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from paper_lib.checks import require_finite, require_matrix

Factors = tuple[Tensor, Tensor, Tensor]
_ROWS = 32  # at a time where a float64 copy of the whole would leave the cache


def visible_mask(
    w_0: Tensor, w_t: Tensor, *, eta: float = 1e-3, precision: torch.dtype = torch.bfloat16
) -> Tensor:
    """Entries that changed as stored: |a − b| > η max(|a|, |b|), a, b = W_0, W_t in `precision` (App. C.3).

    w_0, w_t: (..., m, n), any floating dtype. Returns that shape, bool. Two bf16 numbers that differ do so by
    at least 2⁻⁸ of the larger, so any smaller η, 0 included, means "not equal"; +0 and −0 are equal. Raises
    ValueError for unequal shapes, entries that are not finite in `precision`, or η outside [0, 1).
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
    """
    return _share(~visible_mask(w_0, w_t, eta=eta, precision=precision))


def absolute_sparsity(w_0: Tensor, w_t: Tensor, *, threshold: float = 1e-5) -> Tensor:
    """Share of entries with |ΔW| ≤ threshold (Yu et al. 2026), ΔW taken in float64.

    w_0, w_t: (..., m, n). Returns (...,), float64, in [0, 1]. Raises ValueError for unequal shapes,
    non-finite entries or a threshold that is not finite and ≥ 0.
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


def principal_mask(w_0: Tensor, *, alpha: float, rank: int, factors: Factors | None = None) -> Tensor:
    """The top-α entries by magnitude of the rank-r SVD reconstruction of W_0 (§3.2; the paper has r = 64).

    w_0: (..., m, n). factors: (U, S, Vh) of W_0 with at least `rank` columns, where they are already known.
    Returns (..., m, n), bool, with exactly round(α m n) entries a matrix, ties going to the earlier position.
    Raises ValueError for α outside (0, 1), a rank outside [1, min(m, n)], or factors that do not fit W_0.
    Cost: one float64 SVD unless `factors` is given.
    """
    _require_alpha(w_0, alpha)
    return mark_largest(principal_magnitude(w_0, rank=rank, factors=factors), alpha)


def principal_magnitude(w_0: Tensor, *, rank: int, factors: Factors | None = None) -> Tensor:
    """|Σ_{i≤r} σ_i u_i v_iᵀ|, which `principal_mask` ranks: (..., m, n), float64. Raises as it does."""
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
    return ((u * s.unsqueeze(-2)) @ vh).abs_()


def low_magnitude_mask(w_0: Tensor, *, alpha: float) -> Tensor:
    """The bottom-α entries by |W_0| (§3.2), compared in W_0's own dtype.

    w_0: (..., m, n). Returns (..., m, n), bool, with exactly round(α m n) entries a matrix, ties going to the
    earlier position. Raises ValueError for α outside (0, 1) or non-finite entries.
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
    """
    if mask.shape != update.shape or mask.ndim < 2:
        raise ValueError(f"masks need one (..., m, n), got {tuple(mask.shape)} and {tuple(update.shape)}")
    if mask.dtype != torch.bool or update.dtype != torch.bool:
        raise ValueError(f"masks must be bool, got {mask.dtype} and {update.dtype}, {tuple(mask.shape)}")
    return _count(mask & update).double() / _count(update).double()


def overlap_bounds(alpha: float, density: float) -> tuple[float, float]:
    """What any α-mask can reach on an update of density d: [max(0, α − (1 − d)) / d, min(1, α / d)].

    The overlaps of a dense update are pinned near α, whatever the weights it prefers. Returns (low, high);
    both NaN for d = 0, where the overlap is not defined. Raises ValueError for α outside (0, 1) or d outside
    [0, 1].
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
    flat = values.reshape(-1, values.shape[-2:].numel())
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


def _share(mask: Tensor) -> Tensor:
    return _count(mask).double() / mask.shape[-2:].numel()


def _count(mask: Tensor) -> Tensor:
    """Marked entries of each matrix (..., m, n), int64: (...,)."""
    return mask.flatten(-2).count_nonzero(-1) if mask.ndim > 2 else mask.count_nonzero()


def _require_alpha(w_0: Tensor, alpha: float) -> None:
    require_matrix("w_0", w_0)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha} for w_0 of shape {tuple(w_0.shape)}")


def _require_one_shape(w_0: Tensor, w_t: Tensor) -> None:
    if w_0.shape != w_t.shape:
        raise ValueError(f"w_0 and w_t need one shape, got {tuple(w_0.shape)} and {tuple(w_t.shape)}")
    require_matrix("w_0", w_0)
    require_matrix("w_t", w_t)
