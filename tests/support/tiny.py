"""A study that trains in seconds: very small random models, runs of 4 steps of 8 completions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.study.config import DiagnosticsConfig, EvaluationConfig, Lineage, ModelConfig, ModelProbes
from paper_lib.study.profiles import PROFILES
from paper_lib.study.run_config import Projection, RunConfig
from paper_lib.study.tasks import Task, character_tokenizer, seeded_generator
from paper_lib.training.models import build_model, save_model
from paper_lib.training.rollouts import Batch, sample
from paper_lib.training.train import Optimization, Policy, train_steps

SUMS = Task(name="tiny_sums", terms=(2, 2), digits=(1, 1))
LONGER = Task(name="tiny_longer", terms=(3, 3), digits=(1, 1))
SORTING = Task(name="tiny_sorting", domain="number_sorting", terms=(2, 3), digits=(1, 1))
SHAPE = ModelConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=48, head_dim=16)
PROMPTS = ("?3+4=", "?12-5+88=", "?<7,1=", "?9-9=")
TEACHER_SHAPE = replace(SHAPE, hidden_size=48, layers=1)

SFT = RunConfig(
    name="sft",
    objective="sft",
    start="base",
    tasks=(SUMS,),
    steps=4,
    prompts_per_step=8,
    samples_per_prompt=1,
    learning_rate=1e-3,
    schedule="cosine",
    warmup_fraction=0.25,
    demonstration_noise=0.1,
    max_new_tokens=6,
    snapshot_every=2,
)
OPD = RunConfig(
    name="opd",
    objective="opd",
    tasks=(SUMS,),
    steps=4,
    prompts_per_step=2,
    samples_per_prompt=4,
    learning_rate=1e-3,
    max_new_tokens=6,
    snapshot_every=2,
)
RLVR = replace(OPD, name="rlvr", objective="rlvr")
MIX = replace(OPD, name="mix_0.5", objective="mix", alpha=0.5)
RANDOM_TOKENS = replace(OPD, name="opd_tokens_random_50", token_selection="random", keep_fraction=0.5)
SIBLING = replace(OPD, name="opd_sibling", stream="sibling", steps=2)
EARLY = replace(OPD, name="opd_projected_early", branch=("opd", 2), projection=Projection(basis="early", K=2))
OTHER_SEED = replace(
    EARLY,
    name="opd_projected_other_seed",
    projection=Projection(basis="other_seed", K=2, source="opd_sibling"),
)

TINY = replace(
    PROFILES["smoke"],
    name="tiny",
    models="models",
    lineages=(),
    runs=(SFT, OPD, RLVR, MIX, RANDOM_TOKENS, SIBLING, EARLY, OTHER_SEED),
    probes=(),
    seeds=(0,),
    main_runs=(),
    main_seeds=(0,),
    diagnostics=DiagnosticsConfig(
        principal_rank=2,
        angle_k=4,
        K=2,
        hill_k=4,
        energy_k=2,
        null_runs=("opd",),
        seed_runs=(),
        model_probes=ModelProbes(drift_prompts=2, curvature_prompts=2, draws=2, samples=2),
    ),
    evaluation=EvaluationConfig(
        snapshot_problems=4, final_problems=4, variant_problems=4, samples=2, variants=(LONGER,)
    ),
)
LINEAGE = Lineage(
    shape=SHAPE,
    seed=0,
    stages=(
        replace(SFT, name="clean", start="scratch", demonstration_noise=0.0),
        replace(SFT, name="noisy", start="scratch", steps=2),
    ),
    kept={"teacher": "clean", "base": "noisy"},
)


def trained_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model after 40 steps on tiny sums: it ends its completions, and some of its answers are right."""
    tokenizer = character_tokenizer()
    policy = Policy(student=build_model(SHAPE, tokenizer, seed=0), tokenizer=tokenizer)
    run = replace(SFT, steps=40, prompts_per_step=16, learning_rate=1e-2, demonstration_noise=0.0)
    optimization = Optimization(policy, run, Accelerator())
    train_steps(optimization, 0, 0, run.steps, record=lambda step, values: None)
    return policy.student, tokenizer


def save_models(directory: Path) -> None:
    """The profile's base, trained a little, and its teacher, a random model of another shape."""
    base, tokenizer = trained_base()
    save_model(base, tokenizer, directory / "base", card="# base", recipe={})
    teacher = build_model(TEACHER_SHAPE, tokenizer, seed=1)
    save_model(teacher, tokenizer, directory / "teacher", card="# teacher", recipe={})


def draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str] = PROMPTS,
    *,
    samples: int = 4,
    length: int = 8,
    seed: int | None = 0,
    **options: Any,
) -> Batch:
    """Completions of the prompts, greedy where the seed is None."""
    generator = None if seed is None else seeded_generator("draw", seed)
    return sample(
        *(model, tokenizer, prompts),
        samples=samples,
        max_new_tokens=length,
        generator=generator,
        **options,
    )


def full_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Logits that predict each completion token, from whole rows with no cache and nothing shared."""
    group, width = batch.group_size, batch.prompt_ids.shape[1]
    ids = torch.cat([batch.prompt_ids.repeat_interleave(group, 0), batch.completion_ids], 1)
    mask = torch.cat([batch.prompt_mask.repeat_interleave(group, 0), batch.completion_mask], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[:, width - 1 : -1]


def snapshots(directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every snapshot below a folder, by its path there."""
    return {
        str(path.relative_to(directory)): load_file(path)
        for path in sorted(directory.rglob("step_*.safetensors"))
    }


def assert_same_runs(ours: Path, theirs: Path) -> None:
    """Two run folders hold the same snapshots and curves, bit for bit."""
    first, second = snapshots(ours), snapshots(theirs)
    assert first.keys() == second.keys()
    assert first
    for name, tensors in first.items():
        assert tensors.keys() == second[name].keys()
        different = [n for n, t in tensors.items() if not torch.equal(t, second[name][n])]
        assert not different, f"{name}: {different[0]} differs"
    curves = sorted(path.relative_to(ours) for path in ours.rglob("curve.parquet"))
    assert curves == sorted(path.relative_to(theirs) for path in theirs.rglob("curve.parquet"))
    for curve in curves:
        assert (ours / curve).read_bytes() == (theirs / curve).read_bytes(), curve
