"""What an update would look like by chance, and how far a mean can be trusted.

The paper shows neither; each null keeps one property of ΔW and randomises the rest. All randomness comes from
the `torch.Generator` passed in, which must live on the tensor's device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from paper_lib.geometry.spectra import require_finite_matrix


def same_norm_gaussian(delta_w: Tensor, generator: torch.Generator) -> Tensor:
    """Independent normal entries, rescaled to ‖ΔW‖_F: keeps the size, forgets shape, spectrum and place.

    delta_w: (..., m, n). Returns its shape, dtype and device, each matrix with its own norm; 0 where ΔW = 0.
    Raises ValueError for anything but a non-empty, finite, real matrix, as every null here does.

    >>> noise = same_norm_gaussian(torch.ones(3, 12), torch.Generator().manual_seed(0))
    >>> round(torch.linalg.vector_norm(noise).item(), 4)
    6.0
    """
    require_finite_matrix("delta_w", delta_w)
    norms = torch.linalg.vector_norm(delta_w.double(), dim=(-2, -1), keepdim=True)
    return (_directions(delta_w.shape, generator) * norms).to(delta_w.dtype)


def permuted(delta_w: Tensor, generator: torch.Generator) -> Tensor:
    """ΔW with its entries in random places: keeps every magnitude, forgets where it fell.

    delta_w: (..., m, n). Returns its shape, dtype and device; each matrix of a batch is permuted by itself.

    >>> permuted(torch.eye(4, 3), torch.Generator().manual_seed(0)).sum().item()
    3.0
    """
    require_finite_matrix("delta_w", delta_w)
    matrices = delta_w.reshape(-1, delta_w.shape[-2:].numel())  # (matrices, m n)
    device = delta_w.device
    rows = [row[torch.randperm(row.numel(), generator=generator, device=device)] for row in matrices]
    return torch.stack(rows).view(delta_w.shape)


def rescaled(delta_w: Tensor, norm: float | Tensor) -> Tensor:
    """ΔW · norm / ‖ΔW‖_F: keeps direction and spectrum, changes the size (SFT's update at OPD's norm).

    delta_w: (..., m, n); norm: a number or (...,). Returns delta_w's shape, dtype and device. Raises
    ValueError where ΔW = 0, which has no direction, or for a norm that is negative, not finite or of another
    batch shape.

    >>> rescaled(torch.ones(3, 12), 3.0).unique().tolist()
    [0.5]
    """
    require_finite_matrix("delta_w", delta_w)
    target = torch.as_tensor(norm, dtype=torch.float64, device=delta_w.device)
    shape = tuple(delta_w.shape)
    if target.shape not in ((), delta_w.shape[:-2]) or not torch.isfinite(target).all() or (target < 0).any():
        raise ValueError(f"norm must be finite, >= 0, one a matrix, got {norm} for delta_w of shape {shape}")
    norms = torch.linalg.vector_norm(delta_w.double(), dim=(-2, -1))
    if not (norms > 0).all():
        raise ValueError(f"delta_w of shape {shape} is zero and has no direction to rescale to norm {norm}")
    return (delta_w.double() * (target / norms)[..., None, None]).to(delta_w.dtype)


def random_walk(
    increment_norms: Sequence[float] | Tensor, shape: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Σ_{s≤t} n_s G_s / ‖G_s‖_F, G_s standard normal: a path that only shares its step lengths with a run's.

    increment_norms: T Frobenius norms ≥ 0; shape: (m, n). Returns (T, m, n), float64, on the generator's
    device: the cumulative updates after each increment, the starting point 0 not included. Raises ValueError
    for norms that are none, negative or not finite, or a shape without entries.

    >>> random_walk([1.0, 0.5], (3, 4), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4])
    """
    norms = torch.as_tensor(increment_norms, dtype=torch.float64, device=generator.device)
    if norms.ndim != 1 or norms.numel() == 0 or not torch.isfinite(norms).all() or (norms < 0).any():
        raise ValueError(f"increment_norms must be finite, >= 0, got {norms.tolist()!s:.60} for {shape}")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (m, n) with m, n >= 1, got {tuple(shape)}")
    return (_directions(torch.Size((norms.numel(), *shape)), generator) * norms[:, None, None]).cumsum(0)


def adam_walk(
    learning_rates: Sequence[float] | Tensor,
    steps: Sequence[int],
    shape: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Σ_{s≤t} lr_s Z_s, Z_s standard normal: where Adam ends on gradients that are noise alone.

    Adam moves each weight by about ±lr_s a step whatever the gradient's size, so without a common direction
    ΔW_t is normal with variance Σ_{s≤t} lr_s². It shares the run's learning rates and nothing else: neither
    its norm, which it predicts (see `spectra.drift_ratio`), nor W_0. learning_rates: one per optimizer step;
    steps: ascending, those after which ΔW is wanted, 0 not among them. Returns (T, m, n), float64, on the
    generator's device. Raises ValueError for rates that are negative or not finite, steps that do not ascend
    within [1, number of rates], or a shape without entries.

    >>> adam_walk([1e-3] * 5, [2, 5], (3, 4), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4])
    """
    rates = torch.as_tensor(learning_rates, dtype=torch.float64, device=generator.device)
    if rates.ndim != 1 or not torch.isfinite(rates).all() or (rates < 0).any():
        raise ValueError(f"learning_rates must be finite, >= 0, got {rates.tolist()!s:.60} for {shape}")
    bounds = [0, *steps]
    if not steps or any(a >= b for a, b in pairwise(bounds)) or steps[-1] > len(rates):
        raise ValueError(f"steps must ascend within [1, {len(rates)}], got {list(steps)!s:.60}")
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (m, n) with m, n >= 1, got {tuple(shape)}")
    stretches = [torch.linalg.vector_norm(rates[a:b]) for a, b in pairwise(bounds)]
    noise = torch.randn((len(steps), *shape), generator=generator, dtype=torch.float64, device=rates.device)
    return (noise * torch.stack(stretches)[:, None, None]).cumsum(0)  # (T, m, n) * (T, 1, 1)


def random_walk_explained_variance(k: int) -> float:
    """6 / (π² k²): the share of variance on PCA component k of a long, high-dimensional random walk.

    Antognini & Sohl-Dickstein 2018, arXiv 1806.08805: 61 % on the first, 15 % on the second. Needs k ≥ 1.

    >>> round(random_walk_explained_variance(1), 3)
    0.608
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return 6 / (math.pi * k) ** 2


def _directions(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Isotropic (..., m, n) in float64, each matrix of Frobenius norm 1."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return noise / torch.linalg.vector_norm(noise, dim=(-2, -1), keepdim=True)
