"""Our training steps against TRL's, in turn in one process: same models, prompts, batch, threads."""

import json
import resource
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import torch
import transformers
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from paper_lib.ground import parallel
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_json
from paper_lib.live.callbacks import require_trl
from paper_lib.live.recipe import settings_of
from paper_lib.study.config import Profile
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import verify
from paper_lib.training.models import load_model, require_same_vocabulary
from paper_lib.training.runs import find_accelerator
from paper_lib.training.train import Optimization, Policy, collect, informative, products, step_problems

# --- Where the time of a training step goes.

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


# --- TRL's trainers, timed step by step: DistillationTrainer (reverse KL) and GRPOTrainer (no KL
# --- penalty).


def trl_settings(run: RunConfig, device: torch.device) -> dict[str, Any]:
    """TRL at its fastest for this work: the batch in one piece, nothing logged, saved or recomputed.

    Generation is transformers' own with its key-value cache; AdamW is the fused one, the default there.
    """
    return {
        **settings_of(run),
        "per_device_train_batch_size": run.prompts_per_step * run.samples_per_prompt,
        "max_completion_length": run.max_new_tokens,
        "gradient_checkpointing": False,
        "bf16": run.precision == "bf16",
        "use_cpu": device.type == "cpu",
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def trl_steps(run: RunConfig, policy: Policy, seed: int) -> list[dict[str, float]]:
    """Seconds by part, and mean completion length, of each step of one `train()` on the run's own problems.

    The problems are drawn and the dataset is built beforehand. Changes the student.
    """
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer

    watch = Stopwatch(policy.student.device)
    watch.watch_teacher(policy.teacher)
    lengths: list[float] = []
    measured: list[dict[str, float]] = []

    class Rollouts:
        def _send_telemetry(self) -> None:
            """Nothing leaves this machine."""

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            watch.enter("rollout")
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
            watch.leave()
            lengths.append(float(batch["completion_mask"].sum(1).float().mean()))
            return batch

    class Laps(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.lap()

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            watch.enter("optimizer")

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            watch.leave()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            measured.append({**watch.lap(), "completion_length": lengths[-1], "update_share": 1.0})

    class Distillation(Rollouts, DistillationTrainer):
        pass

    class GRPO(Rollouts, GRPOTrainer):
        pass

    drawn = [p for step in range(run.steps) for p in step_problems(run, seed, step, run.prompts_per_step)]
    by_prompt = {problem.prompt: problem for problem in drawn}
    end, pad = policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id

    def reward(prompts: list[str], completions: list[str], completion_ids: list, **_: Any) -> list[float]:
        return [
            float(end in ids and pad not in ids and verify(text, by_prompt[prompt]))
            for prompt, text, ids in zip(prompts, completions, completion_ids, strict=True)
        ]

    with TemporaryDirectory() as directory:
        settings = {"output_dir": directory, "seed": seed, **trl_settings(run, policy.student.device)}
        common = {
            "model": policy.student,
            "processing_class": policy.tokenizer,
            "callbacks": [Laps()],
        }
        if run.objective == "opd":  # one completion a row here; GRPO repeats each prompt itself
            rows = [{"prompt": p.prompt} for p in drawn for _ in range(run.samples_per_prompt)]
            args = DistillationConfig(**settings)
            dataset = Dataset.from_list(rows)
            trainer = Distillation(teacher_model=policy.teacher, args=args, train_dataset=dataset, **common)
        else:
            dataset = Dataset.from_list([{"prompt": p.prompt} for p in drawn])
            trainer = GRPO(reward_funcs=reward, args=GRPOConfig(**settings), train_dataset=dataset, **common)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return measured


OBJECTIVES = ("opd", "rlvr")


def bench_train(
    profile_name: str,
    *,
    data_dir: Path | str = "data",
    rounds: int = 3,
    steps: int = 5,
    warmup: int = 2,
    prompts: int = 32,
    objectives: Sequence[str] | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Seconds of an optimizer step of OPD (exact reverse KL) and of RLVR, ours and TRL's, in turn.

    A round is OPD ours, OPD TRL, RLVR ours, RLVR TRL, each from the profile's base: `warmup` steps that do
    not count, then `steps`. objectives: of these two, both where None. threads: of torch, one a core where
    None. out: a JSON file for the table and its settings. Returns one row an objective and code: the median
    step with its `ratio` to TRL's, the same in processor seconds, medians of the parts, and what shows equal
    work: mean completion length and the share of the completions that the update used. Raises CompanionError
    without TRL or a model, and for an unknown objective.
    """
    threads = parallel.cores() if threads is None else threads
    counts = {"rounds": rounds, "steps": steps, "prompts": prompts, "threads": threads}
    for name, count in counts.items():
        if count < 1:
            raise CompanionError(f"bench train: {name} is {count}, expected at least 1")
    profile = get_profile(profile_name)
    version = require_trl()
    chosen = OBJECTIVES if objectives is None else tuple(objectives)
    if unknown := [name for name in chosen if name not in OBJECTIVES]:
        raise CompanionError(f"no objective {unknown[0]!r}; there are {', '.join(OBJECTIVES)}")
    runs = {name: sized(profile.run(name), warmup + steps, prompts) for name in chosen}
    codes = {"ours": _our_steps, "TRL": trl_steps}
    records, peak = [], 0.0
    with parallel.threads(threads), _quiet_transformers():
        report(f"[bench] {rounds} rounds of {warmup} + {steps} steps: {' and '.join(chosen)}, ours and TRL's")
        for number in range(rounds):
            for objective, run in runs.items():
                for code, measured in codes.items():
                    policy = policy_of(profile, run, data_dir)
                    counted = measured(run, policy, number)[warmup:]
                    peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
                    records += [{"objective": objective, "code": code, **step} for step in counted]
                    seconds = median(sum(step[part] for part in PARTS) for step in counted)
                    report(f"[bench {number + 1}/{rounds}] {objective}, {code}: {seconds:.2f} s a step")
    a_run = next(iter(runs.values()))
    table = _summary(pd.DataFrame(records), prompts * a_run.samples_per_prompt)
    device = find_accelerator().device
    settings = {
        "profile": profile_name,
        "device": str(device),
        "warmup": warmup,
        **counts,
        "samples_per_prompt": a_run.samples_per_prompt,
        "max_new_tokens": a_run.max_new_tokens,
        "precision": a_run.precision or "float32",
        "peak_gigabytes": peak,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": version},
        "trl": {objective: trl_settings(run, device) for objective, run in runs.items()},
    }
    report(_printed(table, settings))
    if out is not None:
        write_json(out, {"settings": settings, "rows": json.loads(table.to_json(orient="records"))})
    return table


def sized(run: RunConfig, steps: int, prompts: int) -> RunConfig:
    """The profile's run at the size of the comparison; OPD by the exact reverse KL, as TRL computes it."""
    estimator = "exact" if run.objective == "opd" else run.estimator
    size = {"steps": steps, "snapshot_every": steps, "prompts_per_step": prompts}
    return replace(run, estimator=estimator, **size)  # type: ignore[arg-type]


def policy_of(profile: Profile, run: RunConfig, data_dir: Path | str) -> Policy:
    """The base as student and, for OPD, the teacher, fresh from disk."""
    models, device = Path(data_dir) / profile.models, find_accelerator().device
    student, tokenizer = load_model(models / "base")
    teacher = None
    if run.objective == "opd":
        teacher, vocabulary = load_model(models / run.teacher)
        require_same_vocabulary(tokenizer, vocabulary, str(models / run.teacher))
        teacher = teacher.to(device).requires_grad_(False)
    return Policy(student=student.to(device), tokenizer=tokenizer, teacher=teacher)


def _our_steps(run: RunConfig, policy: Policy, seed: int) -> list[dict[str, float]]:
    """The body of `train.train_steps`, timed; the problems of a step are drawn within it."""
    watch = Stopwatch(policy.student.device)
    watch.watch_teacher(policy.teacher)
    optimization = Optimization(policy, run, find_accelerator())
    watch.watch_optimizer(optimization.optimizer.optimizer)
    measured = []
    watch.lap()
    for step in range(run.steps):
        watch.enter("rollout")
        with products(run, policy.student.device):
            batch = collect(policy, run, seed, step)
        watch.leave()
        useful = informative(batch, run)
        optimization.update(useful, step)
        length = float(batch.completion_mask.sum(1).float().mean())
        rows = 0 if useful is None else len(useful.completion_ids)
        share = rows / len(batch.completion_ids)
        measured.append({**watch.lap(), "completion_length": length, "update_share": share})
    return measured


def _summary(records: pd.DataFrame, completions: int) -> pd.DataFrame:
    """One row an objective and code, in the order measured."""
    records["step"] = records[list(PARTS)].sum(axis=1)
    groups = records.groupby(["objective", "code"], sort=False)
    table = pd.DataFrame(index=groups.size().index)
    for prefix, timed in (("", "step"), ("processor_", "processor")):
        medians = groups[timed].median()
        table[f"{timed}_seconds"] = medians
        table[f"{prefix}ratio"] = medians.div(medians.xs("TRL", level="code"), level="objective")
    table["fastest_seconds"], table["slowest_seconds"] = groups["step"].min(), groups["step"].max()
    table["completions_per_second"] = completions / table["step_seconds"]
    table[["completion_length", "update_share"]] = groups[["completion_length", "update_share"]].mean()
    for part in PARTS:
        table[f"{part}_seconds"] = groups[part].median()
    table["steps"] = groups.size()
    return table.reset_index()


def _printed(table: pd.DataFrame, settings: dict[str, Any]) -> str:
    """The table and what was compared, for a terminal."""
    names = {name: name.removesuffix("_seconds") for name in table.columns} | {
        "step_seconds": "step [s]",
        "processor_ratio": "its ratio",
        "completions_per_second": "completions/s",
        "completion_length": "tokens each",
        "update_share": "in update",
    }
    shown = table.rename(columns=names).to_string(index=False, float_format=lambda value: f"{value:.3g}")
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    size = settings["prompts"] * settings["samples_per_prompt"]
    options = "\n".join(
        f"  {objective}: " + ", ".join(f"{name}={value}" for name, value in chosen.items())
        for objective, chosen in settings["trl"].items()
    )
    return f"""
One optimizer step of profile {settings["profile"]}: {size} completions ({settings["prompts"]} prompts × \
{settings["samples_per_prompt"]}) of at most {settings["max_new_tokens"]} tokens,
{settings["precision"]}, {settings["device"]}, threads: {settings["threads"]}; {versions}.
Medians of {settings["rounds"]} × {settings["steps"]} steps, ours and TRL's in turn, each turn after \
{settings["warmup"]} steps that do not count. Peak of ours, all models held: \
{settings["peak_gigabytes"]:.1f} GB.

{shown}

Seconds; ratio to TRL's median. processor: what all threads computed, the measure to trust where other
work shares the machine (steps then take longer than processor / threads). rollout: sampling and rewards
(ours also draws the problems here); teacher: its forward pass; student: forward, backward and the rest.
Our RLVR update leaves out the groups whose rewards are all equal: their advantage is 0. TRL computes them.
TRL's settings, the fastest that give this work:
{options}"""


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            require_trl()
            yield
    finally:
        transformers_logging.set_verbosity(before)
