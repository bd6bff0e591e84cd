"""Starts: the probes train from the weights, in the entries and under the optimizer that they name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import EARLY, OPD, SFT, SHAPE, TINY, assert_same_runs, draw, full_logits, save_models, snapshots

from paper_lib.geometry.sparsity import visible_mask
from paper_lib.ground.errors import CompanionError
from paper_lib.study import profiles
from paper_lib.study.plan import control_runs, opd_as_sft, rate_and_batch, sgd
from paper_lib.study.profiles import PROFILES
from paper_lib.study.run_config import Subnetwork
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, step_path
from paper_lib.training.confinement import is_projected
from paper_lib.training.models import as_stored, build_model, load_model, save_model
from paper_lib.training.starts import Study, load_policy, subnetwork_masks
from paper_lib.training.study import train_study

FOUND = replace(OPD, name="opd_subnetwork_found", subnetwork=Subnetwork(source="opd"))
RANDOM = replace(OPD, name="opd_subnetwork_random", subnetwork=Subnetwork(source="opd", entries="random"))
ROTATED = replace(OPD, name="opd_rotated", rotated_layers=(1,))
SGD = sgd(OPD, 0.05)
SMALL = replace(SFT, name="sft_small", base="base_small")
FROM_SMALL = replace(OPD, name="opd_small_student", base="base_small", anchor="sft_small")
PROBED = replace(
    TINY, name="probed", runs=(SFT, OPD), probes=(FOUND, RANDOM, ROTATED, SGD, SMALL, FROM_SMALL)
)


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> Study:
    """A trained study with its probes; read it, do not write to it."""
    data = tmp_path_factory.mktemp("probed")
    save_models(data / "models")
    small = build_model(
        replace(SHAPE, hidden_size=16), tokenizer := load_model(data / "models/base")[1], seed=3
    )
    save_model(small, tokenizer, data / "models" / "base_small", card="", recipe={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, PROBED.name, PROBED)
        train_study("probed", data_dir=data, workers=1)
    return Study(profile=PROBED, data_dir=data)


def weights(study, run, step):
    return load_checkpoint(step_path(study.directory(run, 0), step))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_subnetwork_is_what_opd_visibly_changed_and_nothing_else_of_the_matrices_moves(probed):
    start, end = (weights(probed, OPD, step) for step in (0, OPD.steps))
    trained = weights(probed, FOUND, FOUND.steps)
    assert same(weights(probed, FOUND, 0), start)
    for name, mask in subnetwork_masks(probed, FOUND, 0).items():
        assert torch.equal(mask, visible_mask(start[name], end[name]))
        assert 0 < mask.sum() < mask.numel()
        moved = trained[name] != start[name]
        assert not moved[~mask].any()
        assert moved[mask].any()
    others = [name for name in start if not is_projected(name)]
    assert others
    assert all((trained[name] != start[name]).any() for name in others)


def test_a_random_subnetwork_has_the_found_ones_size_in_every_matrix(probed):
    found, random = (subnetwork_masks(probed, run, 0) for run in (FOUND, RANDOM))
    assert found.keys() == random.keys() == {n for n in weights(probed, OPD, 0) if is_projected(n)}
    assert all(int(found[name].sum()) == int(random[name].sum()) for name in found)
    assert any(not torch.equal(found[name], random[name]) for name in found)
    assert same(subnetwork_masks(probed, RANDOM, 0), random)
    start, end = (weights(probed, RANDOM, step) for step in (0, RANDOM.steps))
    assert all(torch.equal(end[name][~mask], start[name][~mask]) for name, mask in random.items())


def test_a_rotated_start_is_the_anchor_in_other_weights(probed, tokenizer):
    anchor, rotated = (weights(probed, run, 0) for run in (OPD, ROTATED))
    different = {name for name in anchor if not torch.equal(anchor[name], rotated[name])}
    assert different == {f"model.layers.1.self_attn.{m}_proj.weight" for m in different_modules(different)}
    assert {"v", "o"} <= different_modules(different)
    assert same(rotated, as_stored(rotated))
    model = load_policy(probed, OPD, 0).student
    batch = draw(model, tokenizer)
    with torch.no_grad():
        before = full_logits(model, batch)
        model.load_state_dict(rotated)
        after = full_logits(model, batch)
    torch.testing.assert_close(after, before, atol=0.02 * float(before.abs().max()), rtol=0)
    assert same(load_policy(probed, ROTATED, 0).student.state_dict(), rotated)
    assert not same(load_policy(probed, ROTATED, 0).student.state_dict(), anchor)


def different_modules(names):
    return {name.split(".")[-2].removesuffix("_proj") for name in names}


def test_a_layer_that_the_student_lacks_is_told(probed):
    with pytest.raises(CompanionError, match=r"rotated_layers is \(2,\), expected layers from 0 to 1"):
        load_policy(probed, replace(ROTATED, rotated_layers=(2,)), 0)


def test_another_student_has_its_own_base_and_anchor(probed):
    base = load_model(probed.data_dir / "models" / "base_small")[0].state_dict()
    assert same(weights(probed, SMALL, 0), base)
    assert same(weights(probed, FROM_SMALL, 0), as_stored(weights(probed, SMALL, SMALL.steps)))
    models = probed.models()
    assert sorted(models) == ["base", "base_small", "teacher"]
    other = {**models, "base_small": "f" * 16}
    concerned = {
        run.name
        for run in PROBED.everything
        if probed.folder(run, 0, other).fingerprint != probed.folder(run, 0, models).fingerprint
    }
    assert concerned == {"sft_small", "opd_small_student"}


def test_probes_leave_the_fingerprints_of_the_runs_as_they_are(probed):
    plain = Study(profile=replace(PROBED, probes=()), data_dir=probed.data_dir)
    for run in PROBED.runs:
        ours, theirs = (study.folder(run, 0, study.models()).fingerprint for study in (probed, plain))
        assert ours == theirs


def test_a_new_branch_makes_the_state_it_needs_and_changes_no_bit(probed, tmp_path, monkeypatch):
    """A finished parent is trained again where a state is missing."""
    data = Path(shutil.copytree(probed.data_dir, tmp_path / "data"))
    parent = replace(OPD, snapshot_every=1)
    branch = replace(EARLY, snapshot_every=1)
    first, second = (replace(branch, name=f"branch_at_{at}", branch=("opd", at)) for at in (1, 3))
    for probes in ((), (second,), (first, second)):
        profile = replace(PROBED, runs=(SFT, parent), probes=probes)
        monkeypatch.setitem(profiles.PROFILES, PROBED.name, profile)
        names = ["opd", *(run.name for run in probes)]
        train_study("probed", data_dir=data, workers=1, runs=names)
    shutil.copytree(data / "models", tmp_path / "fresh" / "models")
    train_study("probed", data_dir=tmp_path / "fresh", workers=1, runs=names)
    for run in names:
        assert_same_runs(of(data, run), of(tmp_path / "fresh", run))
    for step in (1, 3):
        name = f"state_{step:06d}.safetensors"
        assert same(*(load_checkpoint(of(d, "opd") / name) for d in (data, tmp_path / "fresh")))


def of(data, run):
    return data / "runs" / "probed" / run / "seed_0"


def test_every_probe_of_the_study_was_trained(probed):
    for run in PROBED.everything:
        trajectory = open_trajectory(probed.directory(run, 0))
        assert trajectory.steps == run.snapshot_steps()
        first, *_, last = snapshots(probed.directory(run, 0)).values()
        assert not same(first, last)


# The plan


def test_opd_at_sfts_settings_differs_from_sft_in_the_objective_alone():
    reference = PROFILES["reference"]
    sft, probe = reference.run("sft"), reference.run("opd_as_sft")
    assert probe == opd_as_sft(sft, reference.run("opd"))
    assert probe.learning_rates() == sft.learning_rates()
    assert probe.prompts_per_step * probe.samples_per_prompt == sft.prompts_per_step
    assert (probe.start, probe.betas, probe.steps) == (sft.start, sft.betas, sft.steps)


def test_a_sweep_changes_rate_or_batch_and_nothing_else():
    for run in (OPD, replace(SFT, name="sft_matched")):
        run = replace(run, prompts_per_step=8, learning_rate=1e-5)
        half, twice, quarter = rate_and_batch(run)
        assert (half.name, twice.name) == (f"{run.name}_lr_5e-06", f"{run.name}_lr_2e-05")
        assert quarter.name == f"{run.name}_batch_{2 * run.samples_per_prompt}"
        assert replace(quarter, name=run.name, prompts_per_step=8) == run
        assert {replace(r, name=run.name, learning_rate=1e-5) for r in (half, twice)} == {run}


def test_sgd_shrinks_weights_as_adamw_does():
    """Without gradients, W_{t+1} = W_t − η m with m → λ W / (1 − μ)."""
    assert SGD.learning_rate * SGD.weight_decay / (1 - SGD.sgd_momentum) == pytest.approx(
        OPD.learning_rate * OPD.weight_decay
    )


def test_the_probes_of_the_reference_are_those_of_no_other_profile_but_smokes():
    probes = {name: {run.name for run in profile.probes} for name, profile in PROFILES.items()}
    assert probes["laptop"] == probes["smollm2"] == set()
    kinds = {name.rsplit("_", 1)[0] for name in probes["reference"]}
    assert {name.rsplit("_", 1)[0] for name in probes["smoke"]} <= kinds
    reference = PROFILES["reference"]
    settings = {"rotated_layers": (1,), "ks": (1,), "wide_ks": (4,), "branches": (0.4,)}
    assert {run.teacher for run in control_runs(reference.runs, **settings)} == {"teacher", "teacher_moe"}


def test_a_model_that_was_never_built_leaves_out_its_own_runs_alone(probed, tmp_path):
    shutil.copytree(probed.data_dir / "models", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "base_small")
    study = Study(profile=probed.profile, data_dir=tmp_path)
    models = study.models({})
    assert models == {name: value for name, value in probed.models().items() if name != "base_small"}
    whole = probed.fingerprints(probed.models())
    left = {key: value for key, value in whole.items() if key[0] not in (SMALL.name, FROM_SMALL.name)}
    assert study.fingerprints(models) == left
    assert study.models({"base_small": "recorded"}) == models | {"base_small": "recorded"}
