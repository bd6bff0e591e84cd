"""What those who train ask beside the paper's diagnostics: more rows for a matrix, what bf16 will show."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from paper_lib.compare.sources import open_source
from paper_lib.geometry import rounding, sparsity, spectra, subspaces
from paper_lib.geometry.decompositions import Decomposition, Spectrum, gram, update_spectrum
from paper_lib.ground.errors import CompanionError, one_line
from paper_lib.ground.tables import Row
from paper_lib.measure.matrix import measure_pair, spectrum_rows
from paper_lib.study.config import DiagnosticsConfig
from paper_lib.study.run_config import scheduled


def end_rows(
    step: int, rates: Sequence[float] | None, start: Spectrum, end: Spectrum, found: Decomposition
) -> list[Row]:
    """`energy_rank_90` and `…_99`; `intruders`, k how many vectors were looked at; `patch_bytes` as stored
    and `…_bf16`; `rounding_share`. With learning rates, of the weights: `stuck_share`, which no step of Adam
    can move in bf16 where nothing keeps float32 masters, and `hidden_share`, which would not show if every
    step went one way. found: of ΔW.
    """
    w_0, w_t = start.w, end.w
    delta_w, u_t = w_t.double() - w_0.double(), end.decomposition.u[:, : subspaces.INTRUDER_TOP]
    rows = _ranks(step, delta_w, found)
    intruders = subspaces.intruder_count(u_t, start.decomposition.u, w_0) if delta_w.any() else 0
    rows.append(Row(step, "intruders", intruders, u_t.shape[1]))
    shown = w_0.bfloat16() != w_t.bfloat16()
    for name, changed, width in (("", delta_w, max(w_0.itemsize, w_t.itemsize)), ("_bf16", shown, 2)):
        size = rounding.patch_bytes(w_0.numel(), int(changed.count_nonzero()), width)
        rows.append(Row(step, f"patch_bytes{name}", size))
    rows.append(Row(step, "rounding_share", rounding.rounding_share(w_0, w_t)))
    if rates is not None:
        shown_by = visible_shares(*rounding.half_ulp_counts(w_0), rates, rounding.adam_bound())
        for name, walk in (("stuck", "one step"), ("hidden", "drift")):
            rows.append(Row(step, f"{name}_share", 1 - shown_by[walk]))
    return rows


def update_rows(
    step: int, rates: Sequence[float] | None, delta_w: Tensor, config: DiagnosticsConfig, *, exact: bool
) -> list[Row]:
    """Of an update (m, n) without its W_0, what needs none: norms, stable rank, Hill's index and ranks."""
    delta_w = delta_w.double()
    found = update_spectrum(delta_w, max(config.K, config.hill_k, config.energy_k), exact=exact)
    rows = spectrum_rows(step, delta_w, found, torch.zeros_like(delta_w), config)
    rows += [*_ranks(step, delta_w, found), Row(step, "parameters", delta_w.numel())]
    ratio = [] if rates is None else [Row(step, "drift_ratio", spectra.drift_ratio(delta_w, rates).item())]
    return [*(row for row in rows if row.metric != "relative_norm"), *ratio]


def _ranks(step: int, delta_w: Tensor, found: Decomposition) -> list[Row]:
    sigma = found.sigma if len(found.sigma) == min(delta_w.shape) else gram(delta_w, 1).sigma
    return [Row(step, f"energy_rank_{share}", spectra.energy_rank(sigma, share / 100)) for share in (90, 99)]


def untouched(step: int, w_0: Tensor, w_t: Tensor) -> list[Row]:
    """Of an embedding: `untouched_rows`, how many, and `touched_sparsity`, the sparsity of its other rows."""
    touched = ~sparsity.untouched_rows(w_0, w_t)
    unchanged = sparsity.update_sparsity(w_0[touched], w_t[touched]).item() if touched.any() else math.nan
    return [Row(step, "untouched_rows", int((~touched).sum())), Row(step, "touched_sparsity", unchanged)]


def beside_rows(
    step: int, found: Decomposition, weights: Sequence[Tensor], config: DiagnosticsConfig, *, exact: bool
) -> list[Row]:
    """Of the table `pairs`: how the update ΔW of W_t and that of another fine-tune of the same W_0 meet.

    weights: W_0, W_t and the other's, (m, n). found: of ΔW. Beside `measure_pair`: `other_norm`, and mean
    principal angles of the top-K singular subspaces, NaN where an update has fewer directions.
    """
    w_0, w_t, w_other = weights
    other, K = w_other.double() - w_0.double(), config.K
    theirs = update_spectrum(other, K, exact=exact)
    rows = measure_pair((w_0, w_t), (w_0, w_other), step, config)
    rows.append(Row(step, "other_norm", spectra.frobenius_norm(other).item()))
    for side in "uv":
        spans = [getattr(each, side)[:, :K] for each in (found, theirs)]  # (m, K) or (n, K) both
        whole = bool(found.sigma[K - 1] > 0 and theirs.sigma[K - 1] > 0)
        angle = subspaces.principal_angles(*spans).mean().item() if whole else math.nan
        rows.append(Row(step, f"angle_{side}_mean", angle, K))
    return rows


# --- What a planned training can show in bf16, from W_0 and the learning rates alone.


def visible_shares(half: Tensor, counts: Tensor, rates: Sequence[float], bound: float) -> dict[str, float]:
    """Shares of the weights in `half_ulp_counts` whose change can show in bf16.

    "one step": of `bound` times the highest learning rate, all that counts without float32 masters; "noise":
    ΔW normal with variance Σ lr², as Adam walks without a common direction (`nulls.adam_walk`); "drift":
    |ΔW| = Σ lr, every step one way. Between the last two lie OPD and RLVR here; SFT lies at noise.
    """
    return {
        "one step": rounding.shown_share(half, counts, bound * max(rates)),
        "noise": rounding.shown_share(half, counts, math.hypot(*rates), normal=True),
        "drift": rounding.shown_share(half, counts, sum(rates)),
    }


def forecast(
    base: str, *, learning_rate: float, steps: int, schedule: str, warmup: int, betas: list[float], hub: bool
) -> dict[str, dict[str, float]]:
    """Print `visible_shares` by module and over all matrices of a checkpoint, and return them."""
    if warmup > steps or not all(0 <= beta < 1 for beta in betas):
        raise CompanionError(f"--warmup {warmup} must be within --steps {steps}, and --betas in [0, 1)")
    rates = scheduled(learning_rate, steps, warmup=warmup, end=None if schedule == "constant" else 0.0)
    source, bound = open_source(base, hub=hub), rounding.adam_bound(betas)
    found: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for matrix in source.matrices():
        half, counts = rounding.half_ulp_counts(source.read(matrix.name))
        for value, count in zip(half.tolist(), counts.tolist(), strict=True):
            for name in (matrix.module, "all"):
                found[name][value] += count
    print(f"{one_line(source.label)}: weights that can show in bf16 after {steps} steps of Adam")
    print(f"{'':20}{'one step':>12}{'noise':>12}{'drift':>12}")
    shares = {}
    for name in sorted(found, key="all".__eq__):
        half = torch.tensor(list(found[name]), dtype=torch.float64)
        shares[name] = visible_shares(half, torch.tensor(list(found[name].values())), rates, bound)
        print(f"{name:20}" + "".join(f"{share:12.1%}" for share in shares[name].values()))
    print(f"one step: up to {bound:.3g} η, all that counts without float32 masters; noise: √Σ η²; drift: Σ η")
    return shares
