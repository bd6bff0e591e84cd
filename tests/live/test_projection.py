"""The projection under any optimizer: the step lies in the channel, and what is free goes on as ever."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import SHAPE

from paper_lib.ground.errors import CompanionError
from paper_lib.live import SubspaceProjection
from paper_lib.live.watch import inside
from paper_lib.study.tasks import character_tokenizer
from paper_lib.training.confinement import SubspaceConstraint, is_projected
from paper_lib.training.models import build_model


@pytest.fixture
def model():
    return build_model(SHAPE, character_tokenizer(), seed=0)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def walk(model, optimizer, first, last):
    """Steps on gradients that depend on the step alone."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def confined(model, **options):
    """A run of ten steps whose channel is taken after two; returns the weights there, and the projection."""
    optimizer, projection = adam(model), SubspaceProjection(2, **options)
    projection.attach(model, optimizer, steps=10)
    walk(model, optimizer, 0, 2)
    branch = weights(model)
    walk(model, optimizer, 2, 10)
    return branch, projection


def test_after_the_branch_the_update_has_nothing_outside_its_channel(model):
    branch, projection = confined(model)
    for name, weight in weights(model).items():
        if is_projected(name):
            moved = (weight - branch[name]).double()
            assert moved.any()
            assert 1 - inside(moved, projection.bases[f"right.{name}"]) < 1e-6
    assert 0 < projection.share_inside < 1


@pytest.mark.parametrize("side", ["left", "both"])
def test_the_left_side_confines_the_columns(model, side):
    branch, projection = confined(model, side=side)
    name = next(name for name in branch if is_projected(name))
    moved = (weights(model)[name] - branch[name]).double()
    assert 1 - inside(moved.T, projection.bases[f"left.{name}"]) < 1e-6
    assert (f"right.{name}" in projection.bases) == (side == "both")


def test_it_is_the_constraint_of_the_study(model):
    _, projection = confined(model, constrain="gradient")
    other = build_model(SHAPE, character_tokenizer(), seed=0)
    optimizer = adam(other)
    walk(other, optimizer, 0, 2)
    bases = {key.removeprefix("right."): v for key, v in projection.bases.items()}
    constraint = SubspaceConstraint(other, bases, "gradient")
    optimizer.register_step_pre_hook(lambda *_: constraint.on_gradient())
    optimizer.register_step_post_hook(lambda *_: constraint.on_update())
    walk(other, optimizer, 2, 10)
    for name, weight in weights(other).items():
        assert torch.allclose(weights(model)[name], weight, atol=1e-6)


def test_before_the_branch_and_outside_the_matrices_training_is_free(model):
    free = build_model(SHAPE, character_tokenizer(), seed=0)
    walk(free, adam(free), 0, 2)
    branch, _ = confined(model)
    assert all(torch.equal(weight, branch[name]) for name, weight in weights(free).items())
    assert not torch.equal(weights(model)["lm_head.weight"], branch["lm_head.weight"])
    frozen = build_model(SHAPE, character_tokenizer(), seed=0)
    branch, _ = confined(frozen, others="frozen")
    assert torch.equal(weights(frozen)["lm_head.weight"], branch["lm_head.weight"])


def test_the_share_of_energy_sets_the_number_of_directions(model):
    optimizer, projection = adam(model), SubspaceProjection(energy=0.8)
    projection.attach(model, optimizer, steps=10)
    start = weights(model)
    walk(model, optimizer, 0, 2)
    branch = weights(model)
    name = next(name for name in branch if is_projected(name))
    delta_w, v_k = (branch[name] - start[name]).double(), projection.bases[f"right.{name}"]
    assert inside(delta_w, v_k[:, :-1]) < 0.8 <= inside(delta_w, v_k)


@pytest.mark.parametrize("at", [1, 5])
def test_a_run_that_resumes_ends_where_the_unbroken_one_does(model, tmp_path, at):
    confined(model)
    resumed = build_model(SHAPE, character_tokenizer(), seed=0)
    optimizer, projection = adam(resumed), SubspaceProjection(2)
    projection.attach(resumed, optimizer, steps=10)
    walk(resumed, optimizer, 0, at)
    projection.save(tmp_path)
    other = build_model(SHAPE, character_tokenizer(), seed=0)
    other.load_state_dict(resumed.state_dict())
    again, further = adam(other), SubspaceProjection(2)
    again.load_state_dict(optimizer.state_dict())
    further.load(tmp_path)
    further.attach(other, again, steps=10)
    walk(other, again, at, 10)
    assert all(torch.equal(weight, weights(model)[name]) for name, weight in weights(other).items())


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, "K is None"), ({"K": 2, "energy": 0.5}, "give one"), ({"K": 2, "after": 1.5}, "share of the run")],
)
def test_settings_that_contradict_are_refused(options, words):
    with pytest.raises(CompanionError, match=words):
        SubspaceProjection(**options)


def test_what_does_not_fit_the_model_is_refused(model, tmp_path):
    with pytest.raises(CompanionError, match="exceeds the shorter side"):
        SubspaceProjection(500).attach(model, adam(model), steps=10)
    with pytest.raises(CompanionError, match="does not exist"):
        SubspaceProjection(2).load(tmp_path)
    _, projection = confined(model)
    path = projection.save(tmp_path)
    wide = build_model(replace(SHAPE, hidden_size=64), character_tokenizer(), seed=0)
    other = SubspaceProjection(channel=path)
    with pytest.raises(CompanionError, match="another model"):
        other.attach(wide, adam(wide), steps=10)


def test_an_adapter_is_refused_and_frozen_matrices_stay_out(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    projection = SubspaceProjection(2)
    projection.attach(model, adam(model), steps=10)
    assert all("q_proj" in name for name in projection.names)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(CompanionError, match="A and B of an adapter"):
        SubspaceProjection(2).attach(adapted, adam(adapted), steps=10)


def test_a_channel_of_weights_that_are_not_finite_is_refused(model):
    optimizer = adam(model)
    SubspaceProjection(2).attach(model, optimizer, steps=10)
    walk(model, optimizer, 0, 1)
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(CompanionError, match="not finite after 2 steps"):
        walk(model, optimizer, 1, 2)


def test_a_channel_that_confines_less_than_the_whole_model_is_refused(model, tmp_path):
    early = SubspaceProjection(2)
    early.attach(model, adam(model), steps=10)
    with pytest.raises(CompanionError, match="before its channel was taken"):
        SubspaceProjection(channel=early.save(tmp_path))
    _, whole = confined(model)
    whole.bases = dict(list(whole.bases.items())[:1])
    part = SubspaceProjection(channel=whole.save(tmp_path))
    with pytest.raises(CompanionError, match="would train on freely"):
        part.attach(model, adam(model), steps=10)
