"""Subnetworks: outside the mask no weight ever moves, inside it moves as in free training."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from tiny import OPD, SFT, SHAPE

from paper_lib.study.tasks import seeded_generator
from paper_lib.training.confinement import SubnetworkConstraint, is_projected, random_mask
from paper_lib.training.models import build_model
from paper_lib.training.train import Optimization, Policy, train_steps

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
    with pytest.raises(ValueError, match=r"mask of nothing has shape \(2, 2\), the model no parameter"):
        SubnetworkConstraint(student, {"nothing": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"has shape \(2, 2\), the model \(19, 32\)"):
        SubnetworkConstraint(student, {"lm_head.weight": torch.ones(2, 2, dtype=torch.bool)})
