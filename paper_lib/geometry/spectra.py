"""Spectra of weights and updates: shift, norms, stable rank, tail (Shen et al. 2026, §3.2 and §4.1).

Everything is computed and returned in float64. `sigma` is always a descending spectrum from
`singular_values`; functions that take it beside a matrix use it instead of another SVD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# --- What the diagnostics ask of every tensor that they are given.


def require_matrix(name: str, w: Tensor) -> None:
    """Raise ValueError unless w is a non-empty real (..., m, n)."""
    if w.ndim < 2 or w.numel() == 0 or not w.is_floating_point():
        raise ValueError(f"{name} must be a real (..., m, n), got {w.dtype} of shape {tuple(w.shape)}")


def require_finite(name: str, values: Tensor) -> None:
    """Raise ValueError, with the first and the number of such, where entries of any shape are not finite."""
    if torch.isfinite(values.sum(dtype=torch.float64)):  # one pass; a sum that overflows is looked at again
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        first, count = values[bad][0].item(), int(bad.sum())
        raise ValueError(f"{name} must be finite, got {first} ({count} such) in shape {tuple(values.shape)}")


def require_finite_matrix(name: str, w: Tensor) -> None:
    """Raise ValueError unless w is a non-empty, finite, real (..., m, n)."""
    require_matrix(name, w)
    require_finite(name, w)


# --- Spectra.


def singular_values(w: Tensor) -> Tensor:
    """σ(W) by float64 LAPACK.

    w: (..., m, n). Returns (..., min(m, n)), float64, descending, with an error of about 1e-15 σ_1. Raises
    ValueError for anything but a non-empty, finite, real matrix, as every function here does.

    >>> singular_values(torch.ones(2, 3, 12)).shape
    torch.Size([2, 3])
    """
    require_finite_matrix("w", w)
    return torch.linalg.svdvals(w.double())


def spectral_shift(sigma_0: Tensor, sigma_t: Tensor) -> Tensor:
    """NSS = ‖σ(W_t) − σ(W_0)‖₂ / ‖σ(W_0)‖₂ (§3.2, Fig. 2); by Weyl and Mirsky at most ‖ΔW‖_F / ‖W_0‖_F.

    sigma_0, sigma_t: (..., r). Returns (...,), float64, ≥ 0; NaN where W_0 = 0. Raises ValueError for unequal
    shapes.

    >>> spectral_shift(torch.tensor([4.0, 3.0]), torch.tensor([4.0, 3.5])).item()
    0.1
    """
    _require_spectrum("sigma_0", sigma_0)
    _require_spectrum("sigma_t", sigma_t)
    if sigma_0.shape != sigma_t.shape:
        raise ValueError(f"spectra need one shape, got {tuple(sigma_0.shape)} and {tuple(sigma_t.shape)}")
    before, after = sigma_0.double(), sigma_t.double()
    return _ratio(torch.linalg.vector_norm(after - before, dim=-1), torch.linalg.vector_norm(before, dim=-1))


def frobenius_norm(delta_w: Tensor) -> Tensor:
    """‖ΔW‖_F (§4.1, Fig. 4b). delta_w: (..., m, n). Returns (...,), float64.

    >>> frobenius_norm(torch.ones(3, 12)).item()
    6.0
    """
    require_finite_matrix("delta_w", delta_w)
    return torch.linalg.vector_norm(delta_w.double(), dim=(-2, -1))


def relative_norm(delta_w: Tensor, w_0: Tensor) -> Tensor:
    """‖ΔW‖_F / ‖W_0‖_F. delta_w, w_0: (..., m, n). Returns (...,), float64; NaN where W_0 = 0.

    Raises ValueError for unequal shapes.

    >>> relative_norm(torch.ones(3, 12), 2 * torch.ones(3, 12)).item()
    0.5
    """
    if delta_w.shape != w_0.shape:
        raise ValueError(f"delta_w and w_0 need one shape, got {tuple(delta_w.shape)} and {tuple(w_0.shape)}")
    return _ratio(frobenius_norm(delta_w), frobenius_norm(w_0))


def stable_rank(delta_w: Tensor, *, sigma: Tensor | None = None, norm: Tensor | None = None) -> Tensor:
    """srank(ΔW) = ‖ΔW‖_F² / ‖ΔW‖_op² (§4.1, Fig. 4a).

    delta_w: (..., m, n); sigma and norm: its leading singular values (..., p) and ‖ΔW‖_F (...,), where both
    are known. Returns (...,), float64, in [1, min(m, n)]; NaN where ΔW = 0. Taken as Σ (σ_i / σ_1)², or one
    over the `top_energy` of one direction, which neither overflow nor underflow.

    >>> stable_rank(torch.stack([torch.eye(4, 8), torch.ones(4, 8)])).round(decimals=6).tolist()
    [4.0, 1.0]
    """
    if sigma is not None and norm is not None:
        return 1 / top_energy(sigma, 1, norm=norm)
    return _scaled(singular_values(delta_w)).square().sum(-1)


def hill_index(sigma: Tensor, k: int) -> Tensor:
    """Hill's tail estimate over the top k: [1/(k−1) Σ_{i<k} log(σ_i / σ_k)]⁻¹ (§4.1, Fig. 4c).

    sigma: (..., r). Returns (...,), float64, > 0; infinite where the top k are equal, NaN where σ_k = 0. Its
    standard error on a Pareto tail is about 1/√k of its value. Raises ValueError for k outside [2, r].

    >>> round(hill_index(torch.tensor([4.0, 2.0, 1.0]), 3).item(), 4)  # 2 / (log 4 + log 2)
    0.9618
    """
    _require_spectrum("sigma", sigma)
    _require_k(k, 2, sigma)
    logs = sigma[..., :k].double().log()  # (..., k)
    index = (k - 1) / (logs[..., :-1] - logs[..., -1:]).sum(-1)
    return torch.where(sigma[..., k - 1] > 0, index, torch.nan)


def top_energy(sigma: Tensor, k: int, *, norm: Tensor | None = None) -> Tensor:
    """Σ_{i≤k} σ_i² / Σ σ_i²: the share of ‖ΔW‖_F² that its best rank-k approximation holds.

    sigma: (..., r), complete, or the leading ones and norm (...,), ‖ΔW‖_F. Returns (...,), float64, in
    (0, 1]; NaN where ΔW = 0. Raises ValueError for k outside [1, r].

    >>> round(top_energy(torch.tensor([3.0, 1.0, 1.0, 1.0]), 1).item(), 6)
    0.75
    """
    _require_spectrum("sigma", sigma)
    _require_k(k, 1, sigma)
    energy = _scaled(sigma.double()).square()  # (..., r), in units of σ_1²
    total = energy.sum(-1) if norm is None else (norm / sigma[..., 0]).square()
    return energy[..., :k].sum(-1) / total


def energy_rank(sigma: Tensor, share: float) -> int:
    """The least k whose best rank-k approximation holds this share of ‖ΔW‖_F²: what a LoRA of that rank could
    hold at best. sigma: (r,), complete. Returns 0 where ΔW = 0; raises ValueError for a share outside (0, 1].

    >>> energy_rank(torch.tensor([3.0, 1.0, 1.0, 1.0]), 0.8)
    2
    """
    _require_spectrum("sigma", sigma)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share} for sigma {tuple(sigma.shape)}")
    energy = sigma.double().square().cumsum(-1)
    return int((energy < share * energy[-1]).count_nonzero()) + 1 if energy[-1] > 0 else 0


def drift_ratio(delta_w: Tensor, learning_rates: Sequence[float] | Tensor) -> Tensor:
    """RMS(ΔW) / √Σ_t lr_t²: about 1 is what Adam does on pure noise, more is drift.

    delta_w: (..., m, n); learning_rates: one per optimizer step behind ΔW. Returns (...,), float64, ≥ 0.
    Raises ValueError for learning rates that are negative, not finite, or without a positive one.

    >>> round(drift_ratio(torch.full((3, 4), 0.02), [0.01] * 4).item(), 6)
    1.0
    """
    rates = torch.as_tensor(learning_rates, dtype=torch.float64, device=delta_w.device)
    if rates.ndim != 1 or not torch.isfinite(rates).all() or not (rates >= 0).all() or not (rates > 0).any():
        shown = f"{rates.tolist()!s:.60} for delta_w {tuple(delta_w.shape)}"
        raise ValueError(f"learning_rates must be finite, >= 0 and not all 0, got {shown}")
    entries = delta_w.shape[-2:].numel()
    return frobenius_norm(delta_w) / entries**0.5 / torch.linalg.vector_norm(rates)


def _scaled(sigma: Tensor) -> Tensor:
    """σ / σ_1, NaN for a zero spectrum (0 / 0)."""
    return sigma / sigma[..., :1]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """NaN, not ∞, over zero: no ratio to a W_0 that is not there."""
    return torch.where(denominator > 0, numerator / denominator, torch.nan)


def _require_k(k: int, lowest: int, sigma: Tensor) -> None:
    if not lowest <= k <= sigma.shape[-1]:
        raise ValueError(f"k must lie in [{lowest}, {sigma.shape[-1]}], got {k} for {tuple(sigma.shape)}")


def _require_spectrum(name: str, sigma: Tensor) -> None:
    if sigma.ndim < 1 or sigma.numel() == 0 or not sigma.is_floating_point():
        raise ValueError(f"{name} must be a real (..., r), got {sigma.dtype} of shape {tuple(sigma.shape)}")
    require_finite(name, sigma)
    if (sigma < 0).any() or (sigma.diff(dim=-1) > 0).any():
        raise ValueError(f"{name} must be >= 0 and descending, which shape {tuple(sigma.shape)} is not")
