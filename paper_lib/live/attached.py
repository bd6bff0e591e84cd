"""What attaches to a trainer: its model, its inner optimizer, and the checkpoint that a run resumes from."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from paper_lib.ground.errors import CompanionError


class Attached(TrainerCallback):
    """What is attached to a trainer's model and inner optimizer, and taken up again by a resumed run.

    DeepSpeed steps inside `backward`, where no callback is asked: it is refused.
    """

    trainer: Any = None

    def add_to(self, trainer: Any) -> Any:
        """Add this callback to a trainer, through whose own log it then speaks; returns the callback."""
        self.trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach, taking up what the checkpoint holds that the run resumes from."""
        if args.deepspeed or type(given["optimizer"]).__name__.startswith("DeepSpeed"):
            raise CompanionError(
                "DeepSpeed takes its step inside `backward`: use DDP or FSDP, or no callback"
            )
        optimizer = given["optimizer"]
        # Accelerate wraps it, and skips the inner step where fp16 overflows.
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        model = given["model"]
        self.begin(getattr(model, "module", model), optimizer, args, state, _resumed_from(args, state))

    def begin(self, model: Any, optimizer: Any, args: Any, state: Any, folder: Path | None) -> None:
        """Begin, or go on from a checkpoint's folder."""
        raise NotImplementedError


def _resumed_from(args: Any, state: Any) -> Path | None:
    """The folder of the checkpoint that a run goes on from; None at its first step."""
    if state.global_step == 0:
        return None
    given = args.resume_from_checkpoint
    if isinstance(given, str) and Path(given).is_dir():
        return Path(given)
    here = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    return here if here.is_dir() else Path(get_last_checkpoint(args.output_dir) or here)
