"""TRL's trainers, timed step by step: DistillationTrainer (reverse KL) and GRPOTrainer (no KL penalty)."""

from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from paper_lib.collection import Policy, step_problems
from paper_lib.config import RunConfig
from paper_lib.errors import CompanionError
from paper_lib.stopwatch import Stopwatch
from paper_lib.tasks import verify


def require_trl() -> str:
    """TRL's version; CompanionError where it is missing or lacks the two trainers."""
    try:
        import trl
        from trl import DistillationTrainer, GRPOTrainer  # noqa: F401
    except ImportError as reason:
        raise CompanionError(
            f"bench train compares with TRL 1.16, which cannot be imported ({reason}): "
            "pip install -c constraints.txt -e '.[test]'"
        ) from reason
    return str(trl.__version__)


def trl_settings(run: RunConfig, device: torch.device) -> dict[str, Any]:
    """TRL at its fastest for this work: the batch in one piece, nothing logged, saved or recomputed.

    Generation is transformers' own with its key-value cache; AdamW is the fused one, the default there.
    GRPO's `dapo` loss divides by the tokens of the batch, as ours does; `beta` is the divergence in the
    distillation trainer (1 = reverse KL) and the weight of the KL penalty in GRPO.
    """
    objective: dict[str, Any] = {"beta": 1.0}
    if run.objective == "rlvr":
        objective = {
            "beta": 0.0,
            "num_generations": run.samples_per_prompt,
            "scale_rewards": "group",
            "loss_type": "dapo",
            "epsilon": run.clip[0],
            "epsilon_high": run.clip[1],
        }
    return {
        **objective,
        "per_device_train_batch_size": run.prompts_per_step * run.samples_per_prompt,
        "max_steps": run.steps,
        "max_completion_length": run.max_new_tokens,
        "temperature": run.temperature,
        "learning_rate": run.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": run.betas[0],
        "adam_beta2": run.betas[1],
        "adam_epsilon": run.epsilon,
        "weight_decay": run.weight_decay,
        "max_grad_norm": run.max_gradient_norm,
        "gradient_checkpointing": False,
        "bf16": False,
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
