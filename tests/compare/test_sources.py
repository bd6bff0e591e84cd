"""A checkpoint's matrices have one name and one value, however it is stored; what is none says why."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from trajectories import cut, tiny_weights, write_run
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from paper_lib.compare.pairing import pair_up
from paper_lib.compare.sources import open_source, trajectory_sources
from paper_lib.errors import CompanionError
from paper_lib.matrices import MODULES, Source, canonical_name, place
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint, step_path

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


# Names


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
        ("model.layers.0.self_attn.kv_a_proj_with_mqa.weight", (0, "other")),
        ("transformer.h.7.attn.c_attn.weight", (7, "other")),
        ("model.embed_tokens.weight", (-1, "embed")),
        ("language_model.lm_head.weight", (-1, "lm_head")),
        ("model.vision_tower.encoder.layers.0.self_attn.q_proj.weight", (-1, "other")),
    ],
)
def test_a_name_says_its_layer_and_module(name: str, expected: tuple[int, str]) -> None:
    assert place(canonical_name(name)) == expected


def test_checkpoints_of_one_model_pair_up_whatever_wraps_their_names(tmp_path: Path) -> None:
    weights = tiny_weights()
    save_checkpoint(weights, tmp_path / "a.safetensors")
    renamed = {
        n.replace("model.", "base_model.model.model.language_model.", 1): w for n, w in weights.items()
    }
    save_checkpoint(renamed, tmp_path / "b.safetensors")
    bare = {name.removeprefix("model."): weight for name, weight in weights.items()}
    save_checkpoint(bare, tmp_path / "c.safetensors")
    first = open_source(tmp_path / "a.safetensors")
    for other in ("b.safetensors", "c.safetensors"):
        pairing = pair_up(first, open_source(tmp_path / other))
        assert pairing.matched == first.matrices()
        assert [pairing.only_in_base, pairing.only_in_finetuned, pairing.mismatched] == [[], [], {}]
        assert pairing.skipped == {f"model.layers.{i}.self_attn.q_norm.weight": "a vector" for i in (0, 1)}
        assert_same(all_matrices(first), all_matrices(open_source(tmp_path / other)))


def test_what_does_not_pair_is_told_apart(tmp_path: Path) -> None:
    weights = tiny_weights(layers=1)
    save_checkpoint(weights | {"model.only.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    changed = weights | {Q: torch.ones(8, 4), "score.weight": torch.ones(1, 8)}
    save_checkpoint(changed, tmp_path / "b.safetensors")
    base, tuned = (open_source(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    pairing = pair_up(base, tuned)
    assert pairing.only_in_base == ["model.only.weight"]
    assert pairing.only_in_finetuned == ["score.weight"]
    assert pairing.mismatched == {Q: "8 × 8 in the base, 8 × 4 in b.safetensors"}
    assert len(pairing.matched) == len(MODULES)
    save_checkpoint({"other.weight": torch.ones(3, 3)}, tmp_path / "c.safetensors")
    with pytest.raises(CompanionError, match=r"a\.safetensors and c\.safetensors have no matrix of the same"):
        pair_up(base, open_source(tmp_path / "c.safetensors"))
    save_checkpoint({"other.weight": torch.ones(3, 2)}, tmp_path / "d.safetensors")
    with pytest.raises(
        CompanionError, match=r"\(other\.weight is 3 × 3 in the base, 3 × 2 in d\.safetensors\)"
    ):
        pair_up(*(open_source(tmp_path / name) for name in ("c.safetensors", "d.safetensors")))


# Files


def test_matrices_come_in_layer_order_with_shape_and_dtype(tmp_path: Path) -> None:
    weights = {name: w.to(torch.bfloat16) for name, w in tiny_weights(layers=11).items()}
    save_checkpoint(weights, tmp_path / "w.safetensors")
    matrices = open_source(tmp_path / "w.safetensors").matrices()
    assert [(m.layer, m.module) for m in matrices[1:]] == [(i, m) for i in range(11) for m in MODULES]
    assert (matrices[0].layer, matrices[0].module, matrices[0].shape) == (-1, "embed", (16, 8))
    assert {m.dtype for m in matrices} == {"bfloat16"}


def test_a_sharded_model_reads_as_transformers_loads_it(tmp_path: Path, student: PreTrainedModel) -> None:
    student.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded = type(student).from_pretrained(tmp_path).state_dict()
    source = open_source(tmp_path)
    assert_same(all_matrices(source), {n: w for n, w in loaded.items() if w.ndim == 2})
    assert set(source.skipped().values()) == {"a vector"}


def test_reading_a_matrix_opens_its_own_shard_alone(tmp_path: Path) -> None:
    source = open_source(sharded(tmp_path))
    (tmp_path / "shard-1.safetensors").unlink()
    assert torch.equal(source.read(Q), tiny_weights()[Q])
    with pytest.raises(CompanionError, match=r"shard-1\.safetensors does not exist"):
        source.read(Q.replace(".0.", ".1."))


def test_a_source_goes_to_another_process_and_reads_the_same_there(tmp_path: Path) -> None:
    source = open_source(sharded(tmp_path))
    sent = pickle.loads(pickle.dumps(source))
    assert sent == source
    assert_same(all_matrices(sent), all_matrices(source))


def test_a_hub_cache_of_links_is_read(tmp_path: Path) -> None:
    cached = sharded(tmp_path / "blobs")
    folder = tmp_path / "snapshots" / "0123"
    folder.mkdir(parents=True)
    for path in cached.iterdir():
        (folder / path.name).symlink_to(Path("../../blobs") / path.name)
    assert_same(all_matrices(open_source(folder)), all_matrices(open_source(cached)))


def test_a_fingerprint_changes_with_the_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(tiny_weights(), path)
    before = open_source(path).fingerprint
    assert open_source(path).fingerprint == before
    size = path.stat().st_size
    changed = tiny_weights()
    changed[Q][0, 0] += 1
    save_checkpoint(changed, path)
    assert path.stat().st_size == size
    after = open_source(path).fingerprint
    assert after != before
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert open_source(path).fingerprint not in (before, after)


def test_the_fingerprint_of_a_small_file_is_that_of_its_content_and_of_a_large_one_has_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(tiny_weights(), path)
    before = open_source(path).fingerprint
    os.utime(path, ns=(0, 0))
    assert open_source(path).fingerprint == before
    monkeypatch.setattr("paper_lib.compare.shards._WHOLE", 0)
    large = open_source(path).fingerprint
    os.utime(path, ns=(1, 1))
    assert open_source(path).fingerprint != large


@pytest.mark.parametrize("whole", [0, 2**20])
def test_copies_of_one_size_and_time_have_fingerprints_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr("paper_lib.compare.shards._WHOLE", whole)
    prints = set()
    for name, scale in (("a", 1.0), ("b", 2.0)):
        path = tmp_path / name / "model.safetensors"
        save_checkpoint({n: scale * w for n, w in tiny_weights().items()}, path)
        os.utime(path, ns=(0, 0))
        prints.add(open_source(path).fingerprint)
    assert len(prints) == 2


def test_a_run_is_its_last_step_and_a_trajectory_all_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "opd" / "seed_0")
    save_checkpoint({n: w + 1 for n, w in tiny_weights().items()}, step_path(run, 12))
    steps = trajectory_sources(run)
    assert [(step, source.label) for step, source in steps] == [
        (0, "opd/seed_0 step 0"),
        (12, "opd/seed_0 step 12"),
    ]
    assert steps[-1][1] == open_source(run)
    assert torch.equal(steps[1][1].read(Q), steps[0][1].read(Q) + 1)


def test_a_trainers_checkpoints_come_in_step_order(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        save_checkpoint(tiny_weights(), tmp_path / f"checkpoint-{step}" / "model.safetensors")
    (tmp_path / "checkpoint-best").mkdir()
    sources = trajectory_sources(tmp_path)
    assert [(step, source.label) for step, source in sources] == [
        (step, f"checkpoint-{step}") for step in (3, 20, 100)
    ]
    with pytest.raises(CompanionError, match=r"holds checkpoints but is none: name one, such as .*-100$"):
        open_source(tmp_path)
    with pytest.raises(CompanionError, match=r"neither a run\.json nor checkpoint-N"):
        trajectory_sources(tmp_path / "checkpoint-3")


# Tensors that hold several matrices, and tensors that hold none


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


def test_tied_embeddings_appear_once(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    save_checkpoint(
        {"model.embed_tokens.weight": weight, "lm_head.weight": weight}, tmp_path / "model.safetensors"
    )
    assert [m.module for m in open_source(tmp_path).matrices()] == ["embed", "lm_head"]
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": true}')
    source = open_source(tmp_path)
    assert [m.module for m in source.matrices()] == ["embed"]
    assert source.skipped() == {"lm_head.weight": "tied to model.embed_tokens.weight"}
    with pytest.raises(CompanionError, match=r"no matrix 'lm_head\.weight': it is tied to"):
        source.read("lm_head.weight")
    save_checkpoint(
        {"model.embed_tokens.weight": weight, "lm_head.weight": weight}, tmp_path / "b" / "w.safetensors"
    )
    pairing = pair_up(source, open_source(tmp_path / "b" / "w.safetensors"))
    assert pairing.skipped == source.skipped()
    assert pairing.only_in_finetuned == []


def test_quantised_tensors_are_left_out_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "gptq.safetensors"
    layer = "model.layers.0.self_attn.q_proj"
    quantised = {
        f"{layer}.qweight": torch.ones(4, 4, dtype=torch.int32),
        f"{layer}.scales": torch.ones(2, 4, dtype=torch.float16),
        "model.layers.0.mlp.up_proj.weight": torch.ones(4, 4).to(torch.float8_e4m3fn),
        "model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(2, 2),
        "temperature": torch.tensor(1.0),
        "nothing": torch.zeros(0, 3),
    }
    save_file(quantised | {"lm_head.weight": torch.ones(2, 2)}, path)
    source = open_source(path)
    assert [m.name for m in source.matrices()] == ["lm_head.weight"]
    reasons = source.skipped()
    assert reasons[f"{layer}.qweight"].startswith("int32: quantised")
    assert reasons["model.layers.0.mlp.up_proj.weight"].startswith("float8_e4m3: quantised")
    assert reasons[f"{layer}.scales"] == "the scale of a quantised weight"
    assert reasons["model.layers.0.mlp.up_proj.weight_scale_inv"] == "the scale of a quantised weight"
    assert (reasons["temperature"], reasons["nothing"]) == ("a scalar", "empty")
    save_file(quantised, path)
    with pytest.raises(
        CompanionError, match=r"gptq\.safetensors holds no floating-point matrix.*unquantised"
    ):
        open_source(path)


# Bad input


def refusal(where: Path | str, **options: object) -> str:
    with pytest.raises(CompanionError) as refused:
        open_source(where, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "nowhere does not exist: check the path" in refusal(tmp_path / "nowhere")
    assert f"{tmp_path} is empty" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert f"{tmp_path} holds no safetensors file" in refusal(tmp_path)
    assert refusal("some/model").endswith("to fetch it from the Hub, allow that (hub=True)")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.ones(2, 2)}, tmp_path / name)
    for where in (tmp_path, tmp_path / name):
        assert re.search(rf"{name} is a pickle, which can run any code.*writes safetensors", refusal(where))


@pytest.mark.parametrize(
    "place", ["../out.safetensors", "/out.safetensors", "a/../../b", "..\\b", "C:\\b", ""]
)
def test_an_index_may_not_leave_its_folder(tmp_path: Path, place: str) -> None:
    folder = sharded(tmp_path / "model", **{Q: place})
    shutil.copy(folder / "shard-0.safetensors", tmp_path / "out.safetensors")
    assert re.search(r"index\.json places .*q_proj\.weight in .*, outside its folder", refusal(folder))


def test_an_index_that_promises_too_much(tmp_path: Path) -> None:
    folder = sharded(tmp_path, **{Q: "shard-1.safetensors"})
    assert re.search(rf"shard-1\.safetensors lacks {Q}, which .*index\.json places there", refusal(folder))


def test_a_missing_shard_and_a_tensor_in_two(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    twice = load_checkpoint(folder / "shard-1.safetensors") | {Q: torch.ones(8, 8)}
    save_checkpoint(twice, folder / "shard-1.safetensors")
    assert re.search(rf"shard-0\.safetensors and .*shard-1\.safetensors both hold {Q}", refusal(folder))
    (folder / "shard-1.safetensors").unlink()
    assert re.search(r"shard-1\.safetensors does not exist, but .*index\.json places", refusal(folder))
    (folder / "model.safetensors.index.json").unlink()
    save_checkpoint(tiny_weights(), folder / "shard-2.safetensors")
    assert re.search(r"holds shard-0\.safetensors, shard-2\.safetensors and no .*index", refusal(folder))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"w": 3}}', "\xff"])
def test_a_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    assert "model.safetensors.index.json" in refusal(tmp_path)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    (folder / "config.json").write_text('{"model_type": ')
    assert "config.json cannot be read as JSON" in refusal(folder)
    (folder / "config.json").unlink()
    cut(folder / "shard-1.safetensors", -8)
    assert re.search(r"shard-1\.safetensors is truncated.*download it again", refusal(folder))


def test_the_hub_is_asked_for_weights_and_json_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(sharded(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    source = open_source("org/model@step-3", hub=True)
    assert source.label == "org/model@step-3"
    assert (asked["name"], asked["revision"]) == ("org/model", "step-3")
    assert asked["allow_patterns"] == ["*.safetensors", "*.json"]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    assert re.search(
        r"cannot fetch org/model from the Hub \(ConnectionError: Name or service not known\)",
        refusal("org/model", hub=True),
    )
