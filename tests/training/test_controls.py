"""Controls of training: what is frozen keeps its bits, and chance deals out what learning would use."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tiny import OPD, RLVR, SFT, SHAPE, TINY

from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import Projection
from paper_lib.study.tasks import seeded_generator
from paper_lib.training import train
from paper_lib.training.confinement import SubspaceConstraint, is_projected, project_right, random_subspace
from paper_lib.training.manifest import planned_parts, read_manifest
from paper_lib.training.models import build_model
from paper_lib.training.objectives import credit_weighted_loss, group_advantages, shuffled
from paper_lib.training.rollouts import encode_demonstrations
from paper_lib.training.starts import Study, constraint_of
from paper_lib.training.train import (
    Optimization,
    Policy,
    chunk_loss,
    collect,
    drawn_rewards,
    informative,
    shuffled_credit,
    train_steps,
)

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def policy(student, teacher, tokenizer):
    return Policy(student=student, tokenizer=tokenizer, teacher=teacher)


def trained(run, tokenizer, teacher, constraint_for, steps=3):
    """Parameters before and after some steps from a random student, and the constraint."""
    student = build_model(SHAPE, tokenizer, seed=0)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    policy = Policy(student=student, tokenizer=tokenizer, teacher=teacher)
    constraint = constraint_for(student)
    optimization = Optimization(policy, run, Accelerator(), constraint)
    train_steps(optimization, 0, 0, steps, record=lambda step, values: None)
    return before, dict(student.named_parameters()), constraint


# What is frozen


NOTHING = Projection(basis="none", K=0, constrain="update")
RUNS = [
    (replace(SFT, weight_decay=0.5, frozen="others"), False),
    (replace(OPD, frozen="others"), False),
    (replace(OPD, branch=("opd", 2), projection=NOTHING), True),
    (replace(SFT, branch=("sft", 2), projection=NOTHING, weight_decay=0.5), True),
]


@pytest.mark.parametrize(("run", "matrices"), RUNS)
def test_what_is_frozen_keeps_its_bits_and_the_rest_trains_on(run, matrices, tokenizer, teacher):
    """K = 0 freezes the projection matrices, `frozen` all others."""
    study = Study(profile=TINY, data_dir=Path("nowhere"))
    before, after, _ = trained(run, tokenizer, teacher, lambda student: constraint_of(study, run, 0, student))
    for name, parameter in after.items():
        assert torch.equal(parameter, before[name]) == (is_projected(name) == matrices), name


def test_the_first_step_of_what_is_free_is_that_of_free_training(tokenizer, teacher):
    def frozen(student):
        return SubspaceConstraint(student, {}, "update", [n for n in before if not is_projected(n)])

    before, free, _ = trained(SFT, tokenizer, teacher, lambda student: None, steps=1)
    _, ours, _ = trained(SFT, tokenizer, teacher, frozen, steps=1)
    assert all(torch.equal(ours[n], free[n] if is_projected(n) else before[n]) for n in before)


def test_without_a_direction_the_gradient_is_zero_and_decay_still_shrinks_the_matrices(tokenizer, teacher):
    study, run = Study(profile=TINY, data_dir=Path("nowhere")), replace(RUNS[-1][0], schedule="constant")
    run = replace(run, warmup_fraction=0.0, projection=replace(NOTHING, constrain="gradient"))
    before, after, constraint = trained(
        run, tokenizer, teacher, lambda student: constraint_of(study, run, 0, student), steps=3
    )
    for name in filter(is_projected, before):
        shrunk = before[name] * (1 - run.learning_rate * run.weight_decay) ** 3
        torch.testing.assert_close(after[name].detach(), shrunk)
    assert constraint.share_inside == 0


def test_matrices_are_confined_while_all_else_is_frozen(tokenizer, teacher):
    bases = {}

    def confined(student):
        for name, p in student.named_parameters():
            if is_projected(name):
                bases[name] = random_subspace(p.shape[1], 2, seeded_generator(name))
        others = [n for n, _ in student.named_parameters() if n not in bases]
        return SubspaceConstraint(student, bases, "update", others)

    before, after, _ = trained(SFT, tokenizer, teacher, confined)
    for name, parameter in after.items():
        delta = (parameter - before[name]).detach()
        inside = project_right(delta, bases[name].float()) if name in bases else torch.zeros_like(delta)
        torch.testing.assert_close(delta, inside, atol=1e-6, rtol=0)
        assert (delta != 0).any() == (name in bases), name


# What is left to chance


@pytest.mark.parametrize("shape", [(3, 4), (5, 2), (1, 9)], ids=str)
def test_shuffled_credit_is_the_same_credits_on_the_same_tokens(shape):
    generator = seeded_generator("credit", shape)
    credit, mask = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator) < 0.7
    dealt = shuffled(credit, mask, seeded_generator(0))
    torch.testing.assert_close(dealt[mask].sort().values, credit[mask].sort().values, atol=0, rtol=0)
    assert (dealt[~mask] == 0).all()
    assert torch.equal(dealt, shuffled(credit, mask, seeded_generator(0)))


def test_every_token_is_as_likely_to_get_a_credit():
    credit, mask = (
        torch.tensor([[1.0, 0, 0], [0, 0, 0]]),
        torch.tensor([[True, True, False], [True, True, True]]),
    )
    generator = seeded_generator("likely")
    mean = sum(shuffled(credit, mask, generator) for _ in range(4000)) / 4000
    torch.testing.assert_close(mean, mask.float() / 5, atol=4 * (0.16 / 4000) ** 0.5, rtol=0)


def test_the_loss_of_shuffled_credit_has_opds_tokens_and_the_dealt_credits(policy):
    run = replace(OPD, name="opd_shuffled_credit", chance="credit")
    batch = collect(policy, run, 0, 0)
    plain = collect(policy, replace(run, chance=None), 0, 0)
    assert torch.equal(batch.completion_ids, plain.completion_ids)
    dealt = replace(batch, credit=shuffled_credit(policy, run, batch, seeded_generator(0)))
    tokens = float(batch.completion_mask.sum())
    whole = chunk_loss(policy, run, dealt, tokens=tokens)
    expected = credit_weighted_loss(batch.log_probs, dealt.credit, batch.completion_mask)
    torch.testing.assert_close(whole, expected)
    parts = sum(chunk_loss(policy, run, part, tokens=tokens) for part in dealt.chunks(8))
    torch.testing.assert_close(parts, whole)
    assert float(whole.detach()) != pytest.approx(
        float(chunk_loss(policy, OPD, batch, tokens=tokens).detach())
    )


def test_drawn_rewards_keep_the_rate_and_their_advantages_the_mean_zero():
    reward = torch.tensor([1.0, 1, 1, 0]).repeat(500)
    drawn = drawn_rewards(reward, seeded_generator(0))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(float(drawn.mean()) - 0.75) < 4 * (0.75 * 0.25 / 2000) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([drawn, reward]))[0, 1])) < 4 / 2000**0.5
    means = group_advantages(drawn, 8).view(-1, 8).mean(1)
    torch.testing.assert_close(means, torch.zeros(250), atol=1e-6, rtol=0)
    for only in (torch.zeros(8), torch.ones(8)):
        assert torch.equal(drawn_rewards(only, seeded_generator(1)), only)


def test_rlvr_learns_from_the_groups_that_chance_makes_differ(policy, monkeypatch):
    """The answers are all of one kind in each group; the drawn rewards are not."""
    monkeypatch.setattr(train, "rewards", lambda *_: torch.tensor([1.0] * 4 + [0.0] * 4))
    assert informative(collect(policy, RLVR, 0, 0), RLVR) is None
    run = replace(RLVR, name="rlvr_random_reward", chance="reward")
    batches = [collect(policy, run, 0, step) for step in range(4)]
    assert any(informative(batch, run) is not None for batch in batches)
    for batch in batches:
        torch.testing.assert_close(batch.advantages, group_advantages(batch.rewards, 4), atol=0, rtol=0)


# The runs


def test_copies_of_demonstrations_have_the_loss_of_one(policy, tokenizer):
    prompts, answers = ["?3+4=", "?12-5="], ["7", "7"]
    once, copied = (encode_demonstrations(tokenizer, n * prompts, n * answers) for n in (1, 8))
    one, eight = (
        chunk_loss(policy, SFT, batch, tokens=float(batch.completion_mask.sum())) for batch in (once, copied)
    )
    torch.testing.assert_close(one, eight)


def test_every_committed_row_is_still_of_what_the_profile_plans():
    profile = get_profile("reference")
    study = Study(profile=profile, data_dir=DATA)
    held = read_manifest(study.results)
    planned = planned_parts(profile, study.fingerprints(held.models))
    assert held.parts
    assert all(held.holds(key, planned[key]) for key in held.parts)
