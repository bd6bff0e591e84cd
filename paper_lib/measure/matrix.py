"""One matrix in, table rows out: along its trajectory, at its end, under nulls, beside another run's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from paper_lib.geometry import decompositions, nulls, sparsity, spectra, subspaces
from paper_lib.geometry.decompositions import Decomposition, Spectrum, update_spectrum, weight_spectrum
from paper_lib.ground.tables import Row
from paper_lib.study.config import DiagnosticsConfig
from paper_lib.study.tasks import seeded_generator

# --- Sim_K along a path of updates (Shen et al. 2026, §4.2, Fig. 5): one subspace a snapshot is kept.


Span = Tensor | None


def leading_span(found: Decomposition, K: int) -> Span:
    """V_K (n, K), or None where there are fewer than K directions: the rest would be the solver's choice."""
    return found.v[:, :K] if found.sigma[K - 1] > 0 else None


def update_span(delta_w: Tensor, K: int, *, exact: bool = False) -> Span:
    """`leading_span` of an update (m, n) alone."""
    return leading_span(update_spectrum(delta_w, K, exact=exact), K)


def alignment(a: Span, b: Span) -> float:
    """Sim_K of two V_K, NaN where there is only one or none."""
    return math.nan if a is None or b is None else subspaces.subspace_alignment(a, b).item()


def alignment_rows(
    steps: Sequence[int], updates: Sequence[Span], increments: Sequence[Span], K: int
) -> list[Row]:
    """Sim_K to the end: of the cumulative updates (§4.2), and of the increments between snapshots.

    `subspace_alignment` at t compares ΔW_t with ΔW_T, which contains it: it rises to 1 for a random walk too.
    `increment_alignment` compares W_t − W_s, s the snapshot before t, with the last such increment. These are
    disjoint stretches of training, at chance K/n for a random walk; at the last step it is 1 by definition.
    """
    return [
        Row(step, metric, alignment(span, spans[-1]), K)
        for metric, spans in (("subspace_alignment", updates), ("increment_alignment", increments))
        for step, span in zip(steps, spans, strict=True)
    ]


# --- At the last step alone: Gate III entry by entry, where the update is, what counts as a change.


def measure_end(w_0: Tensor, w_end: Tensor, step: int, config: DiagnosticsConfig) -> list[Row]:
    """More metrics of the table `matrices`, at the last step. w_0, w_end: (m, n), as stored.

    `predicted_density`: entries with |ΔW| > ½ ULP(W_0); `independent_density`: their mean number were the
    same sizes dealt out at random; `prediction_agreement` with what is visible at η. `coordinate_energy`, k
    the share of entries. `principal_energy`, k = r, inside W_0's top-r left × top-r right singular subspace,
    and `principal_energy_chance`, r²/(mn).
    """
    delta_w = w_end.double() - w_0.double()
    rank = config.principal_rank
    start = weight_spectrum(w_0, rank).decomposition
    inside = subspaces.principal_energy(delta_w, start.u[:, :rank], start.v[:, :rank])
    rows = [
        Row(step, "predicted_density", sparsity.predicted_mask(w_0, w_end).double().mean().item()),
        Row(step, "independent_density", sparsity.showing_probability(w_0, w_end).mean().item()),
        Row(step, "prediction_agreement", sparsity.prediction_agreement(w_0, w_end, eta=config.eta).item()),
        Row(step, "principal_energy", inside.item(), rank),
        Row(step, "principal_energy_chance", rank**2 / w_0.numel(), rank),
    ]
    for share in config.coordinate_fractions:
        energy = sparsity.top_coordinate_energy(delta_w, share).item()
        rows.append(Row(step, "coordinate_energy", energy, share))
    return rows


def unchanged_counts(w_0: Tensor, w_end: Tensor, config: DiagnosticsConfig) -> Tensor:
    """Entries of one matrix that stayed, for each (precision, η) of `tolerances`, and last of all its size.

    Returns (tolerances + 1,), int64; `unchanged_rows` takes the sum over matrices.
    """
    counts = [
        w_0.numel() - int(sparsity.visible_mask(w_0, w_end, eta=eta, precision=precision).count_nonzero())
        for precision, eta in tolerances(config)
    ]
    return torch.tensor([*counts, w_0.numel()])


def unchanged_rows(counts: Tensor, step: int, config: DiagnosticsConfig) -> list[Row]:
    """`update_sparsity_bfloat16`, `…_float16`, `…_float32` over all projection matrices, k = η."""
    shares = (counts[:-1].double() / counts[-1]).tolist()
    return [
        Row(step, f"update_sparsity_{str(precision).removeprefix('torch.')}", share, eta)
        for (precision, eta), share in zip(tolerances(config), shares, strict=True)
    ]


def tolerances(config: DiagnosticsConfig) -> list[tuple[torch.dtype, float]]:
    """(stored precision, η): where the sparsity of App. C.3 is measured once more.

    In bf16 any η below 2⁻⁸ means "not equal"; in fp16 and fp32, whose steps are finer, η = 1e-3 does not.
    """
    wider = [(dtype, eta) for dtype in (torch.float16, torch.float32) for eta in config.precision_etas]
    return [*((torch.bfloat16, eta) for eta in config.etas), *wider]


# --- Along a trajectory: every metric, from decompositions that they share.

MASK_WINDOW = 256  # rows and columns of the mask picture
Masks = list[tuple[str, float, Tensor]]


def measure_matrix(
    weights: Sequence[Tensor],
    steps: Sequence[int],
    config: DiagnosticsConfig,
    learning_rates: Sequence[float] | None = None,
    *,
    exact: bool = False,
    at_end: Callable[[Spectrum, Spectrum, Decomposition], list[Row]] | None = None,
) -> list[Row]:
    """Every metric of the table `matrices` for one matrix, at each step but 0.

    weights: W_0, …, W_T of shape (m, n) as stored; steps: their optimizer steps. learning_rates: one per
    optimizer step, for `drift_ratio`, which is left out where None. What has no value is NaN: overlaps where
    no entry is visible, spectral shapes where ΔW = 0, alignments where an update has fewer than K directions.
    exact: LAPACK's SVD throughout; else the cheapest, and rows `*_bound` tell the error of what is not
    LAPACK's. at_end: more rows from the decompositions of W_0, W_T and ΔW_T. Memory: the weights as they are
    given, and about ten float64 matrices.
    """
    w_0 = weights[0]
    start = _start(w_0, config, exact=exact)
    masks = weight_masks(w_0, config, start)
    updates, increments, rows = list[Span](), list[Span](), list[Row]()
    for step, w_s, w_t in zip(steps[1:], weights[:-1], weights[1:], strict=True):
        rows.append(Row(step, "parameters", w_t.numel()))
        rows += _visibility(step, w_0, w_t, masks, config)
        absolute = sparsity.absolute_sparsity(w_0, w_t, threshold=config.absolute_threshold)
        rows.append(Row(step, "absolute_sparsity", absolute.item()))
        end = weight_spectrum(w_t, _angle_k(w_t, config), exact=exact)
        rows += _rotation(step, start, end, config, each=step == steps[-1])
        delta_w = w_t.double() - w_0.double()
        found = update_spectrum(delta_w, max(config.K, config.hill_k, config.energy_k), exact=exact)
        rows += spectrum_rows(step, delta_w, found, w_0, config)
        updates.append(leading_span(found, config.K))
        stretch = w_t.double() - w_s.double()
        increments.append(updates[0] if w_s is w_0 else update_span(stretch, config.K, exact=exact))
        if learning_rates is not None:
            ratio = spectra.drift_ratio(delta_w, learning_rates[:step])
            rows.append(Row(step, "drift_ratio", ratio.item()))
        if at_end is not None and step == steps[-1]:
            rows += at_end(start, end, found)
    rows += alignment_rows(steps[1:], updates, increments, config.K)
    chance = subspaces.chance_alignment(config.K, w_0.shape[1])
    rows.append(Row(steps[-1], "subspace_alignment_chance", chance, config.K))
    for name, alpha, mask in masks:
        if name == "principal_not_low":  # the other two cover α by construction
            rows.append(Row(steps[-1], f"{name}_chance", mask.double().mean().item(), alpha))
    return rows


def weight_masks(w_0: Tensor, config: DiagnosticsConfig, start: Spectrum | None = None) -> Masks:
    """(name, α, mask) of the principal, the low-magnitude and the principal but not low weights (§3.2).

    start: W_0's spectrum, where it is known.
    """
    factors = None
    if start is not None:
        found = start.decomposition
        factors = found.u, found.sigma, found.v.mT  # (m, k), (r,), (k, n)
    magnitude = sparsity.principal_magnitude(w_0, rank=config.principal_rank, factors=factors)
    masks: Masks = []
    for alpha in config.alphas:
        principal = sparsity.mark_largest(magnitude, alpha)
        low = sparsity.low_magnitude_mask(w_0, alpha=alpha)
        masks += [("principal", alpha, principal), ("low_magnitude", alpha, low)]
        masks.append(("principal_not_low", alpha, principal & ~low))
    return masks


def measure_nulls(
    weights: Sequence[Tensor],
    steps: Sequence[int],
    config: DiagnosticsConfig,
    seeds: tuple[object, ...],
    learning_rates: Sequence[float] | None = None,
) -> tuple[dict[str, list[Row]], dict[str, list[Tensor]]]:
    """Rows by null: what same-size, permuted and random-walk updates would show in place of the run's own.

    weights, steps: as for `measure_matrix`. seeds: of each null's generator, with its name. The first
    two are drawn at the last step; the walks have every step: `random_walk` with the run's own increment
    norms, `adam_walk`, left out where None, with its learning rates (one per optimizer step) and, at the last
    step, all that the first two have. Also returns each walk's updates, from 0 at step 0.
    """
    w_0, last = weights[0], steps[-1]
    start = _start(w_0, config)
    delta_w = weights[-1].double() - w_0.double()
    rows = {}
    for null, draw in (("same_norm_gaussian", nulls.same_norm_gaussian), ("permuted", nulls.permuted)):
        rows[null] = _null_update(last, start, draw(delta_w, seeded_generator(null, *seeds)), config)
    increments = [spectra.frobenius_norm(b.double() - a.double()) for a, b in pairwise(weights)]
    m, n = w_0.shape
    drawn = {null: seeded_generator(null, *seeds) for null in ("random_walk", "adam_walk")}
    walks = {"random_walk": nulls.random_walk(torch.stack(increments), (m, n), drawn["random_walk"])}
    if learning_rates is not None:
        walks["adam_walk"] = nulls.adam_walk(learning_rates, steps[1:], (m, n), drawn["adam_walk"])
    for null, walk in walks.items():
        rows[null] = _walk(steps, walk, config)
    if "adam_walk" in walks:
        shown = _null_update(last, start, walks["adam_walk"][-1], config)
        rows["adam_walk"] += [row for row in shown if row.metric != "stable_rank"]  # which the walk has
    return rows, {null: [torch.zeros_like(delta_w), *walk] for null, walk in walks.items()}


def _walk(steps: Sequence[int], walk: Tensor, config: DiagnosticsConfig) -> list[Row]:
    found = [update_spectrum(delta_w, config.K) for delta_w in walk]
    updates = [leading_span(each, config.K) for each in found]
    increments = [updates[0], *(update_span(after - before, config.K) for before, after in pairwise(walk))]
    rows = alignment_rows(steps[1:], updates, increments, config.K)
    for step, delta_w, each in zip(steps[1:], walk, found, strict=True):
        rows.append(Row(step, "stable_rank", spectra.stable_rank(delta_w, sigma=each.sigma).item()))
    return rows


def measure_rescaled(
    w_0: Tensor, w_end: Tensor, other_delta_w: Tensor, step: int, config: DiagnosticsConfig
) -> list[Row]:
    """Another run's update at the size of this run's, on this run's W_0; no rows where that update is 0.

    w_0, w_end: (m, n), as stored; other_delta_w: (m, n), float64. Rows of what the norm does not decide.
    """
    if not other_delta_w.any():
        return []
    norm = spectra.frobenius_norm(w_end.double() - w_0.double())
    return _null_update(step, _start(w_0, config), nulls.rescaled(other_delta_w, norm), config)


def mask_picture(w_0: Tensor, w_t: Tensor, config: DiagnosticsConfig) -> pd.DataFrame:
    """The visible update beside the principal and the low-magnitude mask at the first α, entry by entry.

    Columns row, column (from 0), update, principal, low_magnitude (bool); a large matrix shows its corner.
    """
    pictures = {name: mask for name, alpha, mask in weight_masks(w_0, config) if alpha == config.alphas[0]}
    pictures["update"] = sparsity.visible_mask(w_0, w_t, eta=config.eta)
    names = ("update", "principal", "low_magnitude")
    shown = {name: pictures[name][:MASK_WINDOW, :MASK_WINDOW].numpy() for name in names}  # (256, 256) at most
    row, column = np.indices(shown["update"].shape)
    return pd.DataFrame({name: a.ravel() for name, a in ({"row": row, "column": column} | shown).items()})


def _visibility(step: int, w_0: Tensor, w_t: Tensor, masks: Masks, config: DiagnosticsConfig) -> list[Row]:
    update = sparsity.visible_mask(w_0, w_t, eta=config.eta)
    rows = [
        Row(step, "update_sparsity", sparsity.update_sparsity(w_0, w_t, eta=config.eta).item()),
        Row(step, "update_density", update.double().mean().item()),
    ]
    for name, alpha, mask in masks:
        rows.append(Row(step, f"{name}_overlap", sparsity.mask_overlap(mask, update).item(), alpha))
    return rows


def _start(w_0: Tensor, config: DiagnosticsConfig, *, exact: bool = False) -> Spectrum:
    return weight_spectrum(w_0, max(_angle_k(w_0, config), config.principal_rank), exact=exact)


def _angle_k(w_0: Tensor, config: DiagnosticsConfig) -> int:
    """At most half the short side: two larger subspaces intersect by counting dimensions."""
    return max(1, min(config.angle_k, min(w_0.shape) // 2))


def _rotation(
    step: int, start: Spectrum, end: Spectrum, config: DiagnosticsConfig, *, each: bool
) -> list[Row]:
    """NSS, and the angles of the leading k-dimensional subspaces, with what is known of their errors."""
    k = _angle_k(end.w, config)
    shift, bound, by_lapack = decompositions.certified_shift(start, end)
    rows = [Row(step, "spectral_shift", shift)]
    before, after = start.decomposition, end.decomposition
    for side in ("u", "v"):
        bases = [getattr(spectrum, side)[:, :k] for spectrum in (before, after)]  # (m, k) for u, (n, k) for v
        angles = subspaces.principal_angles(*bases)  # (k,)
        rows.append(Row(step, f"angle_{side}_max", angles.max().item(), k))
        rows.append(Row(step, f"angle_{side}_mean", angles.mean().item(), k))
        if each:
            rows += [Row(step, f"angle_{side}", angle, i) for i, angle in enumerate(angles.tolist(), start=1)]
    if before.method != "lapack" or after.method != "lapack":
        rows.append(Row(step, "spectral_shift_bound", bound))
        rows.append(Row(step, "spectral_shift_by_lapack", float(by_lapack)))
        rows.append(Row(step, "angle_bound", before.angle_bound(k) + after.angle_bound(k), k))
    return rows


def spectrum_rows(
    step: int, delta_w: Tensor, found: Decomposition, w_0: Tensor, config: DiagnosticsConfig
) -> list[Row]:
    """What ΔW (m, n) alone tells, from its leading triplets, and its norm relative to W_0's."""
    norm, sigma = spectra.frobenius_norm(delta_w), found.sigma
    rows = [
        Row(step, "frobenius_norm", norm.item()),
        Row(step, "relative_norm", spectra.relative_norm(delta_w, w_0).item()),
        Row(step, "operator_norm", sigma[0].item()),
        Row(step, "stable_rank", spectra.stable_rank(delta_w, sigma=sigma, norm=norm).item()),
        Row(step, "hill_index", spectra.hill_index(sigma, config.hill_k).item(), config.hill_k),
    ]
    for k in (config.energy_k, *(config.channel_ks or ())):
        rows.append(Row(step, "top_energy", spectra.top_energy(sigma, k, norm=norm).item(), k))
    if found.method != "lapack":
        rows.append(Row(step, "operator_norm_bound", found.sigma_bound[0].item()))
        rows.append(Row(step, "update_angle_bound", found.angle_bound(config.K), config.K))
    return rows


def _null_update(step: int, start: Spectrum, delta_w: Tensor, config: DiagnosticsConfig) -> list[Row]:
    """What does not follow from the norm alone: visibility, rotation, spectral shift and stable rank."""
    w_0 = start.w
    w_t = (w_0.double() + delta_w).to(w_0.dtype)
    rows = _visibility(step, w_0, w_t, weight_masks(w_0, config, start), config)
    end = weight_spectrum(w_t, _angle_k(w_t, config))
    rows += _rotation(step, start, end, config, each=False)
    norm, leading = spectra.frobenius_norm(delta_w), update_spectrum(delta_w, 1).sigma
    rank = spectra.stable_rank(delta_w, sigma=leading, norm=norm)
    return [*rows, Row(step, "stable_rank", rank.item())]


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
    a, b = (sparsity.visible_mask(*run, eta=config.eta) for run in (one, other))
    p_a, p_b = (sparsity.showing_probability(*run) for run in (one, other))
    both = (p_a * p_b).sum()
    density, other_density = a.double().mean(), b.double().mean()
    delta_a, delta_b = (w_t.double() - w_0.double() for w_0, w_t in (one, other))
    values = {
        "density": density,
        "other_density": other_density,
        "jaccard": sparsity.jaccard(a, b),
        "jaccard_chance": sparsity.chance_jaccard(a, b),
        "jaccard_rounding": sparsity.chance_jaccard(p_a, p_b),
        "coverage": sparsity.mask_overlap(a, b),
        "coverage_rounding": both / p_b.sum(),
        "reverse_coverage": sparsity.mask_overlap(b, a),
        "reverse_coverage_rounding": both / p_a.sum(),
        "update_cosine": update_cosine(delta_a, delta_b),
    }
    rows = [Row(step, metric, value.item()) for metric, value in values.items()]
    shared = alignment(update_span(delta_a, config.K), update_span(delta_b, config.K))  # chance is K/n
    return [*rows, Row(step, "subspace_alignment", shared, config.K)]


def path_rows(gram: Tensor, steps: Sequence[int]) -> list[Row]:
    """One path's `pca_coordinate` at every step, `explained_variance_ratio` at the last; k counts from 1."""
    coordinates, ratios = subspaces.path_pca(gram)
    rows = [row for step, point in zip(steps, coordinates, strict=True) for row in point_rows(step, point)]
    return [*rows, *point_rows(steps[-1], ratios, "explained_variance_ratio")]


def point_rows(step: int, point: Tensor, metric: str = "pca_coordinate") -> list[Row]:
    """One row for each component of a point; k counts from 1."""
    return [Row(step, metric, value, k) for k, value in enumerate(point.tolist(), start=1)]
