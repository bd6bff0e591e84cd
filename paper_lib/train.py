"""One loop for every objective: tokens and credit in, one update out, snapshots kept, resumed exactly."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from paper_lib.batches import Batch
from paper_lib.collection import Policy, collect, informative
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.losses import CHUNK_TOKENS, Scales, advantage_scales, chunk_loss
from paper_lib.optimizers import build_optimizer, remembered


class Constraint(Protocol):
    """What confines an update: called after the gradient is there, and after the optimizer's step.

    share_inside: of the squared length of the step that the optimizer proposed; NaN where it proposed none.
    """

    share_inside: float

    def on_gradient(self) -> None: ...

    def on_update(self) -> None: ...


class Optimization:
    """The run's optimizer at its schedule over the chunks of a batch, across an `Accelerator`'s processes."""

    def __init__(
        self,
        policy: Policy,
        run: RunConfig,
        accelerator: Accelerator,
        constraint: Constraint | None = None,
    ) -> None:
        self.policy, self.run, self.accelerator, self.constraint = policy, run, accelerator, constraint
        self.parameters = dict(policy.student.named_parameters())
        self.optimizer = accelerator.prepare(build_optimizer(self.parameters.values(), run))
        self.rates = run.learning_rates()

    def update(
        self, batch: Batch | None, step: int, *, off_policy: bool = False, scales: Scales | None = None
    ) -> dict[str, float]:
        """One optimizer step on a batch: loss (a sum over all processes), gradient norm before clipping.

        batch None: this process has nothing to learn from, though others may. Where none has, the weights
        stay and nothing is returned. Raises CompanionError where the loss or the norm is not finite.
        """
        device = self.policy.student.device
        own = torch.zeros((), device=device) if batch is None else batch.completion_mask.sum().float()
        tokens = float(self.accelerator.reduce(own, reduction="sum"))
        if tokens == 0:
            return {}
        self.optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        for chunk in [] if batch is None else batch.chunks(CHUNK_TOKENS):
            part = chunk_loss(
                self.policy, self.run, chunk, tokens=tokens, off_policy=off_policy, scales=scales
            )
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
            if memory := remembered(flat, name, device):
                self.optimizer.state[parameter] = memory


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
        scales = None if run.mix_scale is None else advantage_scales(policy, run, batch, accelerator)
        for step in range(start, start + run.updates_per_batch):
            values |= optimization.update(useful, step, off_policy=step > start, scales=scales)
            record(step + 1, values)
