"""Which decomposition a diagnostic takes: the cheapest whose error bound is good enough, else LAPACK's.

`exact` takes LAPACK's float64 SVD throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from paper_lib.geometry.decompositions import Decomposition, gram, krylov, lapack, rounding_bound
from paper_lib.geometry.spectra import singular_values, spectral_shift

SHIFT_TOLERANCE = 1e-9  # of an NSS, relative
ANGLE_TOLERANCE = 1e-6  # radians
SMALL = 512  # shorter sides up to here are LAPACK's: nothing is gained below
KRYLOV_FROM = 2048  # shorter sides from here on: below, all of the spectrum costs no more


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A weight matrix and its decomposition, whose singular values LAPACK computes again on demand, once."""

    w: Tensor
    decomposition: Decomposition

    @cached_property
    def exact_sigma(self) -> Tensor:
        """σ(W) by LAPACK, (min(m, n),)."""
        lapacks = self.decomposition.method == "lapack"
        return self.decomposition.sigma if lapacks else singular_values(self.w)


def weight_spectrum(w: Tensor, k: int, *, exact: bool = False) -> Spectrum:
    """All of σ(W) and the k leading singular vectors of both sides. w: (m, n), any floating dtype.

    By the Gram matrix, unless the matrix is small, σ_k vanishes, or the vectors' `angle_bound` is above
    1e-6 rad where LAPACK's would not be.
    """
    if exact or min(w.shape) <= SMALL:
        return Spectrum(w=w, decomposition=lapack(w, k))
    found = gram(w, k)
    bound = found.angle_bound(k)
    lapacks = replace(found, residual=math.sqrt(k) * float(rounding_bound(found.sigma)[0]))
    if bound > ANGLE_TOLERANCE and lapacks.angle_bound(k) <= ANGLE_TOLERANCE:
        found = lapack(w, k)
    return Spectrum(w=w, decomposition=found)


def update_spectrum(delta_w: Tensor, k: int, *, exact: bool = False) -> Decomposition:
    """The k leading triplets of ΔW (m, n), all σ or those and one more; what is not above its error is 0.

    Block Krylov first where the matrix is large, then the Gram matrix, then LAPACK: the next one where a
    method has not converged, or leaves one of the k unresolved.
    """
    floor = max(delta_w.shape) * torch.finfo(torch.float64).eps
    found = None
    if not exact and min(delta_w.shape) >= KRYLOV_FROM and k < min(delta_w.shape):
        found = krylov(delta_w, k)
    if found is None and not exact and min(delta_w.shape) > SMALL:
        found = gram(delta_w, k)
    if found is None or not bool(found.sigma[k - 1] > 2 * found.sigma_bound[k - 1]):
        found = lapack(delta_w, k)
    sigma = found.sigma
    return replace(found, sigma=torch.where(sigma > floor * sigma[0], sigma, 0.0))


def certified_shift(start: Spectrum, end: Spectrum) -> tuple[float, float, bool]:
    """NSS (§3.2), a bound on its error, and whether LAPACK's singular values had to step in.

    They do where the bound exceeds 1e-9 of the NSS and what LAPACK could promise. The bound counts the
    errors of different σ as independent to first order, and adds the second order in full.
    """
    before, after = start.decomposition, end.decomposition
    shift = float(spectral_shift(before.sigma, after.sigma))
    bound = _shift_bound(before.sigma, after.sigma, before.sigma_bound + after.sigma_bound)
    roundings = rounding_bound(before.sigma) + rounding_bound(after.sigma)
    if bound <= max(SHIFT_TOLERANCE * shift, _shift_bound(before.sigma, after.sigma, roundings)):
        return shift, bound, False
    exact_0, exact_t = start.exact_sigma, end.exact_sigma
    roundings = rounding_bound(exact_0) + rounding_bound(exact_t)
    return float(spectral_shift(exact_0, exact_t)), _shift_bound(exact_0, exact_t, roundings), True


def _shift_bound(sigma_0: Tensor, sigma_t: Tensor, error: Tensor) -> float:
    """|δ ‖d‖₂| / ‖σ_0‖₂ for d = σ_t − σ_0 whose entries are off by up to `error`; NaN where W_0 = 0."""
    d = (sigma_t - sigma_0).abs()
    length = float(torch.linalg.vector_norm(d))
    whole = float(torch.linalg.vector_norm(error))
    first = float(torch.linalg.vector_norm(d * error)) / length if length else math.inf
    reach = min(whole, first + whole**2 / (2 * length) if length else math.inf)
    scale = float(torch.linalg.vector_norm(sigma_0))
    return reach / scale if scale else math.nan
