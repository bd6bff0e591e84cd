"""One run in its folder: started or resumed, evaluated at its snapshots, marked finished last."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isnan
from pathlib import Path
from time import monotonic

import pandas as pd
import torch
from accelerate import Accelerator
from filelock import FileLock
from transformers import PreTrainedModel

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import copy_file, write_json
from paper_lib.ground.parallel import Paced, cores, roughly
from paper_lib.ground.tables import TABLES, read_table, table_metadata, write_table
from paper_lib.study.config import EvaluationConfig
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import Split, Task, problems
from paper_lib.training.checkpoints import load_checkpoint, open_trajectory, save_checkpoint, step_path
from paper_lib.training.confinement import Confinement
from paper_lib.training.rollouts import accuracy
from paper_lib.training.train import Optimization, Policy, products, train_steps

# --- Where a run lives on disk, and whether the files there are of this very run.


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a run lives and what it must match: everything that decides its numbers is in the fingerprint.

    kept_states: steps whose training state stays, for the runs that branch from it.
    """

    directory: Path
    profile: str
    seed: int
    fingerprint: str
    kept_states: tuple[int, ...] = ()

    def lock(self) -> FileLock:
        """Beside the folder, for whoever trains, takes over or removes the run."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.directory.with_name(f".{self.directory.name}.lock"))

    def begun(self) -> bool:
        """Whether a curve of this very configuration is here, finished or to go on from."""
        try:
            return table_metadata(self.directory / "curve.parquet")["fingerprint"] == self.fingerprint
        except CompanionError:
            return False

    def finished(self) -> bool:
        """Whether this very configuration ran to its end here, its files are whole, and its kept states are
        here still."""
        try:
            marked = open_trajectory(self.directory).fingerprint == self.fingerprint
        except CompanionError:
            return False
        return marked and self.begun() and all(self.state_path(s).is_file() for s in self.kept_states)

    def clear(self) -> None:
        """Remove the folder, its curve first: what is left of it by a crash is no run to go on with."""
        (self.directory / "curve.parquet").unlink(missing_ok=True)
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def state_path(self, step: int) -> Path:
        """Weights and the optimizer's memory after `step` optimizer steps."""
        return self.directory / f"state_{step:06d}.safetensors"

    def states(self) -> list[int]:
        """The steps whose training state is on disk, in order."""
        return sorted(int(path.stem[len("state_") :]) for path in self.directory.glob("state_*.safetensors"))

    def drop_states(self, *, latest: int | None = None) -> None:
        """Remove every training state but the kept ones and the latest."""
        for step in set(self.states()) - {latest, *self.kept_states}:
            self.state_path(step).unlink()

    def recorded(self) -> list[dict]:
        """The rows of its curve so far; raises CompanionError where the file is missing or damaged."""
        path = self.directory / "curve.parquet"
        try:
            return read_table(path).to_dict("records")
        except CompanionError as error:
            again = f"delete the folder {self.directory}, and the run starts over"
            raise CompanionError(f"{path} is missing or damaged: {again}") from error

    def write_curve(self, rows: list[dict]) -> None:
        """The run's curve so far as a tidy table, which says whose folder it is."""
        path, columns = self.directory / "curve.parquet", TABLES["curves"]
        frame = pd.DataFrame(rows, columns=list(columns))
        write_table(frame, path, columns=columns, fingerprint=self.fingerprint, seed=self.seed)


# --- What another run has already trained: a whole run of another profile, or the parent up to the branch.


def reuse_finished(run: RunConfig, folder: RunFolder, runs_dir: Path) -> bool:
    """Take over a finished run of the same fingerprint from another profile, by hard links or as a copy;
    True where there was one. `run.json` comes last: what was stopped is not mistaken for whole."""
    for directory in sorted(runs_dir.glob(f"*/{run.name}/seed_{folder.seed}")):
        other = replace(folder, directory=directory, profile=directory.parents[1].name)
        if directory != folder.directory and other.finished():
            with folder.lock():
                if taken := not folder.finished():  # by whoever held the lock
                    _share(other, folder)
            return taken
    return False


def _share(source: RunFolder, folder: RunFolder) -> None:
    rows = [{**row, "profile": folder.profile} for row in source.recorded()]
    folder.clear()
    folder.directory.mkdir(parents=True)
    for path in sorted(source.directory.glob("*.safetensors")):
        try:
            os.link(path, folder.directory / path.name)
        except OSError:
            copy_file(path, folder.directory / path.name)
    folder.write_curve(rows)
    copy_file(source.directory / "run.json", folder.directory / "run.json")


def _branch_off(run: RunConfig, folder: RunFolder, parent: RunFolder, step: int) -> None:
    """The parent's snapshots and curve up to the branch, and last its training state there."""
    for path in parent.directory.glob("step_*.safetensors"):
        if int(path.stem.removeprefix("step_")) <= step:
            copy_file(path, folder.directory / path.name)
    rows = [row for row in parent.recorded() if row["step"] <= step and ":" not in row["metric"]]
    folder.write_curve([{**row, "run": run.name} for row in rows])
    save_checkpoint(load_checkpoint(parent.state_path(step)), folder.state_path(step))


# --- A run from its first step, or from its last snapshot, to its end.


def find_accelerator() -> Accelerator:
    """CUDA's where there is one, else the CPU: rollouts and losses need float64, which Apple's GPUs lack."""
    return Accelerator(cpu=not torch.cuda.is_available())


def shared_threads(runs: Sequence[RunConfig], workers: int | None) -> int:
    """Threads for each of the runs to train side by side: one, so that float32 sums are the same on any
    machine; runs in bf16 share all cores where they are fewer."""
    return max(1, (workers or cores()) // max(1, len(runs))) if all(run.precision for run in runs) else 1


def train_run(
    run: RunConfig,
    folder: RunFolder,
    policy: Policy,
    *,
    evaluation: EvaluationConfig,
    confine: Callable[[PreTrainedModel], Confinement | None] | None = None,
    parent: RunFolder | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Train `run` from `policy.student`'s weights, W_0, in its folder, from wherever an earlier call stopped.

    confine: makes what confines the student's updates. parent: the run it branches from. report: told of
    every step and snapshot; None prints a line every so often. A finished run is
    left alone; one that lost a kept state starts over, to the same bits. Raises CompanionError where the loss
    is not finite; snapshots made by then are kept.
    """
    accelerator = find_accelerator()
    main = accelerator.is_main_process
    with folder.lock() if main else nullcontext():  # held for all that train the run together
        accelerator.wait_for_everyone()
        if folder.finished():
            return
        accelerator.wait_for_everyone()  # nobody clears the folder while another still reads it
        if main and ((folder.directory / "run.json").exists() or not folder.begun()):
            folder.clear()  # of other runs, and of an end that does not count
        if main and parent is not None and run.branch is not None and not folder.states():
            _branch_off(run, folder, parent, run.branch[1])
        accelerator.wait_for_everyone()
        for model in (policy.student, policy.teacher):
            if model is not None:
                model.to(accelerator.device)
        constraint = None if confine is None else confine(policy.student)
        optimization = Optimization(policy, run, accelerator, constraint)
        first, rows = _resume(folder, optimization)
        accelerator.wait_for_everyone()  # nobody writes while another still reads where to go on from
        _train(folder, optimization, evaluation, first, rows, report or Paced())
        accelerator.wait_for_everyone()


def _resume(folder: RunFolder, optimization: Optimization) -> tuple[int, list[dict]]:
    """The last snapshot, whose training state is taken up, and the curve up to it; −1 where there is none."""
    if not (steps := folder.states()):
        return -1, []
    try:
        optimization.load_state(load_checkpoint(folder.state_path(steps[-1])))
    except CompanionError as error:
        raise CompanionError(f"{error}; delete this file, and the run starts over") from error
    return steps[-1], [row for row in folder.recorded() if row["step"] <= steps[-1]]


def _train(
    folder: RunFolder,
    optimization: Optimization,
    evaluation: EvaluationConfig,
    last: int,
    rows: list[dict],
    report: Callable[[str], None],
) -> None:
    """Every snapshot after the last one, with the curve up to it, which begins with `rows`."""
    run, began, main = optimization.run, monotonic(), optimization.accelerator.is_main_process
    start, name = max(last, 0), f"[{optimization.run.name} seed {folder.seed}]"

    def record(step: int, values: dict[str, float]) -> None:
        confined = optimization.constraint
        if confined is not None and "loss" in values and not isnan(confined.share_inside):
            values = {**values, "share_inside": confined.share_inside}
        keys = {"profile": folder.profile, "run": run.name, "seed": folder.seed, "step": step}
        rows.extend({**keys, "metric": metric, "value": value} for metric, value in values.items())
        if main and step > start:
            left = (monotonic() - began) / (step - start) * (run.steps - step)
            report(f"{name} at step {step} of {run.steps}, {roughly(left)} left of this run")

    for step in [step for step in run.snapshot_steps() if step > last]:
        train_steps(optimization, folder.seed, max(last, 0), step, record=record)
        last = step
        if main:
            scores = _evaluate(run, optimization.policy, evaluation, folder.seed, step)
            record(step, scores)
            # The state to go on from comes last: it says that snapshot and curve are there.
            save_checkpoint(optimization.policy.student.state_dict(), step_path(folder.directory, step))
            folder.write_curve(rows)
            save_checkpoint(optimization.state(), folder.state_path(step))
            folder.drop_states(latest=step)
            progress = f"step {step}/{run.steps}, accuracy {scores['sampled_accuracy']:.3f}"
            report(f"{name} {progress}, {monotonic() - began:.0f} s")
    if main:
        marker = {"fingerprint": folder.fingerprint, "config": asdict(run), "finished": True}
        write_json(folder.directory / "run.json", marker | {"steps": run.snapshot_steps()})
        folder.drop_states()


def _evaluate(
    run: RunConfig, policy: Policy, evaluation: EvaluationConfig, seed: int, step: int
) -> dict[str, float]:
    """Accuracy on validation problems at every snapshot; on test problems and variants at the last step."""
    home, scores = run.tasks[0], partial(score, policy, run, evaluation, seed)
    values = scores("validation", home)
    if step == run.steps:
        for task in dict.fromkeys((home, *evaluation.variants)):
            tested = scores("test", task)
            values |= {f"{metric}:{task.name}": value for metric, value in tested.items()}
    return values


def score(
    policy: Policy, run: RunConfig, evaluation: EvaluationConfig, seed: int, split: Split, task: Task
) -> dict[str, float]:
    """The `accuracy` of a run's student on a task's problems, the same in all that is evaluated so."""
    tested = evaluation.final_problems if task == run.tasks[0] else evaluation.variant_problems
    number = evaluation.snapshot_problems if split == "validation" else tested
    drawn = "evaluation" if evaluation.drawn is None else f"evaluation/{seed}"
    asked = problems(task, split=split, number=number, seed=drawn)
    sizes = {"samples": evaluation.samples, "max_new_tokens": run.max_new_tokens}
    with products(run, policy.student.device):
        stream = f"{seed}/{split}/{task.name}"
        return accuracy(policy.student, policy.tokenizer, asked, seed=stream, **sizes)
