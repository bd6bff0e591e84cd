"""The callbacks in TRL's trainers, each as its users start it."""

import pytest
import torch
from tiny import save_models
from transformers import AutoModelForCausalLM

from paper_lib.live import GeometryCallback, SubspaceProjection
from paper_lib.live.watch import inside
from paper_lib.study.tasks import SMALL_SUMS, character_tokenizer, problems
from paper_lib.training.confinement import is_projected

trl = pytest.importorskip("trl")
from datasets import Dataset  # noqa: E402  the test extra brings it, with TRL

pytestmark = pytest.mark.slow
DRAWN = problems(SMALL_SUMS, split="train", number=40, seed=0)
COMMON = {
    **{
        "per_device_train_batch_size": 4,
        "max_steps": 5,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "seed": 0,
    },
    **{"report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "steps", "save_steps": 1},
    **{"gradient_checkpointing": False, "disable_tqdm": True},
}


def start(kind, model, teacher, folder):
    tokenizer, prompts = character_tokenizer(), Dataset.from_list([{"prompt": p.prompt} for p in DRAWN])
    settings = COMMON | {"output_dir": str(folder)}
    if kind == "sft":
        rows = [{"prompt": p.prompt, "completion": p.demonstration} for p in DRAWN]
        args = trl.SFTConfig(**settings, max_length=32)
        return trl.SFTTrainer(
            model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
    if kind == "distillation":
        args = trl.DistillationConfig(**settings, max_completion_length=6)
        return trl.DistillationTrainer(
            model=model, teacher_model=teacher, args=args, train_dataset=prompts, processing_class=tokenizer
        )
    args = trl.GRPOConfig(**settings, max_completion_length=6, num_generations=4)
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
        args=args,
        train_dataset=prompts,
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("kind", ["sft", "distillation", "grpo"])
def test_watch_and_projection_in_a_trainer_of_trl(kind, tmp_path):
    save_models(tmp_path / "models")
    model, teacher = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "models" / name) for name in ("base", "teacher")
    )
    trainer = start(kind, model.float(), teacher.float(), tmp_path / kind)
    GeometryCallback(every=1, spectra_every=1, matrices=3, K=2).add_to(trainer)
    projection = SubspaceProjection(2, after=0.4).add_to(trainer)
    trainer.train()
    logged = [row for row in trainer.state.log_history if "geometry/stable_rank" in row]
    assert len(logged) >= 4
    branch = AutoModelForCausalLM.from_pretrained(tmp_path / kind / "checkpoint-2").float()
    end = dict(trainer.model.named_parameters())
    for name, weight in branch.named_parameters():
        if is_projected(name):
            moved = (end[name].detach() - weight).double()
            assert not moved.any() or 1 - inside(moved, projection.bases[f"right.{name}"]) < 1e-6
    assert any(not torch.equal(end[name], weight) for name, weight in branch.named_parameters())
