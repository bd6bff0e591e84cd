"""What a watch costs a training run: its measurements against the steps between them, in one run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

import pandas as pd
from steps import policy_of, sized

from paper_lib.ground import parallel
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_json
from paper_lib.live import GeometryCallback, Watch
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.training.models import load_smollm2, smollm2_weights
from paper_lib.training.runs import find_accelerator
from paper_lib.training.train import Optimization, Policy, collect, informative

AIMS = {"shipped": 0.05, "smollm2": 0.03}  # of the training time, at the default interval


def bench_watch(
    profile_name: str,
    *,
    data_dir: Path | str = "data",
    models: Sequence[str] | None = None,
    steps: int = 4,
    prompts: int | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Processor seconds of a step and of both kinds of measurement, and what they come to at the defaults.

    models: "shipped", OPD of the profile's pair (32 prompts × 8 completions), "smollm2", SFT of
    SmolLM2-135M on 16 demonstrations, its cheapest step; without a choice, what is installed. A step of two
    is measured, by norms alone and with spectra in turn. ratio: training with the callback over training
    without, where of each `spectra_every` steps one is measured whole and the other multiples of `every` by
    norms. kept [MB]: W_0 and the last weights. Raises CompanionError for an unknown or a missing model.
    """
    chosen = _measurable(models, report)
    threads = parallel.cores() if threads is None else threads
    records = []
    with parallel.threads(threads):
        for name in chosen:
            run, policy = (
                _smollm2(prompts or 16) if name == "smollm2" else _pair(profile_name, data_dir, prompts)
            )
            records.append({"model": name, **_measured(replace(run, steps=2 * steps + 1), policy)})
            report(f"[bench] {name}: {records[-1]['ratio']:.3f} of the time without (aim {1 + AIMS[name]:g})")
    table = pd.DataFrame(records)
    report(f"\n{table.to_string(index=False, float_format=lambda value: f'{value:.3g}')}\n")
    if out is not None:
        settings = {"profile": profile_name, "steps": steps, "prompts": prompts, "threads": threads}
        write_json(out, {"settings": settings, "rows": json.loads(table.to_json(orient="records"))})
    return table


def _measurable(models: Sequence[str] | None, report: Callable[[str], None]) -> Sequence[str]:
    if unknown := [name for name in models or () if name not in AIMS]:
        raise CompanionError(f"bench watch: no model {unknown[0]!r}; there are {', '.join(AIMS)}")
    try:
        smollm2_weights()
    except CompanionError as missing:
        if models is None:
            report(f"[bench] smollm2 is left out: {missing}")
            return ["shipped"]
        if "smollm2" in models:
            raise
    return list(AIMS) if models is None else models


def _pair(profile_name: str, data_dir: Path | str, prompts: int | None) -> tuple[RunConfig, Policy]:
    profile = get_profile(profile_name)
    run = sized(profile.run("opd"), 1, prompts or 32)
    return run, policy_of(profile, run, data_dir)


def _smollm2(prompts: int | None) -> tuple[RunConfig, Policy]:
    student, tokenizer = load_smollm2()
    policy = Policy(student=student.to(find_accelerator().device), tokenizer=tokenizer)
    return sized(get_profile("smollm2").run("sft"), 1, prompts or 16), policy


def _measured(run: RunConfig, policy: Policy) -> dict[str, float]:
    """One step that does not count, then after every second one a measurement, with spectra every other."""
    watch, optimization = Watch(policy.student), Optimization(policy, run, find_accelerator())
    watch.follow(optimization.optimizer.optimizer)
    taken: dict[str, list[float]] = {"step": [], "norms": [], "spectra": []}
    for step in range(run.steps):
        begin = process_time()
        optimization.update(informative(collect(policy, run, 0, step), run), step)
        taken["step"].append(process_time() - begin)
        if step % 2:
            whole = step % 4 == 1
            begin = process_time()
            watch.measure(spectra_too=whole)
            taken["spectra" if whole else "norms"].append(process_time() - begin)
    seconds = {name: median(times[name == "step" :]) for name, times in taken.items()}
    every, seldom = GeometryCallback().every, GeometryCallback().spectra_every
    watching = (seldom // every - 1) * seconds["norms"] + seconds["spectra"]
    kept = 2 * sum(weights.nbytes for name, weights in watch.state().items() if name.startswith("start."))
    return {
        **{f"{name} [s]": value for name, value in seconds.items()},
        "every": every,
        "spectra every": seldom,
        "ratio": 1 + watching / (seldom * seconds["step"]),
        "added [%]": 100 * watching / (seldom * seconds["step"]),
        "kept [MB]": kept / 1e6,
    }
