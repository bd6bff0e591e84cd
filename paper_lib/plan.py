"""Every run of the paper with its controls, and a stage of pretraining: settings in, `RunConfig`s out."""

from dataclasses import replace
from typing import Any

from paper_lib.config import Projection, RunConfig
from paper_lib.tasks import CHAIN_SUM, LARGER_NUMBERS, MORE_TERMS, NUMBER_SORTING, Task

MIX_ALPHAS = (0.75, 0.5, 0.25, 0.05, 0.01)


def pretraining_stage(name: str, **changes: Any) -> RunConfig:
    """A stage of pretraining: demonstrations of every task, cosine schedule."""
    settings: dict[str, Any] = {
        "objective": "sft",
        "start": "scratch",
        "tasks": (CHAIN_SUM, NUMBER_SORTING, MORE_TERMS, LARGER_NUMBERS),
        "weights": (0.64, 0.16, 0.1, 0.1),
        "prompts_per_step": 128,
        "samples_per_prompt": 1,
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup_fraction": 0.05,
        "max_new_tokens": 32,
        "snapshot_every": 200,
    }
    return RunConfig(name=name, **(settings | changes))


def study_runs(
    *,
    task: Task,
    second_task: Task,
    sft: dict[str, Any],
    policy: dict[str, Any],
    K: int,
) -> tuple[RunConfig, ...]:
    """Every run of the paper and its controls. sft: settings of the first stage; policy: of all runs from
    the anchor.

    The branch of projected training is at a fifth of the run, as in §4.2.
    """
    first = RunConfig(name="sft", objective="sft", start="base", tasks=(task,), **sft)
    opd = RunConfig(name="opd", objective="opd", tasks=(task,), **policy)
    batch = opd.prompts_per_step * opd.samples_per_prompt
    branch, sft_branch = opd.steps // 5, first.steps // 5
    rlvr = replace(opd, name="rlvr", objective="rlvr")
    matched = replace(opd, name="sft_matched", objective="sft", prompts_per_step=batch, samples_per_prompt=1)
    kept = [
        replace(
            opd,
            name=f"opd_tokens_{selection}_{round(100 * rho)}",
            token_selection=selection,
            keep_fraction=rho,
        )
        for selection in ("top_gap", "random")
        for rho in (0.5, 0.25)
    ]
    mixes = [replace(opd, name=f"mix_{alpha:g}", objective="mix", alpha=alpha) for alpha in MIX_ALPHAS]

    early = Projection(basis="early", K=K)
    return (
        first,
        opd,
        rlvr,
        matched,
        replace(opd, name="opd_exact", estimator="exact"),
        replace(opd, name="opd_small_teacher", teacher="teacher_small"),
        replace(opd, name="opd_second_domain", tasks=(second_task,)),
        *kept,
        replace(opd, name="opd_teacher_rollouts", rollout_policy="teacher"),
        *mixes,
        replace(opd, name="opd_sibling", stream="sibling", steps=branch),
        projected(opd, "early", branch, early),
        projected(opd, "early_update", branch, replace(early, constrain="update")),
        projected(opd, "early_both", branch, replace(early, constrain="both")),
        projected(opd, "random", branch, Projection(basis="random", K=K)),
        projected(opd, "other_seed", branch, Projection(basis="other_seed", K=K, source="opd_sibling")),
        projected(opd, "principal", branch, Projection(basis="principal", K=K)),
        projected(first, "early", sft_branch, early),
        projected(first, "random", sft_branch, Projection(basis="random", K=K)),
    )


def projected(parent: RunConfig, label: str, at: int, projection: Projection) -> RunConfig:
    """The run that goes on from the state of `parent` after `at` steps, confined."""
    return replace(
        parent, name=f"{parent.name}_projected_{label}", branch=(parent.name, at), projection=projection
    )
