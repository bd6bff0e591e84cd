"""Two updates put together as others put them, and what comes of it in a study: merged rows, single steps."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft.utils.merge_utils import ties as peft_ties
from tiny import OPD, RLVR, SFT, SUMS, TINY

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import read_table
from paper_lib.measure import merging
from paper_lib.measure.extract import extract_study
from paper_lib.measure.merging import inner, merge_rows, merged_updates, ties
from paper_lib.study import profiles
from paper_lib.study.config import MergeConfig
from paper_lib.study.run_config import Projection
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, step_path
from paper_lib.training.starts import Study
from paper_lib.training.study import train_study

CONFIG = MergeConfig(pairs=(("opd", "rlvr"),))


def updates(seed: int, *shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {str(shape): torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes}


@pytest.mark.parametrize("shape", [(20, 10), (4, 50), (40,)])
@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("number", [2, 3])
def test_ties_are_those_of_peft(shape, keep, number):
    drawn = [updates(seed, shape)[str(shape)] for seed in range(number)]
    theirs = peft_ties(drawn, torch.ones(number), density=keep)
    assert torch.allclose(ties(drawn, keep), theirs.double(), rtol=1e-12, atol=0)


def test_controls_have_the_norm_of_the_sum_or_lack_the_residual():
    one, other = updates(0, (6, 4), (5,)), updates(1, (6, 4), (5,))
    made = {name: update for name, _, update in merged_updates(one, other, CONFIG)}
    square = inner(made["raw_sum"], made["raw_sum"])
    for name, own in (("norm_matched", one), ("norm_matched_other", other)):
        assert inner(made[name], made[name]) == pytest.approx(square)
        assert inner(made[name], own) == pytest.approx((square * inner(own, own)) ** 0.5)
    residual = {name: w - made["residual_removed"][name] for name, w in made["raw_sum"].items()}
    assert inner(residual, other) == pytest.approx(0, abs=1e-12)
    share = 1 - inner(one, other) ** 2 / inner(one, one) / inner(other, other)
    assert inner(residual, residual) == pytest.approx(share * inner(one, one))
    for name, w in made["task_arithmetic"].items():
        assert torch.allclose(w, (one[name] + other[name]) / 2)


def test_nothing_cannot_be_rescaled():
    one = updates(0, (3, 2))
    with pytest.raises(ValueError, match="an update of 0"):
        list(merged_updates(one, {name: torch.zeros_like(w) for name, w in one.items()}, CONFIG))


EVERY_STEP = replace(OPD, snapshot_every=1)
EARLY = replace(
    EVERY_STEP, name="opd_projected_early", branch=("opd", 2), projection=Projection(basis="early", K=2)
)
STUDY = replace(
    TINY, runs=(SFT, EVERY_STEP, replace(RLVR, snapshot_every=1), EARLY), merges=CONFIG, stepped_runs=("opd",)
)


@pytest.fixture(scope="module")
def data(tiny_models, tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("merged")
    shutil.copytree(tiny_models, folder / TINY.models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, TINY.name, STUDY)
        train_study("tiny", data_dir=folder, workers=1)
        extract_study("tiny", data_dir=folder, workers=1)
        yield folder


def rows_of(data: Path, table: str) -> pd.DataFrame:
    return read_table(data / "results" / "tiny" / f"{table}.parquet")


@pytest.mark.slow
def test_every_merge_of_a_pair_is_in_the_tables(data):
    rows = rows_of(data, "pairs").query("layer == -1")
    assert set(zip(rows["run"], rows["other"], rows["step"], strict=True)) == {("opd", "rlvr", 4)}
    found = rows[rows["metric"].str.startswith("sampled_accuracy:")].set_index("metric")
    assert [name.partition(":")[2] for name in found.index] == sorted(
        ["raw_sum", "task_arithmetic", "ties", "norm_matched", "norm_matched_other", "residual_removed"]
    )
    assert rows["value"].between(0, 1).all()
    assert found.loc["sampled_accuracy:ties", "k"] == CONFIG.keep
    assert len(rows) == 3 * len(found)


@pytest.mark.slow
def test_a_run_merged_with_nothing_scores_as_it_did_at_its_end(data, monkeypatch):
    monkeypatch.setattr(merging, "merged_updates", lambda one, other, config: [("own", 1.0, one)])
    runs = [open_trajectory(data / "runs" / "tiny" / run / "seed_0") for run in ("opd", "rlvr")]
    study = Study(profile=STUDY, data_dir=data)
    ours = {row.metric: row.value for row in merge_rows(study, "opd", *runs, seed=0)}
    curve = rows_of(data, "curves").query("run == 'opd'").set_index("metric")["value"]
    assert ours == {
        f"{metric.partition(':')[0]}:own": curve[metric] for metric in curve.index if SUMS.name in metric
    }
    other = open_trajectory(data / "runs" / "tiny" / "sft" / "seed_0")
    with pytest.raises(CompanionError, match="start from different weights"):
        merge_rows(study, "opd", runs[0], other, seed=0)


@pytest.mark.slow
def test_one_step_is_the_runs_own_and_coasting_is_adam_on_no_gradient(data):
    rows = rows_of(data, "trajectories").query("run == 'opd' and step == 2").set_index("metric")["value"]
    folder = data / "runs" / "tiny" / "opd" / "seed_0"
    state = load_checkpoint(folder / "state_000002.safetensors")
    after = load_checkpoint(step_path(folder, 3))
    (beta, beta_2), lr = OPD.betas, OPD.learning_rates()[2]
    told, coasted = [], []
    for name in (name for name in after if "proj" in name):
        w, m, v = (state[f"{key}.{name}"].double() for key in ("model", "exp_avg", "exp_avg_sq"))
        bits = w.bfloat16()
        told.append(after[name].bfloat16() != bits)
        m_hat, v_hat = beta * m / (1 - beta**3), beta_2 * v / (1 - beta_2**3)
        w = w * (1 - lr * OPD.weight_decay) - lr * m_hat / (v_hat.sqrt() + OPD.epsilon)
        coasted.append(w.float().bfloat16() != bits)
    told, coasted = (torch.cat([mask.flatten() for mask in masks]) for masks in (told, coasted))
    assert rows["step_density"] == told.double().mean().item() > 0
    assert rows["coasting_density"] == pytest.approx(coasted.double().mean().item(), abs=1e-3)
    assert rows["coasting_coverage"] == pytest.approx(
        (told & coasted).sum().item() / told.sum().item(), abs=5e-3
    )
