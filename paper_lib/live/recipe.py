"""The paper's three runs by TRL's trainers, at its own scale or any other (§3 and its tables of settings)."""

import json
import os
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen3Config
from transformers.trainer_utils import get_last_checkpoint

from paper_lib.ground.errors import CompanionError
from paper_lib.live.callbacks import GeometryCallback, require_trl
from paper_lib.study.profiles import PAPER
from paper_lib.study.run_config import RunConfig

# The paper's models, whose configurations lie on the Hub.
_SIDES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {"Qwen/Qwen3-8B-Base": (4096, 12288, 36, 32), "Qwen/Qwen3-32B": (5120, 25600, 64, 64)}
# An H100: bytes a second that it reads, bf16 operations a second of which training reaches 40 %.
BANDWIDTH, FLOPS = 3.35e12, 0.4 * 990e12


def run_recipe(
    run_name: str,
    *,
    student: str,
    teacher: str,
    data: str | None = None,
    out: str = "runs/paper",
    reward: str = "trl.rewards:accuracy_reward",
    tokens: int = 8192,
    cards: int = 8,
    settings: dict[str, Any] | None = None,
    dry_run: bool = False,
) -> None:
    """Train `sft`, `opd` or `rlvr` of the paper by TRL, in every process of `accelerate launch`, and go on
    from the last checkpoint in `out`; or print what that takes.

    student, teacher: folders or names on the Hub. data: JSON lines with `prompt`, and `completion` (SFT) or
    what the reward reads (RLVR; `solution`). reward: module:function, as TRL takes it. tokens: of a response
    at most. settings: of TRL's configuration, in place of the paper's. TRL distils by the exact reverse
    KL over the vocabulary, not by the sampled token's. Raises CompanionError where something is missing.
    """
    run = PAPER.run(run_name)
    processes = cards if dry_run else int(os.environ.get("WORLD_SIZE", "1"))
    chosen = resolved(run, tokens=tokens, processes=processes, changes=settings or {})
    if dry_run:
        print(f"# {run.name}: TRL's {TRAINERS[run.objective]}Trainer, {processes} processes")
        print(json.dumps(chosen, indent=2))
        units = {f"GB on each of {cards} cards": memory, f"hours at {tokens:,} tokens a response": hours}
        for unit, taken in units.items():
            rows = taken(run, student, teacher, tokens=tokens, cards=cards)
            print(f"# {unit}, by arithmetic")
            for what, value in (rows | {"together": sum(rows.values())}).items():
                print(f"{value:8.2f}  {what}")
        return
    if data is None:
        raise CompanionError("--data is needed to train: a file of JSON lines, with a prompt each")
    trainer = _trainer(run, chosen | {"output_dir": out}, student, teacher, Path(data), reward)
    GeometryCallback(every=max(1, run.snapshot_every // 5)).add_to(trainer)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if Path(out).is_dir() else None)
    trainer.save_model(str(Path(out) / "end"))


TRAINERS = {"sft": "SFT", "opd": "Distillation", "rlvr": "GRPO"}


def resolved(run: RunConfig, *, tokens: int, processes: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The run's settings as TRL's configuration of its trainer names them; changes come on top.

    Groups without variance add nothing to TRL's loss, but their tokens count. Raises CompanionError where
    the batch does not divide among the processes.
    """
    responses = run.prompts_per_step * run.samples_per_prompt
    each = int(changes.get("per_device_train_batch_size", 1))
    if responses % (processes * each):
        among = f"{processes} processes of {each} at a time"
        raise CompanionError(f"{responses} responses a step do not divide among {among}")
    chosen: dict[str, Any] = {
        **settings_of(run),
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": responses // (processes * each),
        "save_steps": run.snapshot_every,
        "logging_steps": 1,
    }
    if run.schedule == "cosine":
        rest = {"min_lr_rate": run.final_fraction}
        chosen |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": rest}
        chosen["warmup_steps"] = round(run.warmup_fraction * run.steps)
    if run.objective == "sft":
        chosen |= {"max_length": tokens, "completion_only_loss": True}
    else:
        chosen["max_completion_length"] = tokens
    if not changes.get("use_cpu"):
        sharding = {"activation_checkpointing": True, "cpu_ram_efficient_loading": True}
        chosen |= {"bf16": True, "gradient_checkpointing": False, "fsdp": True, "fsdp_config": sharding}
        chosen |= {"use_vllm": True, "vllm_mode": "colocate"} if run.objective != "sft" else {}
    return chosen | changes


def settings_of(run: RunConfig) -> dict[str, Any]:
    """What a run's own settings are called in TRL, at a constant rate and whatever its batch is split into.

    GRPO's `dapo` loss divides by the tokens of the batch, as ours does; `beta` is the divergence in the
    distillation trainer (1 = reverse KL) and the weight of the KL penalty in GRPO.
    """
    chosen: dict[str, Any] = {
        "max_steps": run.steps,
        "learning_rate": run.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": run.betas[0],
        "adam_beta2": run.betas[1],
        "adam_epsilon": run.epsilon,
        "weight_decay": run.weight_decay,
        "max_grad_norm": run.max_gradient_norm,
    }
    if run.objective != "sft":
        chosen |= {"temperature": run.temperature, "beta": 1.0}
    if run.objective == "rlvr":
        low, high = run.clip
        chosen |= {"num_generations": run.samples_per_prompt, "epsilon": low, "epsilon_high": high}
        chosen |= {"beta": 0.0, "loss_type": "dapo", "scale_rewards": "group"}
    return chosen


def _trainer(
    run: RunConfig, chosen: dict[str, Any], student: str, teacher: str, data: Path, reward: str
) -> Any:
    require_trl()
    import trl
    from datasets import load_dataset

    if not data.is_file():
        raise CompanionError(f"{data} does not exist: a file of JSON lines, with a prompt each")
    rows = load_dataset("json", data_files=str(data), split="train")
    needed = {"prompt", "completion"} if run.objective == "sft" else {"prompt"}
    if lacking := sorted(needed - set(rows.column_names)):
        raise CompanionError(f"{data} has no {' and no '.join(lacking)}: its columns are {rows.column_names}")
    if run.objective == "opd":  # TRL samples once a row
        rows = rows.shuffle(seed=0)
        rows = rows.select([i for i in range(len(rows)) for _ in range(run.samples_per_prompt)])
        chosen = {"shuffle_dataset": False} | chosen
    kind = TRAINERS[run.objective]
    args = getattr(trl, f"{kind}Config")(**chosen)
    given: dict[str, Any] = {"processing_class": AutoTokenizer.from_pretrained(student)}
    given |= {"teacher_model": teacher} if run.objective == "opd" else {}
    given |= {"reward_funcs": resolve_name(reward)} if run.objective == "rlvr" else {}
    return getattr(trl, f"{kind}Trainer")(model=student, args=args, train_dataset=rows, **given)


# --- What it takes, by arithmetic alone.


@cache
def sizes(name: str) -> tuple[int, int]:
    """Weights of a model, and bytes of keys and values that bf16 holds for a token."""
    shape = dict(zip(_SIDES, SHAPES.get(name, ()), strict=False))
    rest: dict[str, Any] = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, **shape}
    config = Qwen3Config(**rest) if shape else AutoConfig.from_pretrained(name)
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).num_parameters()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return weights, 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * width


def memory(run: RunConfig, student: str, teacher: str, *, tokens: int, cards: int) -> dict[str, float]:
    """Gigabytes on each of `cards`, activations aside, of whatever takes them, in words."""
    weights, a_token = sizes(student)
    held = {"student in training, 2 + 4 + 4 + 8 bytes a weight, sharded": 18 * weights / cards}
    if run.objective == "opd":
        held["teacher, 2 bytes a weight, sharded"] = 2 * sizes(teacher)[0] / cards
    if run.objective != "sft":
        held["student to sample with, 2 bytes a weight"] = 2 * weights
        share = run.prompts_per_step * run.samples_per_prompt / cards
        held[f"keys and values, {a_token:,} bytes a token, {share:g} responses"] = a_token * tokens * share
    return {what: size / 1e9 for what, size in held.items()}


def hours(run: RunConfig, student: str, teacher: str, *, tokens: int, cards: int) -> dict[str, float]:
    """Hours on `cards` H100s for responses of `tokens`, of whatever takes them, in words."""
    weights, responses = sizes(student)[0], run.prompts_per_step * run.samples_per_prompt * run.steps
    rate = cards * FLOPS
    spent = {"student, 6 operations a weight and token": 6 * weights * tokens * responses / rate}
    if run.objective == "opd":
        spent["teacher, 2 operations a weight and token"] = 2 * sizes(teacher)[0] * tokens * responses / rate
    if run.objective != "sft":
        spent["sampling, all weights read once a token"] = run.steps * tokens * 2 * weights / BANDWIDTH
    return {what: seconds / 3600 for what, seconds in spent.items()}
