"""Where the time of a training step goes."""

from time import perf_counter, process_time

import torch
from transformers import PreTrainedModel

PARTS = ("rollout", "teacher", "student", "optimizer")
REST = "student"  # forward, backward, clipping, and whatever no other part claims


class Stopwatch:
    """Wall-clock seconds by part of a step; a part inside another takes its time out of that one."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._open = device, [REST]
        self._seconds, self._last = dict.fromkeys(PARTS, 0.0), perf_counter()
        self._processor = process_time()

    def enter(self, part: str) -> None:
        self._charge()
        self._open.append(part)

    def leave(self) -> None:
        self._charge()
        self._open.pop()

    def lap(self) -> dict[str, float]:
        """Since the last lap: the seconds of each part, whose sum is the whole, and `processor`, the seconds
        that all threads of this process computed, which other work on the machine hardly changes."""
        self._charge()
        taken, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        before, self._processor = self._processor, process_time()
        return {**taken, "processor": self._processor - before}

    def watch_teacher(self, teacher: PreTrainedModel | None) -> None:
        """Charge every forward pass of the teacher, whole or of its backbone alone, to `teacher`."""
        for module in () if teacher is None else (teacher, teacher.base_model):
            module.register_forward_pre_hook(lambda *_: self.enter("teacher"))
            module.register_forward_hook(lambda *_: self.leave())

    def watch_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Charge every step of the optimizer to `optimizer`."""
        optimizer.register_step_pre_hook(lambda *_: self.enter("optimizer"))
        optimizer.register_step_post_hook(lambda *_: self.leave())

    def _charge(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        now = perf_counter()
        self._seconds[self._open[-1]] += now - self._last
        self._last = now
