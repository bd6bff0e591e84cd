"""Batches of prompts with their completions: encoded, cut into chunks, scored with each prompt run once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Batch:
    """P prompts with G completions each; completion row p * G + g belongs to prompt p.

    prompt_ids, prompt_mask: (P, L) padded on the left. completion_ids, completion_mask: (P * G, T) padded
    on the right, the mask covering the end mark. Row-wise extras, where known: log_probs (P * G, T) of the
    sampled tokens under the policy that sampled them, rewards (P * G,), advantages (P * G,), noise (P * G,
    T) uniform in [0, 1).
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    log_probs: Tensor | None = None
    rewards: Tensor | None = None
    advantages: Tensor | None = None
    noise: Tensor | None = None

    @property
    def group_size(self) -> int:
        return self.completion_ids.shape[0] // self.prompt_ids.shape[0]

    def select(self, prompts: Tensor) -> "Batch":
        """The given prompts with all their completions, cut to the longest prompt and completion among
        them. prompts: (n,), int64, places in the batch. Returns a batch of n prompts, n · G completions."""
        group = torch.arange(self.group_size, device=prompts.device)
        rows = (prompts[:, None] * self.group_size + group).flatten()
        left = int(self.prompt_mask.shape[1] - self.prompt_mask[prompts].sum(1).max())
        length = int(self.completion_mask[rows].sum(1).max())
        chosen = {}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if value is None:
                continue
            if name.startswith("prompt"):
                chosen[name] = value[prompts, left:]
            else:
                chosen[name] = value[rows] if value.dim() == 1 else value[rows, :length]
        return replace(self, **chosen)

    def chunks(self, tokens: int) -> list["Batch"]:
        """Prompts sorted by the length of their completions and cut so that a chunk holds about `tokens`
        completion positions: rows of like length share a chunk, which leaves little padding to compute."""
        lengths = self.completion_mask.sum(1).view(-1, self.group_size).amax(1)
        order = torch.argsort(lengths, stable=True)
        parts: list[list[int]] = []
        current: list[int] = []
        for prompt in order.tolist():
            longest = int(lengths[prompt])
            jump = current and longest > 1.5 * int(lengths[current[0]])
            if current and (jump or (len(current) + 1) * self.group_size * longest > tokens):
                parts.append(current)
                current = []
            current.append(prompt)
        return [self.select(torch.tensor(p, device=order.device)) for p in [*parts, current]]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, each (P, L), padded on the left so that every prompt ends at the same column."""
    rows = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    return _pad(rows, tokenizer.pad_token_id, left=True)


def encode_demonstrations(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str]
) -> Batch:
    """One completion a prompt, each closed with the end mark."""
    prompt_ids, prompt_mask = encode_prompts(tokenizer, prompts)
    rows = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    completion_ids, mask = _pad(
        [[*r, tokenizer.eos_token_id] for r in rows], tokenizer.pad_token_id, left=False
    )
    return Batch(
        prompt_ids=prompt_ids, prompt_mask=prompt_mask, completion_ids=completion_ids, completion_mask=mask
    )


def _pad(rows: list[list[int]], fill: int, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor(
        [[fill] * (width - len(r)) + r if left else r + [fill] * (width - len(r)) for r in rows]
    )
    mask = torch.tensor(
        [
            [0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r))
            for r in rows
        ]
    )
    return ids, mask.bool()


def completion_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits (P * G, T, vocabulary) that predict each completion token, differentiable.

    Every prompt is run once and its keys and values are shared by its completions; completions of a prompt
    that came out the same are run once, too; no logit is computed at a prompt position but its last. Equal to
    a full forward pass up to float rounding.
    """
    prompt, ids, mask, row = _distinct(batch)
    positions = (batch.prompt_mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    if batch.prompt_ids.shape[1] > 1:
        model.model(
            input_ids=batch.prompt_ids[:, :-1],
            attention_mask=batch.prompt_mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_select_indices(prompt)
    logits = model(
        input_ids=torch.cat([batch.prompt_ids[prompt, -1:], ids[:, :-1]], 1),
        attention_mask=torch.cat([batch.prompt_mask[prompt], mask[:, :-1]], 1),
        position_ids=positions[prompt, -1:] + torch.arange(ids.shape[1], device=ids.device),
        past_key_values=cache,
        use_cache=True,
    ).logits
    return logits if row is None else logits[row]


def _distinct(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The distinct (prompt, completion) pairs: prompt, ids, mask, and each row's pair (None: its own)."""
    prompt = torch.arange(len(batch.prompt_ids), device=batch.prompt_ids.device)
    prompt = prompt.repeat_interleave(batch.group_size)
    length = batch.completion_mask.sum(1)
    keys = torch.cat([prompt[:, None], length[:, None], batch.completion_ids], 1)
    pairs, row = torch.unique(keys, dim=0, return_inverse=True)
    if len(pairs) == len(keys):
        return prompt, batch.completion_ids, batch.completion_mask, None
    mask = torch.arange(batch.completion_ids.shape[1], device=prompt.device) < pairs[:, 1:2]
    return pairs[:, 0], pairs[:, 2:], mask, row


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of the given tokens: logits (..., V), tokens (...) to (...), in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
