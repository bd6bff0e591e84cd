"""PCA of paths through all weights at once, from inner products that are summed matrix by matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from paper_lib.subspaces import trajectory_pca
from paper_lib.tables import Row

COMPONENTS = 5
BLOCK = 2**22  # entries of each snapshot that are widened to float64 at once


def path_gram(updates: Sequence[Tensor]) -> Tensor:
    """⟨ΔW_s, ΔW_t⟩ of T updates of one matrix: (T, T), float64. `path_pca` takes the sum over matrices."""
    flat = torch.stack(list(updates)).flatten(1).double()
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
    of their eigendecomposition. Returns coordinates (T, c) and explained variance ratios (c,), with
    c = min(5, T − 1); each component's sign is the one that makes the last point's coordinate positive.
    """
    values, vectors = torch.linalg.eigh(gram)
    path = vectors * values.clamp(min=0).sqrt()
    coordinates, ratios = trajectory_pca(path, min(COMPONENTS, len(gram) - 1))
    return coordinates * torch.where(coordinates[-1] < 0, -1.0, 1.0), ratios


def path_rows(gram: Tensor, steps: Sequence[int]) -> list[Row]:
    """One path's `pca_coordinate` at every step, `explained_variance_ratio` at the last; k counts from 1."""
    coordinates, ratios = path_pca(gram)
    rows = [row for step, point in zip(steps, coordinates, strict=True) for row in point_rows(step, point)]
    return [*rows, *point_rows(steps[-1], ratios, "explained_variance_ratio")]


def point_rows(step: int, point: Tensor, metric: str = "pca_coordinate") -> list[Row]:
    """One row for each component of a point; k counts from 1."""
    return [Row(step, metric, value, k) for k, value in enumerate(point.tolist(), start=1)]
