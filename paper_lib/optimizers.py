"""The optimizer of a run, and what it remembers from step to step."""

from collections.abc import Iterable

import torch
from torch import Tensor

from paper_lib.config import RunConfig

MEMORY = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # what AdamW and SGD keep of a parameter


def build_optimizer(parameters: Iterable[Tensor], run: RunConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); with sgd_momentum μ, SGD: m ← μ m + (g + λ W), W ← W − η m.

    SGD's decay λ is part of what it accumulates: in the long run it shrinks W by η λ / (1 − μ) a step,
    AdamW's by η λ.
    """
    if run.sgd_momentum is not None:
        return torch.optim.SGD(
            parameters, lr=run.learning_rate, momentum=run.sgd_momentum, weight_decay=run.weight_decay
        )
    return torch.optim.AdamW(
        parameters,
        lr=run.learning_rate,
        betas=run.betas,
        eps=run.epsilon,
        weight_decay=run.weight_decay,
    )


def remembered(flat: dict[str, Tensor], name: str, device: torch.device) -> dict[str, Tensor]:
    """An optimizer's memory of the parameter `name` out of a flat state; torch wants Adam's count of steps
    on the CPU."""
    found = {key: flat[f"{key}.{name}"].clone() for key in MEMORY if f"{key}.{name}" in flat}
    return {key: value.to("cpu" if key == "step" else device) for key, value in found.items()}
