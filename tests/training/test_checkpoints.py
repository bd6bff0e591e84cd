"""A checkpoint comes back bit for bit, in layer order, or with one line that names the file and remedy."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from trajectories import cut, tiny_weights, write_run

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import MODULES
from paper_lib.training import checkpoints
from paper_lib.training.checkpoints import (
    load_checkpoint,
    open_trajectory,
    projection_matrices,
    read_matrix,
    save_checkpoint,
    step_path,
)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    weights = {
        "float32": torch.randn(3, 5),
        "bfloat16": torch.randn(4).to(torch.bfloat16),
        "transposed": torch.randn(3, 5).T,
        "generator_state": torch.Generator().get_state(),
        "empty": torch.zeros(0, 3),
    }
    save_checkpoint(weights, tmp_path / "made" / "w.safetensors")
    loaded = load_checkpoint(tmp_path / "made" / "w.safetensors")
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_tied_tensors_are_stored_under_each_name(tmp_path: Path) -> None:
    embedding = torch.randn(6, 4)
    save_checkpoint({"embed_tokens": embedding, "lm_head": embedding, "row": embedding[2]}, tmp_path / "w")
    loaded = load_checkpoint(tmp_path / "w")
    assert torch.equal(loaded["lm_head"], embedding)
    assert torch.equal(loaded["row"], embedding[2])


def test_a_failed_save_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint({"w": torch.ones(2)}, path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("paper_lib.training.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint({"w": torch.zeros(2)}, path)
    assert torch.equal(load_checkpoint(path)["w"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full_disk)
    with pytest.raises(CompanionError, match=r"w\.safetensors could not be written.*No space.*make room"):
        save_checkpoint({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", ["[0, Infinity]", "[0, 1e400]", "[" * 3000])
def test_a_run_whose_steps_are_no_steps_is_damaged(tmp_path: Path, steps: str) -> None:
    run = write_run(tmp_path)
    (run / "run.json").write_text(
        f'{{"fingerprint": "0", "config": {{}}, "steps": {steps}, "finished": true}}'
    )
    with pytest.raises(CompanionError, match=r"run\.json (is damaged|cannot be read)"):
        open_trajectory(run)


def test_projections_come_in_layer_order_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(tiny_weights(layers=11), path)
    names = projection_matrices(path)
    assert [(name.layer, name.module) for name in names] == [(i, m) for i in range(11) for m in MODULES]
    assert names[-1].name == "model.layers.10.mlp.down_proj.weight"
    assert names[0].shape == (8, 8)
    assert torch.equal(read_matrix(path, names[3].name), tiny_weights(layers=11)[names[3].name])


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint({"lm_head.weight": torch.ones(2, 2)}, path)
    with pytest.raises(CompanionError, match=r"w\.safetensors holds no projection matrix"):
        projection_matrices(path)
    with pytest.raises(CompanionError, match=r"w\.safetensors holds no tensor named 'lm_head\.bias'"):
        read_matrix(path, "lm_head.bias")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(tiny_weights(), path)
    cut(path, size)
    with pytest.raises(CompanionError, match=r"w\.safetensors is truncated or not a safetensors file"):
        load_checkpoint(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    torch.save(tiny_weights(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CompanionError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "pytorch_model.bin")
    with pytest.raises(CompanionError, match=r"nowhere\.safetensors does not exist"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_a_finished_run_opens_in_step_order(tmp_path: Path) -> None:
    trajectory = open_trajectory(write_run(tmp_path, steps=[12, 0]))
    assert trajectory.steps == (0, 12)
    assert trajectory.config == {"name": "opd"}
    assert trajectory.path(12).name == "step_000012.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finished": False}, "does not say that the run has finished"),
        ({"steps": [12]}, "W_0 and a later step"),
        ({"steps": [0, 12, 24]}, r"step_000024\.safetensors does not exist.*train"),
        ({"steps": None}, "damaged"),
    ],
)
def test_a_run_that_cannot_be_used_says_why(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(CompanionError, match=message):
        open_trajectory(write_run(tmp_path, **changes))


def test_a_run_without_or_with_half_a_marker(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    cut(run / "run.json", 30)
    with pytest.raises(CompanionError, match=r"run\.json (is damaged|cannot be read)"):
        open_trajectory(run)
    (run / "run.json").unlink()
    with pytest.raises(CompanionError, match="does not say that the run has finished: train this run again"):
        open_trajectory(run)


def test_a_run_with_half_a_snapshot(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    cut(step_path(run, 12), -8)
    with pytest.raises(CompanionError, match=r"step_000012\.safetensors is truncated.*train this run again"):
        open_trajectory(run)
