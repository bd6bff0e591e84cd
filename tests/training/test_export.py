"""An exported snapshot is the trained student, in any program that loads a Hugging Face directory."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import SFT
from transformers import AutoModelForCausalLM, AutoTokenizer

from paper_lib.__main__ import main
from paper_lib.compare.pairing import pair_up
from paper_lib.compare.sources import open_source
from paper_lib.ground.errors import CompanionError
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint, step_path
from paper_lib.training.models import as_stored, load_model
from paper_lib.training.study import export_run


@pytest.fixture
def run(tiny_data: Path, base) -> Path:
    """A finished run of two snapshots that differ from the base by a little noise."""
    directory = tiny_data / "runs" / "tiny" / "sft" / "seed_0"
    generator = torch.Generator().manual_seed(0)
    for step in (0, 4):
        noise = {
            n: 0.01 * step * torch.randn(w.shape, generator=generator) for n, w in base.state_dict().items()
        }
        save_checkpoint({n: w + noise[n] for n, w in base.state_dict().items()}, step_path(directory, step))
    marker = {"fingerprint": "0123", "config": {"name": SFT.name}, "steps": [0, 4], "finished": True}
    (directory / "run.json").write_text(json.dumps(marker))
    return directory


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_the_export_is_the_snapshot_as_bf16_stores_it(run, tiny_data, tmp_path):
    trained = as_stored(load_checkpoint(step_path(run, 4)))
    folder = export_run("tiny", "sft", destination=tmp_path / "out", data_dir=tiny_data)
    assert same(load_model(folder)[0].state_dict(), trained)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert same({n: w.float() for n, w in model.state_dict().items()}, trained)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.get_vocab() == load_model(tiny_data / "models" / "base")[1].get_vocab()
    assert json.loads((folder / "recipe.json").read_text()) == {
        "run": {"name": "sft"},
        "fingerprint": "0123",
        "step": 4,
    }


def test_float32_keeps_every_bit_and_any_snapshot_can_be_had(run, tiny_data, tmp_path):
    export_run("tiny", "sft", destination=tmp_path / "out", data_dir=tiny_data, step=0, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    assert same(model.state_dict(), load_checkpoint(step_path(run, 0)))


def test_an_export_pairs_up_with_the_model_it_was_trained_from(run, tiny_data, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["export", "--profile", "tiny", "--run", "sft", "--data-dir", str(tiny_data), "--out", out]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"model in {out}\n"
    base, tuned = open_source(tiny_data / "models" / "base"), open_source(out)
    assert pair_up(base, tuned)[0] == base.matrices() == tuned.matrices()
    assert main(arguments) == 2
    assert "is not an empty folder: name another" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "new"), "--seed", "3"]) == 2
    assert "plans none of sft with seed 3; it has 0" in capsys.readouterr().err
    arguments[4] = "dpo"
    assert main(arguments) == 2
    assert "no run 'dpo' in profile tiny; it has mix_0.5, opd" in capsys.readouterr().err


def test_what_cannot_be_exported_says_why_and_leaves_nothing(run, tiny_data, tmp_path):
    models, out = tiny_data / "models", tmp_path / "out"
    export = partial(export_run, "tiny", "sft", destination=out, data_dir=tiny_data)
    with pytest.raises(CompanionError, match="no snapshot after 3 steps; it has 0, 4"):
        export(step=3)
    with pytest.raises(CompanionError, match="dtype is 'int8', expected one of bfloat16, float32"):
        export(dtype="int8")
    shutil.rmtree(models / "base")
    with pytest.raises(CompanionError, match="no model in"):
        export()
    shutil.copytree(models / "teacher", models / "base")
    with pytest.raises(CompanionError, match=r"step_000004\.safetensors does not fit the models here"):
        export()
    assert not out.exists()
