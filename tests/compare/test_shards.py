"""A file or several, with an index: every matrix once, with its value; what is none says why."""

import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stored import Q, all_matrices, assert_same, refusal, sharded
from trajectories import cut, tiny_weights
from transformers import (
    PreTrainedModel,
)

from paper_lib.compare.pairing import pair_up
from paper_lib.compare.sources import open_source
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import MODULES
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint


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
    assert set(source.left_out.values()) == {"a vector"}


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


def test_tied_embeddings_appear_once(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    save_checkpoint(
        {"model.embed_tokens.weight": weight, "lm_head.weight": weight}, tmp_path / "model.safetensors"
    )
    source = open_source(tmp_path)
    assert [m.module for m in source.matrices()] == ["embed"]
    assert source.left_out == {"lm_head.weight": "tied to model.embed_tokens.weight"}
    save_checkpoint(
        {"model.embed_tokens.weight": weight, "lm_head.weight": weight}, tmp_path / "b" / "w.safetensors"
    )
    _, left_out = pair_up(source, open_source(tmp_path / "b" / "w.safetensors"))
    assert left_out["skipped"] == source.left_out
    assert not left_out["only in the fine-tuned"]


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
    assert [m.name for m in source.matrices()] == ["lm_head.weight", "model.layers.0.mlp.up_proj.weight"]
    reasons = source.left_out
    assert reasons[f"{layer}.qweight"].startswith("int32, quantised")
    assert reasons[f"{layer}.scales"] == "the scale of a quantised weight"
    assert reasons["model.layers.0.mlp.up_proj.weight_scale_inv"] == "the scale of a quantised weight"
    assert (reasons["temperature"], reasons["nothing"]) == ("a scalar", "empty")
    save_file({name: w for name, w in quantised.items() if "up_proj" not in name}, path)
    with pytest.raises(CompanionError, match=r"qweight is int32, quantised\): .*dequantize\(\)"):
        open_source(path)


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


@pytest.mark.parametrize("says", ["true", "false"])
def test_an_output_head_with_values_of_its_own_is_no_embedding_whatever_the_configuration_says(
    tmp_path: Path, says: str
) -> None:
    weight = torch.randn(6, 4)
    for folder, head in (("base", {}), ("tuned", {"lm_head.weight": weight + 1})):
        save_checkpoint({"model.embed_tokens.weight": weight} | head, tmp_path / folder / "model.safetensors")
        (tmp_path / folder / "config.json").write_text(f'{{"tie_word_embeddings": {says}}}')
    base, tuned = open_source(tmp_path / "base"), open_source(tmp_path / "tuned")
    assert [m.module for m in tuned.matrices()] == ["embed", "lm_head"]
    matched = [m.name for m in pair_up(base, tuned)[0]]
    assert ("lm_head.weight" in matched) == (says == "true")
    if says == "true":
        torch.testing.assert_close(tuned.read("lm_head.weight"), base.read("lm_head.weight") + 1)


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        (torch.tensor(0.5), "weight_scale"),
        (torch.rand(160, 1), "weight_scale"),
        (torch.rand(2, 3), "weight_scale_inv"),
    ],
    ids=["one", "a row", "blocks of 128"],
)
def test_a_float8_weight_is_read_times_its_scale(tmp_path: Path, scale: torch.Tensor, name: str) -> None:
    weight = torch.randn(160, 300).to(torch.float8_e4m3fn)
    save_file({Q: weight, Q.replace("weight", name): scale}, tmp_path / "w.safetensors")
    expected = weight.float()
    for i, row in enumerate(expected):
        for j in range(0, 300, 128):
            row[j : j + 128] *= (
                scale[i // 128, j // 128] if scale.shape == (2, 3) else scale.expand(160, 1)[i]
            )
    source = open_source(tmp_path / "w.safetensors")
    assert torch.equal(source.read(Q), expected)
    assert source.matrices()[0].dtype == "float8_e4m3fn"
