"""Leading singular triplets of a large matrix by block Lanczos, converged to a stated residual, or none."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paper_lib.geometry.decompositions import Decomposition

BLOCK = 32  # vectors a Krylov step multiplies at once: with fewer the cores wait for memory
LARGEST_KRYLOV = 40  # blocks
CHECK_EVERY = 4  # blocks


def krylov(w: Tensor, k: int, *, tolerance: float = 1e-9) -> Decomposition | None:
    """The k leading triplets by block Lanczos on WᵀW, or None where `LARGEST_KRYLOV` blocks do not suffice.

    w: (m, n), any floating dtype; 1 ≤ k < min(m, n). `sigma` has one value beyond the k, so that their gap
    is known. Converged means a residual of at most tolerance · σ_1 for each triplet, by which σ is off at
    most; in practice it is off by the square of that. A cluster at σ_k converges slowly: then, and for the
    whole spectrum, the Gram matrix is cheaper.
    """
    w = w.double()
    tall = w if w.shape[0] >= w.shape[1] else w.mT
    n, width = tall.shape[1], min(BLOCK, tall.shape[1])
    generator = torch.Generator(device=w.device).manual_seed(0)
    newest = torch.linalg.qr(
        torch.randn(n, width, generator=generator, dtype=torch.float64, device=w.device)
    ).Q
    largest = min(n // width, LARGEST_KRYLOV) * width
    basis, turned = w.new_empty((largest, n)), w.new_empty((largest, n))  # rows: those of Q, of WᵀW Q
    inner = w.new_zeros((largest, largest))  # Qᵀ WᵀW Q
    for size in range(width, largest + 1, width):
        here = slice(size - width, size)
        basis[here] = newest.mT
        turned[here] = (newest.mT @ tall.mT) @ tall
        inner[here, :size] = turned[here] @ basis[:size].mT
        inner[:size, here] = inner[here, :size].mT
        if size > k and (size % (CHECK_EVERY * width) == 0 or size == largest):
            found = _ritz(tall, basis[:size], turned[:size], inner[:size, :size], k)
            if found.residual <= tolerance * float(found.sigma[0]):
                return found if tall is w else replace(found, u=found.v, v=found.u)
        newest = turned[here].mT
        for _ in range(2):  # once leaves what rounding put back into the basis
            newest = newest - basis[:size].mT @ (basis[:size] @ newest)
            newest = torch.linalg.qr(newest).Q
    return None


def _ritz(tall: Tensor, basis: Tensor, turned: Tensor, inner: Tensor, k: int) -> Decomposition:
    """The leading triplets that a basis holds, one value more, and how far each is from being one."""
    values, mixing = torch.linalg.eigh(inner)
    values, mixing = values.flip(0)[: k + 1].clamp(min=0), mixing.flip(1)[:, : k + 1]
    sigma, v = values.sqrt(), basis.mT @ mixing
    scale = torch.where(sigma > 0, sigma, 1.0)
    missed = torch.linalg.vector_norm(turned.mT @ mixing - v * values, dim=0) / scale  # ‖Wᵀu − σ v‖
    residual = float(torch.linalg.vector_norm(missed[:k]))
    u = tall @ v[:, :k] / scale[:k]
    return Decomposition(sigma=sigma, u=u, v=v[:, :k], sigma_bound=missed, residual=residual, method="krylov")
