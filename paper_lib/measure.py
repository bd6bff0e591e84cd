"""One matrix along its trajectory in, table rows out: every metric, from decompositions that they share."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from paper_lib import nulls, sparsity, spectra, subspaces
from paper_lib.config import DiagnosticsConfig

MASK_WINDOW = 256  # rows and columns of the mask picture
Masks = list[tuple[str, float, Tensor]]


class Row(NamedTuple):
    """One value of a tidy table; what it is a value of (run, matrix) is added by the caller."""

    step: int
    metric: str
    value: float
    k: float = math.nan


def measure_matrix(
    weights: Sequence[Tensor],
    steps: Sequence[int],
    config: DiagnosticsConfig,
    learning_rates: Sequence[float] | None = None,
) -> list[Row]:
    """Every metric of the table `matrices` for one matrix, at each step but 0.

    weights: W_0, …, W_T of shape (m, n) as stored; steps: their optimizer steps. learning_rates: one per
    optimizer step, for `drift_ratio`, which is left out where None. What has no value is NaN: overlaps where
    no entry is visible, spectral shapes where ΔW = 0, alignments where an update has fewer than K directions.
    """
    w_0 = weights[0]
    factors = torch.linalg.svd(w_0.double(), full_matrices=False)
    masks = weight_masks(w_0, config, factors)
    rows: list[Row] = []
    for step, w_t in zip(steps[1:], weights[1:], strict=True):
        rows.append(Row(step, "parameters", w_t.numel()))
        rows += _visibility(step, w_0, w_t, masks, config)
        absolute = sparsity.absolute_sparsity(w_0, w_t, threshold=config.absolute_threshold)
        rows.append(Row(step, "absolute_sparsity", absolute.item()))
        rows += _rotation(step, factors, w_t, config, each=step == steps[-1])
        delta_w = w_t.double() - w_0.double()
        rows += _spectrum(step, delta_w, w_0, config)
        if learning_rates is not None:
            ratio = spectra.drift_ratio(delta_w, learning_rates[:step])
            rows.append(Row(step, "drift_ratio", ratio.item()))
    rows += _alignment(steps[1:], [w.double() - w_0.double() for w in weights[1:]], config.K)
    chance = subspaces.chance_alignment(config.K, w_0.shape[1])
    rows.append(Row(steps[-1], "subspace_alignment_chance", chance, config.K))
    for name, alpha, mask in masks:
        if name == "principal_not_low":  # the other two cover α by construction
            rows.append(Row(steps[-1], f"{name}_chance", mask.double().mean().item(), alpha))
    return rows


def weight_masks(w_0: Tensor, config: DiagnosticsConfig, factors: sparsity.Factors | None = None) -> Masks:
    """(name, α, mask) of the principal, the low-magnitude and the principal but not low weights (§3.2)."""
    masks: Masks = []
    for alpha in config.alphas:
        principal = sparsity.principal_mask(w_0, alpha=alpha, rank=config.principal_rank, factors=factors)
        low = sparsity.low_magnitude_mask(w_0, alpha=alpha)
        masks += [("principal", alpha, principal), ("low_magnitude", alpha, low)]
        masks.append(("principal_not_low", alpha, principal & ~low))
    return masks


def measure_nulls(
    weights: Sequence[Tensor],
    steps: Sequence[int],
    config: DiagnosticsConfig,
    generator: Callable[[str], Generator],
) -> tuple[dict[str, list[Row]], list[Tensor]]:
    """Rows by null: what same-size, permuted and random-walk updates would show in place of the run's own.

    weights, steps: as for `measure_matrix`. generator: gives each null, by its name, an own generator. The
    first two are drawn at the last step; the walk has every step, with the run's own increment norms.
    Also returns the walk's updates, from 0 at step 0.
    """
    w_0, last = weights[0], steps[-1]
    factors = torch.linalg.svd(w_0.double(), full_matrices=False)
    delta_w = weights[-1].double() - w_0.double()
    rows = {}
    for null, draw in (("same_norm_gaussian", nulls.same_norm_gaussian), ("permuted", nulls.permuted)):
        rows[null] = _null_update(last, w_0, draw(delta_w, generator(null)), factors, config)
    increments = [spectra.frobenius_norm(b.double() - a.double()) for a, b in pairwise(weights)]
    m, n = w_0.shape
    walk = nulls.random_walk(torch.stack(increments), (m, n), generator("random_walk"))
    rows["random_walk"] = _alignment(steps[1:], list(walk), config.K)
    ranks = spectra.stable_rank(walk).tolist()
    rows["random_walk"] += [Row(s, "stable_rank", rank) for s, rank in zip(steps[1:], ranks, strict=True)]
    return rows, [torch.zeros_like(delta_w), *walk]


def measure_rescaled(
    w_0: Tensor, w_end: Tensor, other_delta_w: Tensor, step: int, config: DiagnosticsConfig
) -> list[Row]:
    """Another run's update at the size of this run's, on this run's W_0; no rows where that update is 0."""
    if not other_delta_w.any():
        return []
    norm = spectra.frobenius_norm(w_end.double() - w_0.double())
    factors = torch.linalg.svd(w_0.double(), full_matrices=False)
    return _null_update(step, w_0, nulls.rescaled(other_delta_w, norm), factors, config)


def mask_picture(w_0: Tensor, w_t: Tensor, config: DiagnosticsConfig) -> pd.DataFrame:
    """The visible update beside the principal and the low-magnitude mask at the first α, entry by entry.

    Columns row, column (from 0), update, principal, low_magnitude (bool); a large matrix shows its corner.
    """
    pictures = {name: mask for name, alpha, mask in weight_masks(w_0, config) if alpha == config.alphas[0]}
    pictures["update"] = sparsity.visible_mask(w_0, w_t, eta=config.eta)
    names = ("update", "principal", "low_magnitude")
    shown = {name: pictures[name][:MASK_WINDOW, :MASK_WINDOW].numpy() for name in names}
    row, column = np.indices(shown["update"].shape)
    return pd.DataFrame({name: a.ravel() for name, a in ({"row": row, "column": column} | shown).items()})


def _visibility(step: int, w_0: Tensor, w_t: Tensor, masks: Masks, config: DiagnosticsConfig) -> list[Row]:
    update = sparsity.visible_mask(w_0, w_t, eta=config.eta)
    density = update.double().mean().item()
    rows = [Row(step, "update_sparsity", 1 - density), Row(step, "update_density", density)]
    for name, alpha, mask in masks:
        rows.append(Row(step, f"{name}_overlap", sparsity.mask_overlap(mask, update).item(), alpha))
    return rows


def _rotation(
    step: int, factors: sparsity.Factors, w_t: Tensor, config: DiagnosticsConfig, *, each: bool
) -> list[Row]:
    """NSS, and the angles of the leading k-dimensional subspaces. k is at most half the short side: two
    larger ones intersect whatever happened, and those angles are zero by counting dimensions."""
    u_0, sigma_0, vh_0 = factors
    k = max(1, min(config.angle_k, len(sigma_0) // 2))
    u_t, sigma_t, vh_t = torch.linalg.svd(w_t.double(), full_matrices=False)
    rows = [Row(step, "spectral_shift", spectra.spectral_shift(sigma_0, sigma_t).item())]
    for side, before, after in (("u", u_0, u_t), ("v", vh_0.mT, vh_t.mT)):
        angles = subspaces.principal_angles(before[:, :k], after[:, :k])
        rows.append(Row(step, f"angle_{side}_max", angles.max().item(), k))
        rows.append(Row(step, f"angle_{side}_mean", angles.mean().item(), k))
        if each:
            rows += [Row(step, f"angle_{side}", angle, i) for i, angle in enumerate(angles.tolist(), start=1)]
    return rows


def _spectrum(step: int, delta_w: Tensor, w_0: Tensor, config: DiagnosticsConfig) -> list[Row]:
    sigma = spectra.singular_values(delta_w)
    return [
        Row(step, "frobenius_norm", spectra.frobenius_norm(delta_w).item()),
        Row(step, "relative_norm", spectra.relative_norm(delta_w, w_0).item()),
        Row(step, "operator_norm", spectra.operator_norm(delta_w, sigma=sigma).item()),
        Row(step, "stable_rank", spectra.stable_rank(delta_w, sigma=sigma).item()),
        Row(step, "hill_index", spectra.hill_index(sigma, config.hill_k).item(), config.hill_k),
        Row(step, "top_energy", spectra.top_energy(sigma, config.energy_k).item(), config.energy_k),
    ]


def _alignment(steps: Sequence[int], updates: Sequence[Tensor], K: int) -> list[Row]:
    """Sim_K to the end: of the cumulative updates (§4.2), and of the increments between snapshots.

    `subspace_alignment` at t compares ΔW_t with ΔW_T, which contains it: it rises to 1 for a random walk too.
    `increment_alignment` compares W_t − W_s, s the snapshot before t, with the last such increment. These are
    disjoint stretches of training, at chance K/n for a random walk; at the last step it is 1 by definition.
    """
    increments = [updates[0], *(after - before for before, after in pairwise(updates))]
    rows = []
    for metric, path in (("subspace_alignment", updates), ("increment_alignment", increments)):
        spans = [_span(delta_w, K) for delta_w in path]
        end = spans[-1]
        for step, span in zip(steps, spans, strict=True):
            if span is None or end is None:
                rows.append(Row(step, metric, math.nan, K))
            else:
                rows.append(Row(step, metric, subspaces.subspace_alignment(span, end).item(), K))
    return rows


def _span(delta_w: Tensor, K: int) -> Tensor | None:
    """V_K, or None where ΔW has fewer than K directions and the rest of a basis would be LAPACK's choice."""
    try:
        return subspaces.top_right_singular_vectors(delta_w, K)
    except ValueError:
        return None


def _null_update(
    step: int, w_0: Tensor, delta_w: Tensor, factors: sparsity.Factors, config: DiagnosticsConfig
) -> list[Row]:
    """What does not follow from the norm alone: visibility, rotation, spectral shift and stable rank."""
    w_t = (w_0.double() + delta_w).to(w_0.dtype)
    rows = _visibility(step, w_0, w_t, weight_masks(w_0, config, factors), config)
    rows += _rotation(step, factors, w_t, config, each=False)
    return [*rows, Row(step, "stable_rank", spectra.stable_rank(delta_w).item())]
