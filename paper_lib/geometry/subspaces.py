"""PCA of paths through all weights at once, from inner products that are summed matrix by matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from paper_lib.geometry.spectra import require_finite_matrix

# --- Where updates point: subspaces, their angles, paths in weight space (Shen et al. 2026, §3.2, §4.2).

# float32 factors of a few thousand rows are orthonormal to about 1e-6; a wrong matrix is off by far more.
ORTHONORMAL_TOLERANCE = 1e-5


def top_right_singular_vectors(delta_w: Tensor, K: int) -> Tensor:
    """V_K: the right singular vectors of ΔW's K largest singular values (§4.2), by float64 LAPACK.

    delta_w: (..., m, n). Returns (..., n, K), float64, orthonormal columns in descending order of σ, each
    with its largest entry positive. For the left ones pass the transpose. Raises ValueError where K is not in
    [1, min(m, n)] or above the numerical rank, ΔW = 0 included: there the span would be LAPACK's choice and
    not the update's.

    >>> top_right_singular_vectors(torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]), 1).round().tolist()
    [[0.0], [1.0], [0.0]]
    """
    require_finite_matrix("delta_w", delta_w)
    rows, columns = delta_w.shape[-2:]
    shape = tuple(delta_w.shape)
    if not 1 <= K <= min(rows, columns):
        raise ValueError(f"K must lie in [1, {min(rows, columns)}], got {K} for delta_w of shape {shape}")
    _, sigma, vh = torch.linalg.svd(delta_w.double(), full_matrices=False)
    floor = sigma[..., :1] * max(rows, columns) * torch.finfo(torch.float64).eps
    rank = int((sigma > floor).sum(-1).min())
    if rank < K:
        raise ValueError(f"K must be at most the numerical rank {rank}, got {K} for delta_w of shape {shape}")
    v = vh[..., :K, :].mT  # (..., K, n) to (..., n, K)
    largest = v.gather(-2, v.abs().argmax(-2, keepdim=True))
    return v * largest.sign()


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """θ_i with cos θ_i = σ_i(AᵀB) (App. C.3), below π/4 from the sines, the singular values of B − AAᵀB.

    a: (..., n, p), b: (..., n, q), orthonormal columns. Returns (..., min(p, q)), float64 radians, ascending
    (scipy.linalg.subspace_angles descends), in [0, π/2]. The absolute error is that of the columns'
    orthonormality, 1e-15 for float64 factors, at any angle: the cosine alone (or the sine) would lose half
    the digits near 0 (or π/2). Raises ValueError for columns that are not orthonormal or of unequal length.

    >>> turned = torch.tensor([[math.cos(0.5)], [math.sin(0.5)], [0.0]])  # (3, 1)
    >>> principal_angles(torch.eye(3)[:, :1], turned).round(decimals=6).tolist()
    [0.5]
    """
    _require_orthonormal("a", a)
    _require_orthonormal("b", b)
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError(f"bases need one length and batch, got {tuple(a.shape)} and {tuple(b.shape)}")
    wide, narrow = (a.double(), b.double()) if a.shape[-1] >= b.shape[-1] else (b.double(), a.double())
    product = wide.mT @ narrow  # (..., max(p, q), min(p, q))
    cosine = torch.linalg.svdvals(product).clamp(max=1)
    sine = torch.linalg.svdvals(narrow - wide @ product).flip(-1).clamp(max=1)
    return torch.where(cosine > math.sqrt(0.5), sine.asin(), cosine.acos())


def subspace_alignment(v_a: Tensor, v_b: Tensor) -> Tensor:
    """Sim_K = ‖V_aᵀ V_b‖_F² / K (§4.2, Fig. 5), the mean of cos²θ_i: 1 on one span, 0 on orthogonal ones.

    v_a, v_b: (..., n, K), orthonormal columns. Returns (...,), float64, in [0, 1] up to rounding. Raises
    ValueError for unequal shapes or columns that are not orthonormal.

    >>> subspace_alignment(torch.eye(4)[:, :2], torch.eye(4)[:, 1:3]).item()
    0.5
    """
    if v_a.shape != v_b.shape:
        raise ValueError(f"bases need one shape (..., n, K), got {tuple(v_a.shape)} and {tuple(v_b.shape)}")
    _require_orthonormal("v_a", v_a)
    _require_orthonormal("v_b", v_b)
    return (v_a.double().mT @ v_b.double()).square().sum((-2, -1)) / v_a.shape[-1]


def chance_alignment(K: int, n: int) -> float:
    """K / n: the mean Sim_K of any K-dimensional subspace of Rⁿ with a random one. Needs 1 ≤ K ≤ n.

    >>> chance_alignment(16, 4096)
    0.00390625
    """
    if not 1 <= K <= n:
        raise ValueError(f"K must lie in [1, n], got K {K}, n {n}")
    return K / n


def principal_energy(delta_w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """‖Uᵀ ΔW V‖_F² / ‖ΔW‖_F²: the share of an update inside the top-r left × top-r right subspace of W_0.

    delta_w: (m, n); u: (m, r), v: (n, r), orthonormal columns. Returns a float64 scalar in [0, 1], NaN where
    ΔW = 0. Its mean for an update of independent, equally likely directions is (r/m)(r/n) exactly.

    >>> principal_energy(torch.eye(4), torch.eye(4)[:, :1], torch.eye(4)[:, :1]).item()
    0.25
    """
    inside = u.double().mT @ delta_w.double() @ v.double()  # (r, r)
    return inside.square().sum() / delta_w.double().square().sum()


INTRUDER_COSINE, INTRUDER_TOP = 0.5, 10  # as in peft's reduce_intruder_dimension


def intruder_count(u_t: Tensor, u_0: Tensor, w_0: Tensor) -> int:
    """Intruder dimensions: left singular vectors u of W_t whose |cos| with every one of W_0 is below ½
    (Shuttleworth et al. 2024, arXiv 2410.21228, Algorithm 1).

    u_t: (m, k), the leading ones of W_t, of which peft takes 10; u_0: (m, p), the leading ones of W_0 (m, n).
    As the squares of the cosines of one u add up to at most 1, these decide most cases; the rest costs the
    SVD of W_0.

    >>> intruder_count(torch.eye(3)[:, :2], torch.eye(3)[:, :1], torch.diag(torch.tensor([3.0, 0.1, 2.0])))
    0
    """
    cosines = u_0.double().mT @ u_t.double()  # (p, k)
    strange = cosines.abs().amax(0) < INTRUDER_COSINE
    if not bool((strange & (1 - cosines.square().sum(0) >= INTRUDER_COSINE**2)).any()):
        return int(strange.sum())
    every = torch.linalg.svd(w_0.double(), full_matrices=False).U  # (m, r)
    return int(((every.mT @ u_t.double()).abs().amax(0) < INTRUDER_COSINE).sum())


def _require_orthonormal(name: str, v: Tensor) -> None:
    require_finite_matrix(name, v)
    rows, columns = v.shape[-2:]
    if columns > rows:
        raise ValueError(f"{name} cannot have {columns} orthonormal columns of length {rows}")
    gram = v.double().mT @ v.double()  # (..., K, K)
    defect = float((gram - torch.eye(columns, dtype=gram.dtype, device=gram.device)).abs().max())
    if defect > ORTHONORMAL_TOLERANCE:
        raise ValueError(f"{name} {tuple(v.shape)} needs orthonormal columns, got |VᵀV − I| {defect:.1e}")


COMPONENTS = 5
BLOCK = 2**22  # entries of each snapshot that are widened to float64 at once


def path_gram(updates: Sequence[Tensor]) -> Tensor:
    """⟨ΔW_s, ΔW_t⟩ of T updates of one matrix: (T, T), float64. `path_pca` takes the sum over matrices.

    >>> path_gram([torch.ones(2, 3), 2 * torch.ones(2, 3)]).tolist()
    [[6.0, 12.0], [12.0, 24.0]]
    """
    flat = torch.stack(list(updates)).flatten(1).double()  # T of (m, n) to (T, m n)
    return flat @ flat.mT


def update_gram(weights: Sequence[Tensor]) -> Tensor:
    """`path_gram` of W_t − W_0 for W_0, …, W_T (m, n), some rows at a time: no float64 copy of all."""
    rows = max(1, BLOCK // weights[0].shape[1])
    blocks = zip(*(w.split(rows) for w in weights), strict=True)
    grams = [path_gram([w.double() - block[0].double() for w in block]) for block in blocks]
    return torch.stack(grams).sum(0)


def path_pca(gram: Tensor) -> tuple[Tensor, Tensor]:
    """PCA of a path known by its inner products, so that no (T, P) table of all weights is ever built.

    gram: (T, T), float64. PCA depends on a path through these alone, so any path that has them will do: U √Λ
    of their eigendecomposition. Returns coordinates (T, c) and explained variance ratios (c,), descending,
    with c = min(5, T − 1); each component's sign is the one that makes the last point's coordinate positive.
    A path that never moves has coordinates 0 and ratios NaN. Read the ratios against
    `nulls.random_walk_explained_variance`: a high-dimensional random walk too looks low-dimensional.

    >>> coordinates, _ = path_pca(path_gram([t * torch.ones(2, 3) for t in range(4)]))
    >>> coordinates.shape
    torch.Size([4, 3])
    """
    values, vectors = torch.linalg.eigh(gram)
    path = vectors * values.clamp(min=0).sqrt()  # (T, T), a row a point
    components = min(COMPONENTS, len(gram) - 1)
    if bool((path == path[:1]).all()):
        return path.new_zeros((len(path), components)), path.new_full((components,), torch.nan)
    from sklearn.decomposition import PCA  # a second, and only paths need it

    pca = PCA(components, svd_solver="full")
    coordinates = torch.as_tensor(pca.fit_transform(path.numpy(force=True)), device=gram.device)  # (T, c)
    ratios = torch.as_tensor(pca.explained_variance_ratio_, device=gram.device)
    return coordinates * torch.where(coordinates[-1] < 0, -1.0, 1.0), ratios
