"""Two updates compared: do they show on the same weights, and do they point into the same subspace?"""

from __future__ import annotations

import torch
from torch import Tensor

from paper_lib.certified import update_spectrum
from paper_lib.config import DiagnosticsConfig
from paper_lib.sparsity import mask_overlap, visible_mask
from paper_lib.subspaces import subspace_alignment
from paper_lib.tables import Row
from paper_lib.visibility import showing_probability


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B| of two masks (Zhu et al. 2025).

    a, b: (..., m, n), bool. Returns (...,), float64, in [0, 1]; NaN where both are empty. Raises ValueError
    for unequal shapes or another dtype.
    """
    if a.shape != b.shape or a.ndim < 2 or a.dtype != torch.bool or b.dtype != torch.bool:
        found = f"{a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        raise ValueError(f"jaccard takes two bool masks of one shape (..., m, n), got {found}")
    return (a & b).sum((-2, -1)).double() / (a | b).sum((-2, -1)).double()


def chance_jaccard(a: Tensor, b: Tensor) -> Tensor:
    """d_a d_b / (d_a + d_b − d_a d_b): the Jaccard index of independent masks with the densities of a and b.

    a, b: (..., m, n), bool, or the probabilities with which independent entries are in the masks, where it is
    Σ p_a p_b / Σ (p_a + p_b − p_a p_b). Returns (...,), float64; NaN where both are 0.
    """
    if a.dtype == torch.bool:
        a, b = (mask.double().mean((-2, -1), keepdim=True) for mask in (a, b))
    both = (a * b).sum((-2, -1))
    return both / ((a + b).sum((-2, -1)) - both)


def update_cosine(a: Tensor, b: Tensor) -> Tensor:
    """⟨ΔW_a, ΔW_b⟩ / (‖ΔW_a‖_F ‖ΔW_b‖_F): (..., m, n) twice to (...,), float64; NaN where one is 0."""
    a, b = a.double(), b.double()
    norms = torch.linalg.vector_norm(a, dim=(-2, -1)) * torch.linalg.vector_norm(b, dim=(-2, -1))
    return (a * b).sum((-2, -1)) / norms


def measure_pair(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], step: int, config: DiagnosticsConfig
) -> list[Row]:
    """Every metric of the table `pairs` for one matrix.

    one, other: (W_0, W_t) of the two runs, all of shape (m, n); the two W_0 may differ. `*_chance` is what
    independent masks of these densities give; `*_rounding` what updates of these sizes, dealt out at random,
    give by rounding alone: masks that meet because both show where W_0 is small. `coverage` is |A ∩ B| / |B|,
    the share of the other's visible entries that the run shows too, and `reverse_coverage` |A ∩ B| / |A|; the
    chance of a coverage is the density of the mask that covers. Raises as the masks do.
    """
    a, b = (visible_mask(*run, eta=config.eta) for run in (one, other))
    p_a, p_b = (showing_probability(*run) for run in (one, other))
    both = (p_a * p_b).sum()
    density, other_density = a.double().mean(), b.double().mean()
    delta_a, delta_b = (w_t.double() - w_0.double() for w_0, w_t in (one, other))
    values = {
        "density": density,
        "other_density": other_density,
        "jaccard": jaccard(a, b),
        "jaccard_chance": chance_jaccard(a, b),
        "jaccard_rounding": chance_jaccard(p_a, p_b),
        "coverage": mask_overlap(a, b),
        "coverage_rounding": both / p_b.sum(),
        "reverse_coverage": mask_overlap(b, a),
        "reverse_coverage_rounding": both / p_a.sum(),
        "update_cosine": update_cosine(delta_a, delta_b),
    }
    rows = [Row(step, metric, value.item()) for metric, value in values.items()]
    return [*rows, Row(step, "subspace_alignment", shared_subspace(delta_a, delta_b, config.K), config.K)]


def shared_subspace(delta_a: Tensor, delta_b: Tensor, K: int) -> float:
    """Sim_K of two updates (m, n) of one matrix; chance is K/n. NaN where one has fewer than K directions."""
    found = [update_spectrum(delta_w, K) for delta_w in (delta_a, delta_b)]
    if any(not each.sigma[K - 1] > 0 for each in found):
        return float("nan")
    v_a, v_b = (each.v[:, :K] for each in found)
    return subspace_alignment(v_a, v_b).item()
