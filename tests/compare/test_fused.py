"""A tensor that holds several matrices is cut where the forward pass cuts it."""

import json
from pathlib import Path

import pytest
import torch
from stored import HEADS, IDS, SIZES, all_matrices, assert_same, phi3, seeded
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from paper_lib.compare.sources import open_source
from paper_lib.ground.matrices import MODULES, canonical_name
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
    assert ("qkv_proj", "qkv") in modules
    assert ("gate_up_proj", "gate_up") in modules


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
    assert {m.name for m in source.matrices()} >= {f"{prefix}0.gate_up_stack", f"{prefix}1.down_stack"}
    assert torch.equal(source.read(f"{prefix}1.gate_up_stack"), stacks[f"{prefix}gate_up_proj"][1])
    assert "3 dimensions" in source.left_out["conv.weight"]


FOUR_HEADS = {"num_attention_heads": 4, "num_hidden_layers": 1}
FUSED = {
    "gpt_neox": (
        GPTNeoXForCausalLM,
        GPTNeoXConfig(**SIZES | FOUR_HEADS),
    ),
    "bloom": (BloomForCausalLM, BloomConfig(hidden_size=16, n_layer=1, n_head=4)),
    "falcon-7b": (
        FalconForCausalLM,
        FalconConfig(**SIZES | FOUR_HEADS),
    ),
    "falcon-40b": (
        FalconForCausalLM,
        FalconConfig(**SIZES | FOUR_HEADS, num_kv_heads=2, new_decoder_architecture=True),
    ),
    "mpt": (MptForCausalLM, MptConfig(d_model=16, n_layers=1, n_heads=4)),
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=16, n_layer=1, n_head=4)),
}


@pytest.mark.parametrize("family", FUSED)
@pytest.mark.parametrize("module", ["q", "k", "v"])
def test_the_rows_of_a_fused_projection_are_those_that_attend(
    tmp_path: Path, family: str, module: str
) -> None:
    """With q or k at zero attention does not depend on the tokens; with v at zero its outcome does not."""
    model, config = FUSED[family]
    config.update({"vocab_size": 20, "tie_word_embeddings": False})
    config._attn_implementation = "eager"
    whole = seeded(model, config)
    whole.save_pretrained(tmp_path)
    source = open_source(tmp_path)
    (name,) = (m.name for m in source.matrices() if (m.layer, m.module) == (0, module))
    stored, piece = source.entries[name].whole, source.entries[name].piece
    weight = next(w for n, w in whole.state_dict().items() if canonical_name(n) == stored)
    assert torch.equal(piece.of(weight), source.read(name))
    positions = piece.of(torch.arange(weight.numel()).view_as(weight))
    weight.view(-1)[positions.flatten()] = 0
    logits, attended = [], []
    for tokens in (torch.arange(5)[None], torch.arange(5)[None] + 9):
        out = whole(tokens, output_attentions=True)
        logits.append(out.logits)
        attended.append(out.attentions[0])
    assert torch.allclose(*attended) == (module != "v")
    assert not torch.allclose(*logits)
    if module == "v":  # nothing is passed on: what the last position says does not depend on the first
        changed = whole(torch.cat([tokens[:, :1] + 1, tokens[:, 1:]], 1)).logits
        torch.testing.assert_close(out.logits[:, -1], changed[:, -1])
