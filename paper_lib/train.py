"""One loop for every objective: tokens and credit in, one update out, snapshots kept, resumed exactly.

Nothing is drawn from a running generator: each step seeds its own by (seed, run, step), so that a run
continued from its saved weights and Adam moments is the run that was never stopped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.batches import (
    Batch,
    completion_logits,
    encode_demonstrations,
    encode_prompts,
    token_log_probs,
)
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.objectives import (
    clipped_loss,
    credit_weighted_loss,
    group_advantages,
    mixed_credit,
    retained,
    reverse_kl,
    token_gap,
)
from paper_lib.projection import SubspaceConstraint
from paper_lib.rollouts import rewards, sample
from paper_lib.tasks import Problem, corrupt, problems, seeded_generator

CHUNK_TOKENS = 2048  # completion positions in one forward and backward pass


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
    the mix, advantages. `part` (i of n) takes one of n equal shares of the prompts, for several processes."""
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


def chunk_loss(
    policy: Policy, run: RunConfig, chunk: Batch, *, tokens: float, off_policy: bool = False
) -> Tensor:
    """This chunk's part of the loss, whose denominator is `tokens`, the completion tokens of the whole batch.

    off_policy: the weights have moved since the batch was sampled, so the clipped surrogate takes over.
    """
    logits = completion_logits(policy.student, chunk) / run.temperature
    mask = chunk.completion_mask
    teacher_logits = None
    if run.objective in ("opd", "mix"):
        if policy.teacher is None:
            raise CompanionError(
                f"run {run.name}: objective {run.objective} needs a teacher, and none was given"
            )
        with torch.no_grad():
            teacher_logits = completion_logits(policy.teacher, chunk) / run.temperature
    if run.estimator == "exact":
        assert teacher_logits is not None
        return reverse_kl(logits, teacher_logits).masked_fill(~mask, 0.0).sum() / tokens
    log_p = token_log_probs(logits, chunk.completion_ids)
    credit = _credit(run, log_p, teacher_logits, chunk)
    if off_policy and run.objective != "sft":
        assert chunk.log_probs is not None
        return clipped_loss(log_p, chunk.log_probs, credit, mask, clip=run.clip, tokens=tokens)
    return credit_weighted_loss(log_p, credit, mask, tokens=tokens)


def _credit(run: RunConfig, log_p: Tensor, teacher_logits: Tensor | None, chunk: Batch) -> Tensor:
    if run.objective == "sft":
        return torch.ones_like(log_p)
    gap = torch.zeros_like(log_p)
    if teacher_logits is not None:
        gap = token_gap(log_p, token_log_probs(teacher_logits, chunk.completion_ids))
    none = torch.zeros(len(log_p), device=log_p.device)
    advantages = none if chunk.advantages is None else chunk.advantages
    credit = mixed_credit(gap, advantages, {"opd": 1.0, "rlvr": 0.0}.get(run.objective, run.alpha))
    if run.token_selection == "all":
        return credit
    return credit * retained(
        gap,
        chunk.completion_mask,
        keep_fraction=run.keep_fraction,
        selection=run.token_selection,
        noise=chunk.noise,
    )


class Optimization:
    """AdamW at the run's schedule over the chunks of a batch, across the processes of an `Accelerator`."""

    def __init__(
        self,
        policy: Policy,
        run: RunConfig,
        accelerator: Accelerator,
        constraint: SubspaceConstraint | None = None,
    ) -> None:
        self.policy, self.run, self.accelerator, self.constraint = policy, run, accelerator, constraint
        self.parameters = dict(policy.student.named_parameters())
        adamw = torch.optim.AdamW(
            self.parameters.values(),
            lr=run.learning_rate,
            betas=run.betas,
            eps=run.epsilon,
            weight_decay=run.weight_decay,
        )
        self.optimizer = accelerator.prepare(adamw)
        self.rates = run.learning_rates()

    def update(self, batch: Batch | None, step: int, *, off_policy: bool = False) -> dict[str, float]:
        """One optimizer step on a batch: loss (a sum over all processes), gradient norm before clipping.

        batch None: this process has nothing to learn from, though others may. Where none has, the weights
        stay and nothing is returned.
        """
        device = self.policy.student.device
        own = torch.zeros((), device=device) if batch is None else batch.completion_mask.sum().float()
        tokens = float(self.accelerator.reduce(own, reduction="sum"))
        if tokens == 0:
            return {}
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        for chunk in [] if batch is None else batch.chunks(CHUNK_TOKENS):
            part = chunk_loss(self.policy, self.run, chunk, tokens=tokens, off_policy=off_policy)
            self.accelerator.backward(part)
            loss += part.detach()
        if self.accelerator.num_processes > 1:
            loss = self.accelerator.reduce(loss, reduction="sum")
            self._sum_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.run.max_gradient_norm)
        for what, value in (("loss", float(loss)), ("norm of the gradient", float(norm))):
            if not math.isfinite(value):
                raise CompanionError(
                    f"run {self.run.name}: the {what} is {value} at step {step + 1}; earlier snapshots are "
                    f"kept. Lower learning_rate ({self.run.learning_rate:g}) or check its starting weights"
                )
        if self.constraint is not None:
            self.constraint.on_gradient()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[step]
        self.optimizer.step()
        if self.constraint is not None:
            self.constraint.on_update()
        return {"loss": float(loss), "gradient_norm": float(norm)}

    def _sum_gradients(self) -> None:
        """Sum the gradients over the processes, in one message."""
        parameters = list(self.parameters.values())
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.accelerator.reduce(torch.cat([g.flatten() for g in own]), reduction="sum")
        for parameter, part in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def state(self) -> dict[str, Tensor]:
        """Weights and Adam moments as one flat dict of tensors, for safetensors."""
        moments = self.optimizer.state
        flat = {f"model.{name}": tensor.detach() for name, tensor in self.policy.student.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key, value in moments.get(parameter, {}).items():
                flat[f"{key}.{name}"] = value
        return {name: tensor.detach().cpu().contiguous() for name, tensor in flat.items()}

    def load_state(self, flat: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        device = self.policy.student.device
        weights = {n.removeprefix("model."): t for n, t in flat.items() if n.startswith("model.")}
        self.policy.student.load_state_dict(weights)
        for name, parameter in self.parameters.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"exp_avg.{name}" in flat:
                self.optimizer.state[parameter] = {
                    key: flat[f"{key}.{name}"].clone().to("cpu" if key == "step" else device) for key in keys
                }


def train_steps(
    optimization: Optimization,
    seed: int,
    first: int,
    last: int,
    *,
    record: Callable[[int, dict[str, float]], None],
) -> None:
    """Optimizer steps first..last − 1 of a run; `record(step, values)` is called after each, with step from
    1.

    A step whose RLVR groups all lack variance leaves the weights alone.
    """
    policy, run, accelerator = optimization.policy, optimization.run, optimization.accelerator
    part = (accelerator.process_index, accelerator.num_processes)
    for start in range(first, last, run.updates_per_batch):
        batch = collect(policy, run, seed, start, part=part)
        values = {}
        if batch.rewards is not None:
            values["reward"] = float(accelerator.reduce(batch.rewards.mean(), reduction="mean"))
        useful = informative(batch, run)
        for step in range(start, start + run.updates_per_batch):
            values |= optimization.update(useful, step, off_policy=step > start)
            record(step + 1, values)
