"""A weight matrix has one name, layer and module, whatever wraps it."""

import pytest

from paper_lib.ground.matrices import canonical_name, layer_and_module


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.model.model.", "module._orig_mod.model."])
@pytest.mark.parametrize("part", ["layers.3.mlp.down_proj.weight", "embed_tokens.weight"])
def test_a_wrapped_name_is_the_name_inside(prefix: str, part: str) -> None:
    assert canonical_name(prefix + part) == f"model.{part}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.self_attn.o_proj.weight", (12, "o")),
        ("model.language_model.layers.1.self_attn.k_proj.weight", (1, "k")),
        ("language_model.model.layers.1.mlp.gate_proj.weight", (1, "gate")),
        ("model.layers.4.mlp.experts.11.up_proj.weight", (4, "up")),
        ("model.layers.4.block_sparse_moe.experts.11.w2.weight", (4, "down")),
        ("model.layers.4.block_sparse_moe.gate.weight", (4, "router")),
        ("model.layers.4.mlp.gate.weight", (4, "router")),
        ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", (0, "kv_a")),
        ("model.layers.0.self_attn.q_b_proj.weight", (0, "q_b")),
        ("transformer.h.7.attn.c_attn.weight", (7, "attn.c_attn")),
        ("transformer.h.7.attn.c_proj.weight", (7, "o")),
        ("bert.encoder.layer.2.attention.self.key.weight", (2, "k")),
        ("encoder.layer.2.intermediate.dense.weight", (2, "up")),
        ("embeddings.word_embeddings.weight", (-1, "embed")),
        ("decoder.block.1.layer.2.DenseReluDense.wi_0.weight", (1, "gate")),
        ("decoder.block.1.layer.1.EncDecAttention.q.weight", (1, "layer.1.EncDecAttention.q")),
        ("gpt_neox.layers.3.mlp.dense_4h_to_h.weight", (3, "down")),
        ("backbone.layers.0.mixer.in_proj.weight", (0, "mixer.in")),
        ("model.embed_tokens.weight", (-1, "embed")),
        ("language_model.lm_head.weight", (-1, "lm_head")),
        ("model.vision_tower.encoder.layers.0.self_attn.q_proj.weight", (-1, "other")),
    ],
)
def test_a_name_says_its_layer_and_module(name: str, expected: tuple[int, str]) -> None:
    assert layer_and_module(canonical_name(name)) == expected
