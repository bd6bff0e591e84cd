"""Objectives: the losses, advantages and gradients of transformers and TRL, and the paper's equations."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from accelerate import Accelerator
from tiny import MIX, OPD, RLVR, SFT, SUMS, draw, full_logits
from torch.nn import functional as F

from paper_lib.study.tasks import problems, seeded_generator
from paper_lib.training import train
from paper_lib.training.objectives import (
    clipped_loss,
    credit_weighted_loss,
    group_advantages,
    mixed_credit,
    retained,
    reverse_kl,
    token_gap,
)
from paper_lib.training.rollouts import encode_demonstrations, encode_prompts, token_log_probs
from paper_lib.training.train import Policy, advantage_scales, chunk_loss


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=seeded_generator("normal", seed, shape))


def lengths_mask(*lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_close_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    scale = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=2e-6 * scale, rtol=1e-4, msg=name)


def as_trl(batch):
    """A batch of ours as the inputs of a TRL trainer's loss."""
    group = batch.group_size
    return {
        "prompt_ids": batch.prompt_ids.repeat_interleave(group, 0),
        "prompt_mask": batch.prompt_mask.repeat_interleave(group, 0).long(),
        "completion_ids": batch.completion_ids,
        "completion_mask": batch.completion_mask.long(),
    }


@pytest.fixture
def rollouts(student, tokenizer):
    """Completions of the student for three prompts, four each, with advantages as though some were right."""
    batch = draw(student, tokenizer, ["?3+4=", "?12-5+88=", "?9-9="])
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 0])
    noise = torch.rand(batch.completion_ids.shape, generator=seeded_generator("noise"))
    return replace(batch, rewards=rewards, advantages=group_advantages(rewards, 4), noise=noise)


@pytest.fixture
def policy(student, teacher, tokenizer):
    return Policy(student=student, tokenizer=tokenizer, teacher=teacher)


@pytest.fixture
def grpo(student, tokenizer, tmp_path):
    """TRL's GRPO trainer, set to the paper's objective: clip 0.2/0.28, mean over tokens, no KL penalty."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(GRPOTrainer):
        def _send_telemetry(self):
            """Nothing leaves this machine."""

    prompts = ["?3+4=", "?12-5+88=", "?9-9="]
    trainer = Trainer(
        model=student,
        processing_class=tokenizer,
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts]),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=12,
            num_generations=4,
            max_completion_length=4,
            beta=0.0,
            loss_type="dapo",
            epsilon=0.2,
            epsilon_high=0.28,
            use_cpu=student.device.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


# SFT


def test_the_sft_loss_and_gradient_are_those_of_transformers(student, policy, tokenizer):
    chosen = problems(SUMS, split="train", number=6, seed=0)
    prompts = [p.prompt for p in chosen[:-1]] + ["?12-5+88="]
    texts = [p.demonstration for p in chosen[:-1]] + ["7+88=95"]
    batch = encode_demonstrations(tokenizer, prompts, texts)
    ids = torch.cat([batch.prompt_ids, batch.completion_ids], 1)
    mask = torch.cat([batch.prompt_mask, batch.completion_mask], 1)
    hidden = torch.cat([torch.zeros_like(batch.prompt_mask), batch.completion_mask], 1)
    theirs = student(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        labels=ids.masked_fill(~hidden, -100),
        use_cache=False,
    ).loss
    expected = gradients(student, theirs)
    tokens = float(batch.completion_mask.sum())
    ours = chunk_loss(policy, SFT, batch, tokens=tokens)
    torch.testing.assert_close(ours, theirs)
    assert_close_gradients(gradients(student, ours), expected)
    in_chunks = sum(chunk_loss(policy, SFT, chunk, tokens=tokens) for chunk in batch.chunks(10))
    torch.testing.assert_close(in_chunks, theirs)
    assert_close_gradients(gradients(student, in_chunks), expected)


def test_credit_one_is_the_cross_entropy():
    logits, mask = normal(3, 5, 7), lengths_mask(5, 2, 4)
    tokens = torch.randint(0, 7, (3, 5), generator=seeded_generator("tokens"))
    loss = credit_weighted_loss(token_log_probs(logits, tokens), torch.ones(3, 5), mask)
    torch.testing.assert_close(loss, F.cross_entropy(logits[mask], tokens[mask]))


# RLVR


def test_advantages_are_those_of_trls_trainer(grpo, monkeypatch):
    for rewards in (
        [1.0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 0],
        [1.0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0],
        [0.3, -2, 5, 0.1, 1e-3, 2e-3, 3e-3, 4e-3, 7, 7, 7, 7],
    ):
        monkeypatch.setattr(grpo, "reward_funcs", [lambda prompts, r=rewards, **_: r])
        inputs = [{"prompt": p} for p in ("?3+4=", "?12-5+88=", "?9-9=") for _ in range(4)]
        theirs = grpo._generate_and_score_completions(inputs)["advantages"]
        ours = group_advantages(torch.tensor(rewards), 4)
        torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-6, atol=1e-7)


def test_the_rlvr_loss_and_gradient_are_those_of_trls_trainer(grpo, student, policy, rollouts):
    tokens = rollouts.completion_mask.sum()
    inputs = {**as_trl(rollouts), "advantages": rollouts.advantages, "num_items_in_batch": tokens}
    theirs = grpo._compute_loss(student, inputs)
    expected = gradients(student, theirs)
    ours = chunk_loss(policy, RLVR, rollouts, tokens=float(tokens), off_policy=True)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert_close_gradients(gradients(student, ours), expected)
    plain = chunk_loss(policy, RLVR, rollouts, tokens=float(tokens))
    assert_close_gradients(gradients(student, plain), expected)


def test_the_clipped_loss_and_gradient_are_those_of_trls_trainer(grpo, student, policy, rollouts):
    moved = rollouts.log_probs + normal(*rollouts.log_probs.shape, seed=4, scale=0.4)
    ratio = (rollouts.log_probs - moved).exp()[rollouts.completion_mask]
    assert (ratio < 0.8).any()
    assert (ratio > 1.28).any()
    tokens = rollouts.completion_mask.sum()
    inputs = {**as_trl(rollouts), "advantages": rollouts.advantages, "num_items_in_batch": tokens}
    theirs = grpo._compute_loss(student, {**inputs, "old_per_token_logps": moved})
    expected = gradients(student, theirs)
    ours = chunk_loss(policy, RLVR, replace(rollouts, log_probs=moved), tokens=float(tokens), off_policy=True)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert_close_gradients(gradients(student, ours), expected)


def test_advantages_have_mean_zero_and_unit_deviation():
    rewards = normal(40, seed=1)
    advantages = group_advantages(rewards, 8, epsilon=0.0).view(-1, 8)
    torch.testing.assert_close(advantages.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages.std(1), torch.ones(5))
    shifted = group_advantages(3 * rewards + 2, 8, epsilon=0.0)
    torch.testing.assert_close(shifted, advantages.flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_a_group_of_one_reward_has_no_advantage(reward):
    rewards = torch.tensor([reward] * 7 + [0.0, 1, 1, 0, 1, 0, 0])
    advantages = group_advantages(rewards, 7)
    assert advantages[:7].abs().max() < 1e-3
    assert advantages[7:].abs().min() > 0.5


@pytest.mark.parametrize(("rewards", "group"), [(8, 3), (8, 1), (8, 0)])
def test_groups_that_do_not_divide_are_refused(rewards, group):
    with pytest.raises(ValueError, match=f"8 rewards do not divide into groups of {group}"):
        group_advantages(torch.zeros(rewards), group)


def test_at_ratio_one_the_clipped_gradient_is_the_unclipped():
    log_p = (-torch.rand(4, 6, generator=seeded_generator("p"))).requires_grad_()
    credit, mask = normal(4, 6), lengths_mask(6, 3, 1, 5)
    clipped = torch.autograd.grad(clipped_loss(log_p, log_p.detach(), credit, mask), log_p)[0]
    plain = torch.autograd.grad(credit_weighted_loss(log_p, credit, mask), log_p)[0]
    torch.testing.assert_close(clipped, plain)
    assert (plain[~mask] == 0).all()


def test_outside_the_clip_nothing_is_gained():
    ratio = torch.tensor([[0.5, 0.79, 0.81, 1.0, 1.27, 1.29, 3.0]])
    mask = torch.ones_like(ratio, dtype=torch.bool)
    for sign, bound, inside in ((1.0, 1.28, ratio < 1.28), (-1.0, 0.8, ratio > 0.8)):
        log_p = ratio.log().requires_grad_()
        credit = torch.full_like(ratio, sign)
        loss = clipped_loss(log_p, torch.zeros_like(ratio), credit, mask, tokens=1)
        slope = torch.autograd.grad(loss, log_p)[0]
        torch.testing.assert_close(slope, torch.where(inside, -sign * ratio, 0.0))
        assert (slope.abs() <= 3.0).all()
        reached = torch.minimum(ratio, torch.tensor(bound)) if sign > 0 else ratio.clamp(min=bound)
        torch.testing.assert_close(loss, -(sign * reached).sum())


# OPD


def test_reverse_kl_and_its_gradient_are_those_of_trls_distillation_trainer():
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    logits, teacher = normal(4, 6, 19, seed=1, scale=3), normal(4, 6, 19, seed=2, scale=3)
    mask = lengths_mask(6, 2, 1, 5)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    head = torch.eye(19)  # hidden states times this are the logits
    expected, *_ = _chunked_divergence_loss(theirs, teacher, head, head, mask, beta=1.0)
    found = reverse_kl(ours, teacher).masked_fill(~mask, 0).sum() / mask.sum()
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


def test_reverse_kl_is_that_of_trls_generalized_divergence():
    from trl.experimental.gkd import GKDTrainer

    logits, teacher = normal(4, 6, 19, seed=1, scale=3), normal(4, 6, 19, seed=2, scale=3)
    mask = lengths_mask(6, 2, 1, 5)
    labels = torch.zeros(4, 6, dtype=torch.long).masked_fill(~mask, -100)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = GKDTrainer.generalized_jsd_loss(theirs, teacher, labels=labels, beta=1)
    found = reverse_kl(ours, teacher).masked_fill(~mask, 0).sum() / mask.sum()
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_exact_opd_loss_is_the_mean_reverse_kl_of_full_forward_passes(
    student, teacher, policy, rollouts, temperature, monkeypatch
):
    run = replace(OPD, estimator="exact", temperature=temperature)
    tokens = float(rollouts.completion_mask.sum())
    ours = chunk_loss(policy, run, rollouts, tokens=tokens)
    log_p = (full_logits(student, rollouts) / temperature).log_softmax(-1)
    log_q = (full_logits(teacher, rollouts) / temperature).log_softmax(-1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    theirs = divergence[rollouts.completion_mask].mean()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    expected = gradients(student, theirs)
    assert_close_gradients(gradients(student, ours), expected)
    in_chunks = sum(chunk_loss(policy, run, chunk, tokens=tokens) for chunk in rollouts.chunks(12))
    assert_close_gradients(gradients(student, in_chunks), expected)
    monkeypatch.setattr("paper_lib.training.train.KL_ENTRIES", 1)  # as of a large vocabulary: row by row
    by_row = chunk_loss(policy, run, rollouts, tokens=tokens)
    assert torch.equal(by_row, ours)
    assert_close_gradients(gradients(student, by_row), expected)


def test_reverse_kl_is_positive_and_zero_where_the_distributions_agree():
    logits, teacher = normal(50, 9, seed=1, scale=4), normal(50, 9, seed=2, scale=4)
    assert (reverse_kl(logits, teacher) > 0).all()
    torch.testing.assert_close(reverse_kl(logits, logits + 3.0), torch.zeros(50), atol=1e-6, rtol=0)


def test_logits_of_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match=r"logits need one \(\.\.\., V\), got \(2, 9\), \(2, 8\)"):
        reverse_kl(torch.zeros(2, 9), torch.zeros(2, 8))


def test_the_mean_of_the_sampled_estimator_is_the_exact_gradient():
    """Two tokens from a vocabulary of 5: all 25 completions, each weighted by its probability."""
    size = 5
    tables = [normal(size, seed=1), normal(size, size, seed=2)]  # first token, second token given the first
    first, second = (table.clone().requires_grad_() for table in tables)
    teacher_first, teacher_second = normal(size, seed=3), normal(size, size, seed=4)
    sampled = [torch.zeros_like(table) for table in tables]
    exact = [torch.zeros_like(table) for table in tables]
    for a, b in product(range(size), repeat=2):
        tokens = torch.tensor([[a, b]])
        mask = torch.ones_like(tokens, dtype=torch.bool)
        logits = torch.stack([first, second[a]])[None]
        teacher = torch.stack([teacher_first, teacher_second[a]])[None]
        log_p = token_log_probs(logits, tokens)
        probability = float(log_p.detach().sum().exp())
        gap = token_gap(log_p, token_log_probs(teacher, tokens))
        loss = credit_weighted_loss(log_p, mixed_credit(gap, torch.zeros(1), 1.0), mask)
        divergence = reverse_kl(logits, teacher).mean()
        for sums, value in ((sampled, loss), (exact, divergence)):
            for total, gradient in zip(
                sums, torch.autograd.grad(value, (first, second), retain_graph=True), strict=True
            ):
                total += probability * gradient
    for ours, expected in zip(sampled, exact, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
        assert expected.abs().max() > 1e-2


def test_the_gap_has_no_gradient():
    log_p = normal(2, 3).requires_grad_()
    assert not token_gap(log_p, normal(2, 3, seed=1)).requires_grad


# The mix


def test_alpha_one_is_opd_and_alpha_zero_is_rlvr_to_the_bit(student, policy, rollouts):
    for alpha, run in ((1.0, OPD), (0.0, RLVR)):
        mixed = gradients(student, chunk_loss(policy, replace(MIX, alpha=alpha), rollouts, tokens=50.0))
        pure = gradients(student, chunk_loss(policy, run, rollouts, tokens=50.0))
        assert all(torch.equal(mixed[name], pure[name]) for name in pure)
        assert any(gradient.abs().max() > 0 for gradient in pure.values())


def test_the_mix_is_linear_in_alpha(student, policy, rollouts):
    runs = (OPD, RLVR, replace(MIX, alpha=0.25))
    opd, rlvr, mix = (gradients(student, chunk_loss(policy, r, rollouts, tokens=50.0)) for r in runs)
    assert_close_gradients(mix, {name: 0.25 * opd[name] + 0.75 * rlvr[name] for name in mix})


def test_a_mix_of_unit_scale_has_opd_and_rlvr_at_its_ends_up_to_their_scale():
    gap, advantages, scales = normal(3, 4), normal(3, seed=1), (0.3, 1.7)
    opd, rlvr = (mixed_credit(gap, advantages, alpha, scales=scales) for alpha in (1.0, 0.0))
    assert torch.equal(opd, -(gap / 0.3))
    assert torch.equal(rlvr, (advantages / 1.7)[:, None].expand(3, 4))


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.5, 1.0])
def test_a_mix_of_unit_scale_does_not_know_the_scale_of_either_advantage(alpha):
    gap, advantages, (opd, rlvr) = normal(3, 4), normal(3, seed=1), (0.3, 1.7)
    credit = mixed_credit(gap, advantages, alpha, scales=(opd, rlvr))
    rescaled = mixed_credit(8 * gap, advantages / 4, alpha, scales=(8 * opd, rlvr / 4))
    assert torch.equal(credit, rescaled)  # powers of two round nothing


def test_a_mix_of_unit_scale_is_opd_alone_where_no_group_has_variance():
    gap = normal(3, 4)
    credit = mixed_credit(gap, torch.zeros(3), 0.25, scales=(0.3, 0.0))
    assert torch.equal(credit, 0.25 * -(gap / 0.3))
    assert mixed_credit(torch.zeros(3, 4), torch.zeros(3), 0.25, scales=(0.0, 0.0)).eq(0).all()


@pytest.mark.parametrize("width", [2048, 20])
def test_the_scales_are_root_mean_squares_over_the_whole_batch(policy, rollouts, monkeypatch, width):
    monkeypatch.setattr(train, "CHUNK_TOKENS", width)  # one chunk, or several
    opd, rlvr = advantage_scales(policy, replace(MIX, mix_scale="unit"), rollouts, Accelerator())
    with torch.no_grad():
        ours, theirs = (full_logits(model, rollouts) for model in (policy.student, policy.teacher))
    mask, tokens = rollouts.completion_mask, rollouts.completion_ids
    gap = token_gap(token_log_probs(ours, tokens), token_log_probs(theirs, tokens))[mask]
    assert opd == pytest.approx(float(gap.square().mean().sqrt()), rel=1e-4)
    each = rollouts.advantages[:, None].expand(mask.shape)[mask]
    assert rlvr == pytest.approx(float(each.square().mean().sqrt()), rel=1e-5)


def test_an_alpha_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"alpha is 1\.2"):
        mixed_credit(torch.zeros(1, 2), torch.zeros(1), 1.2)


# Retention of tokens


@pytest.mark.parametrize("selection", ["top_gap", "random"])
@pytest.mark.parametrize("rho", [0.25, 0.5, 0.3, 1.0, 0.01])
def test_retention_keeps_its_share_of_every_response(selection, rho):
    lengths = (12, 1, 7, 4, 10)
    mask, gap = lengths_mask(*lengths), normal(5, 12)
    noise = torch.rand(5, 12, generator=seeded_generator("noise"))
    weight = retained(gap, mask, keep_fraction=rho, selection=selection, noise=noise)
    kept = weight > 0
    expected = [-(-round(100 * rho) * length // 100) for length in lengths]  # ⌈ρT⌉ in whole numbers
    assert kept.sum(1).tolist() == expected
    assert not kept[~mask].any()
    torch.testing.assert_close(weight.sum(1), torch.tensor(lengths).float())
    assert all(len(set(row[row > 0].tolist())) == 1 for row in weight)
    score = gap if selection == "top_gap" else noise
    for row in range(5):
        dropped = mask[row] & ~kept[row]
        assert not dropped.any() or score[row][kept[row]].min() >= score[row][dropped].max()


def test_retention_breaks_ties_by_position():
    weight = retained(torch.zeros(1, 6), lengths_mask(6), keep_fraction=0.5, selection="top_gap", noise=None)
    assert weight.tolist() == [[2.0, 2.0, 2.0, 0.0, 0.0, 0.0]]


def test_keeping_every_token_changes_nothing(student, policy, rollouts):
    pure = gradients(student, chunk_loss(policy, OPD, rollouts, tokens=50.0))
    for selection in ("top_gap", "random"):
        run = replace(OPD, token_selection=selection, keep_fraction=1.0)
        kept = gradients(student, chunk_loss(policy, run, rollouts, tokens=50.0))
        assert all(torch.equal(kept[name], pure[name]) for name in pure)


def test_retention_is_the_same_in_chunks(student, policy, rollouts):
    for selection in ("top_gap", "random"):
        run = replace(OPD, token_selection=selection, keep_fraction=0.5)
        whole = gradients(student, chunk_loss(policy, run, rollouts, tokens=50.0))
        parts = sum(chunk_loss(policy, run, chunk, tokens=50.0) for chunk in rollouts.chunks(12))
        assert_close_gradients(gradients(student, parts), whole)


def test_random_retention_needs_noise():
    with pytest.raises(ValueError, match="needs noise"):
        retained(torch.zeros(1, 2), lengths_mask(2), keep_fraction=0.5, selection="random", noise=None)


def test_a_response_without_tokens_keeps_none():
    mask = torch.tensor([[True, True], [False, False]])
    weight = retained(torch.ones(2, 2), mask, keep_fraction=0.5, selection="top_gap", noise=None)
    assert weight.tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_the_sampled_loss_weighs_log_probs_by_the_gap(student, teacher, policy, rollouts):
    mask = rollouts.completion_mask
    log_p = token_log_probs(full_logits(student, rollouts), rollouts.completion_ids)
    log_q = token_log_probs(full_logits(teacher, rollouts), rollouts.completion_ids)
    expected = ((log_p - log_q).detach() * log_p)[mask].sum() / 50
    ours = chunk_loss(policy, OPD, rollouts, tokens=50.0)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert_close_gradients(gradients(student, ours), gradients(student, expected))


def test_prompts_of_the_batch_are_the_ones_encoded(rollouts, tokenizer):
    ids, mask = encode_prompts(tokenizer, ["?3+4=", "?12-5+88=", "?9-9="])
    assert torch.equal(rollouts.prompt_ids, ids)
    assert torch.equal(rollouts.prompt_mask, mask)
