"""Singular values and leading vectors from one reduction of the Gram matrix to tridiagonal form."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.linalg import blas
from scipy.linalg import lapack as scipy_lapack
from torch import Tensor

from paper_lib.geometry.decompositions import EPS, FLOOR, GROWTH, Decomposition, lapack, rounding_bound

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
    except ArithmeticError:
        return lapack(w, k)
    values = values.clamp(min=0)
    sigma, bound = values.sqrt(), _root_bound(values, rounding_bound(values))
    if not float(sigma[k - 1]) > RESOLVED * float(sigma[0]):
        return lapack(w, k)
    if trailing.shape[1]:
        _refine_smallest(tall, trailing, sigma, bound)
    right = _orthonormalised(right)
    left = _orthonormalised(tall @ right / sigma[:k])
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
    image = tall @ span
    turned = tall.mT @ image
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
    values, failed = scipy_lapack.dsterf(diagonal, beside)
    if failed:
        raise ArithmeticError(f"the tridiagonal eigenproblem of size {n} did not converge")

    def tridiagonal_vectors(first: int, last: int) -> np.ndarray:
        """Of the eigenvalues first..last, counted from 1 and the smallest; (n, last − first + 1)."""
        if last < first:
            return np.empty((n, 0))
        _, _, found, failed = scipy_lapack.dstemr(
            diagonal, np.append(beside, 0.0), 2, 0.0, 0.0, first, last, compute_v=1
        )
        if failed:
            raise ArithmeticError(f"eigenvectors {first} to {last} of {n} did not converge")
        return found[:, : last - first + 1]

    ascending = torch.from_numpy(values)
    wanted = ((1, _blurred(ascending, k)), (n - k + 1, n))
    both = np.concatenate([tridiagonal_vectors(*each) for each in wanted], axis=1)
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
    one, other = w @ (v @ mix) - u @ scaled, w.mT @ (u @ mix) - v @ scaled
    square = (one.square().sum() + other.square().sum()) / PROBES
    return PROBE_SAFETY * math.sqrt(float(square))
