"""What a planned training can show in bf16, from W_0 and the learning rates alone."""

from collections import defaultdict
from collections.abc import Sequence
from math import hypot

import torch
from torch import Tensor

from paper_lib.compare.sources import open_source
from paper_lib.geometry.rounding import adam_bound, half_ulp_counts, shown_share
from paper_lib.ground.errors import CompanionError, one_line
from paper_lib.study.run_config import scheduled


def visible_shares(half: Tensor, counts: Tensor, rates: Sequence[float], bound: float) -> dict[str, float]:
    """Shares of the weights in `half_ulp_counts` whose change can show in bf16.

    "one step": of `bound` times the highest learning rate, all that counts without float32 masters; "noise":
    ΔW normal with variance Σ lr², as Adam walks without a common direction (`nulls.adam_walk`); "drift":
    |ΔW| = Σ lr, every step one way. Between the last two lie OPD and RLVR here; SFT lies at noise.
    """
    return {
        "one step": shown_share(half, counts, bound * max(rates)),
        "noise": shown_share(half, counts, hypot(*rates), normal=True),
        "drift": shown_share(half, counts, sum(rates)),
    }


def forecast(
    base: str, *, learning_rate: float, steps: int, schedule: str, warmup: int, betas: list[float], hub: bool
) -> dict[str, dict[str, float]]:
    """Print `visible_shares` by module and over all matrices of a checkpoint, and return them."""
    if warmup > steps or not all(0 <= beta < 1 for beta in betas):
        raise CompanionError(f"--warmup {warmup} must be within --steps {steps}, and --betas in [0, 1)")
    rates = scheduled(learning_rate, steps, warmup=warmup, end=None if schedule == "constant" else 0.0)
    source, bound = open_source(base, hub=hub), adam_bound(betas)
    found: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for matrix in source.matrices():
        half, counts = half_ulp_counts(source.read(matrix.name))
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
