"""Confinement: to a subspace, idempotent and never longer (§4.2); to a subnetwork, to the bit outside it."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from tiny import EARLY, OPD, SFT, SHAPE

from paper_lib.geometry.subspaces import top_right_singular_vectors
from paper_lib.study.run_config import Projection
from paper_lib.study.tasks import seeded_generator
from paper_lib.training.confinement import (
    PROJECTED,
    SubnetworkConstraint,
    SubspaceConstraint,
    is_projected,
    project_right,
    random_mask,
    random_subspace,
)
from paper_lib.training.models import build_model
from paper_lib.training.train import Optimization, Policy, train_steps

SHAPES = [(24, 16), (16, 24), (20, 20)]  # tall, wide, square


def normal(*shape, seed=0):
    generator = seeded_generator("projection", seed, shape)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def bases_of(model, K=2, seed=0):
    return {
        name: random_subspace(weight.shape[1], K, seeded_generator(seed, name))
        for name, weight in model.named_parameters()
        if is_projected(name)
    }


def share_outside(delta, v_k):
    """‖Δ (I − V Vᵀ)‖ / ‖Δ‖"""
    delta = delta.detach().double()
    return float((delta - project_right(delta, v_k)).norm() / delta.norm())


def train(tokenizer, constrain, *, steps=6, **changes):
    """A short SFT run in random subspaces: weights before and after, the bases, and the recorded values."""
    student = build_model(SHAPE, tokenizer, seed=0)
    bases, recorded = bases_of(student), []
    run = replace(SFT, steps=steps, snapshot_every=steps, schedule="constant", warmup_fraction=0.0, **changes)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    constraint = SubspaceConstraint(student, bases, constrain)
    policy = Policy(student=student, tokenizer=tokenizer)
    optimization = Optimization(policy, run, Accelerator(), constraint)
    train_steps(
        optimization,
        0,
        0,
        steps,
        record=lambda step, values: recorded.append(constraint.share_inside),
    )
    return before, dict(student.named_parameters()), bases, recorded


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("K", [1, 3, 16])
def test_projecting_twice_is_projecting_once_and_never_lengthens(shape, K):
    gradient, v_k = normal(*shape), random_subspace(shape[1], K, seeded_generator(K))
    once = project_right(gradient, v_k)
    torch.testing.assert_close(project_right(once, v_k), once)
    assert (once.norm(dim=1) <= gradient.norm(dim=1) * (1 + 1e-12)).all()
    torch.testing.assert_close(
        (once * (gradient - once)).sum(1), torch.zeros(shape[0]).double(), atol=1e-12, rtol=0
    )
    assert torch.linalg.matrix_rank(once) <= K
    complete = random_subspace(shape[1], shape[1], seeded_generator("whole"))
    torch.testing.assert_close(project_right(gradient, complete), gradient)


def test_the_projection_is_linear_and_keeps_what_lies_inside():
    v_k = random_subspace(16, 3, seeded_generator(0))
    inside = normal(24, 3) @ v_k.T
    torch.testing.assert_close(project_right(inside, v_k), inside)
    a, b = normal(24, 16, seed=1), normal(24, 16, seed=2)
    both = project_right(2 * a - b, v_k)
    torch.testing.assert_close(both, 2 * project_right(a, v_k) - project_right(b, v_k))


def test_a_random_subspace_is_orthonormal_seeded_and_uniform():
    v_k = random_subspace(16, 5, seeded_generator(0))
    torch.testing.assert_close(v_k.T @ v_k, torch.eye(5).double(), atol=1e-12, rtol=0)
    assert torch.equal(v_k, random_subspace(16, 5, seeded_generator(0)))
    generator = seeded_generator("uniform")
    mean = sum(v @ v.T for v in (random_subspace(6, 2, generator) for _ in range(2000))) / 2000
    torch.testing.assert_close(mean, torch.eye(6).double() / 3, atol=0.03, rtol=0)


@pytest.mark.parametrize("K", [0, 17])
def test_more_directions_than_dimensions_are_refused(K):
    with pytest.raises(ValueError, match=f"K is {K}, expected 1 <= K <= 16"):
        random_subspace(16, K, seeded_generator(0))


def test_the_seven_matrices_of_every_layer_are_projected(student):
    names = [name for name, _ in student.named_parameters() if is_projected(name)]
    assert len(names) == len(PROJECTED) * SHAPE.layers
    assert not any("norm" in name or "embed" in name or "lm_head" in name for name in names)
    for layer in range(SHAPE.layers):
        for module in PROJECTED:
            assert sum(f"layers.{layer}." in n and f".{module}." in n for n in names) == 1


def test_an_unknown_parameter_is_refused(student):
    with pytest.raises(ValueError, match=r"no parameter named .model\.layers\.7\.q. in the model"):
        SubspaceConstraint(student, {"model.layers.7.q": torch.eye(3)}, "gradient")


@pytest.mark.parametrize("constrain", ["gradient", "update", "both"])
def test_only_the_gradients_asked_for_are_projected(student, constrain):
    bases = bases_of(student)
    constraint = SubspaceConstraint(student, bases, constrain)
    for name, parameter in student.named_parameters():
        parameter.grad = normal(*parameter.shape, seed=name).float()
    before = {name: p.grad.clone() for name, p in student.named_parameters()}
    constraint.on_gradient()
    for name, parameter in student.named_parameters():
        if name in bases and constrain != "update":
            expected = project_right(before[name].double(), bases[name]).float()
            torch.testing.assert_close(parameter.grad, expected)
        else:
            assert torch.equal(parameter.grad, before[name])


@pytest.mark.parametrize("constrain", ["update", "both"])
def test_a_constrained_update_stays_in_the_subspace(tokenizer, constrain):
    before, after, bases, _ = train(tokenizer, constrain, learning_rate=1e-2)
    for name, v_k in bases.items():
        assert share_outside(after[name] - before[name], v_k) < 1e-4, name


def test_a_constrained_gradient_does_not_confine_the_update(tokenizer):
    """Adam scales every entry by itself and the decay shrinks W, so the update leaves span(V_K)."""
    before, after, bases, inside = train(tokenizer, "gradient")
    outside = [share_outside(after[name] - before[name], v_k) for name, v_k in bases.items()]
    assert min(outside) > 0.1
    assert max(inside) < 0.99


def test_free_parameters_train_on(tokenizer):
    before, after, bases, _ = train(tokenizer, "both")
    free = [name for name in before if name not in bases]
    assert free
    assert all(not torch.equal(after[name], before[name]) for name in free)


def test_weight_decay_alone_leaves_the_subspace(tokenizer):
    student = build_model(SHAPE, tokenizer, seed=0)
    bases = bases_of(student)
    for constrain, expected in (("gradient", 0.5), ("update", 0.0)):
        constraint = SubspaceConstraint(student, bases, constrain)
        before = {name: p.detach().clone() for name, p in student.named_parameters()}
        constraint.on_gradient()
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(0.99)
        constraint.on_update()
        outside = [
            share_outside(p - before[n], bases[n]) for n, p in student.named_parameters() if n in bases
        ]
        assert min(outside) >= expected if expected else max(outside) < 1e-3


def test_the_share_inside_is_that_of_the_proposed_update(tokenizer):
    student = build_model(SHAPE, tokenizer, seed=0)
    name = "model.layers.0.mlp.up_proj.weight"
    weight = dict(student.named_parameters())[name]
    v_k = random_subspace(32, 2, seeded_generator(0))
    constraint = SubspaceConstraint(student, {name: v_k}, "update")
    constraint.on_gradient()
    step = normal(*weight.shape, seed=3)
    with torch.no_grad():
        weight += step.float()
    constraint.on_update()
    expected = float(project_right(step, v_k).square().sum() / step.square().sum())
    assert constraint.share_inside == pytest.approx(expected, rel=1e-3)


def test_the_whole_space_constrains_nothing(tokenizer):
    student = build_model(SHAPE, tokenizer, seed=0)
    free = build_model(SHAPE, tokenizer, seed=0)
    whole = {
        n: top_right_singular_vectors(w, min(w.shape))
        for n, w in student.named_parameters()
        if is_projected(n)
    }
    whole = {n: v for n, v in whole.items() if v.shape[0] == v.shape[1]}
    assert whole
    run = replace(SFT, steps=3, snapshot_every=3)
    for model, constraint in ((student, SubspaceConstraint(student, whole, "update")), (free, None)):
        optimization = Optimization(
            Policy(student=model, tokenizer=tokenizer), run, Accelerator(), constraint
        )
        train_steps(optimization, 0, 0, 3, record=lambda step, values: None)
    for ours, theirs in zip(student.parameters(), free.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_projection_is_part_of_the_configuration():
    assert EARLY.projection == Projection(basis="early", K=2)
    assert EARLY.projection.constrain == "gradient"  # the paper's


# Subnetworks

SGD = replace(SFT, name="sgd", sgd_momentum=0.9, learning_rate=0.1, weight_decay=0.2)


def masks_of(student, share=0.2):
    return {
        name: random_mask(p.shape, round(share * p.numel()), seeded_generator("mask", name))
        for name, p in student.named_parameters()
        if is_projected(name)
    }


def trained(run, tokenizer, teacher, masks=None, steps=2):
    student = build_model(SHAPE, tokenizer, seed=0)
    constraint = None if masks is None else SubnetworkConstraint(student, masks)
    policy = Policy(student=student, tokenizer=tokenizer, teacher=teacher)
    train_steps(
        Optimization(policy, run, Accelerator(), constraint), 0, 0, steps, record=lambda step, values: None
    )
    return dict(student.named_parameters()), constraint


@pytest.mark.parametrize("run", [replace(SFT, weight_decay=0.5), OPD, SGD], ids=lambda run: run.name)
def test_nothing_outside_the_mask_moves_by_a_bit(run, tokenizer, teacher):
    start = dict(build_model(SHAPE, tokenizer, seed=0).named_parameters())
    masks = masks_of(build_model(SHAPE, tokenizer, seed=0))
    end, constraint = trained(run, tokenizer, teacher, masks)
    for name, parameter in end.items():
        moved = parameter != start[name]
        if name not in masks:
            assert moved.any(), name
            continue
        assert not moved[~masks[name]].any(), name
        assert moved[masks[name]].float().mean() > 0.9, name
    assert 0.05 < constraint.share_inside < 0.6


@pytest.mark.parametrize("run", [SFT, SGD], ids=lambda run: run.name)
def test_the_first_step_inside_the_mask_is_that_of_free_training(run, tokenizer, teacher):
    masks = masks_of(build_model(SHAPE, tokenizer, seed=0))
    (ours, _), (free, _) = (trained(run, tokenizer, teacher, m, steps=1) for m in (masks, None))
    for name, parameter in ours.items():
        inside = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[inside], free[name][inside]), name


def test_a_mask_of_everything_is_free_training_and_one_of_nothing_leaves_the_matrices(tokenizer, teacher):
    student = build_model(SHAPE, tokenizer, seed=0)
    (full, constraint), (free, _) = (
        trained(SFT, tokenizer, teacher, masks) for masks in (masks_of(student, 1.0), None)
    )
    assert all(torch.equal(full[name], free[name]) for name in free)
    assert constraint.share_inside == 1
    (none, constraint), start = trained(SFT, tokenizer, teacher, masks_of(student, 0.0)), student
    assert all(torch.equal(none[n], p) for n, p in start.named_parameters() if is_projected(n))
    assert constraint.share_inside == 0


def test_a_random_mask_has_its_size_and_every_entry_the_same_chance():
    counts = sum(
        random_mask(torch.Size((5, 8)), 10, seeded_generator("chance", i)).int() for i in range(4000)
    )
    assert all(int(random_mask(torch.Size((3, 7)), n, seeded_generator(n)).sum()) == n for n in (0, 1, 21))
    deviation = (4000 * 0.25 * 0.75) ** 0.5
    assert (counts - 1000).abs().max() < 4.5 * deviation


def test_a_mask_that_fits_no_parameter_is_refused(student):
    with pytest.raises(ValueError, match="no parameter named 'nothing' in the model"):
        SubnetworkConstraint(student, {"nothing": torch.ones(2, 2, dtype=torch.bool)})
