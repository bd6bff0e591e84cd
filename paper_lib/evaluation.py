"""Accuracy on held-out problems: avg@k of sampled answers with its standard error, and greedy."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.batches import encode_prompts
from paper_lib.rollouts import rewards, sample
from paper_lib.tasks import Problem, seeded_generator

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
    per_problem: list[float] = []
    greedy: list[float] = []
    size = max(1, ROWS_AT_ONCE // samples)
    for first in range(0, len(problems), size):
        part = problems[first : first + size]
        ids, mask = (t.to(model.device) for t in encode_prompts(tokenizer, [p.prompt for p in part]))
        for draws, found in ((samples, per_problem), (1, greedy)):
            generator = seeded_generator("evaluation", seed, first) if found is per_problem else None
            batch = sample(
                model,
                ids,
                mask,
                samples=draws,
                max_new_tokens=max_new_tokens,
                generator=generator,
                pad_id=tokenizer.pad_token_id,
                end_id=tokenizer.eos_token_id,
            )
            found.extend(rewards(tokenizer, batch, part).view(-1, draws).mean(1).tolist())
    mean, count = sum(per_problem) / len(per_problem), len(per_problem)
    variance = sum((p - mean) ** 2 for p in per_problem) / max(1, count - 1)
    return {
        "sampled_accuracy": mean,
        "sampled_accuracy_se": (variance / count) ** 0.5,
        "greedy_accuracy": sum(greedy) / count,
    }
