"""What a step trains on: its problems, and their demonstrations or rollouts with rewards and advantages.

Nothing is drawn from a running generator: each step seeds its own by (seed, run, step), so that a run
continued from its saved weights and moments is the run that was never stopped.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.batches import Batch, encode_demonstrations, encode_prompts
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.objectives import group_advantages
from paper_lib.rollouts import rewards, sample
from paper_lib.tasks import Problem, corrupt, problems, seeded_generator


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a run trains and learns from; the teacher is None for SFT and RLVR."""

    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None = None


def step_problems(run: RunConfig, seed: int, step: int, number: int) -> list[Problem]:
    """The training problems of one step: each task's share of `number`, by its weight, at least one a
    task."""
    total = sum(run.weights)
    shares = [max(1, round(number * w / total)) for w in run.weights]
    shares[0] += number - sum(shares)
    drawn = [
        problems(task, split="train", number=share, seed=f"{seed}/{run.stream}/{step}")
        for task, share in zip(run.tasks, shares, strict=True)
    ]
    return [problem for part in drawn for problem in part]


def collect(policy: Policy, run: RunConfig, seed: int, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
    """This step's completions: demonstrations for SFT, else rollouts with their rewards and, for RLVR and
    the mix, advantages.

    part: (i, n), the i-th of n equal shares of the prompts, for several processes. Raises CompanionError
    where the prompts do not divide into n, and for a teacher's rollouts without a teacher.
    """
    drawn = step_problems(run, seed, step, run.prompts_per_step)
    if len(drawn) % part[1]:
        raise CompanionError(
            f"run {run.name}: {len(drawn)} prompts a step do not divide among {part[1]} processes"
        )
    size = len(drawn) // part[1]
    share = slice(part[0] * size, (part[0] + 1) * size)
    mine = drawn[share]
    name = f"{run.name}/{run.stream}/{seed}/{step}"
    device = policy.student.device
    if run.objective == "sft":
        generator = seeded_generator("corrupt", name, 0)
        texts = [corrupt(p.demonstration, run.demonstration_noise, generator) for p in drawn][share]
        batch = encode_demonstrations(policy.tokenizer, [p.prompt for p in mine], texts)
        return _to(batch, device)
    actor = policy.teacher if run.rollout_policy == "teacher" else policy.student
    if actor is None:
        raise CompanionError(f"run {run.name}: teacher rollouts need a teacher, and none was given")
    ids, mask = (t.to(device) for t in encode_prompts(policy.tokenizer, [p.prompt for p in mine]))
    batch = sample(
        actor,
        ids,
        mask,
        samples=run.samples_per_prompt,
        max_new_tokens=run.max_new_tokens,
        pad_id=policy.tokenizer.pad_token_id,
        end_id=policy.tokenizer.eos_token_id,
        generator=seeded_generator("rollout", name),
        temperature=run.temperature,
        part=part,
    )
    reward = rewards(policy.tokenizer, batch, mine)
    extras: dict[str, Tensor] = {"rewards": reward}
    if run.objective in ("rlvr", "mix"):
        extras["advantages"] = group_advantages(reward, run.samples_per_prompt)
    if run.token_selection == "random":
        rows, width = batch.completion_ids.shape
        noise = torch.rand(part[1] * rows, run.max_new_tokens, generator=seeded_generator("retention", name))
        extras["noise"] = noise[part[0] * rows : (part[0] + 1) * rows, :width].to(device)
    return replace(batch, **extras)


def _to(batch: Batch, device: torch.device) -> Batch:
    return replace(batch, **{n: v.to(device) for n, v in vars(batch).items() if v is not None})


def informative(batch: Batch, run: RunConfig) -> Batch | None:
    """Groups whose rewards differ, the only ones that GRPO learns from; the whole batch for other
    objectives."""
    if run.objective != "rlvr":
        return batch
    assert batch.rewards is not None
    groups = batch.rewards.view(-1, batch.group_size)
    kept = (groups != groups[:, :1]).any(1).nonzero()[:, 0]
    return batch.select(kept) if len(kept) else None
