"""Rollouts: completions sampled with a key-value cache, and the rewards that the verifier gives them."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.batches import Batch
from paper_lib.tasks import Problem, verify


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    samples: int,
    max_new_tokens: int,
    pad_id: int,
    end_id: int,
    generator: Generator | None,
    temperature: float = 1.0,
    part: tuple[int, int] = (0, 1),
) -> Batch:
    """`samples` completions of each prompt; greedy when the generator is None.

    One uniform number a row and position decides the token (inverse of the cumulative distribution), so a
    row's sample depends neither on the other rows nor on when they finish. Finished rows are dropped from
    the batch, the prompt is run once for all its samples. `part` (i of n) says which of n equal shares of a
    larger draw this is.
    """
    device, count = prompt_ids.device, prompt_ids.shape[0] * samples
    uniforms = None
    if generator is not None:
        drawn = torch.rand(part[1] * count, max_new_tokens, generator=generator, dtype=torch.float64)
        uniforms = drawn[part[0] * count : (part[0] + 1) * count].to(device)
    tokens = torch.full((count, max_new_tokens), pad_id, device=device)
    log_probs = torch.zeros(count, max_new_tokens, device=device)
    mask = torch.zeros(count, max_new_tokens, dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    positions = (prompt_mask.cumsum(1) - 1).clamp(min=0)
    logits = (
        model(
            input_ids=prompt_ids,
            attention_mask=prompt_mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        .logits[:, -1]
        .repeat_interleave(samples, 0)
    )
    cache.batch_repeat_interleave(samples)
    seen = prompt_mask.repeat_interleave(samples, 0)
    position = positions[:, -1].repeat_interleave(samples, 0)
    active = torch.arange(count, device=device)
    running = torch.ones(count, dtype=torch.bool, device=device)
    for t in range(max_new_tokens):
        log_p = F.log_softmax(logits.float() / temperature, -1)
        chosen = log_p.argmax(-1) if uniforms is None else _invert(log_p, uniforms[active, t])
        tokens[active, t] = torch.where(running, chosen, pad_id)
        log_probs[active, t] = torch.where(running, log_p.gather(-1, chosen[:, None])[:, 0], 0.0)
        mask[active, t] = running
        running = running & (chosen != end_id)
        left = int(running.sum())
        if left == 0 or t + 1 == max_new_tokens:
            break
        if left <= 0.9 * len(active):
            kept = running.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            active, seen, position, chosen, running = (
                x[kept] for x in (active, seen, position, chosen, running)
            )
        position = position + 1
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        logits = model(
            input_ids=chosen[:, None],
            attention_mask=seen,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    width = t + 1
    return Batch(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=tokens[:, :width],
        completion_mask=mask[:, :width],
        log_probs=log_probs[:, :width],
    )


def _invert(log_p: Tensor, uniform: Tensor) -> Tensor:
    cumulative = log_p.double().exp().cumsum(-1)
    chosen = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]
    return chosen.clamp(max=log_p.shape[-1] - 1)


def rewards(tokenizer: PreTrainedTokenizerBase, batch: Batch, problems: Sequence[Problem]) -> Tensor:
    """1 where the completion ended and its answer is right, else 0: (P * G,), float32."""
    ended = (batch.completion_ids == tokenizer.eos_token_id).any(1).tolist()
    # Padding that a model wrote itself stays in the text: it is no part of a right answer.
    texts = [text.split(tokenizer.eos_token)[0] for text in tokenizer.batch_decode(batch.completion_ids)]
    group = batch.group_size
    right = [
        e and verify(text, problems[row // group])
        for row, (e, text) in enumerate(zip(ended, texts, strict=True))
    ]
    return torch.tensor(right, dtype=torch.float32, device=batch.completion_ids.device)
