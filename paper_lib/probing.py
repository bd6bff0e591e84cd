"""A model probed as a whole, as table rows: its KL along a run, and the curvature of named directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.batches import encode_prompts
from paper_lib.checkpoints import Trajectory, load_checkpoint
from paper_lib.config import ModelProbes
from paper_lib.curvature import (
    equal_rms,
    fisher_curvature,
    gaussian_direction,
    off_principal_direction,
    principal_direction,
)
from paper_lib.decompositions import Decomposition
from paper_lib.drift import policy_drift
from paper_lib.errors import CompanionError
from paper_lib.models import load_model
from paper_lib.nulls import permuted
from paper_lib.rollouts import sample
from paper_lib.starts import BASE
from paper_lib.tables import START, Row
from paper_lib.tasks import Task, problems, seeded_generator

RANDOM_DIRECTIONS = {
    "principal": principal_direction,
    "off_principal": off_principal_direction,
    "gaussian": gaussian_direction,
}
Update = Mapping[str, Tensor]  # by parameter name
Named = tuple[str, str, Update]  # of which run, which direction


def snapshot_model(
    models: Path, trajectory: Trajectory, step: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student after `step` steps, and its tokenizer; config and tokenizer are its base's, in `models`."""
    model, tokenizer = load_model(models / (trajectory.config.get("base") or BASE))
    load_snapshot(model, trajectory, step)
    return model, tokenizer


def load_snapshot(model: PreTrainedModel, trajectory: Trajectory, step: int) -> None:
    """Give the model the weights after `step` steps; CompanionError where they are another model's."""
    path = trajectory.path(step)
    try:
        model.load_state_dict(load_checkpoint(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CompanionError(
            f"{path} does not fit the models here ({reason}): bring back those that the run was trained from"
        ) from error


def drift_rows(
    start: PreTrainedModel,
    snapshots: Iterator[tuple[int, PreTrainedModel]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    config: ModelProbes,
    *,
    max_new_tokens: int,
    seed: object,
) -> list[Row]:
    """KL between the start and each snapshot, `forward_kl` and `reverse_kl` as `drift.policy_drift` has them.

    snapshots: step and model, one at a time. The prompts are the first held-out validation problems of the
    task, the same at every step, and so are the uniform numbers that sample their completions.
    """
    prompts = _prompts(start, tokenizer, task, config.drift_prompts)
    rows = []
    for step, now in snapshots:
        found = policy_drift(
            start,
            now,
            prompts,
            samples=config.samples,
            max_new_tokens=max_new_tokens,
            pad_id=tokenizer.pad_token_id,
            end_id=tokenizer.eos_token_id,
            seed=seed,
        )
        rows += [Row(step, metric, value) for metric, value in found.items()]
    return rows


def curvature_rows(
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    directions: Iterator[Named],
    config: ModelProbes,
    *,
    max_new_tokens: int,
    seed: object,
) -> list[tuple[str, str, Row]]:
    """Mean `curvature` μ of each (run, direction) over its draws, and `curvature_se` where there are several.

    All directions are measured on the same completions, sampled by the model: their ratios are known better
    than each by itself. Step 0, as this is a matter of W_0 alone.
    """
    batch = sample(
        *(start, *_prompts(start, tokenizer, task, config.curvature_prompts)),
        samples=config.samples,
        max_new_tokens=max_new_tokens,
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        generator=seeded_generator("curvature", seed),
    )
    found: dict[tuple[str, str], list[float]] = {}
    for run, name, direction in directions:
        found.setdefault((run, name), []).extend(fisher_curvature(start, batch, [direction]))
    rows = []
    for (run, name), values in found.items():
        draws = torch.tensor(values, dtype=torch.float64)
        rows.append((run, name, Row(0, "curvature", draws.mean().item())))
        if len(values) > 1:
            error = draws.std().item() / math.sqrt(len(values))
            rows.append((run, name, Row(0, "curvature_se", error)))
    return rows


def named_directions(
    weights: Mapping[str, Decomposition], updates: Mapping[str, Update], rank: int, draws: int, seed: object
) -> Iterator[Named]:
    """The directions of Gate II, `draws` of each random one.

    weights: W_0's leading triplets, at least `rank` of them, by parameter name; updates: ΔW by run. W_0's
    own, under the name `START` and with equal RMS in all matrices: `principal_reconstruction` Σ_{i≤r} σ_i u_i
    v_iᵀ, `principal` and `off_principal` (see `curvature`), `gaussian`. Of each run: its `update`, and
    `permuted_update`, the same entries in random places of their matrix.
    """
    top = {n: (w.u[:, :rank], w.sigma[:rank], w.v[:, :rank]) for n, w in weights.items()}
    rebuilt = {n: equal_rms((u * sigma) @ v.mT) for n, (u, sigma, v) in top.items()}
    yield START, "principal_reconstruction", rebuilt
    for draw in range(draws):
        for name, random in RANDOM_DIRECTIONS.items():
            draws_of = {n: seeded_generator(name, seed, draw, n) for n in top}
            yield START, name, {n: equal_rms(random(u, v, draws_of[n])) for n, (u, _, v) in top.items()}
    for run, update in updates.items():
        yield run, "update", update
        for draw in range(draws):
            draws_of = {n: seeded_generator("permuted_update", seed, run, draw, n) for n in update}
            yield run, "permuted_update", {n: permuted(w, draws_of[n]) for n, w in update.items()}


def _prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, number: int
) -> tuple[Tensor, Tensor]:
    chosen = problems(task, split="validation", number=number, seed="evaluation")
    ids, mask = encode_prompts(tokenizer, [problem.prompt for problem in chosen])
    return ids.to(model.device), mask.to(model.device)
