"""One run in its directory: started or resumed, evaluated at its snapshots, marked finished last."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import pandas as pd
import torch
from accelerate import Accelerator
from filelock import FileLock
from transformers import PreTrainedModel

from paper_lib.errors import CompanionError
from paper_lib.files import copy_file, read_json, read_json_rows, write_json
from paper_lib.study.config import EvaluationConfig
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import problems
from paper_lib.tables import CURVE_COLUMNS, write_table
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint, step_path
from paper_lib.training.rollouts import accuracy
from paper_lib.training.train import Constraint, Optimization, Policy, train_steps

# --- Where a run lives on disk, and whether what is there is this very run.


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """Where a run lives and what it must match: everything that decides its numbers is in the fingerprint."""

    directory: Path
    profile: str
    seed: int
    fingerprint: str

    def lock(self) -> FileLock:
        """Beside the folder, for whoever trains, takes over or removes the run."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.directory.with_name(f".{self.directory.name}.lock"))

    def state_path(self, step: int) -> Path:
        """Weights and the optimizer's memory after `step` optimizer steps."""
        return self.directory / f"state_{step:06d}.safetensors"

    def finished(self, *, kept_states: tuple[int, ...] = ()) -> bool:
        """Whether this very configuration ran to its end here and left the states that other runs branch
        from."""
        kept = all(self.state_path(step).is_file() for step in kept_states)
        return kept and fingerprint_in(self.directory / "run.json") == self.fingerprint

    def recorded(self) -> list[dict]:
        """The rows of its curve so far; raises CompanionError where the file is missing or damaged."""
        remedy = f"delete the folder {self.directory}, and the run starts over"
        return read_json_rows(self.directory / "curve.json", remedy)

    def write_curve(self, rows: list[dict]) -> None:
        """The run's curve as a tidy table, curve.parquet."""
        write_table(
            pd.DataFrame(rows, columns=list(CURVE_COLUMNS)),
            self.directory / "curve.parquet",
            columns=CURVE_COLUMNS,
            fingerprint=self.fingerprint,
            seed=self.seed,
        )


def fingerprint_in(marker: Path) -> str | None:
    """The fingerprint that a marker holds; None where there is no marker, or a damaged one."""
    try:
        return json.loads(marker.read_text())["fingerprint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


# --- A run that another profile has already trained: its files are shared instead of trained again.


def reuse_finished(run: RunConfig, place: RunPlace, runs_dir: Path) -> bool:
    """Take over a finished run of the same fingerprint from another profile; True where there was one.

    Snapshots and kept states become hard links (copies across file systems), the curve gets this profile's
    name, and `run.json` comes last, so a copy that was stopped is not mistaken for a whole one.
    """
    for folder in sorted(runs_dir.glob(f"*/{run.name}/seed_{place.seed}")):
        other = RunPlace(
            directory=folder,
            profile=folder.parents[1].name,
            seed=place.seed,
            fingerprint=place.fingerprint,
        )
        if folder != place.directory and other.finished():
            with place.lock():
                if taken := not place.finished():  # by whoever held the lock
                    _share(other, place)
            return taken
    return False


def _share(source: RunPlace, place: RunPlace) -> None:
    rows = [{**row, "profile": place.profile} for row in source.recorded()]
    marker = read_json(source.directory / "run.json", f"delete {source.directory}, and the run starts over")
    shutil.rmtree(place.directory, ignore_errors=True)
    place.directory.mkdir(parents=True)
    for path in sorted(source.directory.glob("*.safetensors")):
        try:
            os.link(path, place.directory / path.name)
        except OSError:
            copy_file(path, place.directory / path.name)
    write_json(place.directory / "curve.json", rows)
    place.write_curve(rows)
    write_json(place.directory / "config.json", {"fingerprint": place.fingerprint})
    write_json(place.directory / "run.json", marker)


def find_accelerator() -> Accelerator:
    """CUDA's where there is one, else the CPU: rollouts and losses need float64, which Apple's GPUs lack."""
    return Accelerator(cpu=not torch.cuda.is_available())


def train_run(
    run: RunConfig,
    place: RunPlace,
    policy: Policy,
    *,
    evaluation: EvaluationConfig,
    confine: Callable[[PreTrainedModel], Constraint | None] | None = None,
    parent: RunPlace | None = None,
    kept_states: tuple[int, ...] = (),
    report: Callable[[str], None] = print,
) -> None:
    """Train `run` from `policy.student`'s weights, W_0, in `place.directory`, from wherever an earlier call
    stopped.

    confine: makes what confines the student's updates. parent: the run it branches from. kept_states: steps
    whose training state stays for runs that branch here; a finished run makes those that it lacks once more.
    What another configuration left in the directory is removed. Raises CompanionError where the loss is not
    finite; snapshots made by then are kept.
    """
    accelerator = find_accelerator()
    with _held(place, accelerator):
        if place.finished(kept_states=kept_states):
            return
        finished = place.finished()
        accelerator.wait_for_everyone()  # nobody clears the marker while another still reads it
        if accelerator.is_main_process and not finished:
            _prepare(run, place, parent)
        accelerator.wait_for_everyone()
        policy.student.to(accelerator.device)
        if policy.teacher is not None:
            policy.teacher.to(accelerator.device)
        constraint = None if confine is None else confine(policy.student)
        optimization = Optimization(policy, run, accelerator, constraint)
        if finished:
            _replay(run, place, optimization, parent, kept_states)
            return
        first, rows = _resume(place, optimization)
        accelerator.wait_for_everyone()  # nobody writes while another still reads where to go on from
        if first == 0 and accelerator.is_main_process:
            rows = _evaluate(run, place, policy, evaluation, 0)
            save_checkpoint(policy.student.state_dict(), step_path(place.directory, 0))
        _continue(run, place, optimization, evaluation, first, rows, kept_states, report)
        accelerator.wait_for_everyone()


@contextmanager
def _held(place: RunPlace, accelerator: Accelerator) -> Iterator[None]:
    """The run's lock, which the main process holds for all that train the run together."""
    with place.lock() if accelerator.is_main_process else nullcontext():
        place.directory.mkdir(parents=True, exist_ok=True)
        accelerator.wait_for_everyone()
        yield


def _prepare(run: RunConfig, place: RunPlace, parent: RunPlace | None) -> None:
    """Clear what another configuration left, and start a branch from its parent's training state."""
    marker = place.directory / "config.json"
    if fingerprint_in(marker) != place.fingerprint:
        shutil.rmtree(place.directory)
        place.directory.mkdir(parents=True)
        write_json(marker, {"fingerprint": place.fingerprint})
    if parent is not None and run.branch is not None and not _states(place):
        _adopt(run, place, parent, run.branch[1])


def _states(place: RunPlace) -> list[Path]:
    return sorted(place.directory.glob("state_*.safetensors"))


def _resume(place: RunPlace, optimization: Optimization) -> tuple[int, list[dict]]:
    """The step to go on from, that of the latest whole state, and the curve up to it."""
    states = _states(place)
    if not states:
        return 0, []
    step = int(states[-1].stem.removeprefix("state_"))
    try:
        optimization.load_state(load_checkpoint(states[-1]))
    except CompanionError as error:
        raise CompanionError(f"{error}; delete this file, and the run starts over") from error
    rows = place.recorded()
    return step, [row for row in rows if row["step"] <= step]


def _replay(
    run: RunConfig,
    place: RunPlace,
    optimization: Optimization,
    parent: RunPlace | None,
    kept_states: tuple[int, ...],
) -> None:
    """The states that a finished run no longer has, or never kept: its steps again, and nothing else new."""
    first = 0
    if parent is not None and run.branch is not None:
        first = run.branch[1]
        optimization.load_state(load_checkpoint(parent.state_path(first)))
    for step in sorted(kept_states):
        if place.state_path(step).is_file():
            optimization.load_state(load_checkpoint(place.state_path(step)))
        else:
            train_steps(optimization, place.seed, first, step, record=lambda step, values: None)
            if optimization.accelerator.is_main_process:
                save_checkpoint(optimization.state(), place.state_path(step))
        first = step
        optimization.accelerator.wait_for_everyone()


def _adopt(run: RunConfig, place: RunPlace, parent: RunPlace, step: int) -> None:
    for path in parent.directory.glob("step_*.safetensors"):
        if int(path.stem.removeprefix("step_")) <= step:
            copy_file(path, place.directory / path.name)
    rows = parent.recorded()
    own = [{**row, "run": run.name} for row in rows if row["step"] <= step and ":" not in row["metric"]]
    write_json(place.directory / "curve.json", own)
    save_checkpoint(load_checkpoint(parent.state_path(step)), place.state_path(step))


def _continue(
    run: RunConfig,
    place: RunPlace,
    optimization: Optimization,
    evaluation: EvaluationConfig,
    first: int,
    rows: list[dict],
    kept_states: tuple[int, ...],
    report: Callable[[str], None],
) -> None:
    began, main = monotonic(), optimization.accelerator.is_main_process

    def record(step: int, values: dict[str, float]) -> None:
        if optimization.constraint is not None and "loss" in values:
            values = {**values, "share_inside": optimization.constraint.share_inside}
        rows.extend(_row(run, place, step, metric, value) for metric, value in values.items())

    for step in [s for s in run.snapshot_steps() if s > first]:
        train_steps(optimization, place.seed, first, step, record=record)
        first = step
        if not main:
            continue
        rows.extend(_evaluate(run, place, optimization.policy, evaluation, step))
        save_checkpoint(optimization.policy.student.state_dict(), step_path(place.directory, step))
        write_json(place.directory / "curve.json", rows)
        save_checkpoint(optimization.state(), place.state_path(step))
        _drop_states(place, step, kept_states)
        seconds = monotonic() - began
        latest = next(r["value"] for r in reversed(rows) if r["metric"] == "sampled_accuracy")
        report(
            f"[{run.name} seed {place.seed}] step {step}/{run.steps}, accuracy {latest:.3f}, {seconds:.0f} s"
        )
    if main:
        _finish(run, place, rows, kept_states)


def _finish(run: RunConfig, place: RunPlace, rows: list[dict], kept_states: tuple[int, ...]) -> None:
    place.write_curve(rows)
    marker = {
        "fingerprint": place.fingerprint,
        "config": asdict(run),
        "steps": run.snapshot_steps(),
        "finished": True,
    }
    write_json(place.directory / "run.json", marker)
    _drop_states(place, None, kept_states)


def _drop_states(place: RunPlace, latest: int | None, kept: tuple[int, ...]) -> None:
    for path in _states(place):
        if int(path.stem.removeprefix("state_")) not in (latest, *kept):
            path.unlink()


def _evaluate(
    run: RunConfig, place: RunPlace, policy: Policy, evaluation: EvaluationConfig, step: int
) -> list[dict]:
    """Accuracy on validation problems at every snapshot; on test problems and the variants at the last
    step."""

    def measured(split: str, task, number: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
        chosen = problems(task, split=split, number=number, seed="evaluation")  # type: ignore[arg-type]
        return accuracy(
            policy.student,
            policy.tokenizer,
            chosen,
            samples=evaluation.samples,
            max_new_tokens=run.max_new_tokens,
            seed=f"{place.seed}/{split}/{task.name}",
        )

    home = run.tasks[0]
    found = measured("validation", home, evaluation.snapshot_problems)
    if step == run.steps:
        for task in (home, *(v for v in evaluation.variants if v != home)):
            number = evaluation.final_problems if task == home else evaluation.variant_problems
            values = measured("test", task, number)
            found |= {f"{metric}:{task.name}": value for metric, value in values.items()}
    return [_row(run, place, step, metric, value) for metric, value in found.items()]


def _row(run: RunConfig, place: RunPlace, step: int, metric: str, value: float) -> dict:
    keys = {"profile": place.profile, "run": run.name, "seed": place.seed, "step": step}
    return {**keys, "metric": metric, "value": value}
