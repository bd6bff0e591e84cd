"""The loss of a chunk of a batch: the credit of the run's objective on the student's log-probabilities."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from paper_lib.batches import Batch, completion_logits, token_log_probs
from paper_lib.collection import Policy
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.objectives import (
    clipped_loss,
    credit_weighted_loss,
    mixed_credit,
    retained,
    reverse_kl,
    token_gap,
)

CHUNK_TOKENS = 2048  # completion positions in one forward and backward pass
Scales = tuple[float, float]  # RMS of OPD's and of RLVR's advantage


def chunk_loss(
    policy: Policy,
    run: RunConfig,
    chunk: Batch,
    *,
    tokens: float,
    off_policy: bool = False,
    scales: Scales | None = None,
) -> Tensor:
    """This chunk's part of the loss, whose denominator is `tokens`, the completion tokens of the whole batch.

    off_policy: the weights have moved since the batch was sampled, so the clipped surrogate takes over.
    scales: of the whole batch, for a mix that is normalised by them. Returns (), differentiable in the
    student's weights. Raises CompanionError where the objective needs a teacher and there is none.
    """
    logits = completion_logits(policy.student, chunk) / run.temperature
    mask = chunk.completion_mask
    teacher_logits = None
    if run.objective in ("opd", "mix"):
        teacher_logits = _teacher_logits(policy, run, chunk)
    if run.estimator == "exact":
        assert teacher_logits is not None
        return reverse_kl(logits, teacher_logits).masked_fill(~mask, 0.0).sum() / tokens
    log_p = token_log_probs(logits, chunk.completion_ids)
    credit = _credit(run, log_p, teacher_logits, chunk, scales)
    if off_policy and run.objective != "sft":
        assert chunk.log_probs is not None
        return clipped_loss(log_p, chunk.log_probs, credit, mask, clip=run.clip, tokens=tokens)
    return credit_weighted_loss(log_p, credit, mask, tokens=tokens)


@torch.no_grad()
def _teacher_logits(policy: Policy, run: RunConfig, chunk: Batch) -> Tensor:
    if policy.teacher is None:
        raise CompanionError(f"run {run.name}: objective {run.objective} needs a teacher, and none was given")
    return completion_logits(policy.teacher, chunk) / run.temperature


def _credit(
    run: RunConfig, log_p: Tensor, teacher_logits: Tensor | None, chunk: Batch, scales: Scales | None
) -> Tensor:
    if run.objective == "sft":
        return torch.ones_like(log_p)
    gap = torch.zeros_like(log_p)
    if teacher_logits is not None:
        gap = token_gap(log_p, token_log_probs(teacher_logits, chunk.completion_ids))
    none = torch.zeros(len(log_p), device=log_p.device)
    advantages = none if chunk.advantages is None else chunk.advantages
    alpha = {"opd": 1.0, "rlvr": 0.0}.get(run.objective, run.alpha)
    credit = mixed_credit(gap, advantages, alpha, scales=scales)
    if run.token_selection == "all":
        return credit
    return credit * retained(
        gap,
        chunk.completion_mask,
        keep_fraction=run.keep_fraction,
        selection=run.token_selection,
        noise=chunk.noise,
    )


def advantage_scales(policy: Policy, run: RunConfig, batch: Batch, accelerator: Accelerator) -> Scales:
    """RMS of −r_t and of A over all completion tokens of a step's batch, those of other processes included.

    The loss works through the batch in chunks, so this comes before it: the student's log-probabilities are
    those that its rollouts were sampled with, the teacher's take one more forward pass.
    """
    assert batch.log_probs is not None
    assert batch.advantages is not None
    sums = torch.zeros(3, dtype=torch.float64, device=policy.student.device)
    for chunk in batch.chunks(CHUNK_TOKENS):
        assert chunk.log_probs is not None
        assert chunk.advantages is not None
        mask = chunk.completion_mask
        teacher_log_p = token_log_probs(_teacher_logits(policy, run, chunk), chunk.completion_ids)
        gap = token_gap(chunk.log_probs, teacher_log_p).masked_fill(~mask, 0.0)
        by_row = chunk.advantages.double().square() * mask.sum(1)
        sums += torch.stack([gap.double().square().sum(), by_row.sum(), mask.sum().double()])
    opd, rlvr, tokens = accelerator.reduce(sums, reduction="sum").tolist()
    return math.sqrt(opd / tokens), math.sqrt(rlvr / tokens)
