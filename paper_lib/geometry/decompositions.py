"""A matrix's singular values and leading singular vectors, with a bound on the error of each.

Three methods give the same `Decomposition`: `lapack` here, the float64 SVD; `gram.gram`, all of σ and the
leading vectors from WᵀW; `krylov.krylov`, leading triplets alone, for updates whose tail nobody asks for.
`certified` takes the cheapest whose bound is good enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
    bound = rounding_bound(sigma)
    residual = math.sqrt(k) * float(bound[0])
    return Decomposition(
        sigma=sigma, u=u[:, :k], v=vh[:k].mT, sigma_bound=bound, residual=residual, method="lapack"
    )


def rounding_bound(values: Tensor) -> Tensor:
    """What LAPACK's rounding may do to singular values or to eigenvalues ≥ 0: ε (2 √n λ_i + 8 λ_1).

    values: (n,), descending. Backward stability alone gives p(n) ε λ_1 for all, p unspecified. That the part
    that grows with n is in proportion to λ_i is what is seen; the tests hold it to matrices of all kinds.
    """
    return EPS * (GROWTH * math.sqrt(len(values)) * values + FLOOR * values[0])
