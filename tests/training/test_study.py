"""The study: every planned run once, the same bits however it is worked off, nothing lost to a failure."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from tiny import EARLY, LINEAGE, OPD, OTHER_SEED, SFT, TINY, assert_same_runs, snapshots

from paper_lib.ground.errors import CompanionError
from paper_lib.study import profiles
from paper_lib.study.config import Profile
from paper_lib.study.run_config import Projection
from paper_lib.study.tasks import problems
from paper_lib.training import pretrain, runs, study
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, read_matrix, step_path
from paper_lib.training.confinement import is_projected, project_right
from paper_lib.training.models import as_stored, load_model, save_model, weights_fingerprint
from paper_lib.training.pretrain import build_lineage, build_models
from paper_lib.training.runs import reuse_finished
from paper_lib.training.starts import Study, projection_bases
from paper_lib.training.study import train_planned, train_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tiny_models, tmp_path_factory) -> Path:
    """A data folder whose tiny study was trained by one worker, undisturbed; read it, do not write to it."""
    data = tmp_path_factory.mktemp("reference")
    shutil.copytree(tiny_models, data / TINY.models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, TINY.name, TINY)
        train_study("tiny", data_dir=data, workers=1)
    return data


@pytest.fixture
def trained(reference, tmp_path, monkeypatch) -> Path:
    """A copy of the trained study, to be changed at will."""
    monkeypatch.setitem(profiles.PROFILES, TINY.name, TINY)
    return Path(shutil.copytree(reference, tmp_path / "data"))


@pytest.fixture
def jobs(monkeypatch) -> list[str]:
    """Names of the runs that are trained in this process while the test runs."""
    done: list[str] = []

    def noted(study, run, seed, models):
        done.append(run.name)
        train_planned(study, run, seed, models)

    monkeypatch.setattr(study, "train_planned", noted)
    return done


def plan(monkeypatch, **changes) -> Profile:
    """Make the tiny profile another one for the rest of the test."""
    profile = replace(TINY, **changes)
    monkeypatch.setitem(profiles.PROFILES, TINY.name, profile)
    return profile


def of(data: Path, run: str) -> Path:
    return data / "runs" / "tiny" / run / "seed_0"


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# What is trained


def test_every_planned_run_is_finished_and_starts_where_it_should(reference):
    base = load_model(reference / "models" / "base")[0].state_dict()
    assert same(load_checkpoint(step_path(of(reference, "sft"), 0)), base)
    anchor = as_stored(load_checkpoint(step_path(of(reference, "sft"), SFT.steps)))
    for run in TINY.runs:
        trajectory = open_trajectory(of(reference, run.name))
        assert trajectory.steps == run.snapshot_steps()
        if run.start == "anchor":
            assert same(load_checkpoint(trajectory.path(0)), anchor)


def test_a_second_call_trains_nothing(trained, jobs):
    times = {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}
    finished = train_study("tiny", data_dir=trained, workers=1)
    assert [folder.parent.name for folder in finished] == [run.name for run in TINY.runs]
    assert jobs == []
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")} == times


def test_a_selection_brings_its_parents(tiny_data, jobs, reference):
    train_study("tiny", data_dir=tiny_data, runs=["opd_projected_other_seed"], workers=1)
    assert sorted(jobs) == ["opd", "opd_projected_other_seed", "opd_sibling", "sft"]
    assert jobs[0] == "sft"
    assert jobs[-1] == "opd_projected_other_seed"
    for run in jobs:
        assert_same_runs(of(tiny_data, run), of(reference, run))


def test_two_workers_give_the_bits_of_one(tiny_data, reference):
    train_study("tiny", data_dir=tiny_data, workers=2)
    assert_same_runs(tiny_data / "runs", reference / "runs")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tiny import TINY
from paper_lib.study import profiles
from paper_lib.training import runs
from paper_lib.training.study import train_study
save = runs.save_checkpoint
def deadly(tensors, path):
    save(tensors, path)
    if "rlvr" in path.parts:
        os.kill(os.getpid(), signal.SIGKILL)
runs.save_checkpoint = deadly
profiles.PROFILES["tiny"] = TINY
train_study("tiny", data_dir=sys.argv[2], workers=1)
"""


def test_a_study_killed_in_mid_training_ends_in_the_same_bits(tiny_data, reference):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1] / "support"), str(tiny_data)]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert [path.name for path in of(tiny_data, "rlvr").glob("step_*")] == ["step_000000.safetensors"]
    assert of(tiny_data, "sft").joinpath("run.json").is_file()
    unfinished = [run.name for run in TINY.runs if not of(tiny_data, run.name).joinpath("run.json").is_file()]
    assert "opd_projected_early" in unfinished
    train_study("tiny", data_dir=tiny_data, workers=1)
    assert_same_runs(tiny_data / "runs", reference / "runs")


# What is trained again


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (SFT, {run.name for run in TINY.runs}),
        (OPD, {"opd", "opd_projected_early", "opd_projected_other_seed"}),
        (OTHER_SEED, {"opd_projected_other_seed"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_change_concerns_a_run_and_what_starts_from_it(reference, changed, again):
    new = replace(changed, weight_decay=0.3)
    changed_runs = tuple(new if run is changed else run for run in TINY.runs)
    tiny = Study(profile=replace(TINY, runs=changed_runs), data_dir=reference)
    models = tiny.models()
    assert {run.name for run in changed_runs if not tiny.folder(run, 0, models).finished()} == again


def test_a_changed_run_is_trained_again(trained, jobs, monkeypatch, reference):
    new = replace(OPD, weight_decay=0.3)
    plan(monkeypatch, runs=tuple(new if run is OPD else run for run in TINY.runs))
    train_study("tiny", data_dir=trained, workers=1)
    assert sorted(jobs) == ["opd", "opd_projected_early", "opd_projected_other_seed"]
    assert open_trajectory(of(trained, "opd")).config["weight_decay"] == 0.3
    assert_same_runs(of(trained, "rlvr"), of(reference, "rlvr"))


def test_another_base_means_training_everything_again(trained, monkeypatch):
    student, tokenizer = load_model(trained / "models" / "base")
    before = Study(profile=TINY, data_dir=trained).models()
    with torch.no_grad():
        student.lm_head.weight[0, 0] += 1
    save_model(student, tokenizer, trained / "models" / "base", card="", recipe={})
    models = Study(profile=TINY, data_dir=trained).models()
    assert models["base"] != before["base"]
    assert models["teacher"] == before["teacher"]
    tiny = Study(profile=TINY, data_dir=trained)
    for run in TINY.runs:
        assert tiny.folder(run, 0, before).finished()
        assert not tiny.folder(run, 0, models).finished()


def test_another_teacher_concerns_distillation_alone(reference):
    tiny = Study(profile=TINY, data_dir=reference)
    models = tiny.models()
    other = {**models, "teacher": "f" * 16}
    concerned = {r.name for r in TINY.runs if tiny.folder(r, 0, other) != tiny.folder(r, 0, models)}
    assert concerned == {run.name for run in TINY.runs} - {"sft", "rlvr"}


def test_force_trains_again_to_the_same_bits(trained, reference, jobs):
    train_study("tiny", data_dir=trained, runs=["rlvr"], workers=1, force=True)
    assert jobs == ["sft", "rlvr"]
    assert_same_runs(of(trained, "rlvr"), of(reference, "rlvr"))


def test_a_parent_that_lost_its_state_is_trained_again_to_the_same_bits(trained, reference, jobs):
    (of(trained, "opd") / "state_000002.safetensors").unlink()
    train_study("tiny", data_dir=trained, workers=1)
    assert jobs == ["opd"]
    assert_same_runs(trained / "runs", reference / "runs")


def test_a_run_of_another_profile_is_taken_over(trained, jobs, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "twin", replace(TINY, name="twin"))
    train_study("twin", data_dir=trained, workers=1)
    assert jobs == []
    ours, theirs = snapshots(trained / "runs" / "twin"), snapshots(trained / "runs" / "tiny")
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in ours)


def test_a_run_that_cannot_be_linked_is_copied_whole_or_not_at_all(trained, monkeypatch):
    def across(source, target):
        raise OSError("another file system")

    def cut(source, target):
        target.write_bytes(source.read_bytes()[:100])
        raise OSError("no room")

    monkeypatch.setitem(profiles.PROFILES, "twin", replace(TINY, name="twin"))
    monkeypatch.setattr("os.link", across)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", cut)
        with pytest.raises(OSError, match="no room"):
            train_study("twin", data_dir=trained, workers=1)
    assert not list((trained / "runs" / "twin").rglob("step_*"))
    train_study("twin", data_dir=trained, workers=1)
    ours, theirs = snapshots(trained / "runs" / "twin"), snapshots(trained / "runs" / "tiny")
    assert all(same(ours[name], theirs[name]) for name in theirs)


@pytest.fixture
def removed(monkeypatch) -> list[Path]:
    """The run folders that are removed while the test runs, each of them under its lock."""
    folders: list[Path] = []

    def remove(folder, ignore_errors=False, rmtree=shutil.rmtree):
        if "runs" in folder.parts:
            with pytest.raises(Timeout):
                FileLock(folder.with_name(f".{folder.name}.lock")).acquire(timeout=0)
            folders.append(folder)
        rmtree(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", remove)
    return folders


def test_a_run_is_trained_again_only_when_nobody_else_trains_it(trained, removed):
    train_study("tiny", data_dir=trained, runs=["sft"], workers=1, force=True)
    assert set(removed) == {of(trained, "sft")}


def test_a_run_is_taken_over_only_when_nobody_else_trains_it(trained, removed, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "twin", replace(TINY, name="twin"))
    stale = trained / "runs" / "twin" / "sft" / "seed_0"
    stale.mkdir(parents=True)
    train_study("twin", data_dir=trained, runs=["sft"], workers=1)
    assert removed == [stale]


def test_what_another_process_trained_meanwhile_is_not_taken_over(trained, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "twin", replace(TINY, name="twin"))
    twin = Study(profile=profiles.PROFILES["twin"], data_dir=trained)
    folder = twin.folder(SFT, 0, twin.models())
    shutil.copytree(of(trained, "sft"), folder.directory)
    assert not reuse_finished(SFT, folder, trained / "runs")
    assert step_path(folder.directory, 0).stat().st_nlink == 1


def test_a_damaged_run_of_another_profile_takes_nothing_away(trained, monkeypatch):
    monkeypatch.setitem(profiles.PROFILES, "twin", replace(TINY, name="twin"))
    path = of(trained, "sft") / "curve.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([255 - whole[30]]) + whole[31:])
    ours = trained / "runs" / "twin" / "sft" / "seed_0" / "step_000000.safetensors"
    ours.parent.mkdir(parents=True)
    ours.touch()
    with pytest.raises(CompanionError, match=r"tiny/sft/seed_0/curve\.parquet is .*damaged: delete"):
        train_study("twin", data_dir=trained, workers=1)
    assert ours.is_file()


# The subspace of a projected run


@pytest.mark.parametrize("basis", ["early", "other_seed", "principal", "random"])
def test_the_subspace_is_the_one_that_the_run_names(reference, basis):
    source = "opd_sibling" if basis == "other_seed" else None
    run = replace(EARLY, projection=Projection(basis=basis, K=2, source=source))
    tiny = Study(profile=TINY, data_dir=reference)
    student = load_model(reference / "models" / "base")[0]
    bases = projection_bases(tiny, run, 0, student)
    assert set(bases) == {name for name, _ in student.named_parameters() if is_projected(name)}
    folder = of(reference, source or "opd")
    for name, v_k in bases.items():
        assert v_k.shape == (student.get_parameter(name).shape[1], 2)
        torch.testing.assert_close(v_k.T @ v_k, torch.eye(2).double(), atol=1e-10, rtol=0)
        if basis == "random":
            continue
        target = read_matrix(step_path(folder, 0), name).double()
        if basis != "principal":
            target = read_matrix(step_path(folder, 2), name).double() - target
        kept = torch.linalg.svdvals(target)[:2].square().sum()
        torch.testing.assert_close(project_right(target, v_k).square().sum(), kept, rtol=1e-6, atol=0)
    again = projection_bases(tiny, run, 0, student)
    assert same(again, bases)
    if basis == "random":
        assert not same(projection_bases(tiny, run, 1, student), bases)
    assert projection_bases(tiny, OPD, 0, student) == {}


# What goes wrong


def test_unknown_names_are_told_before_any_work(tiny_data):
    with pytest.raises(CompanionError, match="no profile 'huge'; there are"):
        train_study("huge", data_dir=tiny_data)
    with pytest.raises(CompanionError, match=r"no run 'dpo' in profile tiny; it has mix_0\.5, opd"):
        train_study("tiny", data_dir=tiny_data, runs=["opd", "dpo"])
    with pytest.raises(CompanionError, match=r"profile tiny plans no run with seed 7; it has 0$"):
        train_study("tiny", data_dir=tiny_data, seeds=[0, 7])
    with pytest.raises(CompanionError, match=r"profile tiny plans none of opd, sft with seed 7; it has 0$"):
        train_study("tiny", data_dir=tiny_data, runs=["opd", "sft"], seeds=[0, 7])
    for nothing in ({"runs": []}, {"seeds": []}):
        with pytest.raises(CompanionError, match="no run and seed is named"):
            train_study("tiny", data_dir=tiny_data, **nothing)
    assert not (tiny_data / "runs").exists()


def test_a_teacher_with_another_vocabulary_stops_its_runs_alone(tiny_data, tokenizer):
    teacher, _ = load_model(tiny_data / "models" / "teacher")
    larger = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, pad_token="_", eos_token="$")
    larger.add_tokens(["*"])
    save_model(teacher, larger, tiny_data / "models" / "teacher", card="", recipe={})
    with pytest.raises(CompanionError, match="teacher has another vocabulary than the student") as error:
        train_study("tiny", data_dir=tiny_data, runs=["opd", "rlvr", "opd_projected_early"], workers=1)
    assert "\n" not in str(error.value)
    assert "(skipped, as they start from these: opd_projected_early (seed 0); all other" in str(error.value)
    assert open_trajectory(of(tiny_data, "rlvr")).steps == (0, 2, 4)
    assert not of(tiny_data, "opd").joinpath("run.json").exists()
    assert not of(tiny_data, "opd_projected_early").exists()


@pytest.mark.parametrize("model", ["base", "teacher"])
def test_a_truncated_model_is_told_and_finished_runs_stay(trained, reference, model):
    path = trained / "models" / model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-11])
    with pytest.raises(CompanionError, match=rf"{model}/model\.safetensors is truncated") as error:
        train_study("tiny", data_dir=trained, workers=1)
    assert "\n" not in str(error.value)
    assert_same_runs(trained / "runs", reference / "runs")


def test_a_missing_model_is_told(tiny_data):
    shutil.rmtree(tiny_data / "models" / "teacher")
    with pytest.raises(CompanionError, match=r"no model in .*teacher; `make pretrain`"):
        train_study("tiny", data_dir=tiny_data)


@pytest.mark.parametrize("file", ["step_000004.safetensors", "curve.parquet", "run.json"])
def test_a_run_with_a_truncated_file_is_trained_again_to_the_same_bits(trained, reference, jobs, file):
    damaged = of(trained, "sft") / file
    damaged.write_bytes(damaged.read_bytes()[:-3])
    shutil.rmtree(of(trained, "rlvr"))
    train_study("tiny", data_dir=trained, workers=1)
    assert jobs == ["sft", "rlvr"]
    assert_same_runs(trained / "runs", reference / "runs")


def test_K_above_the_dimension_stops_its_run_alone(trained, reference, monkeypatch):
    wide = replace(EARLY, projection=Projection(basis="early", K=17))
    plan(monkeypatch, runs=tuple(wide if run is EARLY else run for run in TINY.runs))
    shutil.rmtree(of(trained, "rlvr"))
    message = r"run opd_projected_early: K = 17 exceeds the smaller side of .* \(16, 32\)"
    with pytest.raises(CompanionError, match=message):
        train_study("tiny", data_dir=trained, workers=1)
    assert_same_runs(of(trained, "rlvr"), of(reference, "rlvr"))


def test_a_loss_that_is_not_finite_stops_its_run_alone(trained, reference, monkeypatch):
    wild = replace(OPD, name="wild", learning_rate=1e30)
    plan(monkeypatch, runs=(*TINY.runs, wild))
    shutil.rmtree(of(trained, "rlvr"))
    with pytest.raises(CompanionError, match=r"run wild: the .* is (nan|inf) at step 2"):
        train_study("tiny", data_dir=trained, workers=1)
    assert step_path(of(trained, "wild"), 0).is_file()
    assert_same_runs(of(trained, "rlvr"), of(reference, "rlvr"))


# The pretrained models


@pytest.fixture
def pretrained(tmp_path, monkeypatch) -> tuple[Profile, Path]:
    """A profile that makes its own models, with little to evaluate them on."""
    for module in (pretrain, runs):

        def few(task, *, split, number, seed):
            return problems(task, split=split, number=min(number, 8), seed=seed)

        monkeypatch.setattr(module, "problems", few)
    return plan(monkeypatch, lineages=(LINEAGE,)), tmp_path


def missing(profile, data):
    return [name for line in profile.lineages for name in pretrain._missing(profile, line, data)]


def test_models_that_are_missing_are_built_once(pretrained):
    profile, data = pretrained
    assert sorted(missing(profile, data)) == ["base", "teacher"]
    build_models(profile.name, data_dir=data, workers=1)
    assert missing(profile, data) == []
    made = {name: load_model(data / "models" / name)[0].state_dict() for name in ("base", "teacher")}
    ends = {path.parent.name.split("-")[0]: path for path in data.glob("runs/pretrain/*/run.json")}
    for name, stage in (("base", "noisy"), ("teacher", "clean")):
        last = max(ends[stage].parent.glob("step_*.safetensors"))
        assert same(made[name], as_stored(load_file(last)))
        card = (data / "models" / name / "README.md").read_text()
        assert weights_fingerprint(made[name]) in card
    first = load_file(step_path(ends["noisy"].parent, 0))
    assert same(first, load_file(max(ends["clean"].parent.glob("step_*.safetensors"))))
    times = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    build_models(profile.name, data_dir=data, workers=1)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == times


def test_a_model_without_its_weights_is_missing(pretrained):
    profile, data = pretrained
    build_models(profile.name, data_dir=data, workers=1)
    (data / "models" / "base" / "model.safetensors").unlink()
    assert missing(profile, data) == ["base"]


def test_models_are_built_by_one_process_at_a_time(pretrained, monkeypatch):
    profile, data = pretrained
    held, train = [], pretrain.train_run

    def noted(*args, **options):
        (lock,) = (data / "runs" / "pretrain").glob(".teacher-base.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0)
        held.append(lock)
        train(*args, **options)

    monkeypatch.setattr(pretrain, "train_run", noted)
    build_lineage(profile, LINEAGE, data)
    assert len(held) == len(LINEAGE.stages)
    times = {path: path.stat().st_mtime_ns for path in (data / "models").rglob("*")}
    build_lineage(profile, LINEAGE, data)  # of a process that waited
    assert len(held) == len(LINEAGE.stages)
    assert {path: path.stat().st_mtime_ns for path in (data / "models").rglob("*")} == times


def test_a_stage_is_trained_again_only_when_nobody_else_trains_it(pretrained, removed):
    profile, data = pretrained
    build_models(profile.name, data_dir=data, workers=1)
    removed.clear()
    build_models(profile.name, data_dir=data, workers=1, force=True)
    assert {folder.name.split("-")[0] for folder in removed} == {"clean", "noisy"}


def test_a_lost_model_is_rebuilt_to_the_same_bits(pretrained):
    profile, data = pretrained
    build_models(profile.name, data_dir=data, workers=1)
    before = load_file(data / "models" / "base" / "model.safetensors")
    shutil.rmtree(data / "models" / "base")
    assert missing(profile, data) == ["base"]
    build_models(profile.name, data_dir=data, workers=1)
    assert same(load_file(data / "models" / "base" / "model.safetensors"), before)
