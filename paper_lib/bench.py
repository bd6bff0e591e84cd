"""Our training steps against TRL's, in turn in one process: same models, prompts, batch, threads."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from transformers.utils import logging as transformers_logging

from paper_lib import parallel
from paper_lib.bench_trl import require_trl, trl_settings, trl_steps
from paper_lib.collection import Policy, collect, informative
from paper_lib.config import Profile, RunConfig
from paper_lib.errors import CompanionError
from paper_lib.files import write_json
from paper_lib.models import load_model, require_same_vocabulary
from paper_lib.pretrain import models_directory
from paper_lib.profiles import get_profile
from paper_lib.runs import find_accelerator
from paper_lib.stopwatch import PARTS, Stopwatch
from paper_lib.train import Optimization

OBJECTIVES = ("opd", "rlvr")


def bench_train(
    profile_name: str,
    *,
    data_dir: Path | str = "data",
    rounds: int = 3,
    steps: int = 5,
    warmup: int = 2,
    prompts: int = 32,
    threads: int | None = None,
    out: Path | str | None = None,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Seconds of an optimizer step of OPD (exact reverse KL) and of RLVR, ours and TRL's, in turn.

    A round is OPD ours, OPD TRL, RLVR ours, RLVR TRL, each from the profile's base: `warmup` steps that do
    not count, then `steps`. threads: of torch, one a core where None. out: a JSON file for the table and
    its settings. Returns one row an objective and code: the median step with its `ratio` to TRL's, the
    same in processor seconds, medians of the parts, and what shows equal work: mean completion length and
    the share of the completions that the update used. Raises CompanionError without TRL or a model.
    """
    threads = parallel.cores() if threads is None else threads
    counts = {"rounds": rounds, "steps": steps, "prompts": prompts, "threads": threads}
    for name, count in counts.items():
        if count < 1:
            raise CompanionError(f"bench train: {name} is {count}, expected at least 1")
    profile = get_profile(profile_name)
    version = require_trl()
    runs = {name: _sized(profile.run(name), warmup + steps, prompts) for name in OBJECTIVES}
    codes = {"ours": _our_steps, "TRL": trl_steps}
    records = []
    with parallel.threads(threads), _quiet_transformers():
        for number in range(rounds):
            for objective, run in runs.items():
                for code, measured in codes.items():
                    policy = _policy(profile, run, data_dir)
                    counted = measured(run, policy, number)[warmup:]
                    records += [{"objective": objective, "code": code, **step} for step in counted]
            report(f"[bench {number + 1}/{rounds}] measured")
    table = _summary(pd.DataFrame(records), prompts * runs["opd"].samples_per_prompt)
    device = find_accelerator().device
    settings = {
        "profile": profile_name,
        "device": str(device),
        "warmup": warmup,
        **counts,
        "samples_per_prompt": runs["opd"].samples_per_prompt,
        "max_new_tokens": runs["opd"].max_new_tokens,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": version},
        "trl": {objective: trl_settings(run, device) for objective, run in runs.items()},
    }
    report(_printed(table, settings))
    if out is not None:
        write_json(out, {"settings": settings, "rows": json.loads(table.to_json(orient="records"))})
    return table


def _sized(run: RunConfig, steps: int, prompts: int) -> RunConfig:
    """The profile's run at the size of the comparison; OPD by the exact reverse KL, as TRL computes it."""
    estimator = "exact" if run.objective == "opd" else run.estimator
    size = {"steps": steps, "snapshot_every": steps, "prompts_per_step": prompts}
    return replace(run, estimator=estimator, **size)  # type: ignore[arg-type]


def _policy(profile: Profile, run: RunConfig, data_dir: Path | str) -> Policy:
    """The base as student and, for OPD, the teacher, fresh from disk."""
    models, device = models_directory(profile, data_dir), find_accelerator().device
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
float32, {settings["device"]}, threads: {settings["threads"]}; {versions}.
Medians of {settings["rounds"]} × {settings["steps"]} steps, ours and TRL's in turn, each turn after \
{settings["warmup"]} steps that do not count.

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
        with warnings.catch_warnings():  # TRL 1.16 uses the old name of a transformers option
            warnings.filterwarnings("ignore", ".*gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(before)
