"""The comparison with TRL gives both codes the same work, and asks for what it lacks before it measures."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import steps
import torch
from command import bench_parser
from steps import bench_train
from tiny import TINY
from watching import bench_watch

from paper_lib.__main__ import main
from paper_lib.ground.errors import CompanionError
from paper_lib.study import profiles
from paper_lib.study.tasks import verify
from paper_lib.training import rollouts

PROMPTS, SAMPLES, LENGTH = 6, 4, 6
MEASURED = (
    "step_seconds",
    "fastest_seconds",
    "slowest_seconds",
    "processor_seconds",
    "completions_per_second",
)
RATIOS = ["ratio", "processor_ratio"]


@dataclass
class Bench:
    table: pd.DataFrame
    written: dict
    shown: str
    verified: dict[str, Counter] = field(default_factory=dict)


@pytest.fixture(scope="module")
def bench(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One round of one counted step, with the prompts that each code had verified."""
    out, told = tmp_path_factory.mktemp("bench") / "train.json", []
    verified: dict[str, Counter] = {"ours": Counter(), "TRL": Counter()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, TINY.name, TINY)
        for name, module in (("ours", rollouts), ("TRL", steps)):

            def spied(text, problem, seen=verified[name]):
                seen[problem.prompt] += 1
                return verify(text, problem)

            patch.setattr(module, "verify", spied)
        table = bench_train(
            TINY.name,
            data_dir=tiny_models.parent,
            rounds=1,
            steps=1,
            warmup=1,
            prompts=PROMPTS,
            threads=1,
            out=out,
            report=told.append,
        )
    return Bench(table, json.loads(out.read_text()), "\n".join(told), verified)


@pytest.mark.slow
def test_one_row_an_objective_and_code_of_finite_positive_numbers(bench):
    rows = list(bench.table[["objective", "code"]].itertuples(index=False, name=None))
    assert rows == [("opd", "ours"), ("opd", "TRL"), ("rlvr", "ours"), ("rlvr", "TRL")]
    measured = torch.tensor(bench.table[[*MEASURED, *RATIOS]].to_numpy())
    assert measured.isfinite().all()
    assert (measured > 0).all()
    assert (bench.table["steps"] == 1).all()


@pytest.mark.slow
def test_both_codes_are_given_the_same_problems(bench):
    ours, theirs = bench.verified["ours"], bench.verified["TRL"]
    assert ours.keys() == theirs.keys()
    assert len(theirs) <= 2 * PROMPTS


@pytest.mark.slow
def test_completions_have_lengths_within_the_limit_and_enter_the_update(bench):
    assert bench.table["completion_length"].between(1, LENGTH).all()
    shares = bench.table.set_index(["objective", "code"])["update_share"]
    assert 0 < shares["rlvr", "ours"] <= 1
    assert (shares.drop(("rlvr", "ours")) == 1).all()


@pytest.mark.slow
def test_the_file_and_the_print_hold_the_table_and_the_settings(bench):
    written = pd.DataFrame(bench.written["rows"])
    pd.testing.assert_frame_equal(written[list(bench.table)], bench.table, rtol=1e-6)
    settings = bench.written["settings"]
    assert (settings["prompts"], settings["samples_per_prompt"], settings["threads"]) == (PROMPTS, SAMPLES, 1)
    assert settings["trl"]["opd"]["beta"] == 1
    assert settings["trl"]["rlvr"]["beta"] == 0
    assert all(not chosen["gradient_checkpointing"] for chosen in settings["trl"].values())
    assert f"{PROMPTS * SAMPLES} completions" in bench.shown
    assert "scale_rewards=group" in bench.shown


def test_without_trl_one_line_says_what_to_install(tiny_data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trl", None)
    assert main(["train", "--profile", "tiny", "--data-dir", str(tiny_data)], bench_parser()) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: TRL 1.16 cannot be imported")
    assert "pip install" in told
    assert told.count("\n") == 1


def test_missing_models_are_told(tmp_path):
    with pytest.raises(CompanionError, match="no model in"):
        bench_train("smoke", data_dir=tmp_path, rounds=1, steps=1, report=lambda text: None)


@pytest.mark.parametrize("name", ["rounds", "steps", "prompts", "threads"])
def test_nothing_to_measure_is_refused(name, tmp_path):
    with pytest.raises(CompanionError, match=f"{name} is -1, expected at least 1"):
        bench_train("smoke", data_dir=tmp_path, **{name: -1})


@pytest.mark.slow
def test_a_watch_is_charged_at_its_default_intervals(tiny_models, monkeypatch, capsys):
    monkeypatch.setitem(profiles.PROFILES, TINY.name, TINY)
    options = {"data_dir": tiny_models.parent, "models": ["shipped"], "steps": 2, "prompts": 2, "threads": 1}
    row = bench_watch(TINY.name, **options).iloc[0]
    assert (row["every"], row["spectra every"]) == (50, 250)
    assert row["ratio"] == pytest.approx(
        1 + (4 * row["norms [s]"] + row["spectra [s]"]) / (250 * row["step [s]"])
    )
    with pytest.raises(CompanionError, match="no model 'gpt2'; there are shipped, smollm2"):
        bench_watch(TINY.name, models=["gpt2"])
