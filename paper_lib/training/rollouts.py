"""Batches of completions, sampled and scored; the rewards and the accuracy that they earn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.study.tasks import Problem, seeded_generator, verify

# --- Batches of prompts with their completions: encoded, cut into chunks, scored.


@dataclass(frozen=True, kw_only=True)
class Batch:
    """P prompts with G completions each; completion row p * G + g belongs to prompt p.

    Prompts are padded on the left, completions on the right, their mask covering the end mark. Row-wise
    extras, where known: log_probs of the sampled tokens under the policy that sampled them, rewards,
    advantages, noise uniform in [0, 1), credit where it is not the objective's own.
    """

    prompt_ids: Tensor  # (P, L)
    prompt_mask: Tensor  # (P, L)
    completion_ids: Tensor  # (P * G, T)
    completion_mask: Tensor  # (P * G, T)
    log_probs: Tensor | None = None  # (P * G, T)
    rewards: Tensor | None = None  # (P * G,)
    advantages: Tensor | None = None  # (P * G,)
    noise: Tensor | None = None  # (P * G, T)
    credit: Tensor | None = None  # (P * G, T)

    @property
    def group_size(self) -> int:
        return self.completion_ids.shape[0] // self.prompt_ids.shape[0]

    def select(self, prompts: Tensor) -> "Batch":
        """The given prompts with all their completions, cut to the longest prompt and completion among
        them. prompts: (n,), int64, places in the batch. Returns a batch of n prompts, n · G completions."""
        group = torch.arange(self.group_size, device=prompts.device)
        rows = (prompts[:, None] * self.group_size + group).flatten()  # (n * G,)
        left = int(self.prompt_mask.shape[1] - self.prompt_mask[prompts].sum(1).max())
        length = int(self.completion_mask[rows].sum(1).max())
        chosen = {}
        for name, value in vars(self).items():
            if name.startswith("prompt"):
                chosen[name] = value[prompts, left:]
            elif value is not None:
                chosen[name] = value[rows] if value.dim() == 1 else value[rows, :length]
        return replace(self, **chosen)

    def chunks(self, tokens: int, spread: float = 1.5) -> list["Batch"]:
        """Prompts sorted by the length of their completions and cut so that a chunk holds about `tokens`
        completion positions: rows whose lengths differ by less than the factor `spread` share a chunk, which
        leaves little padding to compute."""
        lengths = self.completion_mask.sum(1).view(-1, self.group_size).amax(1)  # (P,)
        order = torch.argsort(lengths, stable=True)
        parts: list[list[int]] = [[]]
        for prompt in order.tolist():
            longest, current = int(lengths[prompt]), parts[-1]
            jump = current and longest > spread * int(lengths[current[0]])
            if current and (jump or (len(current) + 1) * self.group_size * longest > tokens):
                parts.append([])
            parts[-1].append(prompt)
        return [self.select(torch.tensor(part, device=order.device)) for part in parts]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, each (P, L), padded on the left so that every prompt ends at the same column."""
    return _padded(tokenizer, list(prompts), "left")


def encode_demonstrations(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str]
) -> Batch:
    """One completion a prompt, each closed with the end mark."""
    prompt_ids, prompt_mask = encode_prompts(tokenizer, prompts)
    ids, mask = _padded(tokenizer, [text + tokenizer.eos_token for text in completions], "right")
    return Batch(prompt_ids=prompt_ids, prompt_mask=prompt_mask, completion_ids=ids, completion_mask=mask)


def _padded(tokenizer: PreTrainedTokenizerBase, texts: list[str], side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask, each (texts, the longest of them)."""
    options = {"padding": True, "padding_side": side, "add_special_tokens": False, "return_tensors": "pt"}
    rows = tokenizer(texts, **options)
    return rows["input_ids"], rows["attention_mask"].bool()


def completion_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits (P * G, T, V) that predict each completion token, differentiable.

    Every prompt is run once and its keys and values are shared by its completions; completions of a prompt
    that came out the same are run once, too; no logit is computed at a prompt position but its last. Equal to
    a full forward pass up to float rounding.
    """
    prompt, ids, mask, row = _distinct(batch)  # (D,), (D, T), (D, T), (P * G,), D = P * G where all differ
    positions = (batch.prompt_mask.cumsum(1) - 1).clamp(min=0)  # (P, L)
    cache = DynamicCache(config=model.config)
    if batch.prompt_ids.shape[1] > 1:
        _run(model.model, batch.prompt_ids[:, :-1], batch.prompt_mask[:, :-1], positions[:, :-1], cache)
        cache.batch_select_indices(prompt)  # from P to D rows
    given = torch.cat([batch.prompt_ids[prompt, -1:], ids[:, :-1]], 1)  # (D, T)
    seen = torch.cat([batch.prompt_mask[prompt], mask[:, :-1]], 1)  # (D, L + T - 1)
    places = positions[prompt, -1:] + torch.arange(ids.shape[1], device=ids.device)  # (D, T)
    logits = _run(model, given, seen, places, cache).logits  # (D, T, V)
    return logits if row is None else logits[row]


def _run(
    model: Any, ids: Tensor, seen: Tensor, positions: Tensor, cache: DynamicCache, **options: Any
) -> Any:
    """A model's output on ids, positions: (n, l), the tokens that the cache lacks; seen: (n, all so far)."""
    inputs = {"input_ids": ids, "attention_mask": seen, "position_ids": positions}
    return model(**inputs, past_key_values=cache, use_cache=True, **options)


def _distinct(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The D distinct (prompt, completion) pairs: their prompt (D,), ids and mask (D, T), and of every row its
    pair (P * G,), None where all rows differ."""
    prompt = torch.arange(len(batch.prompt_ids), device=batch.prompt_ids.device)
    prompt = prompt.repeat_interleave(batch.group_size)
    length = batch.completion_mask.sum(1)
    keys = torch.cat([prompt[:, None], length[:, None], batch.completion_ids], 1)  # (P * G, 2 + T)
    pairs, row = torch.unique(keys, dim=0, return_inverse=True)
    if len(pairs) == len(keys):
        return prompt, batch.completion_ids, batch.completion_mask, None
    mask = torch.arange(batch.completion_ids.shape[1], device=prompt.device) < pairs[:, 1:2]
    return pairs[:, 0], pairs[:, 2:], mask, row


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of the given tokens: logits (..., V), tokens (...) to (...), in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


# --- Rollouts: completions sampled with a key-value cache, and the rewards that the verifier gives them.


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int,
    generator: Generator | None,
    temperature: float = 1.0,
    part: tuple[int, int] = (0, 1),
) -> Batch:
    """`samples` (G) completions of each of P prompts; greedy when the generator is None.

    One uniform number a row and position decides the token (inverse of the cumulative distribution), so a
    row's sample depends neither on the other rows nor on when they finish. `part` (i, n): this is the i-th of
    n equal shares of a larger draw.
    """
    device, count = model.device, len(prompts) * samples  # count = P * G rows
    prompt_ids, prompt_mask = (t.to(device) for t in encode_prompts(tokenizer, prompts))  # (P, L) each
    pad_id, end_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    uniforms = None
    if generator is not None:
        drawn = torch.rand(part[1] * count, max_new_tokens, generator=generator, dtype=torch.float64)
        uniforms = drawn[part[0] * count : (part[0] + 1) * count].to(device)  # (P * G, T)
    tokens = torch.full((count, max_new_tokens), pad_id, device=device)  # (P * G, T), as the next two
    log_probs = torch.zeros(count, max_new_tokens, device=device)
    mask = torch.zeros(count, max_new_tokens, dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    positions = (prompt_mask.cumsum(1) - 1).clamp(min=0)  # (P, L)
    output = _run(model, prompt_ids, prompt_mask, positions, cache, logits_to_keep=1)
    logits = output.logits[:, -1].repeat_interleave(samples, 0)  # (P * G, V)
    cache.batch_repeat_interleave(samples)
    seen = prompt_mask.repeat_interleave(samples, 0)  # (P * G, L), a column longer with every token
    position = positions[:, -1].repeat_interleave(samples, 0)  # (P * G,)
    active = torch.arange(count, device=device)  # (n,), the rows still in the batch, n = P * G at first
    running = torch.ones(count, dtype=torch.bool, device=device)  # (n,), those without an end mark
    for t in range(max_new_tokens):
        log_p = F.log_softmax(logits.float() / temperature, -1)  # (n, V)
        chosen = log_p.argmax(-1) if uniforms is None else _invert(log_p, uniforms[active, t])  # (n,)
        tokens[active, t] = torch.where(running, chosen, pad_id)
        log_probs[active, t] = torch.where(running, log_p.gather(-1, chosen[:, None])[:, 0], 0.0)
        mask[active, t] = running
        running = running & (chosen != end_id)
        left = int(running.sum())
        if left == 0 or t + 1 == max_new_tokens:
            break
        if left <= 0.9 * len(active):
            kept = running.nonzero()[:, 0]  # (left,)
            cache.batch_select_indices(kept)
            rows = (active, seen, position, chosen, running)
            active, seen, position, chosen, running = (each[kept] for each in rows)
        position = position + 1
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
        output = _run(model, chosen[:, None], seen, position[:, None], cache, logits_to_keep=1)
        logits = output.logits[:, -1]  # (n, V)
    width = t + 1
    return Batch(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=tokens[:, :width],
        completion_mask=mask[:, :width],
        log_probs=log_probs[:, :width],
    )


def _invert(log_p: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative distribution passes `uniform`: log_p (n, V), uniform (n,) to (n,)."""
    cumulative = log_p.double().exp().cumsum(-1)  # (n, V)
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


ROWS_AT_ONCE = 1024


def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    samples: int,
    max_new_tokens: int,
    seed: object,
) -> dict[str, float]:
    """avg@samples at temperature 1 with its standard error over problems, and greedy accuracy.

    The error is that of a mean over problems drawn at random, samples of one problem counted together.
    Returns sampled_accuracy, sampled_accuracy_se, greedy_accuracy, each in [0, 1].
    """
    per_problem, greedy, size = list[float](), list[float](), max(1, ROWS_AT_ONCE // samples)
    for first in range(0, len(problems), size):
        part = problems[first : first + size]
        prompts, drawn = [problem.prompt for problem in part], seeded_generator("evaluation", seed, first)
        for draws, generator, scores in ((samples, drawn, per_problem), (1, None, greedy)):
            options: dict[str, Any] = {"samples": draws, "generator": generator}
            batch = sample(model, tokenizer, prompts, max_new_tokens=max_new_tokens, **options)
            scores.extend(rewards(tokenizer, batch, part).view(-1, draws).mean(1).tolist())
    mean, count = sum(per_problem) / len(per_problem), len(per_problem)
    variance = sum((p - mean) ** 2 for p in per_problem) / max(1, count - 1)
    return {
        "sampled_accuracy": mean,
        "sampled_accuracy_se": (variance / count) ** 0.5,
        "greedy_accuracy": sum(greedy) / count,
    }
