"""A path or a name on the Hub opens as a checkpoint, or one line says why not."""

import re
from pathlib import Path

import pytest
import torch
from stored import Q, refusal, sharded
from trajectories import tiny_weights, write_run
from transformers import PreTrainedModel

from paper_lib.compare.sources import labels, open_source, trajectory_sources
from paper_lib.ground.errors import CompanionError
from paper_lib.training.checkpoints import save_checkpoint, step_path


def test_a_run_is_its_last_step_and_a_trajectory_all_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "opd" / "seed_0")
    save_checkpoint({n: w + 1 for n, w in tiny_weights().items()}, step_path(run, 12))
    steps, unfinished = trajectory_sources(run)
    assert not unfinished
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
    sources, _ = trajectory_sources(tmp_path)
    assert [(step, source.label) for step, source in sources] == [
        (step, f"checkpoint-{step}") for step in (3, 20, 100)
    ]
    with pytest.raises(CompanionError, match=r"holds checkpoints but is none: name one, such as .*-100$"):
        open_source(tmp_path)
    with pytest.raises(CompanionError, match=r"neither a run\.json nor checkpoint-N"):
        trajectory_sources(tmp_path / "checkpoint-3")


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


def test_a_stale_file_beside_the_shards_is_asked_about(tmp_path: Path, student: PreTrainedModel) -> None:
    student.save_pretrained(tmp_path, max_shard_size="20KB")
    weights = student.state_dict()
    single = tmp_path / "model.safetensors"
    save_checkpoint(weights, single)
    assert open_source(tmp_path).matrices()
    save_checkpoint(weights | {Q: weights[Q] + 1}, single)
    assert re.search(r"two sets of weights.*differ.*q_proj", refusal(tmp_path))
    assert torch.equal(open_source(single).read(Q), weights[Q] + 1)


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        ("global_step1/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_to_fp32"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "merge-weights"),
        ("iter_0000010/mp_rank_00/model_optim_rng.pt", "Megatron"),
    ],
)
def test_a_folder_of_another_format_names_what_converts_it(tmp_path: Path, name: str, tool: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert tool in refusal(tmp_path)


def test_a_checkpoint_that_is_not_finished_is_passed_over_and_named(tmp_path: Path) -> None:
    save_checkpoint(tiny_weights(), tmp_path / "checkpoint-3" / "model.safetensors")
    (tmp_path / "checkpoint-6").mkdir()
    sources, unfinished = trajectory_sources(tmp_path)
    assert [step for step, _ in sources] == [3]
    assert "is empty" in unfinished["checkpoint-6"]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (("a/model.safetensors", "b/model.safetensors"), ["a", "b"]),
        (("one/model", "other/model_weights"), ["one", "other"]),
        (("run_1/checkpoint-3", "run_2/checkpoint-3"), ["run_1", "run_2"]),
        (("base", "base/adapter"), ["base", "adapter"]),
        (("a/model", "a/weights"), ["model", "weights"]),
        (("base.safetensors", "tuned.safetensors"), ["base.safetensors", "tuned.safetensors"]),
        (("same", "same"), ["same", "same"]),
    ],
)
def test_checkpoints_are_called_by_what_tells_them_apart(paths: tuple[str, str], told: list[str]) -> None:
    assert labels(*paths) == told
