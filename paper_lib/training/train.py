"""One loop for every objective: tokens and credit in, one update out, snapshots kept, resumed exactly."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.ground.errors import CompanionError
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import Problem, corrupt, problems, seeded_generator
from paper_lib.training import objectives, rollouts
from paper_lib.training.confinement import Confinement
from paper_lib.training.rollouts import Batch, completion_logits, rewards, sample, token_log_probs

# --- What a step trains on: its problems, and their demonstrations or rollouts with what they earn.


def products(run: RunConfig, device: torch.device) -> torch.autocast:
    """The context of a run's forward passes, in which its matrix products have its precision.

    Weights are cast once a context, so rollouts and the loss have one each: a copy that was made without a
    graph would give the loss no gradient.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a run trains and learns from; the teacher is None for SFT and RLVR."""

    student: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None = None


def step_problems(run: RunConfig, seed: int, step: int, number: int) -> list[Problem]:
    """The training problems of one step: each task's share of `number` by its weight, at least one."""
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
        number = f"{len(drawn)} prompts a step"
        raise CompanionError(f"run {run.name}: {number} do not divide among {part[1]} processes")
    size = len(drawn) // part[1]
    share = slice(part[0] * size, (part[0] + 1) * size)
    mine = drawn[share]
    prompts = [problem.prompt for problem in mine]
    name = f"{run.name}/{run.stream}/{seed}/{step}"
    device = policy.student.device
    if run.objective == "sft":
        generator = seeded_generator("corrupt", name, 0)
        texts = [corrupt(p.demonstration, run.demonstration_noise, generator) for p in drawn][share]
        batch = rollouts.encode_demonstrations(policy.tokenizer, prompts, texts)
        return replace(batch, **{n: v.to(device) for n, v in vars(batch).items() if v is not None})
    actor = policy.teacher if run.rollout_policy == "teacher" else policy.student
    if actor is None:
        raise CompanionError(f"run {run.name}: teacher rollouts need a teacher, and none was given")
    how: dict[str, Any] = {"samples": run.samples_per_prompt, "max_new_tokens": run.max_new_tokens}
    how |= {"temperature": run.temperature, "generator": seeded_generator("rollout", name)}
    batch = sample(actor, policy.tokenizer, prompts, part=part, **how)
    reward = rewards(policy.tokenizer, batch, mine)  # (P * G,)
    if run.chance == "reward":
        reward = drawn_rewards(reward, seeded_generator("reward", name, part[0]))
    extras: dict[str, Tensor] = {"rewards": reward}
    if run.objective in ("rlvr", "mix"):
        extras["advantages"] = objectives.group_advantages(reward, run.samples_per_prompt)
    if run.token_selection == "random":
        rows, width = batch.completion_ids.shape
        noise = torch.rand(part[1] * rows, run.max_new_tokens, generator=seeded_generator("retention", name))
        extras["noise"] = noise[part[0] * rows : (part[0] + 1) * rows, :width].to(device)
    return replace(batch, **extras)


def drawn_rewards(reward: Tensor, generator: Generator) -> Tensor:
    """Rewards that know nothing of the answers: each 1 with the probability of the batch's mean, else 0.

    reward: (rows,), each 0 or 1. Returns (rows,).
    """
    drawn = torch.rand(len(reward), generator=generator).to(reward.device)
    return (drawn < reward.mean()).to(reward.dtype)


def informative(batch: Batch, run: RunConfig) -> Batch | None:
    """Groups whose rewards differ, the only ones that GRPO learns from; all for other objectives."""
    if run.objective != "rlvr":
        return batch
    assert batch.rewards is not None
    groups = batch.rewards.view(-1, batch.group_size)  # (P, G)
    kept = (groups != groups[:, :1]).any(1).nonzero()[:, 0]  # (prompts kept,)
    return batch.select(kept) if len(kept) else None


# --- The loss of a chunk of a batch: the credit of the objective on the student's log-probabilities.

CHUNK_TOKENS = 2048  # completion positions in one forward and backward pass
KL_ENTRIES = 1 << 23  # logits of a reverse KL at a time: 32 MB in float32
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
    logits = completion_logits(policy.student, chunk) / run.temperature  # (P * G, T, V)
    mask = chunk.completion_mask  # (P * G, T)
    taught = run.objective in ("opd", "mix")
    teacher_logits = _teacher_logits(policy, run, chunk) if taught else None
    if run.estimator == "exact":
        assert teacher_logits is not None
        return _reverse_kl(logits, teacher_logits).masked_fill(~mask, 0.0).sum() / tokens
    log_p = token_log_probs(logits, chunk.completion_ids)  # (P * G, T), as the credit
    credit = _credit(run, log_p, teacher_logits, chunk, scales)
    if off_policy and run.objective != "sft":
        assert chunk.log_probs is not None
        return objectives.clipped_loss(log_p, chunk.log_probs, credit, mask, clip=run.clip, tokens=tokens)
    return objectives.credit_weighted_loss(log_p, credit, mask, tokens=tokens)


def _reverse_kl(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """`objectives.reverse_kl`, (P * G, T): a large vocabulary's some rows at a time, and again for the
    gradient, since its float32 copies would take more memory than the model."""
    rows = max(1, KL_ENTRIES // logits[0].numel())
    if len(logits) <= rows:
        return objectives.reverse_kl(logits, teacher_logits)
    parts = zip(logits.split(rows), teacher_logits.split(rows), strict=True)
    return torch.cat([checkpoint(objectives.reverse_kl, *part, use_reentrant=False) for part in parts])


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
    if chunk.credit is not None:
        return chunk.credit
    gap = torch.zeros_like(log_p)
    if teacher_logits is not None:
        gap = objectives.token_gap(log_p, token_log_probs(teacher_logits, chunk.completion_ids))
    none = torch.zeros(len(log_p), device=log_p.device)
    advantages = none if chunk.advantages is None else chunk.advantages
    alpha = {"opd": 1.0, "rlvr": 0.0}.get(run.objective, run.alpha)
    credit = objectives.mixed_credit(gap, advantages, alpha, scales=scales)
    if run.token_selection == "all":
        return credit
    kept: dict[str, Any] = {"keep_fraction": run.keep_fraction, "selection": run.token_selection}
    return credit * objectives.retained(gap, chunk.completion_mask, noise=chunk.noise, **kept)


def shuffled_credit(policy: Policy, run: RunConfig, batch: Batch, generator: Generator) -> Tensor:
    """OPD's credits −r_t of a batch, dealt out anew over its completion tokens: (rows, T)."""
    return objectives.shuffled(-_rollout_gap(policy, run, batch), batch.completion_mask, generator)


def _rollout_gap(policy: Policy, run: RunConfig, batch: Batch) -> Tensor:
    """r_t of a batch (rows, T), the student's log-probabilities being those that it was sampled with."""
    assert batch.log_probs is not None
    teacher_log_p = token_log_probs(_teacher_logits(policy, run, batch), batch.completion_ids)
    return objectives.token_gap(batch.log_probs, teacher_log_p)


def advantage_scales(policy: Policy, run: RunConfig, batch: Batch, accelerator: Accelerator) -> Scales:
    """RMS of −r_t and of A over all completion tokens of a step's batch, those of other processes included.

    The loss works through the batch in chunks: this comes before it, at one more pass of the teacher.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=policy.student.device)
    for chunk in batch.chunks(CHUNK_TOKENS):
        assert chunk.advantages is not None
        mask = chunk.completion_mask  # (P * G, T), as the gap
        gap = _rollout_gap(policy, run, chunk).masked_fill(~mask, 0.0)
        by_row = chunk.advantages.double().square() * mask.sum(1)
        sums += torch.stack([gap.double().square().sum(), by_row.sum(), mask.sum().double()])
    opd, rlvr, tokens = accelerator.reduce(sums, reduction="sum").tolist()
    return math.sqrt(opd / tokens), math.sqrt(rlvr / tokens)


# --- The optimizer of a run, and what it remembers from step to step.

MEMORY = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")  # what AdamW and SGD keep of a parameter


def build_optimizer(parameters: Iterable[Tensor], run: RunConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); with sgd_momentum μ, SGD: m ← μ m + (g + λ W), W ← W − η m.

    SGD's decay λ is part of what it accumulates: in the long run it shrinks W by η λ / (1 − μ) a step,
    AdamW's by η λ.
    """
    common: dict[str, Any] = {"lr": run.learning_rate, "weight_decay": run.weight_decay}
    if run.sgd_momentum is not None:
        return torch.optim.SGD(parameters, momentum=run.sgd_momentum, **common)
    return torch.optim.AdamW(parameters, betas=run.betas, eps=run.epsilon, **common)


class Optimization:
    """The run's optimizer at its schedule over the chunks of a batch, across an `Accelerator`'s processes."""

    def __init__(
        self, policy: Policy, run: RunConfig, accelerator: Accelerator, constraint: Confinement | None = None
    ) -> None:
        self.policy, self.run, self.accelerator, self.constraint = policy, run, accelerator, constraint
        self.parameters = dict(policy.student.named_parameters())
        self.optimizer = accelerator.prepare(build_optimizer(self.parameters.values(), run))
        self.rates = run.learning_rates()

    def update(
        self, batch: Batch | None, step: int, *, off_policy: bool = False, scales: Scales | None = None
    ) -> dict[str, float]:
        """One optimizer step on a batch; returns its loss and gradient_norm, the norm before clipping.

        Loss and gradient are sums over all processes. One whose groups all lack variance has nothing to learn
        from: it passes None, and takes the step of the others. Where all pass None, the weights stay, and an
        empty dict is returned. Raises CompanionError where the loss or the norm is not finite.
        """
        device = self.policy.student.device
        own = torch.zeros((), device=device) if batch is None else batch.completion_mask.sum().float()
        tokens = float(self.accelerator.reduce(own, reduction="sum"))
        if tokens == 0:
            return {}
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        # A large model's passes cost more than padding.
        spread = 1.5 if self.run.precision is None else math.inf
        for chunk in [] if batch is None else batch.chunks(CHUNK_TOKENS, spread):
            which: dict[str, Any] = {"tokens": tokens, "off_policy": off_policy, "scales": scales}
            with products(self.run, device):
                part = chunk_loss(self.policy, self.run, chunk, **which)
            self.accelerator.backward(part)
            loss += part.detach()
        if self.accelerator.num_processes > 1:
            loss = self.accelerator.reduce(loss, reduction="sum")
            trained = list(self.parameters.values())
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
            total = self.accelerator.reduce(torch.cat([g.flatten() for g in grads]), reduction="sum")
            for parameter, grad in zip(trained, total.split([g.numel() for g in grads]), strict=True):
                parameter.grad = grad.view_as(parameter)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.run.max_gradient_norm)
        for what, value in (("loss", float(loss)), ("norm of the gradient", float(norm))):
            if not math.isfinite(value):
                where = f"run {self.run.name}: the {what} is {value} at step {step + 1}"
                remedy = f"lower learning_rate ({self.run.learning_rate:g}) or check its start"
                raise CompanionError(f"{where}; earlier snapshots are kept: {remedy}")
        if self.constraint is not None:
            self.constraint.on_gradient()
        self._step(step)
        if self.constraint is not None:
            self.constraint.on_update()
        return {"loss": float(loss), "gradient_norm": float(norm)}

    def coast(self, step: int) -> None:
        """One optimizer step on a gradient of zero: what its memory, and the decay, do by themselves."""
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self._step(step)

    def _step(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[step]
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Weights and the optimizer's memory as one flat dict of tensors, for safetensors."""
        memory = self.optimizer.state
        flat = {f"model.{name}": tensor.detach() for name, tensor in self.policy.student.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key, value in memory.get(parameter, {}).items():
                flat[f"{key}.{name}"] = value
        return {name: tensor.detach().cpu().contiguous() for name, tensor in flat.items()}

    def load_state(self, flat: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        device = self.policy.student.device
        weights = {n.removeprefix("model."): t for n, t in flat.items() if n.startswith("model.")}
        self.policy.student.load_state_dict(weights)
        for name, parameter in self.parameters.items():
            memory = {key: flat[f"{key}.{name}"].clone() for key in MEMORY if f"{key}.{name}" in flat}
            if memory:  # in which torch wants Adam's count of steps on the CPU
                placed = {key: value.to("cpu" if key == "step" else device) for key, value in memory.items()}
                self.optimizer.state[parameter] = placed


def train_steps(
    optimization: Optimization,
    seed: int,
    first: int,
    last: int,
    *,
    record: Callable[[int, dict[str, float]], None],
) -> None:
    """Optimizer steps first..last − 1 of a run; `record(step, values)` follows each, with step from 1. A step
    whose RLVR groups all lack variance leaves the weights alone."""
    policy, run, accelerator = optimization.policy, optimization.run, optimization.accelerator
    part = (accelerator.process_index, accelerator.num_processes)
    for start in range(first, last, run.updates_per_batch):
        with products(run, policy.student.device):
            batch = collect(policy, run, seed, start, part=part)
        values = {}
        if batch.rewards is not None:
            values["reward"] = float(accelerator.reduce(batch.rewards.mean(), reduction="mean"))
        if run.chance == "credit":
            generator = seeded_generator("credit", run.name, run.stream, seed, start, part[0])
            batch = replace(batch, credit=shuffled_credit(policy, run, batch, generator))
        useful = informative(batch, run)
        scales = None if run.mix_scale is None else advantage_scales(policy, run, batch, accelerator)
        for step in range(start, start + run.updates_per_batch):
            values |= optimization.update(useful, step, off_policy=step > start, scales=scales)
            record(step + 1, values)
