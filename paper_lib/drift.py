"""Gate I: how far a policy has moved, as the KL divergence between the start's distributions and its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from paper_lib.batches import Batch, completion_logits
from paper_lib.objectives import exact_kl
from paper_lib.rollouts import sample
from paper_lib.tasks import seeded_generator

CHUNK = 8192  # completion positions at once
Measured = dict[str, float]


@torch.no_grad()
def sequence_kl(p: PreTrainedModel, q: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Σ_t KL(p(· | x, y_<t) ‖ q(· | x, y_<t)) over the tokens of each completion, and their number.

    Returns (P, G) twice, float64: over completions that p sampled, the first is an unbiased estimate of the
    KL between the two distributions of whole completions, without the noise of the sampled tokens'
    log-ratios.
    """
    total, count = (torch.zeros(batch.completion_ids.shape[0], dtype=torch.float64) for _ in range(2))
    step = max(1, CHUNK // (batch.group_size * batch.completion_ids.shape[1]))
    prompts = torch.arange(len(batch.prompt_ids), device=batch.prompt_ids.device)
    for chosen in prompts.split(step):
        part = batch.select(chosen)
        kl = exact_kl(completion_logits(p, part), completion_logits(q, part))
        first = int(chosen[0]) * batch.group_size
        rows = slice(first, first + len(kl))
        total[rows] = kl.masked_fill(~part.completion_mask, 0.0).sum(1).cpu()
        count[rows] = part.completion_mask.sum(1).double().cpu()
    return total.view(-1, batch.group_size), count.view(-1, batch.group_size)


def mean_kl(kl: Tensor, tokens: Tensor) -> tuple[Measured, Measured]:
    """Means per token and per sequence, and their standard errors over prompts drawn at random.

    kl, tokens: (P, G) of `sequence_kl`. The completions of a prompt count together, and the mean per token,
    a ratio of two sums, has the error of its linearisation. Returns ({"token", "sequence"}, the same of the
    errors), which are NaN for a single prompt.
    """
    sums, sizes, prompts = kl.sum(1), tokens.sum(1), len(kl)
    rate = sums.sum() / sizes.sum()
    means = {"token": rate.item(), "sequence": kl.mean().item()}
    scale = math.sqrt(prompts / (prompts - 1)) if prompts > 1 else math.nan
    errors = {
        "token": scale * torch.linalg.vector_norm(sums - rate * sizes).item() / sizes.sum().item(),
        "sequence": scale * torch.linalg.vector_norm(kl.mean(1) - kl.mean()).item() / prompts,
    }
    return means, errors


def policy_drift(
    start: PreTrainedModel,
    now: PreTrainedModel,
    prompts: tuple[Tensor, Tensor],
    *,
    samples: int,
    max_new_tokens: int,
    pad_id: int,
    end_id: int,
    seed: object,
) -> dict[str, float]:
    """KL(π_0 ‖ π_t) on completions of π_0, "forward", and KL(π_t ‖ π_0) on completions of π_t, "reverse".

    prompts: ids and mask, (P, L), of held-out problems; samples: completions of each, at temperature 1, both
    policies with the same uniform numbers. Returns forward_kl, reverse_kl (nats a token, exact over the
    vocabulary), forward_kl_sequence, reverse_kl_sequence (nats a completion), and each with _se.
    """
    found: dict[str, float] = {}
    for name, (p, q) in {"forward": (start, now), "reverse": (now, start)}.items():
        generator = seeded_generator("drift", seed)
        batch = sample(
            *(p, *prompts),
            samples=samples,
            max_new_tokens=max_new_tokens,
            pad_id=pad_id,
            end_id=end_id,
            generator=generator,
        )
        means, errors = mean_kl(*sequence_kl(p, q, batch))
        for unit, suffix in (("token", ""), ("sequence", "_sequence")):
            found[f"{name}_kl{suffix}"] = means[unit]
            found[f"{name}_kl{suffix}_se"] = errors[unit]
    return found
