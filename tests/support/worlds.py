"""Results made up for the ledger: a world in which every claim is true, and what to change in it."""

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.ledger.rules.island import CONTROLS, MERGES
from paper_lib.study.config import DiagnosticsConfig
from paper_lib.study.profiles import SMOKE
from paper_lib.study.run_config import RunConfig

STEPS = (10, 20, 30)
ALPHA, K = 0.3, 3.0


def _later(run: RunConfig) -> RunConfig:
    """The run branched off at twice the step, so that a world has a snapshot before it."""
    return run if run.branch is None else replace(run, branch=(run.branch[0], 2 * run.branch[1]))


STUDY = replace(
    SMOKE,
    diagnostics=DiagnosticsConfig(alphas=(ALPHA,)),
    runs=tuple(map(_later, SMOKE.runs)),
    probes=tuple(map(_later, SMOKE.probes)),
)
HOME = STUDY.run("opd").tasks[0].name
K_OF = {
    **dict.fromkeys(("principal_overlap", "low_magnitude_overlap"), ALPHA),
    **dict.fromkeys(("principal_not_low_overlap", "principal_not_low_chance"), ALPHA),
    **{"subspace_alignment": K, "hill_index": 16.0, "coordinate_energy": 0.1, "top_energy": 4.0},
}
TOKENS = [f"opd_tokens_{how}_{share}" for how in ("top_gap", "random") for share in (25, 50)]
VARIANTS = {
    **{"opd_small_teacher": 0.503, "opd_second_domain": 0.571},
    **{"opd_small_student": 0.516, "opd_moe_teacher": 0.486},
}
MIXES = {"0.75": (25.1, 25.4, 26.3), "0.25": (28, 26, 24), "0.01": (29.9, 26, 22.1)}
ANGLES = {"sft": 0.2, "opd": 0.02, "rlvr": 0.01}

# What each run shows at its three snapshots. What SFT shows, matched SFT shows too, and so do mixes at unit
# scale and wider projections, unless they have values of their own.
TRUE: dict[str, dict[Any, Any]] = {
    "update_sparsity": {"sft": 0.081, "opd": 0.516, "rlvr": 0.772, **VARIANTS},
    "angle_u_mean": ANGLES,
    "angle_v_mean": ANGLES,
    "spectral_shift": {"sft": 1e-3, "opd": 1e-4, "rlvr": 1e-5},
    "principal_overlap": {"sft": 0.2966, "opd": 0.2731, "rlvr": 0.2665},
    "low_magnitude_overlap": {"sft": 0.3188, "opd": 0.5359, "rlvr": 0.7348},
    "principal_not_low_overlap": {"opd": 0.15, "rlvr": 0.1},
    "principal_not_low_chance": {"opd": 0.23, "rlvr": 0.23},
    "prediction_agreement": {"sft": 0.999, "opd": 0.999, "rlvr": 0.999},
    "principal_energy": {"opd": 0.001},
    "principal_energy_chance": {"opd": 0.002},
    "relative_norm": {"sft": 0.119, "opd": 0.001},
    "stable_rank": {
        **{"sft": (20, 40, 60), "opd": (25, 25.5, 26), "rlvr": (30, 26, 22), "opd_restream": (25, 25.6, 26)},
        **{"rlvr_restream": (30, 26, 22), "opd_shuffled_credit": 90.0, "rlvr_random_reward": 95.0},
        **{run: (25.1, 25.4, 26.3) for run in (*TOKENS, "opd_teacher_rollouts")},
        **{f"mix_{alpha}": path for alpha, path in MIXES.items()},
    },
    "frobenius_norm": {
        **{"sft": 4.701, "opd": 0.452, "rlvr": 0.168, "opd_teacher_rollouts": 0.5},
        **dict.fromkeys(TOKENS, 0.3),
    },
    "mlp frobenius_norm": {"opd": 0.9, "rlvr": 0.3},
    "hill_index": {"sft": (2, 3, 4), "opd": (2.34, 2.6, 2.93), "rlvr": (3, 2.5, 2)},
    "subspace_alignment": {
        **{"sft": (0.4, 0.7, 1), "opd": (0.8, 0.9, 1), "rlvr": (0.5, 0.8, 1)},
        **{"opd_shuffled_credit": (0.3, 0.6, 1), "rlvr_random_reward": (0.2, 0.6, 1)},
    },
    "null permuted update_sparsity": {"sft": 0.081, "sft_matched": 0.081, "opd": 0.516, "rlvr": 0.772},
    "null permuted principal_not_low_overlap": {"opd": 0.2, "rlvr": 0.2},
    "null permuted principal_overlap": {"opd": 0.29},
    "null permuted low_magnitude_overlap": {"opd": 0.35},
    **{
        f"null {null} angle_{side}_mean": {"opd": 0.05, "rlvr": 0.05}
        for null in ("rescaled_sft", "rescaled_sft_matched")
        for side in "uv"
    },
    "null rescaled_sft update_sparsity": {"opd": 0.2, "rlvr": 0.3},
    "null rescaled_sft_matched update_sparsity": {"opd": 0.2, "rlvr": 0.3},
    "accuracy": {
        **{"opd": 0.633, "sft": 0.555, "opd_subnetwork_found": 0.63, "opd_subnetwork_random": 0.55},
        **{"opd_sgd": 0.5, "opd_teacher_rollouts": 0.6, "rlvr": 0.6},
    },
    "greedy": {"opd": 0.7, "sft": 0.6, "opd_sgd": 0.7},
    "learning": {
        **{"opd": (0.4, 0.5, 0.6), "sft": (0.3, 0.4, 0.5)},
        **{"opd_projected_early": 0.59, "opd_projected_random": 0.45, "opd_projected_none": 0.4},
        **{"sft_projected_early": 0.4, "sft_projected_none": 0.35},
        **{"sft_matched_projected_early": 0.4, "sft_matched_projected_none": 0.35},
    },
    "pair jaccard": {
        **{("opd", "opd_restream", 0): 0.6, ("opd", "rlvr", 0): 0.55},
        **{("opd", "opd_rotated", 0): 0.6, ("opd", "opd_rotated", 1): 0.4},
    },
    "pair jaccard_chance": {
        **{("opd", "opd_restream", 0): 0.4, ("opd", "rlvr", 0): 0.4},
        **{("opd", "opd_rotated", 0): 0.4, ("opd", "opd_rotated", 1): 0.4},
    },
    "pair jaccard_rounding": {
        **{("opd", "opd_restream", 0): 0.45, ("opd", "rlvr", 0): 0.45},
        **{("opd", "opd_rotated", 0): 0.45, ("opd", "opd_rotated", 1): 0.4},
    },
    "pair reverse_coverage": {("opd", "rlvr", 0): 0.53},
    "pair reverse_coverage_rounding": {("opd", "rlvr", 0): 0.2},
    "pair other_density": {("opd", "rlvr", 0): 0.175},
    "top_energy": {"opd": 0.337, "rlvr": 0.392},
    "pair update_cosine": {("opd", "rlvr", 0): 0.26, ("opd", "opd_restream", 0): 0.9},
    **{f"pair sampled_accuracy:{name}": {("opd", "rlvr", 0): 0.7} for name in MERGES},
    **{f"pair sampled_accuracy:{name}": {("opd", "rlvr", 0): 0.6} for name in CONTROLS},
    "forward_kl": {"sft": 0.5, "opd": 0.05, "rlvr": 0.02},
    "curvature": {
        **{("opd", "update"): 0.01, ("rlvr", "update"): 0.01},
        **{("start", "principal"): 2.0, ("start", "off_principal"): 0.5},
    },
}

# What to change so that a claim is true which contradicts one of another paper.
ELSEWHERE: dict[str, dict[str, dict[Any, Any]]] = {
    "M1": {"update_sparsity": {"opd": 0.9873, "rlvr": 0.7896}},
    "M2": {"frobenius_norm": {"opd": 0.1}, "mlp frobenius_norm": {"opd": 0.1}},
}

# What to change so that every comparison of a claim fails.
FALSE: dict[str, dict[str, dict[Any, Any]]] = {
    "C1": {"update_sparsity": {"sft": 0.9, "rlvr": 0.1}},
    "C2": {"update_sparsity": dict(zip(VARIANTS, (0.09, 0.77, 0.9, 0.1), strict=True))},
    "C3": {f"angle_{side}_mean": {"sft": 0.001, "rlvr": 0.3} for side in "uv"},
    "C4": {"spectral_shift": {"sft": 1e-5, "rlvr": 1e-3}},
    "C5": {"principal_overlap": {"sft": 0.29, "opd": 0.31, "rlvr": 0.33}},
    "C6": {"low_magnitude_overlap": {"sft": 0.31, "opd": 0.29, "rlvr": 0.27}},
    "C7": {"stable_rank": {"sft": (22, 21, 20), "opd": (20, 40, 60), "rlvr": (20, 21, 22)}},
    "C8": {"frobenius_norm": {"rlvr": 0.45}, "stable_rank": {"rlvr": (30, 20, 15)}},
    "C9": {"hill_index": {"sft": (3, 2.5, 2), "opd": (2, 4, 6), "rlvr": (2, 3, 4)}},
    "C10": {"subspace_alignment": {"opd": (0.25, 0.6, 1)}},
    "C11": {
        "learning": {
            **{"opd_projected_early": 0.45},
            **dict.fromkeys(("sft_projected_early", "sft_matched_projected_early"), 0.5),
        }
    },
    "C12": {"stable_rank": dict.fromkeys(TOKENS, (80.0, 80.0, 80.0))},
    "C13": {
        "stable_rank": {"opd_teacher_rollouts": (80.0, 80.0, 80.0)},
        "frobenius_norm": {"opd_teacher_rollouts": 0.4},
    },
    "C14": {"stable_rank": {"mix_0.75": MIXES["0.01"], "mix_0.01": MIXES["0.75"]}},
    "C15a": {
        "forward_kl": {"opd": 0.9, "rlvr": 0.9},
        "curvature": {("opd", "update"): 1e3, ("rlvr", "update"): 1e3},
    },
    "C15b": {
        **{f"angle_{side}_mean": {"opd": 0.2, "rlvr": 0.2} for side in "uv"},
        "principal_not_low_overlap": {"opd": 0.3, "rlvr": 0.3},
        "principal_energy": {"opd": 0.1},
        "curvature": {("start", "principal"): 0.1},
    },
    "C15c": {
        "null permuted update_sparsity": dict.fromkeys(("sft", "sft_matched", "opd", "rlvr"), 0.3),
        "prediction_agreement": dict.fromkeys(("sft", "opd", "rlvr"), 0.6),
    },
    "P1": {"update_sparsity": {"sft": 0.9}},
    "P2": {"pair jaccard": {("opd", "opd_rotated", 0): 0.4, ("opd", "opd_rotated", 1): 0.6}},
    "P3": {"pair jaccard": {("opd", "opd_restream", 0): 0.3, ("opd", "rlvr", 0): 0.3}},
    "P4": {
        **{f"angle_{side}_mean": {"rlvr": 0.5} for side in "uv"},
        "spectral_shift": {"rlvr": 0.1},
    },
    "P5": {"principal_not_low_overlap": {"rlvr": 0.3}},
    "S1": {"relative_norm": {"opd": 0.2}},
    "S2": {"stable_rank": {"opd": 80.0}},
    "S3": {"principal_overlap": {"opd": 0.32}, "low_magnitude_overlap": {"opd": 0.2}},
    "S4": {"mlp frobenius_norm": {"opd": 0.1}},
    "S5": {"pair reverse_coverage": {("opd", "rlvr", 0): 0.1}},
    "S6": {"accuracy": {"opd_subnetwork_found": 0.4, "opd_subnetwork_random": 0.63}},
    "S7": {"accuracy": {"opd_sgd": 0.7}},
    **{"M1": {}, "M2": {}},
    "M3": {"top_energy": {"opd": 0.5}},
    "M4": {"pair update_cosine": {("opd", "rlvr", 0): 0.92}},
    "M5": {
        **{f"pair sampled_accuracy:{name}": {("opd", "rlvr", 0): 0.5} for name in MERGES},
        **{f"pair sampled_accuracy:{name}": {("opd", "rlvr", 0): 0.6} for name in CONTROLS},
    },
}

# What a claim cannot do without: a run, or a table.
NEEDS = {
    **{
        "C11": "sft_projected_early",
        "C13": "opd_teacher_rollouts",
        "C15a": "trajectories",
        "P2": "pairs",
        "P3": "pairs",
    },
    **{"S1": "sft", "S2": "sft", "S3": "opd", "S4": "opd", "S5": "pairs"},
    **{"S6": "opd_subnetwork_found", "S7": "opd_sgd"},
}


def world(
    changes: dict[str, dict[Any, Any]] | None = None,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    jitter: float = 1e-3,
    without: tuple[str, ...] = (),
) -> Results:
    """TRUE with `changes`; every value of a seed is off by a factor of up to 1 ± jitter. without: runs, or
    `pairs`, `trajectories` and `curvature`."""
    tables: dict[str, list[tuple[Any, ...]]] = {
        "matrices": [],
        "nulls": [],
        "curves": [],
        "pairs": [],
        "trajectories": [],
        "curvature": [],
    }
    changes = changes or {}
    for name in TRUE | changes:
        for run, values in _with_copies(name, TRUE.get(name, {}) | changes.get(name, {})).items():
            for seed in seeds:
                off = 1 + jitter * (2 * _uniform(name, run, seed) - 1)
                for step, value in zip(STEPS, off * np.broadcast_to(values, 3), strict=True):
                    _place(tables, name, run, seed, step, value)
    names = ["layer", "module", "run", "seed", "step", "metric", "k", "value"]
    matrices = pd.DataFrame(tables["matrices"], columns=names)
    keep = {
        name: pd.DataFrame(rows, columns=_COLUMNS[name]) for name, rows in tables.items() if name in _COLUMNS
    }
    everything = {"matrices": _with_sizes(matrices), **keep}
    for name, table in everything.items():
        gone = table["run"].isin(without) | (name in without)
        if name == "pairs":
            gone |= table["other"].isin(without)
        everything[name] = table[~gone].assign(profile="smoke")
    return Results(study=STUDY, tables=everything)


_COLUMNS = {
    "nulls": ["null", "layer", "module", "run", "seed", "step", "metric", "k", "value"],
    "curves": ["run", "seed", "step", "metric", "value"],
    "pairs": ["run", "seed", "other", "other_seed", "step", "layer", "module", "metric", "k", "value"],
    "trajectories": ["run", "seed", "step", "metric", "k", "value"],
    "curvature": ["run", "direction", "seed", "step", "metric", "k", "value"],
}


def _place(tables: dict[str, list[Any]], name: str, run: Any, seed: int, step: int, value: float) -> None:
    """Put one value into the table that its name asks for."""
    kind, _, metric = name.rpartition(" ")
    if name == "accuracy":
        if step == STEPS[-1]:
            tables["curves"].append((run, seed, step, f"sampled_accuracy:{HOME}", value))
            tables["curves"].append((run, seed, step, f"sampled_accuracy_se:{HOME}", 0.01))
    elif name == "greedy":
        if step == STEPS[-1]:
            tables["curves"].append((run, seed, step, f"greedy_accuracy:{HOME}", value))
    elif name == "learning":
        tables["curves"].append((run, seed, step, "sampled_accuracy", value))
    elif kind.startswith("null "):
        tables["nulls"].append((kind[5:], 0, "q", run, seed, step, metric, K_OF.get(metric, np.nan), value))
    elif kind == "pair":
        one, other, layer = run
        tables["pairs"].append((one, seed, other, seed, step, layer, "q", metric, np.nan, value))
    elif name == "forward_kl":
        tables["trajectories"].append((run, seed, step, metric, np.nan, value))
    elif name == "curvature":
        if step == STEPS[0]:
            tables["curvature"].append((*run, seed, 0, metric, np.nan, value))
    else:
        module = "up" if kind == "mlp" else "q"
        tables["matrices"].append((0, module, run, seed, step, metric, K_OF.get(metric, np.nan), value))
        if metric == "update_sparsity":
            tables["matrices"].append((1, module, run, seed, step, metric, np.nan, value))


def _with_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    places = frame[["layer", "module", "run", "seed", "step"]].drop_duplicates()
    return pd.concat([frame, places.assign(metric="parameters", k=np.nan, value=100.0)])


def _with_copies(name: str, runs: dict[Any, Any]) -> dict[Any, Any]:
    """The runs that are like others unless said otherwise."""
    copies = {"sft": "sft_matched"} | {f"mix_{alpha}": f"mix_{alpha}_unit" for alpha in MIXES}
    return {copy: runs[run] for run, copy in copies.items() if run in runs} | runs


def _uniform(*parts: Any) -> float:
    """In [0, 1), by name: the same in every call."""
    return zlib.crc32(repr(parts).encode()) / 2**32
