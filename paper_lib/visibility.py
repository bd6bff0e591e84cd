"""Gate III: which entries of an update bf16 can show, and what it would show of these sizes anywhere else.

A stored weight moves where |ΔW_ij| exceeds ½ ULP of W_0,ij (Shen et al. 2026, §3.3, App. D): a statement on
single entries, which is tested here entry by entry.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paper_lib.sparsity import half_ulp, visible_mask


def predicted_mask(w_0: Tensor, w_t: Tensor, *, precision: torch.dtype = torch.bfloat16) -> Tensor:
    """Entries that Gate III lets through: |ΔW_ij| > ½ ULP(W_0,ij) (App. D).

    w_0, w_t: (..., m, n). Returns that shape, bool. It differs from `visible_mask` at η = 0 where W_0 is not
    itself stored in `precision`, in ties, and towards zero from a power of two (see `half_ulp`). Raises
    ValueError for unequal shapes and for entries that are not finite.
    """
    return _update(w_0, w_t).abs() > half_ulp(w_0, precision)


def prediction_agreement(
    w_0: Tensor, w_t: Tensor, *, eta: float = 1e-3, precision: torch.dtype = torch.bfloat16
) -> Tensor:
    """Share of entries at which `predicted_mask` and `visible_mask` say the same: (...,), float64, in [0, 1].

    Read it against 1 − d_p − d_o + 2 d_p d_o, what two unrelated masks of these densities would reach. Raises
    as the two masks do.
    """
    observed = visible_mask(w_0, w_t, eta=eta, precision=precision)
    return (predicted_mask(w_0, w_t, precision=precision) == observed).double().mean((-2, -1))


def showing_probability(w_0: Tensor, w_t: Tensor, *, precision: torch.dtype = torch.bfloat16) -> Tensor:
    """P(|ΔW_J| > ½ ULP(W_0,ij)) for a uniformly random entry J of the same update: how likely entry ij shows
    when the update's sizes are dealt out at random.

    w_0, w_t: (m, n). Returns (m, n), float64, in [0, 1]: the exact mean over all permutations of ΔW, from the
    two sets of magnitudes alone. Its mean over entries is the density of an update that has this one's sizes
    and is independent of W_0. Raises ValueError for another number of dimensions, else as `predicted_mask`.
    Cost: one sort.
    """
    if w_0.ndim != 2:
        raise ValueError(f"showing_probability takes one matrix (m, n), got shape {tuple(w_0.shape)}")
    sizes = _update(w_0, w_t).abs().flatten().sort().values
    not_above = torch.searchsorted(sizes, half_ulp(w_0, precision).flatten(), right=True)
    return (1 - not_above.double() / sizes.numel()).view(w_0.shape)


def top_coordinate_energy(delta_w: Tensor, fraction: float) -> Tensor:
    """Share of ‖ΔW‖_F² on the ⌈fraction · mn⌉ entries that moved most (Yu et al. 2026).

    delta_w: (..., m, n). Returns (...,), float64, in [fraction, 1], NaN where ΔW = 0; equal sizes give
    `fraction` and normal ones 0.50 at 0.1. Raises ValueError for a fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction} for {tuple(delta_w.shape)}")
    energy = delta_w.double().square().flatten(-2)
    count = math.ceil(fraction * energy.shape[-1] - 1e-9)
    return energy.topk(count, sorted=False).values.sum(-1) / energy.sum(-1)


def _update(w_0: Tensor, w_t: Tensor) -> Tensor:
    if w_0.shape != w_t.shape or w_0.ndim < 2:
        raise ValueError(f"w_0 and w_t need one (..., m, n), got {tuple(w_0.shape)} and {tuple(w_t.shape)}")
    delta_w = w_t.double() - w_0.double()
    if not torch.isfinite(delta_w).all():
        raise ValueError(f"w_0 and w_t must be finite, which shape {tuple(w_0.shape)} is not")
    return delta_w
