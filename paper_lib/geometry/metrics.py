"""The catalogue of metrics: what each is called, where the paper has it, what it prints, what measures it.

Labels, the paper's values and the book's links from a figure to its equations are read from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from paper_lib.geometry import sparsity, spectra, subspaces
from paper_lib.ground.errors import require_choices

REGIMES = ("sft", "opd", "rlvr")
ALPHA = 0.3  # of the paper's masks, by its text and its own densities; its appendix says 0.5
DEGREE = math.pi / 180
Values = Mapping[str, float | tuple[float, float]]
SCALES = {"": 1.0, "%": 100.0, "°": 1 / DEGREE}  # from the tables' unit to the one that is shown


@dataclass(frozen=True)
class Metric:
    """A metric, named as in the tables.

    words: its name on a label; said: in a sentence, and axis: on an axis, where that is another; symbol:
    LaTeX. where: its place in the paper, or in another. function: what measures it. over: "all" matrices or
    those of "attention" are what the paper averages over; mean: "matrices" count alike in it or "weights" do.
    paper: by run, the value of the 8B model or the least and the most; printed: by regime, the least and the
    most of all models, where there are several. share: in (0, 1), saturating at both. log: spans decades.
    unit: a key of SCALES. alpha: of a mask, the paper's: k of the rows and what chance gives.
    """

    name: str
    symbol: str
    where: str
    function: Callable[..., Any]
    _: KW_ONLY
    words: str = ""
    said: str = ""
    axis: str = ""
    over: Literal["all", "attention"] = "all"
    mean: Literal["matrices", "weights"] = "matrices"
    paper: Values = field(default_factory=dict)
    printed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    share: bool = False
    log: bool = False
    unit: Literal["", "%", "°"] = ""
    alpha: float | None = None

    def __post_init__(self) -> None:
        require_choices(self)
        words = self.words or self.name.replace("_", " ")
        for name in ("words", "said", "axis"):
            object.__setattr__(self, name, getattr(self, name) or words)

    @property
    def scale(self) -> float:
        """From the tables' unit to `unit`."""
        return SCALES[self.unit]

    def show(self, value: float) -> str:
        """A value of the tables in words, such as "8.1 %"."""
        return f"{self.scale * value:.3g}{self.unit.replace('%', ' %')}"

    def value(self, run: str) -> float:
        """What the paper prints for a run, the least where that is several values; KeyError where nothing."""
        return self._pair(run)[0]

    def by_regime(self) -> str:
        """The paper's SFT, OPD and RLVR and their chance in one line, such as "8.1 / 51.6 / 77.2 %"."""
        values = " / ".join(f"{self.scale * self.value(run):.4g}" for run in REGIMES)
        chance = f", chance {self.show(self.alpha)}" if self.alpha else ""
        return f"{values}{self.unit.replace('%', ' %')}{chance}"

    def spans(self) -> dict[str, tuple[float, float]]:
        """By regime, the least and the most that is printed, in the tables' unit."""
        return {run: self._pair(run) for run in REGIMES if run in self.paper} | dict(self.printed)

    def _pair(self, run: str) -> tuple[float, float]:
        value = self.paper[run]
        return value if isinstance(value, tuple) else (value, value)


def _regimes(sft: float, opd: float, rlvr: float, **variants: float | tuple[float, float]) -> Values:
    return {"sft": sft, "opd": opd, "rlvr": rlvr, **variants}


# fmt: off
_SHARE: dict[str, Any] = {"share": True, "unit": "%"}
_OVERLAP: dict[str, Any] = {"alpha": ALPHA, **_SHARE}
_ANGLE: dict[str, Any] = {"unit": "°", "log": True}
_SPARSITY: dict[str, Any] = {
    "paper": _regimes(
        0.081, 0.516, 0.772, opd_small_teacher=(0.503, 0.517), opd_second_domain=0.571,
        opd_small_student=0.517, opd_moe_teacher=0.486,
    ),
    "printed": {"sft": (0.006, 0.188), "opd": (0.486, 0.571), "rlvr": (0.699, 0.799)},
}
_ROTATION: dict[str, Any] = {
    "paper": _regimes(10 * DEGREE, DEGREE, 0.5 * DEGREE),
    "printed": {"sft": (10 * DEGREE, math.inf), "rlvr": (0.0, 0.5 * DEGREE)},
}
_CATALOGUE = (
    Metric("update_sparsity", r"$|\{W_t = W_0\}| / mn$", "§3.2, Table 1", sparsity.update_sparsity,
           mean="weights", **_SPARSITY, **_SHARE),
    Metric("update_density", r"$|\{W_t \neq W_0\}| / mn$", "§3.2, Fig. 3", sparsity.visible_mask,
           mean="weights", paper=_regimes(0.9273, 0.4628, 0.2776), **_SHARE),
    Metric("absolute_sparsity", r"$|\{|\Delta W| \le 10^{-5}\}| / mn$", "Yu et al. 2026",
           sparsity.absolute_sparsity, mean="weights", **_SHARE),
    Metric("principal_overlap", r"$|M_\mathrm{principal} \cap M| / |M|$", "§3.2, Fig. 3",
           sparsity.mask_overlap, said="overlap with principal weights",
           paper=_regimes(0.2966, 0.2731, 0.2665), **_OVERLAP),
    Metric("low_magnitude_overlap", r"$|M_\mathrm{low} \cap M| / |M|$", "§3.2, Fig. 3",
           sparsity.mask_overlap, words="low-magnitude overlap", said="overlap with small weights",
           paper=_regimes(0.3188, 0.5359, 0.7348), **_OVERLAP),
    Metric("principal", r"$M_\mathrm{principal}$", "§3.2", sparsity.principal_mask,
           words="principal weights"),
    Metric("low_magnitude", r"$M_\mathrm{low}$", "§3.2", sparsity.low_magnitude_mask,
           words="low-magnitude weights"),
    Metric("predicted_density", r"$|\{|\Delta W| > \frac{1}{2}\mathrm{ULP}(W_0)\}| / mn$", "§3.3, App. D",
           sparsity.predicted_mask, **_SHARE),
    Metric("independent_density", r"$P(|\Delta W_J| > \frac{1}{2}\mathrm{ULP}(W_0))$", "of this companion",
           sparsity.showing_probability, **_SHARE),
    Metric("jaccard", r"$|A \cap B| / |A \cup B|$", "Zhu et al. 2025", sparsity.jaccard,
           words="Jaccard of update masks"),
    Metric("angle_mean", r"$\bar\theta$", "§3.2, Fig. 2", subspaces.principal_angles,
           words="mean principal angle, U and V", said="rotation",
           axis="mean principal angle,\n$U$ and $V$ (°)", **_ROTATION, **_ANGLE),
    Metric("angle_u_max", r"$\max_i\theta_i$", "§3.2, Fig. 2", subspaces.principal_angles,
           words="largest angle, U", axis="largest angle, $U$ (°)", **_ANGLE),
    Metric("spectral_shift", r"$\mathrm{NSS}$", "§3.2, Fig. 2", spectra.spectral_shift,
           axis="NSS", paper=_regimes(1e-3, 1e-4, 1e-5), log=True),
    Metric("frobenius_norm", r"$\Vert\Delta W\Vert_F$", "§4.1, Fig. 4b", spectra.frobenius_norm,
           words="norm of the update", axis=r"$\Vert\Delta W\Vert_F$", log=True, over="attention",
           paper=_regimes(4.701, 0.452, 0.168)),  # of its withdrawn first draft
    Metric("relative_norm", r"$\Vert\Delta W\Vert_F\,/\,\Vert W_0\Vert_F$", "Yu et al. 2026",
           spectra.relative_norm, axis=r"$\Vert\Delta W\Vert_F\,/\,\Vert W_0\Vert_F$", log=True, unit="%",
           paper={"sft": 0.119, "opd": (3.6e-4, 1.42e-3)}),  # of the sibling paper, SFT offline
    Metric("stable_rank", r"$\mathrm{srank}(\Delta W)$", "§4.1, Fig. 4a", spectra.stable_rank,
           paper={"opd": (20, 30)}, over="attention"),
    Metric("hill_index", r"$\hat\alpha_k$", "§4.1, Fig. 4c", spectra.hill_index,
           words="Hill index", over="attention"),
    Metric("drift_ratio", r"$\mathrm{RMS}(\Delta W)\,/\,\sqrt{\sum_t \mathrm{lr}_t^2}$", "of this companion",
           spectra.drift_ratio, log=True, over="attention",
           paper=_regimes(3.3, 8.5, 1.7)),  # from the norms of its withdrawn first draft
    Metric("subspace_alignment", r"$\mathrm{Sim}_K$", "§4.2, Fig. 5", subspaces.subspace_alignment,
           over="attention"),
    Metric("principal_energy", r"$\Vert U^\top \Delta W V\Vert_F^2\,/\,\Vert\Delta W\Vert_F^2$",
           "§3.3, App. D", subspaces.principal_energy, words="energy in principal subspaces"),
    Metric("pca_coordinate", r"$U\Lambda^{1/2}$", "of this companion", subspaces.path_pca,
           words="coordinates of the path"),
)
# fmt: on
METRICS = {metric.name: metric for metric in _CATALOGUE}

# --- Which metrics a figure draws, in the order of its panels.

FIGURES = {
    "table1_sparsity": ("update_sparsity",),
    "fig_bf16_journey": ("update_density",),
    "fig_rounding_null": ("update_sparsity", "relative_norm"),
    "fig3_mask_overlap": ("principal", "low_magnitude", "principal_overlap"),
    "fig_update_masks": ("update_density", "principal", "low_magnitude"),
    "fig3_matched_density": ("update_density", "principal_overlap"),
    "fig_gate3_visibility": ("predicted_density", "independent_density", "update_sparsity"),
    "fig_cross_run_masks": ("jaccard",),
    "fig2_rotation_drift": ("angle_mean", "angle_u_max", "spectral_shift"),
    "fig2_matched_norm": ("relative_norm", "angle_mean", "spectral_shift"),
    "fig_gates_norm_curvature": ("frobenius_norm", "principal_energy"),
    "fig_pca_trajectory": ("pca_coordinate",),
    "fig_pca_animation": ("pca_coordinate",),
    "fig4_intrinsic_geometry": ("stable_rank", "frobenius_norm", "hill_index"),
    "fig5_subspace_emergence": ("subspace_alignment",),
    "fig7_controls_stable_rank": ("stable_rank",),
    "fig9_controls_auxiliary": ("frobenius_norm", "hill_index"),
    "fig_size": ("update_sparsity", "frobenius_norm"),
    "fig_credit_noise": ("update_sparsity", "drift_ratio"),
    "fig1_overview": (
        *("update_sparsity", "principal_overlap", "low_magnitude_overlap", "angle_mean", "spectral_shift"),
        *("frobenius_norm", "drift_ratio", "stable_rank", "hill_index"),
    ),
    "fig_where_it_lies": (
        *("update_sparsity", "low_magnitude_overlap", "principal_overlap", "angle_mean", "spectral_shift"),
        *("relative_norm", "stable_rank", "drift_ratio"),
    ),
    "fig_by_layer": ("update_sparsity", "relative_norm", "angle_mean", "stable_rank"),
    "fig_live_channel": ("stable_rank", "subspace_alignment"),
}


def metrics_of(figure: str) -> tuple[Metric, ...]:
    """The metrics that a figure draws; none where it draws no equation of ours, such as accuracies."""
    return tuple(METRICS[name] for name in FIGURES.get(figure, ()))
