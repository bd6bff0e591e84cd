"""A matrix's singular values and leading singular vectors, with a bound on the error of each.

Three methods give the same `Decomposition`: `lapack`, the float64 SVD; `gram`, all of σ and the leading
vectors from WᵀW; `krylov`, leading triplets alone, for updates whose tail nobody asks for.
`weight_spectrum` and `update_spectrum` take the cheapest whose bound is good enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from scipy.linalg import blas, eigh_tridiagonal
from scipy.linalg import lapack as scipy_lapack
from torch import Tensor

from paper_lib.geometry.spectra import singular_values, spectral_shift

Method = Literal["lapack", "gram", "krylov"]

EPS = torch.finfo(torch.float64).eps
GROWTH, FLOOR = 2.0, 8.0  # of the errors; see `rounding_bound`


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """Singular values of W and its leading singular vectors.

    sigma: (r,) all min(m, n) of them, or (p,) the leading ones (`krylov`), float64, descending. u (m, k),
    v (n, k): orthonormal columns for the k largest. sigma_bound: (r,) or (p,), |error| of each σ. residual:
    ‖[W V − U Σ; Wᵀ U − V Σ]‖_F over the k triplets.
    """

    sigma: Tensor
    u: Tensor
    v: Tensor
    sigma_bound: Tensor
    residual: float
    method: Method

    def angle_bound(self, k: int) -> float:
        """Largest angle (radians) between the span of the first k computed and exact vectors, either side.

        Wedin: sin θ ≤ ‖residual‖ / (σ_k − σ_{k+1}). π/2 where the gap is not resolved. Raises ValueError for
        k outside [1, columns of v].
        """
        if not 1 <= k <= self.v.shape[1]:
            raise ValueError(f"k must lie in [1, {self.v.shape[1]}], got {k}")
        if k == len(self.sigma):
            following = 0.0 if min(len(self.u), len(self.v)) == k else math.nan
        else:
            following = float(self.sigma[k] + self.sigma_bound[k])
        gap = float(self.sigma[k - 1] - self.sigma_bound[k - 1]) - following
        return math.asin(self.residual / gap) if gap > self.residual else math.pi / 2


def lapack(w: Tensor, k: int) -> Decomposition:
    """The float64 SVD. w: (m, n), any floating dtype; k: vectors to keep, 1 ≤ k ≤ min(m, n)."""
    u, sigma, vh = torch.linalg.svd(w.double(), full_matrices=False)
    u, v, bound = u[:, :k], vh[:k].mT, rounding_bound(sigma)
    residual = math.sqrt(k) * float(bound[0])
    return Decomposition(sigma=sigma, u=u, v=v, sigma_bound=bound, residual=residual, method="lapack")


def rounding_bound(values: Tensor) -> Tensor:
    """What LAPACK's rounding may do to singular values or to eigenvalues ≥ 0: ε (2 √n λ_i + 8 λ_1).

    values: (n,), descending. Backward stability alone gives p(n) ε λ_1 for all, p unspecified. That the part
    that grows with n is in proportion to λ_i is what is seen; the tests hold it to matrices of all kinds.
    """
    return EPS * (GROWTH * math.sqrt(len(values)) * values + FLOOR * values[0])


# --- All of σ and the leading vectors, from one reduction of the Gram matrix to tridiagonal form.

PROBES, PROBE_SAFETY = 16, 10.0  # chance below 1e-13 that ‖R‖_F is ten times what 16 random vectors show
RESOLVED = 1e-5  # of σ_1: vectors of smaller σ lose too many digits to squaring
BLURRED, LARGEST_REFINEMENT = 0.02, 64  # of σ_1, and how many


def gram(w: Tensor, k: int) -> Decomposition:
    """σ = √λ of the Gram matrix on the short side, and the vectors of the k largest.

    w: (m, n), any floating dtype; 1 ≤ k ≤ min(m, n). σ_i is off by the `rounding_bound` of λ_i over 2 σ_i:
    the smallest, up to 64 below a fiftieth of σ_1, are therefore computed again from W on the space of their
    vectors. The residual is estimated from random vectors, with a safety factor. Where σ_k vanishes or
    the eigenproblem does not converge LAPACK steps in. Cost: for an n × n matrix a quarter of its SVD.
    """
    w = w.double()
    tall = w if w.shape[0] >= w.shape[1] else w.mT
    try:
        values, right, trailing = _gram_eigen(tall, k)
    except np.linalg.LinAlgError:
        return lapack(w, k)
    values = values.clamp(min=0)
    sigma, bound = values.sqrt(), _root_bound(values, rounding_bound(values))
    if not float(sigma[k - 1]) > RESOLVED * float(sigma[0]):
        return lapack(w, k)
    if trailing.shape[1]:
        _refine_smallest(tall, trailing, sigma, bound)
    right = _orthonormalised(right)  # (n, k)
    left = _orthonormalised(tall @ right / sigma[:k])  # (m, n) @ (n, k) / (k,): (m, k)
    residual = _probed_residual(tall, left, sigma[:k], right)
    u, v = (left, right) if tall is w else (right, left)
    return Decomposition(sigma=sigma, u=u, v=v, sigma_bound=bound, residual=residual, method="gram")


def _root_bound(values: Tensor, error: Tensor | float) -> Tensor:
    """|√λ − √(λ − δ)| for δ = error: the farther of the two sides, and √δ where λ vanishes."""
    below = (values - error).clamp(min=0).sqrt()
    return error / (values.sqrt() + below).clamp(min=torch.finfo(torch.float64).tiny)


def _refine_smallest(tall: Tensor, trailing: Tensor, sigma: Tensor, bound: Tensor) -> None:
    """Replace the smallest σ, and their bounds, by those of W on the span of the trailing vectors (n, s).

    With R = WᵀW V − V (VᵀWᵀW V), squares of singular values of W V are off by at most ‖R‖² over the gap to
    the next; what rounding adds is what it adds in LAPACK. Nothing is done where there is no gap.
    """
    count = trailing.shape[1]
    span = _orthonormalised(trailing)
    image = tall @ span  # (m, s)
    turned = tall.mT @ image  # (n, s)
    residual = torch.linalg.matrix_norm(turned - span @ (span.mT @ turned))
    refined = torch.linalg.svdvals(image)
    next_up = sigma[-count - 1] - bound[-count - 1]
    gap = float(next_up * next_up.abs() - refined[0].square())
    if gap > 0:
        rounding = EPS * (GROWTH * math.sqrt(len(sigma)) * refined + FLOOR * sigma[0])
        error = _root_bound(refined.square(), float(residual) ** 2 / gap) + rounding
        sigma[-count:], bound[-count:] = refined, error


def _gram_eigen(tall: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """All eigenvalues of WᵀW, descending, the eigenvectors (n, k) of the k largest, and those (n, s) of the
    smallest that squaring blurs; W is (m, n), m ≥ n.

    On a CPU one reduction to tridiagonal form gives all three; LAPACK's drivers give values or all vectors.
    """
    n = tall.shape[1]
    if tall.device.type != "cpu" or n < 3:
        ascending, every = torch.linalg.eigh(tall.mT @ tall)
        return ascending.flip(0), every.flip(1)[:, :k], every[:, : _blurred(ascending, k)]
    array = tall.numpy()
    by_rows = array.flags.c_contiguous  # BLAS reads it as its transpose, without a copy
    square = blas.dsyrk(1.0, array.T if by_rows else array, trans=not by_rows, lower=1)
    size, _ = scipy_lapack.dsytrd_lwork(n, lower=1)
    reflectors, diagonal, beside, tau, _ = scipy_lapack.dsytrd(
        square, lower=1, lwork=int(size), overwrite_a=1
    )
    values = eigh_tridiagonal(diagonal, beside, eigvals_only=True, lapack_driver="sterf")

    def vectors(first: int, count: int) -> np.ndarray:
        """Of `count` eigenvalues in ascending order from place `first` on: (n, count)."""
        if count == 0:
            return np.empty((n, 0))
        span = (first, first + count - 1)
        return eigh_tridiagonal(diagonal, beside, select="i", select_range=span, lapack_driver="stemr")[1]

    ascending = torch.from_numpy(values)
    both = np.concatenate([vectors(0, _blurred(ascending, k)), vectors(n - k, k)], axis=1)
    inner, below = np.asfortranarray(reflectors[1:, :-1]), np.asfortranarray(both[1:])
    _, work, _ = scipy_lapack.dormqr("L", "N", inner, tau, below, -1)
    both[1:], _, _ = scipy_lapack.dormqr("L", "N", inner, tau, below, int(work[0]), overwrite_c=1)
    trailing, leading = torch.from_numpy(both).split([both.shape[1] - k, k], 1)
    return ascending.flip(0), leading.flip(1), trailing


def _blurred(ascending: Tensor, k: int) -> int:
    """How many of the smallest eigenvalues are computed again."""
    below = int((ascending < BLURRED**2 * ascending[-1]).sum())
    return max(0, min(below, LARGEST_REFINEMENT, len(ascending) - k - 1))


def _orthonormalised(almost: Tensor) -> Tensor:
    """Nearly orthonormal columns made orthonormal to rounding, by Cholesky: QR at the speed of a product."""
    factor = torch.linalg.cholesky(almost.mT @ almost)
    return torch.linalg.solve_triangular(factor, almost.mT, upper=False).mT


def _probed_residual(w: Tensor, u: Tensor, sigma: Tensor, v: Tensor) -> float:
    """An upper bound of ‖[W V − U Σ; Wᵀ U − V Σ]‖_F from a few random combinations of its columns."""
    generator = torch.Generator(device=w.device).manual_seed(0)
    mix = torch.randn(len(sigma), PROBES, generator=generator, dtype=torch.float64, device=w.device)
    scaled = sigma[:, None] * mix
    one, other = w @ (v @ mix) - u @ scaled, w.mT @ (u @ mix) - v @ scaled  # (m, 16), (n, 16)
    square = (one.square().sum() + other.square().sum()) / PROBES
    return PROBE_SAFETY * math.sqrt(float(square))


# --- Leading triplets of a large matrix by block Lanczos, converged to a stated residual, or none.

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
    drawn = torch.randn(n, width, generator=generator, dtype=torch.float64, device=w.device)
    newest = torch.linalg.qr(drawn).Q
    largest = min(n // width, LARGEST_KRYLOV) * width
    basis, turned = w.new_empty((largest, n)), w.new_empty((largest, n))  # rows: those of Q, of WᵀW Q
    inner = w.new_zeros((largest, largest))  # Qᵀ WᵀW Q
    for size in range(width, largest + 1, width):
        here = slice(size - width, size)
        basis[here] = newest.mT
        turned[here] = (newest.mT @ tall.mT) @ tall  # (b, n) @ (n, m) @ (m, n)
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
    sigma, v = values.sqrt(), basis.mT @ mixing  # (k + 1,), (n, size) @ (size, k + 1)
    scale = torch.where(sigma > 0, sigma, 1.0)
    missed = torch.linalg.vector_norm(turned.mT @ mixing - v * values, dim=0) / scale  # ‖Wᵀu − σ v‖
    residual = float(torch.linalg.vector_norm(missed[:k]))
    u = tall @ v[:, :k] / scale[:k]  # (m, k)
    return Decomposition(sigma=sigma, u=u, v=v[:, :k], sigma_bound=missed, residual=residual, method="krylov")


# --- Which one a diagnostic takes: the cheapest whose bound is good enough, else LAPACK's; `exact`: LAPACK's.

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
