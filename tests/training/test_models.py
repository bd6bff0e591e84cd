"""Models: built from a seed, stored as bf16 whole or not at all, refused when broken."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SHAPE, draw, full_logits
from transformers import PreTrainedTokenizerFast

from paper_lib.ground.errors import CompanionError
from paper_lib.study.config import ModelConfig
from paper_lib.training.models import (
    as_stored,
    build_model,
    load_model,
    require_same_vocabulary,
    save_model,
    stored_weights,
    weights_fingerprint,
)
from paper_lib.training.rollouts import completion_logits

MIXTURE = replace(SHAPE, experts=4, experts_per_token=2, expert_size=24)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


SHIPPED = sorted((Path(__file__).parents[2] / "data" / "models").iterdir())


@pytest.fixture
def saved(student, tokenizer, tmp_path):
    save_model(student, tokenizer, tmp_path / "model", card="# A card", recipe={"seed": 0})
    return tmp_path / "model"


@pytest.fixture
def tied(student):
    """The student with the embedding for an output head."""
    student.config.tie_word_embeddings = True
    student.tie_weights()
    return student


def test_the_seed_fixes_the_weights_and_leaves_the_global_generator_alone(student, tokenizer):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = build_model(SHAPE, tokenizer, seed=0)
    assert torch.equal(torch.rand(3), expected)
    assert same(again.state_dict(), student.state_dict())
    other = build_model(SHAPE, tokenizer, seed=1)
    assert not torch.equal(other.model.embed_tokens.weight, student.model.embed_tokens.weight)


def test_the_shape_is_the_configs(student, tokenizer):
    attention = student.model.layers[1].self_attn
    assert len(student.model.layers) == SHAPE.layers
    assert attention.q_proj.weight.shape == (SHAPE.heads * SHAPE.head_dim, SHAPE.hidden_size)
    assert attention.k_proj.weight.shape == (SHAPE.kv_heads * SHAPE.head_dim, SHAPE.hidden_size)
    assert student.model.layers[0].mlp.down_proj.weight.shape == (32, SHAPE.intermediate_size)
    assert attention.q_norm.weight.shape == (SHAPE.head_dim,)
    assert attention.q_proj.bias is None
    assert student.lm_head.weight.shape == (len(tokenizer), SHAPE.hidden_size)
    assert student.lm_head.weight.data_ptr() != student.model.embed_tokens.weight.data_ptr()
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert not student.training


def test_a_model_comes_back_as_bf16_holds_it(student, tokenizer, saved):
    model, theirs = load_model(saved)
    assert same(model.state_dict(), as_stored(student.state_dict()))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert theirs.get_vocab() == tokenizer.get_vocab()
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert (saved / "README.md").read_text() == "# A card"
    assert json.loads((saved / "recipe.json").read_text()) == {"seed": 0}


def test_storing_twice_changes_nothing(student, tokenizer, saved, tmp_path):
    once, _ = load_model(saved)
    save_model(once, tokenizer, tmp_path / "again", card="", recipe={})
    assert same(load_model(tmp_path / "again")[0].state_dict(), once.state_dict())
    assert same(as_stored(once.state_dict()), once.state_dict())
    assert not same(as_stored(student.state_dict()), student.state_dict())


def test_a_save_that_fails_leaves_the_model_that_was_there(student, tokenizer, saved, monkeypatch):
    before = load_model(saved)[0].state_dict()

    def fails(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(student, "save_pretrained", fails)
    with pytest.raises(OSError, match="no space"):
        save_model(student, tokenizer, saved, card="", recipe={})
    assert same(load_model(saved)[0].state_dict(), before)


def test_two_processes_may_save_a_model_at_once(student, tokenizer, tmp_path, monkeypatch):
    saves, pid = student.save_pretrained, os.getpid()

    def meanwhile(staging, **options):
        saves(staging, **options)
        monkeypatch.setattr(student, "save_pretrained", saves)
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        save_model(student, tokenizer, tmp_path / "model", card="# theirs", recipe={})
        monkeypatch.setattr(os, "getpid", lambda: pid)

    monkeypatch.setattr(student, "save_pretrained", meanwhile)
    save_model(student, tokenizer, tmp_path / "model", card="# ours", recipe={})
    assert (tmp_path / "model" / "README.md").read_text() == "# ours"
    assert same(load_model(tmp_path / "model")[0].state_dict(), as_stored(student.state_dict()))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_model_that_cannot_take_its_place_leaves_the_former_one(
    number, student, tokenizer, saved, tmp_path, monkeypatch
):
    """The former model is moved away, then the new one comes; either may fail."""
    before, renames = {path.name: path.read_bytes() for path in saved.iterdir()}, []

    def fails_once(source, target, rename=os.rename):
        renames.append(target)
        if len(renames) == number:
            raise OSError("no room")
        rename(source, target)

    def writes(staging, **options):
        save(staging, **options)
        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, fails_once)

    save = tokenizer.save_pretrained
    monkeypatch.setattr(tokenizer, "save_pretrained", writes)
    monkeypatch.setattr("paper_lib.training.models.write_text", lambda *_: None)
    monkeypatch.setattr("paper_lib.training.models.write_json", lambda *_: None)
    with pytest.raises(OSError, match="no room"):
        save_model(student, tokenizer, saved, card="", recipe={})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_model_is_on_the_disk_before_it_has_its_name(student, tokenizer, tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def noted(descriptor):
        if not (tmp_path / "model").exists():
            flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    save_model(student, tokenizer, tmp_path / "model", card="", recipe={})
    assert flushed >= {path.stat().st_ino for path in (tmp_path / "model").iterdir()}


def test_a_missing_model_is_told_in_one_line(tmp_path):
    with pytest.raises(CompanionError, match=r"no model in .*nowhere; `make pretrain`"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damaged", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("left", [0, 100, -7])
def test_a_truncated_file_is_told_in_one_line(saved, damaged, left):
    path = saved / damaged
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CompanionError, match="cannot read the model in") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_a_file_without_all_weights_is_refused(saved):
    weights = load_file(saved / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CompanionError, match=r"it lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(saved)


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_told_in_one_line(saved, lost):
    (saved / lost).unlink()
    with pytest.raises(CompanionError, match="cannot read the model in") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_kind_is_told_in_one_line(saved):
    (saved / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(CompanionError, match="cannot read the model in") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_told_in_one_line(saved, tokenizer, tmp_path):
    wider = build_model(replace(SHAPE, intermediate_size=64), tokenizer, seed=0)
    save_model(wider, tokenizer, tmp_path / "wider", card="", recipe={})
    shutil.copyfile(tmp_path / "wider" / "config.json", saved / "config.json")
    with pytest.raises(CompanionError, match="cannot read the model in") as error:
        load_model(saved)
    assert "\n" not in str(error.value)


def test_a_teacher_with_another_vocabulary_is_refused(tokenizer):
    require_same_vocabulary(tokenizer, tokenizer, "teacher")
    larger = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, pad_token="_", eos_token="$"
    )
    larger.add_tokens(["*"])
    with pytest.raises(CompanionError, match=r"teacher has another vocabulary .*20 against 19.*'\*'"):
        require_same_vocabulary(tokenizer, larger, "teacher")


def test_a_fingerprint_sees_every_bit_name_shape_and_dtype():
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    original = weights_fingerprint(state)
    assert weights_fingerprint(dict(reversed(state.items()))) == original
    assert weights_fingerprint({n: t.clone() for n, t in state.items()}) == original
    one_ulp = state["a"].clone()
    one_ulp[1, 2] = torch.nextafter(one_ulp[1, 2], torch.tensor(9.0))
    changed = [
        {**state, "a": one_ulp},
        {**state, "a": state["a"].view(3, 2)},
        {**state, "b": torch.zeros(2, dtype=torch.int32)},
        {**state, "b": -state["b"]},
        {"a": state["a"], "c": state["b"]},
    ]
    assert len({original, *map(weights_fingerprint, changed)}) == 6


@pytest.mark.parametrize("shape", [SHAPE, MIXTURE], ids=["dense", "mixture"])
def test_the_weights_in_a_file_are_those_of_the_model_that_is_built_from_it(shape, tokenizer, tmp_path):
    save_model(build_model(shape, tokenizer, seed=0), tokenizer, tmp_path / "model", card="", recipe={})
    built = load_model(tmp_path / "model")[0].state_dict()
    assert same(stored_weights(tmp_path / "model"), built)
    assert weights_fingerprint(stored_weights(tmp_path / "model")) == weights_fingerprint(built)


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda directory: directory.name)
def test_the_weights_of_a_shipped_model_are_known_without_building_it(directory):
    built = load_model(directory)[0].state_dict()
    assert weights_fingerprint(stored_weights(directory)) == weights_fingerprint(built)
    assert weights_fingerprint(built) in (directory / "README.md").read_text()


def test_a_file_without_an_output_head_has_that_of_the_embedding(tied, tokenizer, tmp_path):
    save_model(tied, tokenizer, tmp_path / "model", card="", recipe={})
    path = tmp_path / "model" / "model.safetensors"
    built = load_model(path.parent)[0].state_dict()
    assert same(stored_weights(path.parent), built)
    weights = load_file(path)
    weights.pop("lm_head.weight")
    save_file(weights, path, metadata={"format": "pt"})
    assert same(load_model(path.parent)[0].state_dict(), built)
    assert same(stored_weights(path.parent), built)


def test_a_model_is_not_told_by_a_file_that_is_cut_or_gone(saved, tmp_path):
    with pytest.raises(CompanionError, match="no model in"):
        stored_weights(tmp_path / "nowhere")
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CompanionError, match=r"model\.safetensors is truncated"):
        stored_weights(saved)


def test_heads_must_share_keys_evenly():
    with pytest.raises(ValueError, match="kv_heads is 2, expected a divisor of heads=3"):
        ModelConfig(hidden_size=32, layers=1, heads=3, kv_heads=2, intermediate_size=32)


# A mixture of experts


@pytest.fixture
def mixture(tokenizer):
    return build_model(MIXTURE, tokenizer, seed=0)


def test_a_mixture_has_its_experts_in_every_layer_and_weighs_those_it_chooses_to_one(mixture):
    for layer in mixture.model.layers:
        sizes = sorted(tuple(p.shape) for p in layer.mlp.parameters())
        assert sizes == [(4, 32), (4, 32, 24), (4, 48, 32)]
    _, weights, chosen = mixture.model.layers[0].mlp.gate(torch.eye(32))
    assert weights.shape == chosen.shape == (32, 2)
    torch.testing.assert_close(weights.sum(1), torch.ones(32))


def test_a_mixture_comes_back_as_bf16_holds_it(mixture, tokenizer, tmp_path):
    save_model(mixture, tokenizer, tmp_path / "mixture", card="", recipe={})
    again = load_model(tmp_path / "mixture")[0]
    assert type(again) is type(mixture)
    assert same(again.state_dict(), as_stored(mixture.state_dict()))


@torch.no_grad()
def test_a_mixture_scores_completions_as_a_full_forward_pass_does(mixture, student, tokenizer):
    batch = draw(student, tokenizer)
    ours, whole = completion_logits(mixture, batch), full_logits(mixture, batch)
    torch.testing.assert_close(ours[batch.completion_mask], whole[batch.completion_mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [(4, None, 24), (4, 5, 24), (4, 2, 0)])
def test_a_mixture_names_what_is_wrong_with_it(wrong):
    experts, per_token, size = wrong
    with pytest.raises(ValueError, match=r"expert_size\) is \(4, .*\), expected None, or all three"):
        replace(SHAPE, experts=experts, experts_per_token=per_token, expert_size=size)
