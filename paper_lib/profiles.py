"""What to run: the profiles as constants."""

from dataclasses import replace
from typing import Any

from paper_lib.config import (
    DiagnosticsConfig,
    EvaluationConfig,
    Lineage,
    ModelConfig,
    Profile,
    Projection,
    RunConfig,
)
from paper_lib.errors import CompanionError
from paper_lib.tasks import CHAIN_SUM, LARGER_NUMBERS, MORE_TERMS, NUMBER_SORTING, UNSEEN_OPERATORS, Task

MIX_ALPHAS = (0.75, 0.5, 0.25, 0.05, 0.01)
MAIN_RUNS = ("sft", "opd", "rlvr")


def _stage(name: str, **changes: Any) -> RunConfig:
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


def _study_runs(
    *,
    task: Task,
    second_task: Task,
    sft: dict[str, Any],
    policy: dict[str, Any],
    K: int,
    variants: tuple[Task, ...] = (),
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

    def projected(parent: RunConfig, label: str, at: int, projection: Projection) -> RunConfig:
        return replace(
            parent, name=f"{parent.name}_projected_{label}", branch=(parent.name, at), projection=projection
        )

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


STUDENT_LINEAGE = Lineage(
    shape=ModelConfig(hidden_size=128, layers=4, heads=4, kv_heads=2, intermediate_size=384),
    seed=0,
    stages=(
        _stage("student_clean", steps=2000),
        _stage("student_noisy", steps=200, schedule="constant", learning_rate=5e-4, demonstration_noise=0.1),
    ),
    kept={"teacher_small": "student_clean", "base": "student_noisy"},
)
TEACHER_LINEAGE = Lineage(
    shape=ModelConfig(hidden_size=192, layers=6, heads=6, kv_heads=2, intermediate_size=576),
    seed=1,
    stages=(_stage("teacher_clean", steps=1600),),
    kept={"teacher": "teacher_clean"},
)

LAPTOP = Profile(
    name="laptop",
    models="models",
    lineages=(STUDENT_LINEAGE, TEACHER_LINEAGE),
    runs=_study_runs(
        task=CHAIN_SUM,
        second_task=NUMBER_SORTING,
        sft={
            "steps": 200,
            "prompts_per_step": 256,
            "samples_per_prompt": 1,
            "learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_fraction": 0.1,
            "betas": (0.9, 0.95),
            "demonstration_noise": 0.04,
            "snapshot_every": 20,
        },
        policy={"steps": 100, "learning_rate": 1e-5, "snapshot_every": 10},
        K=3,
    ),
    main_runs=MAIN_RUNS,
    main_seeds=(0, 1, 2),
    evaluation=EvaluationConfig(variants=(MORE_TERMS, LARGER_NUMBERS, UNSEEN_OPERATORS, NUMBER_SORTING)),
)

REFERENCE = replace(
    LAPTOP,
    name="reference",
    seeds=tuple(range(5)),
    main_runs=(*MAIN_RUNS, "sft_matched"),
    main_seeds=tuple(range(8)),
)

_SMALL_SUMS = Task(name="small_sums", digits=(1, 1))
_SMALL_SORTING = Task(name="small_sorting", domain="number_sorting", terms=(3, 4), digits=(1, 1))
_SMALL = {
    "tasks": (_SMALL_SUMS, _SMALL_SORTING),
    "weights": (0.7, 0.3),
    "max_new_tokens": 12,
    "snapshot_every": 200,
}

SMOKE = Profile(
    name="smoke",
    models="runs/smoke/models",
    lineages=(
        Lineage(
            shape=ModelConfig(hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=128),
            seed=0,
            stages=(
                _stage("smoke_student_clean", steps=400, **(_SMALL | {"learning_rate": 5e-3})),
                _stage(
                    "smoke_student_noisy",
                    steps=60,
                    **(_SMALL | {"schedule": "constant", "learning_rate": 1e-3, "demonstration_noise": 0.1}),
                ),
            ),
            kept={"teacher_small": "smoke_student_clean", "base": "smoke_student_noisy"},
        ),
        Lineage(
            shape=ModelConfig(hidden_size=96, layers=2, heads=3, kv_heads=1, intermediate_size=192),
            seed=1,
            stages=(_stage("smoke_teacher_clean", steps=400, **(_SMALL | {"learning_rate": 5e-3})),),
            kept={"teacher": "smoke_teacher_clean"},
        ),
    ),
    runs=_study_runs(
        task=_SMALL_SUMS,
        second_task=_SMALL_SORTING,
        sft={
            "steps": 20,
            "prompts_per_step": 64,
            "samples_per_prompt": 1,
            "learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_fraction": 0.1,
            "betas": (0.9, 0.95),
            "demonstration_noise": 0.04,
            "max_new_tokens": 12,
            "snapshot_every": 4,
        },
        policy={
            "steps": 10,
            "prompts_per_step": 8,
            "learning_rate": 1e-5,
            "max_new_tokens": 12,
            "snapshot_every": 2,
        },
        K=2,
    ),
    main_runs=MAIN_RUNS,
    main_seeds=(0, 1),
    diagnostics=DiagnosticsConfig(principal_rank=2, angle_k=8, K=2, hill_k=8, energy_k=2),
    evaluation=EvaluationConfig(
        snapshot_problems=32,
        final_problems=64,
        variants=(replace(_SMALL_SUMS, name="more_terms", terms=(4, 4)), _SMALL_SORTING),
    ),
)

PROFILES = {profile.name: profile for profile in (SMOKE, LAPTOP, REFERENCE)}


def get_profile(name: str) -> Profile:
    """The profile of that name; CompanionError names the known ones."""
    if name not in PROFILES:
        raise CompanionError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
