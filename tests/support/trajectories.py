"""Small trajectories on disk, and files cut short."""

import json
from pathlib import Path

import torch
from torch import Tensor

from paper_lib.ground.matrices import MODULES
from paper_lib.training.checkpoints import save_checkpoint, step_path


def tiny_weights(layers: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {"model.embed_tokens.weight": torch.randn(16, 8, generator=generator)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        weights[f"{prefix}.self_attn.q_norm.weight"] = torch.ones(4)
        for module in MODULES:
            block = "self_attn" if module in "qkvo" else "mlp"
            weights[f"{prefix}.{block}.{module}_proj.weight"] = torch.randn(8, 8, generator=generator)
    return weights


def write_run(directory: Path, **changes: object) -> Path:
    for step in (0, 12):
        save_checkpoint(tiny_weights(), step_path(directory, step))
    run = {"fingerprint": "0123456789abcdef", "config": {"name": "opd"}, "steps": [0, 12], "finished": True}
    (directory / "run.json").write_text(json.dumps(run | changes))
    return directory


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
