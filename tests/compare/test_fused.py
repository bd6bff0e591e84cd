"""A tensor that holds several matrices is cut where the forward pass cuts it."""

import json
from pathlib import Path

import pytest
import torch
from stored import HEADS, IDS, SIZES, all_matrices, assert_same, phi3, seeded
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from paper_lib.compare.sources import open_source
from paper_lib.matrices import MODULES
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint


def test_fused_projections_are_cut_where_the_forward_pass_cuts_them(tmp_path: Path) -> None:
    model = phi3()
    model.save_pretrained(tmp_path)
    source = open_source(tmp_path)
    assert [(m.layer, m.module) for m in source.matrices() if m.layer >= 0] == [
        (layer, module) for layer in (0, 1) for module in MODULES
    ]
    x = torch.randn(3, 16)
    layer, prefix = model.model.layers[1], "model.layers.1"
    q, k, v = (x @ source.read(f"{prefix}.self_attn.{m}_proj.weight").T for m in "qkv")
    assert [part.shape[1] for part in (q, k, v)] == [16, 8, 8]
    torch.testing.assert_close(torch.cat([q, k, v], 1), layer.self_attn.qkv_proj(x))
    gate, up = (x @ source.read(f"{prefix}.mlp.{m}_proj.weight").T for m in ("gate", "up"))
    down = source.read(f"{prefix}.mlp.down_proj.weight")
    torch.testing.assert_close((torch.nn.functional.silu(gate) * up) @ down.T, layer.mlp(x))


def test_a_fused_projection_of_an_unknown_family_stays_whole(tmp_path: Path) -> None:
    phi3().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "esm"}))
    modules = [(m.name.split(".")[-2], m.module) for m in open_source(tmp_path).matrices() if m.layer == 0]
    assert ("qkv_proj", "other") in modules
    assert ("gate_up_proj", "other") in modules


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (Qwen3MoeForCausalLM, Qwen3MoeConfig),
        (MixtralForCausalLM, MixtralConfig),
    ],
)
def test_experts_have_one_name_stacked_or_not(tmp_path: Path, model: type, config: type) -> None:
    sizes = SIZES | HEADS | IDS | {"head_dim": 4, "moe_intermediate_size": 24}
    sizes |= {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
    moe = seeded(model, config(**sizes))
    moe.save_pretrained(tmp_path / "hub")
    save_checkpoint(moe.state_dict(), tmp_path / "stacked" / "model.safetensors")
    apart, stacked = open_source(tmp_path / "hub"), open_source(tmp_path / "stacked")
    assert any(
        "experts.gate_up_proj" in name for name in load_checkpoint(tmp_path / "stacked/model.safetensors")
    )
    assert_same(all_matrices(stacked), all_matrices(apart))
    assert [m.name for m in stacked.matrices()] == [m.name for m in apart.matrices()]
    assert [m.module for m in stacked.matrices() if m.layer == 1] == [
        *"qkvo",
        *("gate", "gate", "gate", "up", "up", "up", "down", "down", "down", "router"),
    ]
    experts = moe.model.layers[1].mlp.experts
    gate, up, down = (
        stacked.read(f"model.layers.1.mlp.experts.2.{m}_proj.weight") for m in ("gate", "up", "down")
    )
    x = torch.randn(5, 16)
    chosen, weight = torch.full((5, 1), 2), torch.ones(5, 1)
    expected = experts(x, chosen, weight)
    torch.testing.assert_close((torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T, expected)


def test_a_stack_the_other_way_round_is_cut_by_expert_alone(tmp_path: Path) -> None:
    prefix = "model.layers.0.mlp.experts."
    stacks = {f"{prefix}gate_up_proj": torch.randn(2, 4, 12), f"{prefix}down_proj": torch.randn(2, 6, 4)}
    save_checkpoint(stacks | {"conv.weight": torch.ones(4, 1, 3)}, tmp_path / "w.safetensors")
    source = open_source(tmp_path / "w.safetensors")
    assert {m.module for m in source.matrices()} == {"other"}
    assert torch.equal(source.read(f"{prefix}1.gate_up_stack"), stacks[f"{prefix}gate_up_proj"][1])
    assert "3 dimensions" in source.skipped()["conv.weight"]
