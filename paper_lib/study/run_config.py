"""The settings of one training run."""

import math
from dataclasses import dataclass
from typing import Literal

from paper_lib.ground.errors import require, require_choices, require_counts
from paper_lib.study.tasks import CHAIN_SUM, Task

# --- What confines training: the settings of a projection and of a subnetwork.


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Which subspace confines training, and what it confines (Shen et al. 2026, §4.2).

    basis: V_K of the parent run's update at the branch ("early"), of a run with other rollouts
    ("other_seed"), a random one ("random"), the top-K right singular vectors of W_0 ("principal"), or no
    direction at all ("none", K = 0). source: the run whose update gives V_K, where it is not the parent.
    energy: of each matrix as few directions as hold this share of ‖ΔW‖² of that update, K at most.
    """

    basis: Literal["early", "other_seed", "random", "principal", "none"]
    K: int
    constrain: Literal["gradient", "update", "both"] = "gradient"
    source: str | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        require_choices(self)
        if self.energy is not None:
            of_update = self.basis in ("early", "other_seed") and 0 < self.energy < 1
            require("energy", self.energy, of_update, "a share in (0, 1), of an update's V_K")
        if self.basis == "none":
            require("K", self.K, self.K == 0, "0 where there is no direction")
        else:
            require_counts(self, "K")


@dataclass(frozen=True, kw_only=True)
class Subnetwork:
    """Which entries of the projection matrices are trained (Yu et al. 2026, arXiv 2606.13657).

    entries: those that the run `source` of the same seed visibly changed between its W_0 and its end
    ("found"), or as many of each matrix, drawn uniformly ("random").
    """

    source: str
    entries: Literal["found", "random"] = "found"

    def __post_init__(self) -> None:
        require_choices(self)
        require("source", self.source, bool(self.source), "the name of a run")


Objective = Literal["sft", "opd", "rlvr", "mix"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run. alpha mixes the advantages (1 = OPD, 0 = RLVR); keep_fraction is the share ρ of
    tokens kept.

    start: the weights W_0: "scratch", "base", or "anchor" (the end of an SFT run of the same seed, stored
    as bf16). branch: (run, step) whose exact training state this run continues from; it then shares that
    run's W_0. snapshot_every: optimizer steps between snapshots; the last step is always kept. stream: draws
    other problems and rollouts with the same seed. Runs of one seed otherwise share their problems.

    What follows is None where a run does without it. mix_scale "unit": each advantage over its RMS before
    they are mixed. sgd_momentum: SGD in place of AdamW. subnetwork: the only entries that are trained.
    rotated_layers: layers of W_0 whose heads are rotated and permuted, the function unchanged. base, anchor:
    the pretrained model and the SFT run that this run starts from, where not `base` and `sft`. frozen:
    "others" than the projection matrices stay as they are. chance: what is left to it, OPD's credits a_t,
    dealt out anew over a batch's tokens, or RLVR's rewards, drawn at the rate of the batch's right answers.
    precision: of the matrix products in forward and backward passes ("bf16": autocast); weights, gradients
    and the optimizer's memory are float32 in any case.
    """

    name: str
    objective: Objective
    start: Literal["scratch", "base", "anchor"] = "anchor"
    tasks: tuple[Task, ...] = (CHAIN_SUM,)
    weights: tuple[float, ...] = (1.0,)
    steps: int = 120
    prompts_per_step: int = 32
    samples_per_prompt: int = 8
    demonstration_noise: float = 0.0
    learning_rate: float = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_fraction: float = 0.0
    final_fraction: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    temperature: float = 1.0
    max_new_tokens: int = 24
    teacher: str = "teacher"
    estimator: Literal["sampled", "exact"] = "sampled"
    alpha: float = 1.0
    token_selection: Literal["all", "top_gap", "random"] = "all"
    keep_fraction: float = 1.0
    rollout_policy: Literal["student", "teacher"] = "student"
    updates_per_batch: int = 1
    clip: tuple[float, float] = (0.2, 0.28)
    projection: Projection | None = None
    branch: tuple[str, int] | None = None
    snapshot_every: int = 12
    stream: str = ""
    mix_scale: Literal["unit"] | None = None
    sgd_momentum: float | None = None
    subnetwork: Subnetwork | None = None
    rotated_layers: tuple[int, ...] | None = None
    base: str | None = None
    anchor: str | None = None
    frozen: Literal["others"] | None = None
    chance: Literal["credit", "reward"] | None = None
    precision: Literal["bf16"] | None = None

    def __post_init__(self) -> None:
        require_choices(self)
        counts = ("steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens", "snapshot_every")
        require_counts(self, *counts, "updates_per_batch")
        for name in ("learning_rate", "epsilon", "max_gradient_norm", "temperature"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a positive number")
        for name in ("demonstration_noise", "warmup_fraction", "final_fraction", "alpha"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a value in [0, 1]")
        whole = self.steps % self.updates_per_batch == self.snapshot_every % self.updates_per_batch == 0
        group = 2 if self.objective in ("rlvr", "mix") else 1
        all_kept, continues = self.keep_fraction == 1, self.projection is None or self.branch is not None
        one_each = len(self.weights) == len(self.tasks) > 0 and min(self.weights) > 0
        (low, high), branch, layers = self.clip, self.branch, self.rotated_layers
        inside = branch is None or (0 < branch[1] < self.steps and branch[1] % self.snapshot_every == 0)
        span = f"a step in (0, {self.steps}) and a multiple of snapshot_every={self.snapshot_every}"
        distinct = layers is None or len(set(layers)) == len(layers) > 0 <= min(layers)
        for name, fits, expected in (
            ("keep_fraction", 0 < self.keep_fraction <= 1, "a value in (0, 1]"),
            ("keep_fraction", all_kept or self.token_selection != "all", "1 where all are kept"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "values in [0, 1)"),
            ("clip", 0 < low <= 1 and high > 0, "two above 0, the first at most 1"),
            ("updates_per_batch", whole, "a divisor of steps and of snapshot_every"),
            ("samples_per_prompt", self.samples_per_prompt >= group, "a group, 2 or more"),
            ("weights", one_each, f"{len(self.tasks)} above 0, one a task"),
            ("objective", self.estimator == "sampled" or self.objective == "opd", "opd where it is exact"),
            ("branch", inside, span),
            ("branch", continues, "(run, step): a projected run continues another"),
            ("rotated_layers", distinct, "distinct layers, counted from 0, at least one"),
            ("sgd_momentum", 0 <= (self.sgd_momentum or 0) < 1, "a value in [0, 1)"),
        ):
            require(name, getattr(self, name), fits, expected)
        self._require_optional()

    def _require_optional(self) -> None:
        """Settings that are None in most runs are set only where they mean something."""
        from_model, own_rollouts = self.start != "scratch", self.rollout_policy == "student"
        free = self.projection is None and self.branch is None
        on_all_tokens = self.estimator == "sampled" and self.token_selection == "all" and own_rollouts
        of = "opd" if self.chance == "credit" else "rlvr"
        for name, fits, where in (
            ("anchor", self.start == "anchor", "a run that starts from an anchor"),
            ("base", from_model, "a run that starts from a model"),
            ("rotated_layers", from_model and self.branch is None, "a run from a model's own weights"),
            ("mix_scale", own_rollouts and self.objective == "mix", "a mix on the student's rollouts"),
            ("subnetwork", free and self.rotated_layers is None, "a run neither confined nor rotated"),
            ("frozen", self.subnetwork is None, "a run without a subnetwork"),
            ("chance", on_all_tokens and self.objective == of, f"{of} on all tokens of its own rollouts"),
        ):
            value = getattr(self, name)
            require(name, value, value is None or (value != "" and fits), f"None, or a value in {where}")

    def learning_rates(self) -> tuple[float, ...]:
        """Learning rate of each optimizer step (`scheduled`)."""
        warmup = round(self.warmup_fraction * self.steps)
        end = None if self.schedule == "constant" else self.final_fraction
        return scheduled(self.learning_rate, self.steps, warmup=warmup, end=end)

    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps whose weights are kept, from 0 (W_0) to the last."""
        return (*range(0, self.steps, self.snapshot_every), self.steps)


def scheduled(rate: float, steps: int, *, warmup: int = 0, end: float | None = None) -> tuple[float, ...]:
    """Learning rate of each optimizer step: linear warm-up, then constant, or a cosine to `end` of it."""
    rates = []
    for step in range(steps):
        if step < warmup:
            factor = (step + 1) / warmup
        elif end is None:
            factor = 1.0
        else:
            progress = (step - warmup) / max(1, steps - 1 - warmup)
            factor = end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
        rates.append(rate * factor)
    return tuple(rates)
