"""What attaches to a trainer: its model, its inner optimizer, and the checkpoint that a run resumes from.

Nothing here imports transformers: the hooks of `torch.optim` are there without it.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paper_lib.ground.errors import CompanionError


class Attached:
    """What is attached to a trainer's model and inner optimizer, and taken up again by a resumed run.

    A `transformers.TrainerCallback` in all but its base: events that it does not handle are passed over.
    DeepSpeed steps inside `backward`, where no callback is asked: it is refused.
    """

    trainer: Any = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def add_to(self, trainer: Any) -> Any:
        """Add this callback to a trainer, through whose own log it then speaks; returns the callback."""
        self.trainer = trainer
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach, taking up what the checkpoint holds that the run resumes from."""
        if args.deepspeed or type(given["optimizer"]).__name__.startswith("DeepSpeed"):
            raise CompanionError("DeepSpeed steps inside `backward`: use DDP or FSDP, or no callback")
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
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def require_trl() -> str:
    """TRL's version; from then on its warnings of an option that transformers has renamed are left out.

    Raises CompanionError, with what to install, where it cannot be imported.
    """
    try:
        import trl
        from trl import DistillationTrainer, GRPOTrainer, SFTTrainer  # noqa: F401
    except ImportError as reason:
        raise CompanionError(
            f"TRL 1.16 cannot be imported ({reason}): pip install -c constraints.txt -e '.[live]'"
        ) from reason
    warnings.filterwarnings("ignore", ".*gradient_checkpointing` is deprecated", FutureWarning)
    return str(trl.__version__)
