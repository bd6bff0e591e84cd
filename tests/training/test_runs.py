"""Runs: whole or resumed to the bit, branched from their parent, refused in one line, never lost."""

import json
import os
import shutil
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from itertools import count

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from tiny import EARLY, MIX, OPD, RANDOM_TOKENS, RLVR, SFT, TINY, assert_same_runs, snapshots

from paper_lib.ground.errors import CompanionError
from paper_lib.study.tasks import problems, seeded_generator
from paper_lib.training import runs, train
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, step_path
from paper_lib.training.confinement import SubspaceConstraint, is_projected, project_right, random_subspace
from paper_lib.training.models import load_model
from paper_lib.training.rollouts import accuracy
from paper_lib.training.runs import RunFolder, find_accelerator, train_run
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
        folder = go(run, folder_in(tmp_path_factory.mktemp("through"), run), fresh())
        return folder.directory

    return directory


def folder_in(directory, run=SFT, *, fingerprint="0123456789abcdef", kept_states=()):
    return RunFolder(
        directory=directory / run.name,
        profile="tiny",
        seed=0,
        fingerprint=fingerprint,
        kept_states=kept_states,
    )


def go(run, folder, policy, **options):
    options = {"evaluation": TINY.evaluation, "report": lambda line: None} | options
    train_run(run, folder, policy, **options)
    return folder


def stop_at(step):
    """A report callback that ends the run after the snapshot of this step."""

    def report(line):
        if f"step {step}/" in line:
            raise Stopped(line)

    return report


def confining(bases, run):
    """What confines a run to these V_K."""
    return lambda student: SubspaceConstraint(student, bases, run.projection.constrain)


def curve(folder):
    return pd.read_parquet(folder.directory / "curve.parquet")


LONG = {run.name: replace(run, steps=6) for run in (SFT, OPD, RLVR, MIX, RANDOM_TOKENS)}
LONG["opd_twice"] = replace(LONG["opd"], name="opd_twice", updates_per_batch=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"), [*((name, 2) for name in LONG), ("opd", 0), ("sft", 4), ("rlvr", 4), ("opd_twice", 4)]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, step, fresh, through, tmp_path):
    run = LONG[name]
    folder = folder_in(tmp_path, run)
    with pytest.raises(Stopped, match=rf"{name} seed 0\] step {step}/6"):
        go(run, folder, fresh(), report=stop_at(step))
    assert not folder.finished()
    again = []
    go(run, folder, fresh(), report=again.append)
    steps = [line.split(" step ")[1].split()[0].rstrip(",") for line in again]
    assert [at for at in steps if "/" in at] == [f"{at}/6" for at in range(step + 2, 7, 2)]
    assert list(dict.fromkeys(at for at in steps if "/" not in at)) == [str(at) for at in range(step + 1, 7)]
    assert " left of this run" in again[0]
    assert_same_runs(folder.directory, through(run))


SHORT = replace(SFT, steps=2, snapshot_every=1)
BRANCH = replace(SHORT, name="branch", branch=("sft", 1))


def stop_before(number, patched):
    """End a run before the change of this number to its folder: a file that appears or one that goes."""
    changes = []

    def counted(change):
        def checked(*paths, **options):
            if not str(paths[-1]).endswith(".part"):
                changes.append(paths[-1])
                if len(changes) == number:
                    raise Stopped(paths[-1])
            change(*paths, **options)

        return checked

    for name in ("replace", "unlink"):
        patched.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.slow
@pytest.mark.parametrize("run", [SHORT, BRANCH], ids=lambda run: run.name)
def test_a_run_that_was_stopped_before_any_file_goes_on_to_the_same_bits(run, fresh, tmp_path, monkeypatch):
    parent = go(SHORT, folder_in(tmp_path / "parent", SHORT, kept_states=(1,)), fresh())
    expected = go(run, folder_in(tmp_path / "expected", run), fresh(), parent=parent)
    for number in count(1):
        folder = folder_in(tmp_path / str(number), run)
        with monkeypatch.context() as patched:
            stop_before(number, patched)
            try:
                go(run, folder, fresh(), parent=parent)
                break
            except Stopped:
                pass
        go(run, folder, fresh(), parent=parent)
        assert folder.finished()
        assert_same_runs(folder.directory, expected.directory)
    assert number > 10


def test_a_run_that_lost_a_kept_state_starts_over_even_where_it_was_half_removed(
    fresh, tmp_path, monkeypatch
):
    def half(directory):
        step_path(directory, 0).unlink()
        (directory / "run.json").unlink()
        raise Stopped(directory)

    folder = folder_in(tmp_path, SHORT, kept_states=(1, 2))
    expected = shutil.copytree(go(SHORT, folder, fresh()).directory, tmp_path / "expected")
    folder.state_path(1).unlink()
    assert not folder.finished()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", half)
        with pytest.raises(Stopped):
            go(SHORT, folder, fresh())
    go(SHORT, folder, fresh())
    assert folder.finished()
    assert_same_runs(folder.directory, expected)


def test_a_finished_run_is_what_the_rest_of_the_study_reads(fresh, tmp_path):
    policy = fresh()
    start = {name: tensor.clone() for name, tensor in policy.student.state_dict().items()}
    folder = go(OPD, folder_in(tmp_path, OPD), policy)
    trajectory = open_trajectory(folder.directory)
    assert trajectory.fingerprint == folder.fingerprint
    assert trajectory.steps == (0, 2, 4)
    assert trajectory.config == json.loads(json.dumps(asdict(OPD)))
    first, last = (load_checkpoint(trajectory.path(step)) for step in (0, 4))
    assert all(torch.equal(first[name], tensor) for name, tensor in start.items())
    assert all(torch.equal(last[name], tensor) for name, tensor in policy.student.state_dict().items())
    assert {tensor.dtype for tensor in last.values()} == {torch.float32}
    assert not list(folder.directory.glob("state_*"))


def test_the_curve_has_every_step_and_the_accuracies_of_the_weights(fresh, tmp_path):
    folder = go(OPD, folder_in(tmp_path, OPD), fresh())
    rows = curve(folder)
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
    policy.student.load_state_dict(load_checkpoint(step_path(folder.directory, 4)))
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
    folder = go(SFT, folder_in(tmp_path), fresh())
    assert folder.finished()
    monkeypatch.setattr(runs, "Optimization", lambda *_: pytest.fail("trained again"))
    go(SFT, folder, fresh())


def test_what_another_configuration_left_is_trained_again(fresh, through, tmp_path):
    stale = replace(SFT, learning_rate=5e-3)
    go(stale, folder_in(tmp_path, fingerprint="f" * 16), fresh())
    folder = folder_in(tmp_path)
    assert not folder.finished()
    go(SFT, folder, fresh())
    assert_same_runs(folder.directory, through(SFT))


def test_a_half_done_run_of_another_configuration_is_not_continued(fresh, through, tmp_path):
    stale = replace(SFT, learning_rate=5e-3)
    with pytest.raises(Stopped):
        go(stale, folder_in(tmp_path, fingerprint="f" * 16), fresh(), report=stop_at(2))
    go(SFT, folder_in(tmp_path), fresh())
    assert_same_runs(tmp_path / "sft", through(SFT))


@pytest.mark.parametrize("marker", ["run.json", "curve.parquet"])
def test_a_damaged_marker_means_training_again(fresh, through, tmp_path, marker):
    folder = folder_in(tmp_path)
    shutil.copytree(through(SFT), folder.directory)
    (folder.directory / marker).write_text('{"fingerprint": "01')
    assert not folder.finished()
    go(SFT, folder, fresh())
    assert folder.finished()
    assert_same_runs(folder.directory, through(SFT))


# Branches


@pytest.fixture(scope="module")
def parent(fresh, tmp_path_factory):
    """A finished OPD run that kept its training state at step 2."""
    return go(OPD, folder_in(tmp_path_factory.mktemp("parent"), OPD, kept_states=(2,)), fresh())


def test_a_parent_keeps_the_states_that_others_branch_from(parent):
    assert [path.name for path in parent.directory.glob("state_*")] == ["state_000002.safetensors"]
    assert parent.finished()
    assert not replace(parent, kept_states=(2, 4)).finished()


def test_a_branch_is_its_parent_up_to_the_branch(parent, fresh, tmp_path):
    run = replace(EARLY, projection=None, name="branch")
    folder = go(run, folder_in(tmp_path, run), fresh(), parent=parent)
    ours, theirs = snapshots(folder.directory), snapshots(parent.directory)
    assert ours.keys() == theirs.keys()
    for name in ("step_000000.safetensors", "step_000002.safetensors"):
        assert all(torch.equal(ours[name][n], t) for n, t in theirs[name].items())
    last = "step_000004.safetensors"
    assert any(not torch.equal(ours[last][n], t) for n, t in theirs[last].items())
    own, parents = (curve(p).query("step <= 2 and not metric.str.contains(':')") for p in (folder, parent))
    assert set(own["run"]) == {"branch"}
    pd.testing.assert_frame_equal(
        own.drop(columns="run").reset_index(drop=True), parents.drop(columns="run").reset_index(drop=True)
    )
    assert len(curve(folder)) == len(curve(parent))


def test_a_branch_takes_the_moments_of_its_parent(parent, fresh, tmp_path):
    """A branch whose name draws the same rollouts as its parent's is the parent itself."""
    run = replace(OPD, branch=("opd", 2))
    go(run, folder_in(tmp_path, run), fresh(), parent=parent)
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
    folder = go(run, folder_in(tmp_path, run), policy, parent=parent, confine=confining(bases, run))
    at_branch, end = (load_checkpoint(step_path(folder.directory, step)) for step in (2, 4))
    shares = []
    for name, v_k in bases.items():
        delta = (end[name] - at_branch[name]).double()
        shares.append(float((delta - project_right(delta, v_k)).norm() / delta.norm()))
    assert max(shares) < 1e-3 if constrain == "update" else min(shares) > 0.1
    inside = curve(folder).query("metric == 'share_inside'")
    assert inside["step"].tolist() == [3, 4]
    assert inside["value"].between(0, 1).all()


def test_a_snapshot_of_the_parent_is_copied_whole_or_not_at_all(parent, fresh, tmp_path, monkeypatch):
    def cut(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise Stopped(source.name)

    run = replace(EARLY, projection=None, name="branch")
    folder = folder_in(tmp_path, run)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", cut)
        with pytest.raises(Stopped):
            go(run, folder, fresh(), parent=parent)
    assert not list(folder.directory.glob("step_*"))
    go(run, folder, fresh(), parent=parent)
    assert folder.finished()


def test_a_stopped_branch_goes_on_to_the_same_bits(parent, fresh, tmp_path):
    run = replace(EARLY, steps=6, projection=None)
    go(run, folder_in(tmp_path / "through", run), fresh(), parent=parent)
    folder = folder_in(tmp_path / "stopped", run)
    with pytest.raises(Stopped):
        go(run, folder, fresh(), parent=parent, report=stop_at(4))
    go(run, folder, fresh(), parent=parent)
    assert_same_runs(tmp_path / "stopped", tmp_path / "through")


def test_a_projected_run_without_variance_is_recorded(parent, fresh, tmp_path, monkeypatch):
    """No update was proposed, so there is no share inside to report."""
    run = replace(EARLY, name="rlvr_projected", objective="rlvr")
    monkeypatch.setattr(train, "rewards", lambda t, batch, p: torch.zeros(len(batch.completion_ids)))
    policy = fresh()
    weight = policy.student.model.layers[0].mlp.up_proj.weight
    bases = {"model.layers.0.mlp.up_proj.weight": random_subspace(weight.shape[1], 2, seeded_generator(0))}
    folder = go(run, folder_in(tmp_path, run), policy, parent=parent, confine=confining(bases, run))
    assert curve(folder).query("metric == 'share_inside'").empty


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
    folder = folder_in(tmp_path)

    def poison(line):
        if "step 2/" in line:
            with torch.no_grad():
                policy.student.lm_head.weight[3] = float("nan")

    with pytest.raises(
        CompanionError, match="run sft: the loss is nan at step 3; earlier snapshots are kept"
    ):
        go(SFT, folder, policy, report=poison)
    assert not folder.finished()
    assert [path.name for path in sorted(folder.directory.glob("step_*"))] == [
        "step_000000.safetensors",
        "step_000002.safetensors",
    ]
    go(SFT, folder, fresh())
    assert_same_runs(folder.directory, through(SFT))


@pytest.mark.parametrize("left", [0, 7, -9])
def test_a_truncated_training_state_is_told_in_one_line(fresh, tmp_path, left):
    folder = folder_in(tmp_path)
    with pytest.raises(Stopped):
        go(SFT, folder, fresh(), report=stop_at(2))
    state = folder.state_path(2)
    state.write_bytes(state.read_bytes()[:left])
    with pytest.raises(
        CompanionError, match=r"state_000002\.safetensors is truncated .*starts over"
    ) as error:
        go(SFT, folder, fresh())
    assert "\n" not in str(error.value)
    assert step_path(folder.directory, 2).is_file()
    state.unlink()
    assert go(SFT, folder, fresh()).finished()


@pytest.mark.parametrize("text", ["PAR1", None])
def test_without_its_curve_a_stopped_run_starts_over(fresh, through, tmp_path, text):
    folder = folder_in(tmp_path)
    with pytest.raises(Stopped):
        go(SFT, folder, fresh(), report=stop_at(2))
    curve = folder.directory / "curve.parquet"
    curve.unlink() if text is None else curve.write_text(text)
    go(SFT, folder, fresh())
    assert_same_runs(folder.directory, through(SFT))


def test_a_branch_tells_of_the_damaged_curve_of_its_parent(parent, fresh, tmp_path):
    run = replace(EARLY, projection=None, name="branch")
    damaged = replace(parent, directory=shutil.copytree(parent.directory, tmp_path / "opd"))
    (damaged.directory / "curve.parquet").write_text("PAR1")
    with pytest.raises(CompanionError, match=r"opd/curve\.parquet is .*damaged: delete the folder") as error:
        go(run, folder_in(tmp_path, run), fresh(), parent=damaged)
    assert "\n" not in str(error.value)


def test_a_truncated_snapshot_is_told_in_one_line(fresh, tmp_path):
    folder = go(SFT, folder_in(tmp_path), fresh())
    path = step_path(folder.directory, 2)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CompanionError, match=r"step_000002\.safetensors is truncated") as error:
        open_trajectory(folder.directory)
    assert "\n" not in str(error.value)
