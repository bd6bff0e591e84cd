"""Task vectors of two runs put together, and what the merged models can do (Zhou et al. 2026, §3.2, §4.2)."""

from collections.abc import Iterator, Mapping, Sequence
from math import nan

import torch
from torch import Tensor

from paper_lib.geometry.sparsity import mark_largest
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import Row
from paper_lib.study.config import MergeConfig
from paper_lib.training.checkpoints import Trajectory, load_checkpoint
from paper_lib.training.runs import score
from paper_lib.training.starts import Study, snapshot_model
from paper_lib.training.train import Policy

Update = Mapping[str, Tensor]  # W_T − W_0 by parameter name, float64


def ties(updates: Sequence[Tensor], keep: float) -> Tensor:
    """TIES of N updates of one tensor (Yadav et al. 2023): of each keep the largest entries; at each place
    take the sign of their sum; average those that have it.

    updates: N of shape (..., n); keep: share of the entries, in (0, 1]. Returns (..., n), 0 where none is.

    >>> ties([torch.tensor([4.0, -1.0, 2.0, 0.1]), torch.tensor([2.0, 3.0, -5.0, 0.1])], 0.75)
    tensor([ 3.,  3., -5.,  0.])
    """
    kept = torch.stack([u * mark_largest(u.abs().reshape(1, -1), keep).view_as(u) for u in updates])
    elected = torch.where(kept.sum(0) >= 0, 1.0, -1.0)
    agreeing = kept.sign() == elected
    return (kept * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


def merged_updates(one: Update, other: Update, config: MergeConfig) -> Iterator[tuple[str, float, Update]]:
    """Name, setting (NaN where there is none) and update of every merge of two runs from one W_0.

    `raw_sum` a + b; `task_arithmetic` λ (a + b); `ties`; as controls of the sum `norm_matched` a and
    `norm_matched_other` b, each at ‖a + b‖ over all parameters, and `residual_removed` (1 + α) b with α =
    ⟨a, b⟩ / ‖b‖², the sum without what of a is orthogonal to b. Raises ValueError where a or b is 0.
    """
    total = _combined(one, 1.0, other, 1.0)
    norm, squares = inner(total, total) ** 0.5, (inner(one, one), inner(other, other))
    if not all(squares):
        raise ValueError("an update of 0 has no direction to be rescaled in")
    yield "raw_sum", nan, total
    yield "task_arithmetic", config.scale, _combined(one, config.scale, other, config.scale)
    yield "ties", config.keep, {name: ties([one[name], other[name]], config.keep) for name in one}
    yield "norm_matched", nan, _combined(one, norm / squares[0] ** 0.5, other, 0.0)
    yield "norm_matched_other", nan, _combined(one, 0.0, other, norm / squares[1] ** 0.5)
    yield "residual_removed", nan, _combined(one, 0.0, other, 1 + inner(one, other) / squares[1])


def inner(one: Update, other: Update) -> float:
    """⟨a, b⟩ over all parameters."""
    return sum(float((one[name] * other[name]).sum()) for name in one)


def merge_rows(study: Study, name: str, a: Trajectory, b: Trajectory, seed: int) -> list[Row]:
    """`sampled_accuracy:<merge>` and `greedy_accuracy:<merge>` on the test problems of the home task of the
    run of that name, which each run is asked at its end too; k is the merge's setting. Raises CompanionError
    where the runs start from different weights.
    """
    profile, run = study.profile, study.profile.run(name)
    assert profile.merges is not None
    start, other_start = (load_checkpoint(trajectory.path(0)) for trajectory in (a, b))
    if any(not torch.equal(w, other_start[name]) for name, w in start.items()):
        raise CompanionError(f"{a.directory} and {b.directory} start from different weights: not one sum")
    ends = [load_checkpoint(trajectory.path(trajectory.steps[-1])) for trajectory in (a, b)]
    one, other = ({name: end[name].double() - w.double() for name, w in start.items()} for end in ends)
    model, tokenizer = snapshot_model(study.models_folder, a, 0)
    policy, rows = Policy(student=model, tokenizer=tokenizer), []
    for merge, setting, update in merged_updates(one, other, profile.merges):
        model.load_state_dict({key: w.double() + update[key] for key, w in start.items()})
        scores = score(policy, run, profile.evaluation, seed, "test", run.tasks[0])
        rows += [Row(a.steps[-1], f"{metric}:{merge}", value, setting) for metric, value in scores.items()]
    return rows


def _combined(one: Update, x: float, other: Update, y: float) -> Update:
    return {name: x * one[name] + y * other[name] for name in one}
