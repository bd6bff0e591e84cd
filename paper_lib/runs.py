"""One run in its directory: started or resumed, evaluated at its snapshots, marked finished last."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import pandas as pd
from accelerate import Accelerator
from filelock import FileLock
from torch import Tensor

from paper_lib.checkpoints import load_checkpoint, save_checkpoint, step_path
from paper_lib.config import EvaluationConfig, RunConfig
from paper_lib.evaluation import accuracy
from paper_lib.files import write_json
from paper_lib.projection import SubspaceConstraint
from paper_lib.tables import CURVE_COLUMNS, write_table
from paper_lib.tasks import problems
from paper_lib.train import Optimization, Policy, train_steps


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """Where a run lives and what it must match: everything that decides its numbers is in the fingerprint."""

    directory: Path
    profile: str
    seed: int
    fingerprint: str

    def state_path(self, step: int) -> Path:
        """Weights and Adam moments after `step` optimizer steps."""
        return self.directory / f"state_{step:06d}.safetensors"

    def finished(self, *, kept_states: tuple[int, ...] = ()) -> bool:
        """Whether this very configuration ran to its end here and left the states that other runs branch
        from."""
        marker = self.directory / "run.json"
        if not marker.is_file() or not all(self.state_path(s).is_file() for s in kept_states):
            return False
        try:
            return json.loads(marker.read_text())["fingerprint"] == self.fingerprint
        except (ValueError, KeyError):
            return False


def train_run(
    run: RunConfig,
    place: RunPlace,
    policy: Policy,
    *,
    evaluation: EvaluationConfig,
    bases: dict[str, Tensor] | None = None,
    parent: RunPlace | None = None,
    kept_states: tuple[int, ...] = (),
    report: Callable[[str], None] = print,
) -> None:
    """Train `run` from `policy.student`'s weights, W_0, in `place.directory`, from wherever an earlier call
    stopped.

    bases: V_K by parameter name for a projected run. parent: the run it branches from. kept_states: steps
    whose training state stays for runs that branch here. What another configuration left in the directory
    is removed. Raises CompanionError where the loss is not finite; snapshots made by then are kept.
    """
    place.directory.mkdir(parents=True, exist_ok=True)
    with FileLock(place.directory.with_name(f".{place.directory.name}.lock")):
        if place.finished(kept_states=kept_states):
            return
        _clear_if_stale(place)
        accelerator = Accelerator()
        policy.student.to(accelerator.device)
        if policy.teacher is not None:
            policy.teacher.to(accelerator.device)
        constraint = None
        if bases is not None and run.projection is not None:
            constraint = SubspaceConstraint(policy.student, bases, run.projection.constrain)
        optimization = Optimization(policy, run, accelerator, constraint)
        first, rows = _resume(run, place, optimization, parent)
        if first == 0:
            rows = _evaluate(run, place, policy, evaluation, 0)
            save_checkpoint(policy.student.state_dict(), step_path(place.directory, 0))
        _continue(run, place, optimization, evaluation, first, rows, kept_states, report)


def _clear_if_stale(place: RunPlace) -> None:
    marker = place.directory / "config.json"
    if marker.is_file() and json.loads(marker.read_text()) == {"fingerprint": place.fingerprint}:
        return
    shutil.rmtree(place.directory)
    place.directory.mkdir(parents=True)
    write_json(marker, {"fingerprint": place.fingerprint})


def _resume(
    run: RunConfig, place: RunPlace, optimization: Optimization, parent: RunPlace | None
) -> tuple[int, list[dict]]:
    """The step to go on from and the curve up to it: the latest whole state here, else the parent's at the
    branch."""
    if (
        parent is not None
        and run.branch is not None
        and not list(place.directory.glob("state_*.safetensors"))
    ):
        _adopt(run, place, parent, run.branch[1])
    states = sorted(place.directory.glob("state_*.safetensors"))
    if not states:
        return 0, []
    step = int(states[-1].stem.removeprefix("state_"))
    optimization.load_state(load_checkpoint(states[-1]))
    rows = json.loads((place.directory / "curve.json").read_text())
    return step, [row for row in rows if row["step"] <= step]


def _adopt(run: RunConfig, place: RunPlace, parent: RunPlace, step: int) -> None:
    for path in parent.directory.glob("step_*.safetensors"):
        if int(path.stem.removeprefix("step_")) <= step:
            shutil.copyfile(path, place.directory / path.name)
    rows = json.loads((parent.directory / "curve.json").read_text())
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
    began = monotonic()

    def record(step: int, values: dict[str, float]) -> None:
        if optimization.constraint is not None:
            values = {**values, "share_inside": optimization.constraint.share_inside}
        rows.extend(_row(run, place, step, metric, value) for metric, value in values.items())

    for step in [s for s in run.snapshot_steps() if s > first]:
        train_steps(optimization, place.seed, first, step, record=record)
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
        first = step
    curve = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
    write_table(
        curve,
        place.directory / "curve.parquet",
        columns=CURVE_COLUMNS,
        fingerprint=place.fingerprint,
        seed=place.seed,
    )
    marker = {
        "fingerprint": place.fingerprint,
        "config": asdict(run),
        "steps": run.snapshot_steps(),
        "finished": True,
    }
    write_json(place.directory / "run.json", marker)
    _drop_states(place, None, kept_states)


def _drop_states(place: RunPlace, latest: int | None, kept: tuple[int, ...]) -> None:
    for path in place.directory.glob("state_*.safetensors"):
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
            values = measured("test", task, evaluation.final_problems)
            found |= {f"{metric}:{task.name}": value for metric, value in values.items()}
    return [_row(run, place, step, metric, value) for metric, value in found.items()]


def _row(run: RunConfig, place: RunPlace, step: int, metric: str, value: float) -> dict:
    keys = {"profile": place.profile, "run": run.name, "seed": place.seed, "step": step}
    return {**keys, "metric": metric, "value": value}
