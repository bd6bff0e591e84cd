"""The pretrained models: a base that can do the task but samples badly, and teachers that do it well.

Post-training elicits what a base already can. The student therefore learns from clean traces first, then
from traces whose digits are corrupted now and then, as web text would be; a teacher sees clean traces alone.
"""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from paper_lib.ground.parallel import run_parallel
from paper_lib.study.config import EvaluationConfig, Lineage, Profile, fingerprint
from paper_lib.study.profiles import get_profile
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import character_tokenizer, problems
from paper_lib.training.checkpoints import load_checkpoint, step_path
from paper_lib.training.models import as_stored, build_model, load_smollm2, save_model, weights_fingerprint
from paper_lib.training.rollouts import accuracy
from paper_lib.training.runs import RunFolder, shared_threads, train_run
from paper_lib.training.train import Policy, products

CARD = EvaluationConfig(final_problems=512)  # of the models that are trained from random weights


def build_models(
    profile_name: str, *, data_dir: Path | str = "data", force: bool = False, workers: int | None = None
) -> None:
    """Build every model of a profile that is not on disk, side by side; `force` trains them all again."""
    profile = get_profile(profile_name)
    todo = [line for line in profile.lineages if force or _missing(profile, line, data_dir)]
    jobs = [(profile, line, data_dir, force) for line in todo]
    labels = [", ".join(line.kept) for line in todo]
    if labels:
        print(f"[models] building {', '.join(labels)}", flush=True)
    each = shared_threads([line.stages[0] for line in todo], workers)
    run_parallel(build_lineage, jobs, labels=labels, what="models", workers=workers, threads_each=each)


def build_lineage(profile: Profile, lineage: Lineage, data_dir: Path | str, force: bool = False) -> None:
    """Train the stages of one lineage, resuming where an earlier call stopped, and save the kept models.

    Whoever comes while another process does this waits, and leaves what that one made as it is.
    """
    runs = Path(data_dir) / "runs" / "pretrain"
    runs.mkdir(parents=True, exist_ok=True)
    with FileLock(runs / f".{'-'.join(lineage.kept)}.lock"):
        if not force and not _missing(profile, lineage, data_dir):
            return
        tokenizer = character_tokenizer()
        if lineage.shape is None:
            model, tokenizer = load_smollm2()
        else:
            model = build_model(lineage.shape, tokenizer, seed=lineage.seed)
        policy, seed = Policy(student=model, tokenizer=tokenizer), lineage.seed
        history = fingerprint(lineage.shape or lineage.origin, seed)
        evaluation = CARD if lineage.origin is None else profile.evaluation  # as its hours allow
        for stage in lineage.stages:
            history = fingerprint(history, stage)
            directory = runs / f"{stage.name}-{history}"
            folder = RunFolder(directory=directory, profile=profile.name, seed=seed, fingerprint=history)
            if force:
                with folder.lock():
                    folder.clear()
            train_run(stage, folder, policy, evaluation=evaluation)
            policy.student.load_state_dict(load_checkpoint(step_path(directory, stage.steps)))
            for name in (n for n, kept_stage in lineage.kept.items() if kept_stage == stage.name):
                _save(policy, lineage, stage, evaluation, Path(data_dir) / profile.models / name)


def _save(
    policy: Policy, lineage: Lineage, stage: RunConfig, evaluation: EvaluationConfig, directory: Path
) -> None:
    stages = [asdict(each) for each in lineage.stages[: lineage.stages.index(stage) + 1]]
    shape = asdict(lineage.shape) if lineage.shape else None
    recipe = {"shape": shape, "origin": lineage.origin, "seed": lineage.seed, "stages": stages}
    stored = deepcopy(policy.student)
    stored.load_state_dict(as_stored(stored.state_dict()))
    samples, number = evaluation.samples, evaluation.final_problems
    options: dict[str, Any] = {"samples": samples, "max_new_tokens": stage.max_new_tokens, "seed": "card"}
    table = "| task | sampled | greedy |\n|---|---|---|"
    for task in stage.tasks:
        chosen = problems(task, split="test", number=number, seed="card")
        with products(stage, stored.device):
            sampled, error, greedy = accuracy(stored, policy.tokenizer, chosen, **options).values()
        table += f"\n| {task.name} | {sampled:.3f} ± {error:.3f} | {greedy:.3f} |"
    start = "random weights" if lineage.origin is None else "SmolLM2-135M-Instruct (Apache-2.0)"
    millions = sum(p.numel() for p in stored.parameters()) / 1e6
    card = f"""# {directory.name}

A {type(stored).__name__} of {millions:.2f} M parameters, trained from {start} on synthetic
arithmetic traces by `make pretrain`; `recipe.json` has every stage and setting. Weights are bf16. The licence
is the project's, Apache-2.0.

Accuracy of the stored weights on {number} held-out test problems: avg@{samples} at temperature 1 with its
standard error, and greedy.

{table}

Weights fingerprint: `{weights_fingerprint(stored.state_dict())}`
"""
    save_model(stored, policy.tokenizer, directory, card=card, recipe=recipe)


def _missing(profile: Profile, lineage: Lineage, data_dir: Path | str) -> list[str]:
    models = Path(data_dir) / profile.models
    needed = ("config.json", "model.safetensors")
    return [name for name in lineage.kept if not all((models / name / file).is_file() for file in needed)]
