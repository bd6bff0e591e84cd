"""What one matrix shows at its last step alone: Gate III entry by entry, where the update is, and how the
sparsity depends on what counts as a change."""

from __future__ import annotations

import torch
from torch import Tensor

from paper_lib.certified import weight_spectrum
from paper_lib.config import DiagnosticsConfig
from paper_lib.curvature import principal_energy
from paper_lib.sparsity import visible_mask
from paper_lib.tables import Row
from paper_lib.visibility import (
    predicted_mask,
    prediction_agreement,
    showing_probability,
    top_coordinate_energy,
)


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
    inside = principal_energy(delta_w, start.u[:, :rank], start.v[:, :rank])
    rows = [
        Row(step, "predicted_density", predicted_mask(w_0, w_end).double().mean().item()),
        Row(step, "independent_density", showing_probability(w_0, w_end).mean().item()),
        Row(step, "prediction_agreement", prediction_agreement(w_0, w_end, eta=config.eta).item()),
        Row(step, "principal_energy", inside.item(), rank),
        Row(step, "principal_energy_chance", rank**2 / w_0.numel(), rank),
    ]
    for share in config.coordinate_fractions:
        rows.append(Row(step, "coordinate_energy", top_coordinate_energy(delta_w, share).item(), share))
    return rows


def unchanged_counts(w_0: Tensor, w_end: Tensor, config: DiagnosticsConfig) -> Tensor:
    """Entries of one matrix that stayed, for each (precision, η) of `tolerances`, and last of all its size.

    Returns (tolerances + 1,), int64; `unchanged_rows` takes the sum over matrices.
    """
    counts = [
        w_0.numel() - int(visible_mask(w_0, w_end, eta=eta, precision=precision).count_nonzero())
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
