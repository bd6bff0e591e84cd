"""Checkpoints as others store them, and what a source reads of them."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trajectories import tiny_weights
from transformers import (
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from paper_lib.compare.shards import Source
from paper_lib.compare.sources import open_source
from paper_lib.ground.errors import CompanionError
from paper_lib.training.checkpoints import save_checkpoint

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 40}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
Q = "model.layers.0.self_attn.q_proj.weight"


def seeded(model: type[PreTrainedModel], config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return model(config).eval()


def phi3() -> PreTrainedModel:
    return seeded(Phi3ForCausalLM, Phi3Config(**SIZES, **HEADS, **IDS))


def all_matrices(source: Source) -> dict[str, Tensor]:
    return {matrix.name: source.read(matrix.name) for matrix in source.matrices()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert first
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


def sharded(folder: Path, **changes: str) -> Path:
    """Two shards by layer, and an index; `changes` places tensors elsewhere."""
    weights = tiny_weights()
    places = {name: f"shard-{int('layers.1.' in name)}.safetensors" for name in weights}
    for shard in set(places.values()):
        save_checkpoint({n: w for n, w in weights.items() if places[n] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": places | changes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def refusal(where: Path | str, **options: object) -> str:
    with pytest.raises(CompanionError) as refused:
        open_source(where, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)
