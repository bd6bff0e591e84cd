"""Which diagnostics are measured, and at which sizes: a frozen dataclass that validates."""

from dataclasses import dataclass, field

from paper_lib.errors import require, require_counts

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
        for name in ("drift_prompts", "curvature_prompts", "draws", "samples"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class DiagnosticsConfig:
    """Sizes of the diagnostics, scaled to the model; the README's section on scale has the rule of each.

    alphas: of the masks, the one that the paper's numbers need first, then its appendix's and the sibling's.
    etas: tolerances η at which the sparsity is measured besides `eta`; precision_etas: those of them for
    storage other than bf16. coordinate_fractions: shares of the entries whose energy is measured. pairs: runs
    of one seed whose updates are compared; seed_runs: runs compared with their own next seed. model_probes:
    what needs the models, None to do without.
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
        apart = all(one != other for one, other in self.pairs)
        require("pairs", self.pairs, apart and len(set(self.pairs)) == len(self.pairs), "different runs")
