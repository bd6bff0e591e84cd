"""A LoRA adapter on its base is, bit for bit, what peft's own merge makes of the two."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from stored import all_matrices, assert_same, phi3
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from paper_lib.compare.pairing import pair_up
from paper_lib.compare.shards import Source
from paper_lib.compare.sources import open_source, trajectory_sources
from paper_lib.ground.errors import CompanionError

TARGETS = ["q_proj", "down_proj", "lm_head"]


def adapted(model: PreTrainedModel, folder: Path, **options: object) -> dict[str, torch.Tensor]:
    """Save a base and a random adapter of it; returns the weights after peft's merge."""
    model.save_pretrained(folder / "base")
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": TARGETS} | options)
    peft_model = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) / 4
    peft_model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return peft_model.merge_and_unload().state_dict()


def opened(folder: Path) -> tuple[Source, Source]:
    base = open_source(folder / "base")
    return base, open_source(folder / "adapter", base=base)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(CompanionError) as refused:
        opened(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "init_lora_weights": "gaussian"},
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "lm_head": 1},
            "alpha_pattern": {"^model.*down_proj": 3},
        },
    ],
    ids=["plain", "rank-stabilised", "patterns"],
)
def test_the_merge_is_pefts(student, tmp_path: Path, dtype: torch.dtype, options: dict[str, object]) -> None:
    merged = adapted(student.to(dtype), tmp_path, **options)
    base, source = opened(tmp_path)
    assert_same(all_matrices(source), {name: w for name, w in merged.items() if w.ndim == 2})
    changed = [
        m.name for m in pair_up(base, source)[0] if not torch.equal(source.read(m.name), base.read(m.name))
    ]
    assert len(changed) == 5
    assert all(name.split(".")[-2] in TARGETS for name in changed)


def test_an_adapter_in_16_bits_is_multiplied_in_32(student, tmp_path: Path) -> None:
    adapted(student.to(torch.bfloat16), tmp_path)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: w.to(torch.bfloat16) for name, w in load_file(path).items()}, path)
    base = type(student).from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    base, source = opened(tmp_path)
    assert_same(all_matrices(source), {name: w for name, w in merged.items() if w.ndim == 2})


def test_an_adapter_of_a_fused_projection_reaches_its_parts(tmp_path: Path) -> None:
    model = phi3()
    merged = adapted(model, tmp_path, target_modules=["qkv_proj", "gate_up_proj"])
    _, source = opened(tmp_path)
    for layer in ("model.layers.0", "model.layers.1"):
        qkv = torch.cat([source.read(f"{layer}.self_attn.{m}_proj.weight") for m in "qkv"])
        assert torch.equal(qkv, merged[f"{layer}.self_attn.qkv_proj.weight"])
        gate_up = torch.cat([source.read(f"{layer}.mlp.{m}_proj.weight") for m in ("gate", "up")])
        assert torch.equal(gate_up, merged[f"{layer}.mlp.gate_up_proj.weight"])


@pytest.mark.parametrize("options", [{}, {"lora_bias": True}], ids=str)
def test_weights_stored_the_other_way_round_get_the_transposed_update(
    tmp_path: Path, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30, n_positions=8))
    merged = adapted(model, tmp_path, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, **options)
    _, source = opened(tmp_path)
    q, k, v = (source.read(f"h.0.attn.{module}_proj.weight") for module in "qkv")
    assert torch.equal(torch.cat([q, k, v]), merged["transformer.h.0.attn.c_attn.weight"].T)
    assert torch.equal(source.read("h.0.mlp.c_proj.weight"), merged["transformer.h.0.mlp.c_proj.weight"].T)


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
        {"bias": "lora_only"},
        {"trainable_token_indices": [1, 7]},
        {"trainable_token_indices": {"embed_tokens": [3]}},
    ],
    ids=str,
)
def test_what_is_trained_beside_the_factors_is_merged_as_peft_does(
    student, tmp_path: Path, options: dict[str, object]
) -> None:
    merged = adapted(student.double(), tmp_path, **options)
    base, source = opened(tmp_path)
    for matrix in source.matrices():
        torch.testing.assert_close(source.read(matrix.name), merged[matrix.name], rtol=1e-12, atol=1e-13)
    changed = [m.name for m in source.matrices() if not torch.equal(source.read(m.name), base.read(m.name))]
    assert len(changed) >= 2


@pytest.mark.parametrize("apart", [True, False], ids=["expert by expert", "stacked"])
def test_an_adapter_of_experts_is_merged_as_peft_does(tmp_path: Path, apart: bool) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 20}
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**sizes, **heads, num_experts=3, num_experts_per_tok=2)
    ).double()
    stacked = {name: w.clone() for name, w in model.state_dict().items()}
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    merged = adapted(model, tmp_path, target_modules=[], target_parameters=parameters)
    if not apart:
        save_file(stacked, tmp_path / "base" / "model.safetensors")
    _, source = opened(tmp_path)
    experts = "model.layers.0.mlp.experts"
    for expert in range(3):
        gate, up, down = (source.read(f"{experts}.{expert}.{m}_proj.weight") for m in ("gate", "up", "down"))
        torch.testing.assert_close(torch.cat([gate, up]), merged[f"{experts}.gate_up_proj"][expert])
        torch.testing.assert_close(down, merged[f"{experts}.down_proj"][expert])
    assert not torch.equal(merged[f"{experts}.down_proj"], stacked[f"{experts}.down_proj"])


def test_an_output_head_that_was_saved_whole_is_no_longer_the_embedding(student, tmp_path: Path) -> None:
    student.config.tie_word_embeddings = True
    student.tie_weights()
    adapted(student, tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    head = torch.randn_like(student.lm_head.weight)
    save_file(load_file(path) | {"base_model.model.lm_head.weight": head}, path)
    base, source = opened(tmp_path)
    assert "lm_head.weight" in [m.name for m in pair_up(base, source)[0]]
    assert torch.equal(source.read("lm_head.weight"), head)
    assert torch.equal(base.read("lm_head.weight"), base.read("model.embed_tokens.weight"))


def test_an_adapter_in_a_pickle_is_not_opened(student, tmp_path: Path) -> None:
    adapted(student, tmp_path)
    folder = tmp_path / "adapter"
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert re.search(r"adapter_model\.bin is a pickle.*save_pretrained", refusal(tmp_path))


def test_a_trajectory_of_adapters_is_read_on_one_base(student, tmp_path: Path) -> None:
    merged = adapted(student, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "adapter").rename(tmp_path / "run" / "checkpoint-7")
    [(step, source)], _ = trajectory_sources(tmp_path / "run", base=open_source(tmp_path / "base"))
    assert step == 7
    assert_same(
        all_matrices(pickle.loads(pickle.dumps(source))), {n: w for n, w in merged.items() if w.ndim == 2}
    )


def test_the_fingerprint_is_the_bases_and_the_adapters(student, tmp_path: Path) -> None:
    adapted(student, tmp_path)
    before = opened(tmp_path)[1].fingerprint
    assert opened(tmp_path)[1].fingerprint == before
    change_config(tmp_path, lora_alpha=7)
    changed = opened(tmp_path)[1].fingerprint
    assert changed != before
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert opened(tmp_path)[1].fingerprint not in (before, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', only LORA"),
        ({"use_dora": True}, "lacks the magnitudes of .*q_proj"),
        ({"use_qalora": True}, "sets use_qalora True, which is more than plain LoRA: merge it"),
        ({"modules_to_save": ["score"]}, "lacks score, which modules_to_save names"),
        ({"rank_pattern": {"([a-z._0-9]*)*!": 4}}, "may take forever"),
        ({"lora_alpha": 10**400}, "no usable r and lora_alpha"),
        ({"init_lora_weights": "pissa"}, "sets init_lora_weights 'pissa'"),
        ({"a_later_invention": 3}, "sets a_later_invention 3"),
        (
            {"r": 5},
            r"q_proj.weight has A \(4, 32\) and B \(32, 4\), but adapter_config\.json says r = 5",
        ),
        ({"lora_alpha": None}, "no usable r and lora_alpha"),
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
    ],
)
def test_what_is_more_than_plain_lora_is_named(
    student, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    adapted(student, tmp_path, target_modules=["q_proj"])
    change_config(tmp_path, **changes)
    assert re.search(rf"adapter_(config\.json|model\.safetensors).*{message}", refusal(tmp_path))


def test_an_adapter_needs_its_own_base(student, teacher, tmp_path: Path) -> None:
    adapted(student, tmp_path, target_modules=["q_proj"])
    with pytest.raises(CompanionError, match="is a LoRA adapter: name the base it was trained on too"):
        open_source(tmp_path / "adapter")
    teacher.save_pretrained(tmp_path / "base")
    assert re.search(r"changes .*q_proj\.weight of 32 × 32, but the base base has 32 × 48", refusal(tmp_path))
    path = tmp_path / "base" / "model.safetensors"
    save_file({n: w for n, w in load_file(path).items() if "q_proj" not in n}, path)
    assert re.search(r"changes .*q_proj\.weight of base, which lacks it", refusal(tmp_path))


def test_factors_that_are_none(student, tmp_path: Path) -> None:
    adapted(student, tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    factors = load_file(path)
    first = next(name for name in factors if "lora_A" in name)
    save_file({n: w for n, w in factors.items() if n != first}, path)
    assert "holds half an adapter of model.layers" in refusal(tmp_path)
    save_file(factors | {first.replace("lora_A", "lora_A.other"): factors[first].clone()}, path)
    assert "holds two adapters of model.layers" in refusal(tmp_path)
    misspelt = first.replace(".weight", ".wgight")
    save_file({misspelt if n == first else n: w for n, w in factors.items()}, path)
    assert re.search(r"holds .*lora_A\.wgight, which is no LoRA factor", refusal(tmp_path))
    save_file(factors | {"base_model.model.lm_head.lora_C": torch.ones(2, 2)}, path)
    assert "holds base_model.model.lm_head.lora_C, which is no LoRA factor: merge it" in refusal(tmp_path)
    save_file({}, path)
    assert "holds no LoRA factors" in refusal(tmp_path)
    path.unlink()
    assert re.search(r"adapter_model\.safetensors does not exist", refusal(tmp_path))
