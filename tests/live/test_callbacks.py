"""The callbacks in `transformers.Trainer`: through its log, over its checkpoints, never in its way."""

import json
from types import SimpleNamespace

import pytest
import torch
from tiny import SHAPE
from transformers import Trainer, TrainerCallback, TrainingArguments

from paper_lib.compare.run import read_comparison
from paper_lib.ground.errors import CompanionError
from paper_lib.live import GeometryCallback, SubspaceProjection
from paper_lib.live.callbacks import log_means
from paper_lib.live.watch import inside
from paper_lib.study.tasks import character_tokenizer
from paper_lib.training.confinement import is_projected
from paper_lib.training.models import build_model

ROWS = [{"input_ids": torch.arange(2, 10), "labels": torch.arange(2, 10)} for _ in range(32)]


def trainer(folder, **options):
    settings = {"max_steps": 10, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 2}
    settings |= {"report_to": [], "use_cpu": True, "save_steps": 5, "disable_tqdm": True, "seed": 0}
    arguments = TrainingArguments(output_dir=str(folder), **settings | options)
    model = build_model(SHAPE, character_tokenizer(), seed=0)
    return Trainer(model=model, args=arguments, train_dataset=ROWS)


def logged(of, name="geometry/stable_rank"):
    return {row["step"]: row[name] for row in of.state.log_history if name in row}


def test_metrics_come_through_the_trainers_log_and_lie_in_a_table(tmp_path):
    run = trainer(tmp_path)
    callback = GeometryCallback(every=2, spectra_every=4, matrices=3, K=2).add_to(run)
    run.train()
    assert list(logged(run)) == [4, 8]
    assert list(logged(run, "loss")) == [2, 4, 6, 8, 10]
    assert list(logged(run, "geometry/frobenius_norm")) == [2, 4, 6, 8, 10]
    table = read_comparison(tmp_path / "geometry").matrices
    last = table[(table["step"] == 8) & (table["metric"] == "stable_rank")]
    assert last["value"].mean() == pytest.approx(logged(run)[8])
    assert len(callback.watch.rates) == 10
    account = read_comparison(tmp_path / "geometry").account
    assert account["precision"] == "weights in float32, no masters beside them"


def test_training_is_the_same_with_it_and_without(tmp_path):
    watched, free = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    GeometryCallback(every=2, matrices=3, K=2).add_to(watched)
    for run in (watched, free):
        run.train()
    pairs = zip(watched.model.parameters(), free.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_resumed_run_measures_from_its_first_start(tmp_path):
    whole, broken = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    for run in (whole, broken):
        GeometryCallback(every=5, spectra_every=5, matrices=3, K=2).add_to(run)
        run.train()
    again = trainer(tmp_path / "b")
    GeometryCallback(every=5, spectra_every=5, matrices=3, K=2).add_to(again)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-5"))
    assert logged(again)[10] == pytest.approx(logged(whole)[10], rel=1e-4)
    rows = json.loads((tmp_path / "b" / "checkpoint-10" / "geometry.json").read_text())
    assert {row["step"] for row in rows} == {5, 10}


def test_a_resumed_run_without_its_start_trains_on_unmeasured_but_not_unconfined(tmp_path):
    trainer(tmp_path).train()
    resumed = trainer(tmp_path)
    GeometryCallback(every=5, K=2).add_to(resumed)
    with pytest.warns(UserWarning, match="W_0 is not known"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert resumed.state.global_step == 10
    confined = trainer(tmp_path)
    SubspaceProjection(2).add_to(confined)
    with pytest.raises(CompanionError, match="does not exist"):
        confined.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_the_projection_confines_what_the_trainer_applies_clipping_and_decay_included(tmp_path):
    run = trainer(tmp_path, weight_decay=0.1, max_grad_norm=0.5, save_steps=2)
    projection = SubspaceProjection(2, after=0.2).add_to(run)
    run.train()
    end = dict(run.model.named_parameters())
    branch = trainer(tmp_path / "branch").model.from_pretrained(tmp_path / "checkpoint-2")
    for name, weight in branch.named_parameters():
        if is_projected(name):
            moved = (end[name].detach() - weight).double()
            assert 1 - inside(moved, projection.bases[f"right.{name}"]) < 1e-6
    assert (tmp_path / "checkpoint-10" / "subspace.safetensors").is_file()


class Spoils(TrainerCallback):
    """Puts NaN into a matrix, as a diverging run does."""

    def on_step_begin(self, args, state, control, model, **given):
        if state.global_step == 3:
            model.model.layers[0].self_attn.q_proj.weight.data[0, 0] = torch.nan


def test_weights_that_are_not_finite_end_the_measuring_and_not_the_training(tmp_path):
    run = trainer(tmp_path, save_strategy="no")
    run.add_callback(Spoils())
    callback = GeometryCallback(every=2, matrices=["layers.0.self_attn.q_proj"], K=2).add_to(run)
    with pytest.warns(UserWarning, match=r"step 4 is not measured: .*q_proj.weight has values that are not"):
        run.train()
    assert run.state.global_step == 10
    assert {row["step"] for row in callback.watch.rows} == {2}


def test_a_confined_run_that_resumes_ends_where_the_unbroken_one_does(tmp_path):
    whole, again = trainer(tmp_path), trainer(tmp_path)
    for run, checkpoint in ((whole, None), (again, str(tmp_path / "checkpoint-5"))):
        SubspaceProjection(2).add_to(run)
        run.train(resume_from_checkpoint=checkpoint)
    pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (GeometryCallback(K=500), "K = 500 exceeds the shorter side of model.layers"),
        (GeometryCallback(matrices="experts"), "no matrix is named like experts"),
        (SubspaceProjection(500), "K = 500 exceeds the shorter side of model.layers"),
    ],
)
def test_what_does_not_fit_the_model_ends_a_run_before_its_first_step(tmp_path, callback, words):
    run = trainer(tmp_path)
    callback.add_to(run)
    with pytest.raises(CompanionError, match=words):
        run.train()
    assert run.state.global_step == 0


@pytest.mark.parametrize("callback", [GeometryCallback(), SubspaceProjection(2)])
@pytest.mark.parametrize("by", ["arguments", "accelerate"])
def test_deepspeed_is_refused(callback, by):
    arguments = SimpleNamespace(deepspeed="zero2.json" if by == "arguments" else None)
    optimizer = type("DeepSpeedOptimizerWrapper", (), {})()
    with pytest.raises(CompanionError, match="inside `backward`"):
        callback.on_train_begin(arguments, None, None, optimizer=optimizer, model=None)


def test_where_a_trainer_keeps_its_own_averages_the_values_wait_in_them():
    kept = SimpleNamespace(_metrics={"train": {}}, log=None)
    log_means(kept, {"stable_rank": 2.0})
    assert kept._metrics["train"] == {"geometry/stable_rank": [2.0]}


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 4, "spectra_every": 6}])
def test_clocks_that_do_not_divide_are_refused(options):
    with pytest.raises(CompanionError, match="multiple"):
        GeometryCallback(**options)
