"""What attaches to `transformers.Trainer`, and so to every trainer of TRL: among it the watch as a callback.

Nothing here imports transformers: the hooks of `torch.optim` are there without it.
"""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from paper_lib.ground.errors import CompanionError
from paper_lib.live.watch import Watch

STATE, ROWS = "geometry.safetensors", "geometry.json"  # in a checkpoint's folder
logger = logging.getLogger(__name__)


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


class GeometryCallback(Attached):
    """Measures the update every `every` steps, its spectra every `spectra_every` (5 times that).

    matrices, K: as for `Watch`. It logs `geometry/…` through the trainer's log, and writes the table that a
    comparison leaves to <output_dir>/geometry/ at each save and at the end. A measurement that fails is one
    warning, and training goes on. With gradient clipping the clipped step is what moves the weights, and what
    is measured. Survives `resume_from_checkpoint`: W_0 lies in each checkpoint.
    """

    def __init__(
        self, *, every: int = 50, spectra_every: int | None = None, matrices: Any = 8, K: int = 16
    ) -> None:
        if every < 1 or (spectra_every is not None and spectra_every % every):
            raise CompanionError(f"every is {every}, spectra_every {spectra_every}: ≥ 1 and a multiple of it")
        self.every, self.spectra_every = every, spectra_every or 5 * every
        self.matrices, self.K, self.main = matrices, K, True
        self.watch: Watch | None = None

    def begin(self, model: Any, optimizer: Any, args: Any, state: Any, folder: Path | None) -> None:
        self.main = state.is_world_process_zero
        self.output = Path(args.output_dir) / "geometry"
        run = str(args.run_name or Path(args.output_dir).name)
        watch = Watch(model, matrices=self.matrices, K=self.K, run=run)
        if folder is not None:
            if not (folder / STATE).is_file():
                words = f"{folder} holds no {STATE}, so W_0 is not known: nothing is measured"
                warnings.warn(words, stacklevel=2)
                return
            watch.load_state(load_file(folder / STATE), json.loads((folder / ROWS).read_text("utf-8")))
        watch.follow(optimizer)
        self.watch = watch
        if self.main:
            logger.info("%s", watch.precision)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure where it is time and log, on the first process; a sharded matrix is gathered by all."""
        if self.watch is None or state.global_step % self.every or not self.watch.steps:
            return
        if not (self.main or self.watch.sharded):
            return
        try:
            means = self.watch.measure(spectra_too=state.global_step % self.spectra_every == 0)
        except (CompanionError, ValueError, RuntimeError) as error:
            warnings.warn(f"step {state.global_step} is not measured: {error}", stacklevel=2)
            return
        if self.main and self.trainer is not None:
            log_means(self.trainer, means)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write W_0 and what was measured beside the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.watch is not None and self.main and folder.is_dir():
            save_file(self.watch.state(), folder / STATE)
            (folder / ROWS).write_text(json.dumps(self.watch.rows), "utf-8")
        self._write()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._write()

    def _write(self) -> None:
        if self.watch is not None and self.main and self.watch.rows:
            self.watch.save(self.output)


def log_means(trainer: Any, means: dict[str, float]) -> None:
    """Through the trainer's log, which reports to W&B and the like before it asks callbacks: changing `logs`
    in `on_log` would reach nobody. TRL's trainers average and empty their own store at each log, so there the
    values wait in it for the next. Any log takes back that this step's own is due, which other processes then
    would wait for: it is put back."""
    named = {f"geometry/{name}": value for name, value in means.items()}
    store = getattr(trainer, "_metrics", None)
    if isinstance(store, dict) and "train" in store:
        for name, value in named.items():
            store["train"].setdefault(name, []).append(value)
    else:
        due = trainer.control.should_log
        trainer.log(named)
        trainer.control.should_log = due
