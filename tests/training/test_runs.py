"""Runs: whole or resumed to the bit, branched from their parent, refused in one line, never lost."""

import json
import shutil
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from tiny import EARLY, MIX, OPD, RANDOM_TOKENS, RLVR, SFT, TINY, assert_same_runs, snapshots

from paper_lib.errors import CompanionError
from paper_lib.study.tasks import problems, seeded_generator
from paper_lib.training import runs, train
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, step_path
from paper_lib.training.confinement import SubspaceConstraint, is_projected, project_right, random_subspace
from paper_lib.training.models import load_model
from paper_lib.training.rollouts import accuracy
from paper_lib.training.runs import RunPlace, find_accelerator, train_run
from paper_lib.training.train import Policy


class Stopped(Exception):
    """Stands for whatever ends a run before its time."""


@pytest.fixture(scope="module")
def fresh(tiny_models):
    """A new policy at W_0, as every call of a run gets one."""
    student, tokenizer = load_model(tiny_models / "base")
    teacher = load_model(tiny_models / "teacher")[0].requires_grad_(False)
    return lambda: Policy(student=deepcopy(student), tokenizer=tokenizer, teacher=teacher)


@pytest.fixture(scope="module")
def through(fresh, tmp_path_factory):
    """The directory of a run that was never stopped, trained when it is first asked for."""

    @cache
    def directory(run):
        place = go(run, place_in(tmp_path_factory.mktemp("through"), run), fresh())
        return place.directory

    return directory


def place_in(directory, run=SFT, *, fingerprint="0123456789abcdef"):
    return RunPlace(directory=directory / run.name, profile="tiny", seed=0, fingerprint=fingerprint)


def go(run, place, policy, **options):
    options = {"evaluation": TINY.evaluation, "report": lambda line: None} | options
    train_run(run, place, policy, **options)
    return place


def stop_after(reports):
    """A report callback that ends the run after so many snapshots."""
    seen = []

    def report(line):
        seen.append(line)
        if len(seen) == reports:
            raise Stopped(line)

    return report


def confining(bases, run):
    """What confines a run to these V_K."""
    return lambda student: SubspaceConstraint(student, bases, run.projection.constrain)


def curve(place):
    return pd.read_parquet(place.directory / "curve.parquet")


LONG = {run.name: replace(run, steps=6) for run in (SFT, OPD, RLVR, MIX, RANDOM_TOKENS)}
LONG["opd_twice"] = replace(LONG["opd"], name="opd_twice", updates_per_batch=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "after"), [*((name, 1) for name in LONG), ("sft", 2), ("rlvr", 2), ("opd_twice", 2)]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, after, fresh, through, tmp_path):
    run = LONG[name]
    place = place_in(tmp_path, run)
    with pytest.raises(Stopped, match=rf"{name} seed 0\] step {2 * after}/6"):
        go(run, place, fresh(), report=stop_after(after))
    assert not place.finished()
    again = []
    go(run, place, fresh(), report=again.append)
    assert len(again) == 3 - after
    assert_same_runs(place.directory, through(run))


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["curve.json", "state", "step", "run.json"])
def test_a_run_that_was_stopped_between_two_files_goes_on_to_the_same_bits(
    lost, fresh, through, tmp_path, monkeypatch
):
    original, writer = {
        "curve.json": (runs.write_json, "write_json"),
        "run.json": (runs.write_json, "write_json"),
        "state": (runs.save_checkpoint, "save_checkpoint"),
        "step": (runs.save_checkpoint, "save_checkpoint"),
    }[lost]
    stops = []

    def fails_late(*args):
        name = next(a.name for a in args if hasattr(a, "name"))
        if name.startswith(lost):
            stops.append(name)
            if len(stops) == 2 or lost == "run.json":
                raise Stopped(name)
        original(*args)

    with monkeypatch.context() as patched:
        patched.setattr(runs, writer, fails_late)
        with pytest.raises(Stopped, match=lost):
            go(SFT, place_in(tmp_path), fresh())
    go(SFT, place_in(tmp_path), fresh())
    assert_same_runs(tmp_path / "sft", through(SFT))


def test_a_finished_run_is_what_the_rest_of_the_study_reads(fresh, tmp_path):
    policy = fresh()
    start = {name: tensor.clone() for name, tensor in policy.student.state_dict().items()}
    place = go(OPD, place_in(tmp_path, OPD), policy)
    trajectory = open_trajectory(place.directory, fingerprint=place.fingerprint)
    assert trajectory.steps == (0, 2, 4)
    assert trajectory.config == json.loads(json.dumps(asdict(OPD)))
    first, last = (load_checkpoint(trajectory.path(step)) for step in (0, 4))
    assert all(torch.equal(first[name], tensor) for name, tensor in start.items())
    assert all(torch.equal(last[name], tensor) for name, tensor in policy.student.state_dict().items())
    assert {tensor.dtype for tensor in last.values()} == {torch.float32}
    assert not list(place.directory.glob("state_*"))


def test_the_curve_has_every_step_and_the_accuracies_of_the_weights(fresh, tmp_path):
    place = go(OPD, place_in(tmp_path, OPD), fresh())
    rows = curve(place)
    assert set(rows["run"]) == {"opd"}
    assert set(rows["profile"]) == {"tiny"}
    for metric in ("loss", "gradient_norm", "reward"):
        assert rows.query(f"metric == '{metric}'")["step"].tolist() == [1, 2, 3, 4]
    for metric in ("sampled_accuracy", "sampled_accuracy_se", "greedy_accuracy"):
        assert rows.query(f"metric == '{metric}'")["step"].tolist() == [0, 2, 4]
        for task in ("tiny_sums", "tiny_longer"):
            assert rows.query(f"metric == '{metric}:{task}'")["step"].tolist() == [4]
    assert not rows.duplicated(["step", "metric"]).any()
    assert rows["value"].notna().all()
    policy = fresh()
    policy.student.load_state_dict(load_checkpoint(step_path(place.directory, 4)))
    expected = accuracy(
        policy.student,
        policy.tokenizer,
        problems(OPD.tasks[0], split="test", number=4, seed="evaluation"),
        samples=2,
        max_new_tokens=OPD.max_new_tokens,
        seed="0/test/tiny_sums",
    )
    for metric, value in expected.items():
        assert rows.query(f"metric == '{metric}:tiny_sums'")["value"].item() == value


def test_a_finished_run_is_left_alone(fresh, tmp_path, monkeypatch):
    place = go(SFT, place_in(tmp_path), fresh())
    assert place.finished()
    monkeypatch.setattr(runs, "Optimization", lambda *_: pytest.fail("trained again"))
    go(SFT, place, fresh())


def test_what_another_configuration_left_is_trained_again(fresh, through, tmp_path):
    stale = replace(SFT, learning_rate=5e-3)
    go(stale, place_in(tmp_path, fingerprint="f" * 16), fresh())
    place = place_in(tmp_path)
    assert not place.finished()
    go(SFT, place, fresh())
    assert_same_runs(place.directory, through(SFT))


def test_a_half_done_run_of_another_configuration_is_not_continued(fresh, through, tmp_path):
    stale = replace(SFT, learning_rate=5e-3)
    with pytest.raises(Stopped):
        go(stale, place_in(tmp_path, fingerprint="f" * 16), fresh(), report=stop_after(1))
    go(SFT, place_in(tmp_path), fresh())
    assert_same_runs(tmp_path / "sft", through(SFT))


@pytest.mark.parametrize("marker", ["run.json", "config.json"])
def test_a_damaged_marker_means_training_again(fresh, through, tmp_path, marker):
    place = place_in(tmp_path)
    shutil.copytree(through(SFT), place.directory)
    for name in ("run.json", marker):
        (place.directory / name).write_text('{"fingerprint": "01')
    assert not place.finished()
    go(SFT, place, fresh())
    assert place.finished()
    assert_same_runs(place.directory, through(SFT))


# Branches


@pytest.fixture(scope="module")
def parent(fresh, tmp_path_factory):
    """A finished OPD run that kept its training state at step 2."""
    return go(OPD, place_in(tmp_path_factory.mktemp("parent"), OPD), fresh(), kept_states=(2,))


def test_a_parent_keeps_the_states_that_others_branch_from(parent):
    assert [path.name for path in parent.directory.glob("state_*")] == ["state_000002.safetensors"]
    assert parent.finished(kept_states=(2,))
    assert not parent.finished(kept_states=(2, 4))


def test_a_branch_is_its_parent_up_to_the_branch(parent, fresh, tmp_path):
    run = replace(EARLY, projection=None, name="branch")
    place = go(run, place_in(tmp_path, run), fresh(), parent=parent)
    ours, theirs = snapshots(place.directory), snapshots(parent.directory)
    assert ours.keys() == theirs.keys()
    for name in ("step_000000.safetensors", "step_000002.safetensors"):
        assert all(torch.equal(ours[name][n], t) for n, t in theirs[name].items())
    last = "step_000004.safetensors"
    assert any(not torch.equal(ours[last][n], t) for n, t in theirs[last].items())
    own, parents = (curve(p).query("step <= 2 and not metric.str.contains(':')") for p in (place, parent))
    assert set(own["run"]) == {"branch"}
    pd.testing.assert_frame_equal(
        own.drop(columns="run").reset_index(drop=True), parents.drop(columns="run").reset_index(drop=True)
    )
    assert len(curve(place)) == len(curve(parent))


def test_a_branch_takes_the_moments_of_its_parent(parent, fresh, tmp_path):
    """A branch whose name draws the same rollouts as its parent's is the parent itself."""
    run = replace(OPD, branch=("opd", 2))
    go(run, place_in(tmp_path, run), fresh(), parent=parent)
    assert all(
        torch.equal(tensor, snapshots(parent.directory)[path][name])
        for path, tensors in snapshots(tmp_path / "opd").items()
        for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("constrain", ["gradient", "update"])
def test_a_projected_branch_leaves_its_subspace_only_where_the_gradient_is_projected(
    parent, fresh, tmp_path, constrain
):
    run = replace(EARLY, projection=replace(EARLY.projection, constrain=constrain))
    policy = fresh()
    bases = {
        name: random_subspace(weight.shape[1], 2, seeded_generator(name))
        for name, weight in policy.student.named_parameters()
        if is_projected(name)
    }
    place = go(run, place_in(tmp_path, run), policy, parent=parent, confine=confining(bases, run))
    at_branch, end = (load_checkpoint(step_path(place.directory, step)) for step in (2, 4))
    shares = []
    for name, v_k in bases.items():
        delta = (end[name] - at_branch[name]).double()
        shares.append(float((delta - project_right(delta, v_k)).norm() / delta.norm()))
    assert max(shares) < 1e-3 if constrain == "update" else min(shares) > 0.1
    inside = curve(place).query("metric == 'share_inside'")
    assert inside["step"].tolist() == [3, 4]
    assert inside["value"].between(0, 1).all()


def test_a_snapshot_of_the_parent_is_copied_whole_or_not_at_all(parent, fresh, tmp_path, monkeypatch):
    def cut(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise Stopped(source.name)

    run = replace(EARLY, projection=None, name="branch")
    place = place_in(tmp_path, run)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", cut)
        with pytest.raises(Stopped):
            go(run, place, fresh(), parent=parent)
    assert not list(place.directory.glob("step_*"))
    go(run, place, fresh(), parent=parent)
    assert place.finished()


def test_a_stopped_branch_goes_on_to_the_same_bits(parent, fresh, tmp_path):
    run = replace(EARLY, steps=6, projection=None)
    go(run, place_in(tmp_path / "through", run), fresh(), parent=parent)
    place = place_in(tmp_path / "stopped", run)
    with pytest.raises(Stopped):
        go(run, place, fresh(), parent=parent, report=stop_after(1))
    go(run, place, fresh(), parent=parent)
    assert_same_runs(tmp_path / "stopped", tmp_path / "through")


def test_a_projected_run_without_variance_is_recorded(parent, fresh, tmp_path, monkeypatch):
    """No update was proposed, so there is no share inside to report."""
    run = replace(EARLY, name="rlvr_projected", objective="rlvr")
    monkeypatch.setattr(train, "rewards", lambda t, batch, p: torch.zeros(len(batch.completion_ids)))
    policy = fresh()
    weight = policy.student.model.layers[0].mlp.up_proj.weight
    bases = {"model.layers.0.mlp.up_proj.weight": random_subspace(weight.shape[1], 2, seeded_generator(0))}
    place = go(run, place_in(tmp_path, run), policy, parent=parent, confine=confining(bases, run))
    assert curve(place).query("metric == 'share_inside'").empty


# Where it runs


def test_a_gpu_without_float64_is_not_taken(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("accelerate.state.is_mps_available", lambda *_, **__: True)
    with monkeypatch.context() as patch:
        for state in (PartialState, AcceleratorState):
            patch.setattr(state, "_shared_state", {})
        assert find_accelerator().device.type == "cpu"


# What goes wrong


def test_a_loss_that_is_not_finite_keeps_the_finished_snapshots(fresh, through, tmp_path):
    policy = fresh()
    place = place_in(tmp_path)

    def poison(line):
        with torch.no_grad():
            policy.student.lm_head.weight[3] = float("nan")

    with pytest.raises(
        CompanionError, match="run sft: the loss is nan at step 3; earlier snapshots are kept"
    ):
        go(SFT, place, policy, report=poison)
    assert not place.finished()
    assert [path.name for path in sorted(place.directory.glob("step_*"))] == [
        "step_000000.safetensors",
        "step_000002.safetensors",
    ]
    go(SFT, place, fresh())
    assert_same_runs(place.directory, through(SFT))


@pytest.mark.parametrize("left", [0, 7, -9])
def test_a_truncated_training_state_is_told_in_one_line(fresh, tmp_path, left):
    place = place_in(tmp_path)
    with pytest.raises(Stopped):
        go(SFT, place, fresh(), report=stop_after(1))
    state = place.state_path(2)
    state.write_bytes(state.read_bytes()[:left])
    with pytest.raises(
        CompanionError, match=r"state_000002\.safetensors is truncated .*starts over"
    ) as error:
        go(SFT, place, fresh())
    assert "\n" not in str(error.value)
    assert step_path(place.directory, 2).is_file()
    state.unlink()
    assert go(SFT, place, fresh()).finished()


@pytest.mark.parametrize("text", ['[{"step": 2', None])
def test_a_damaged_curve_is_told_in_one_line(fresh, tmp_path, text):
    place = place_in(tmp_path)
    with pytest.raises(Stopped):
        go(SFT, place, fresh(), report=stop_after(1))
    curve = place.directory / "curve.json"
    curve.unlink() if text is None else curve.write_text(text)
    with pytest.raises(CompanionError, match=r"curve\.json .*: delete the folder .*starts over") as error:
        go(SFT, place, fresh())
    assert "\n" not in str(error.value)


def test_a_branch_tells_of_the_damaged_curve_of_its_parent(parent, fresh, tmp_path):
    run = replace(EARLY, projection=None, name="branch")
    damaged = replace(parent, directory=shutil.copytree(parent.directory, tmp_path / "opd"))
    (damaged.directory / "curve.json").write_text("[")
    with pytest.raises(CompanionError, match=r"opd/curve\.json cannot be read .*: delete the folder"):
        go(run, place_in(tmp_path, run), fresh(), parent=damaged)


def test_a_truncated_snapshot_is_told_in_one_line(fresh, tmp_path):
    place = go(SFT, place_in(tmp_path), fresh())
    path = step_path(place.directory, 2)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CompanionError, match=r"step_000002\.safetensors is truncated") as error:
        open_trajectory(place.directory)
    assert "\n" not in str(error.value)
