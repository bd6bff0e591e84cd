"""The paper's runs by TRL: one entry point, whose two processes do what one does."""

import dataclasses
import json

import pytest
import torch
from ranks import on_two_ranks
from safetensors.torch import load_file
from tiny import save_models

from paper_lib.__main__ import main
from paper_lib.live import recipe
from paper_lib.study.profiles import PAPER
from paper_lib.study.tasks import SMALL_SUMS, problems

trl = pytest.importorskip("trl")
STEPS = 2


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    save_models(folder)
    drawn = problems(SMALL_SUMS, split="train", number=600, seed=0)
    rows = [{"prompt": p.prompt, "completion": p.demonstration, "solution": p.demonstration} for p in drawn]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def exact(completions, solution, **_):
    return [float(text == right) for text, right in zip(completions, solution, strict=True)]


def arguments(run, toy, out, *settings):
    given = [*settings, f"max_steps={STEPS}", "use_cpu=True", "report_to=none", "learning_rate=1e-3"]
    given += ["disable_tqdm=True", "adam_epsilon=1e-4"] + ["warmup_steps=0"] * (run == "sft")
    changes = [part for setting in given for part in ("-p", setting)]
    models = ["--student", str(toy / "base"), "--teacher", str(toy / "teacher")]
    files = ["--data", str(toy / "data.jsonl"), "--out", str(out)]
    return ["recipe", run, *models, *files, "--tokens", "24", *changes]


def _recipe(rank, given):
    assert main(given) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "changes"),
    [("sft", []), ("opd", ["fsdp=True", "gradient_checkpointing=False", "top_k=1"])],
    ids=["sft_ddp", "opd_fsdp_greedy"],
)
def test_two_processes_take_the_step_of_one(run, changes, toy, tmp_path):
    batch = "per_device_train_batch_size=16"
    on_two_ranks(_recipe, arguments(run, toy, tmp_path / "two", batch, "ddp_backend=gloo", *changes))
    alone = [change for change in changes if "fsdp" not in change]
    assert main(arguments(run, toy, tmp_path / "one", "per_device_train_batch_size=32", *alone)) == 0
    start, first, second = (
        load_file(folder / "model.safetensors")
        for folder in (toy / "base", tmp_path / "one" / "end", tmp_path / "two" / "end")
    )
    moved = torch.cat([(first[name].float() - start[name].float()).flatten() for name in first])
    apart = torch.cat([(first[name].float() - second[name].float()).flatten() for name in first])
    assert moved.norm() > 0
    assert apart.norm() < 0.01 * moved.norm()


@pytest.mark.slow
def test_rlvr_trains_on_a_reward_of_ones_own_and_goes_on_from_its_last_checkpoint(toy, tmp_path, capsys):
    given = arguments("rlvr", toy, tmp_path, "per_device_train_batch_size=64", "save_steps=1")
    assert main([*given, "--reward", "test_recipe:exact"]) == 0
    assert main([*given, "--reward", "test_recipe:exact", "-p", "max_steps=3"]) == 0
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert [row["step"] for row in state["log_history"] if "reward" in row] == [1, 2, 3]
    assert (tmp_path / "checkpoint-3" / "geometry.safetensors").is_file()


@pytest.mark.parametrize("run", ["sft", "opd", "rlvr"])
def test_every_setting_is_one_that_trl_has(run):
    config = getattr(trl, f"{recipe.TRAINERS[run]}Config")
    chosen = recipe.resolved(PAPER.run(run), tokens=8192, processes=8, changes={})
    assert set(chosen) <= {each.name for each in dataclasses.fields(config)}
    batch = chosen["per_device_train_batch_size"] * 8 * chosen["gradient_accumulation_steps"]
    assert batch == {"sft": 256, "opd": 64, "rlvr": 512}[run]


def test_a_dry_run_prints_settings_memory_and_hours(capsys):
    assert main(["recipe", "opd", "--dry-run", "--tokens", "1000", "-p", "seed=3"]) == 0
    out = capsys.readouterr().out
    assert '"learning_rate": 1e-06' in out
    assert '"seed": 3' in out
    assert out.count("together") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["-p", "per_device_train_batch_size=7"], "do not divide among"),
        (["--data", "absent.jsonl"], "absent.jsonl does not exist"),
        ([], "--data is needed"),
    ],
)
def test_what_is_missing_is_said_in_one_line(changes, said, capsys):
    assert main(["recipe", "opd", "-p", "use_cpu=True", *changes]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
