"""The watch as a callback of `transformers.Trainer`, and so of every trainer of TRL."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from paper_lib.ground.errors import CompanionError
from paper_lib.live.attached import Attached
from paper_lib.live.watch import Watch

STATE, ROWS = "geometry.safetensors", "geometry.json"  # in a checkpoint's folder
logger = logging.getLogger(__name__)


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
