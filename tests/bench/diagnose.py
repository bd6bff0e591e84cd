"""The diagnostics against LAPACK, in one run: seconds, memory, accuracy, and how both grow."""

import cProfile
import json
import math
import pstats
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.compare.pairing import sizes_for
from paper_lib.ground import parallel
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_json
from paper_lib.ground.parallel import run_parallel
from paper_lib.ground.tables import Row
from paper_lib.measure.matrix import measure_matrix
from paper_lib.study.config import DiagnosticsConfig

QWEN3_8B_LAYER = ((4096, 4096), (1024, 4096), (12288, 4096), (4096, 12288))
STAGES = {
    "weight_spectrum": "W_0, W_t",
    "update_spectrum": "ΔW",
    "certified_shift": "NSS",
    "principal_angles": "angles",
    "weight_masks": "masks",
    "_visibility": "overlaps",
}
PARTS = ("layer", "smollm2", "growth")


def planted_pair(m: int, n: int, seed: int = 0) -> list[Tensor]:
    """W_0 and W_t (m, n), bf16: a decaying spectrum over noise, and an update of 32 decaying directions at a
    thousandth of its norm, which bf16 rounds."""
    generator = torch.Generator().manual_seed(seed)

    def low_rank(rank: int) -> Tensor:
        left = torch.randn(m, rank, generator=generator) * torch.arange(1, rank + 1).pow(-0.5)
        return left @ torch.randn(rank, n, generator=generator)

    w_0 = 0.02 * (torch.randn(m, n, generator=generator) + 0.1 * low_rank(64))
    delta_w = low_rank(32)
    delta_w *= 1e-3 * w_0.norm() / delta_w.norm()
    w_0 = w_0.bfloat16()
    return [w_0, (w_0 + delta_w).bfloat16()]


def bench_diagnose(
    *,
    parts: Sequence[str] | None = None,
    shapes: Sequence[tuple[int, int]] = QWEN3_8B_LAYER,
    threads: int | None = None,
    out: Path | str | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, pd.DataFrame]:
    """Times every part asked for, by default all that can be measured here; returns their tables by name.

    Each table is reported, and written to `out` as JSON, as soon as it is there.

    layer: the full suite on planted bf16 pairs of the `shapes`, with certified decompositions and with the
    paper's procedure (`exact`: float64 SVDs of W_0, W_+ and ΔW), each in a process of its own on `threads`
    threads (one a core where None), and how far apart their values are. smollm2: every projection matrix of
    SmolLM2-135M with a planted update, one thread a core. growth: twice the matrices, and two workers.
    Raises CompanionError for an unknown part, and for smollm2 without its package, before it measures.
    """
    chosen = _measurable(parts, report)
    threads = parallel.cores() if threads is None else threads
    measured: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
        "layer": lambda: _bench_layer(shapes, threads, report),
        "smollm2": lambda: {"smollm2": _bench_smollm2(report)},
        "growth": lambda: {"growth": _bench_growth(report)},
    }
    tables: dict[str, pd.DataFrame] = {}
    for part in chosen:
        new = measured[part]()
        for name, table in new.items():
            report(f"\n{name}\n{table.to_string(index=False, float_format=lambda value: f'{value:.3g}')}\n")
        tables |= new
        if out is not None:
            settings = {"threads": threads, "torch": torch.__version__, "shapes": shapes}
            rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
            write_json(out, {"settings": settings, "tables": rows})
    return tables


def _measurable(parts: Sequence[str] | None, report: Callable[[str], None]) -> Sequence[str]:
    """The parts to measure; without a choice, smollm2 is left out, with a word, where its package lacks."""
    if unknown := [part for part in parts or () if part not in PARTS]:
        raise CompanionError(f"bench diagnose: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    chosen = PARTS if parts is None else parts
    if "smollm2" in chosen:
        from paper_lib.training.models import (
            smollm2_weights,
        )  # transformers: not in the processes whose memory is measured

        try:
            smollm2_weights()
        except CompanionError as missing:
            if parts is not None:
                raise
            report(f"[bench] smollm2 is left out: {missing}")
            chosen = [part for part in PARTS if part != "smollm2"]
    return chosen


def _bench_layer(
    shapes: Sequence[tuple[int, int]], threads: int, report: Callable[[str], None]
) -> dict[str, pd.DataFrame]:
    timings, accuracies, config = [], [], sizes_for(shapes)
    report(f"[bench] layer: {len(shapes)} shapes, each certified and with LAPACK's SVDs, {threads} threads")
    for m, n in shapes:
        measured, shape = {}, f"{m} × {n}"
        for exact, way in ((False, "certified"), (True, "LAPACK")):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                measured[exact] = alone.submit(_suite, m, n, config, exact, threads).result()
            report(f"[bench] {shape}, {way}: {measured[exact]['seconds']:.1f} s")
        fast, lapack = measured[False], measured[True]
        record = {"shape": shape, "exact [s]": lapack["seconds"], "fast [s]": fast["seconds"]}
        record |= {"ratio": lapack["seconds"] / fast["seconds"]}
        record |= {"processor ratio": lapack["processor"] / fast["processor"]}
        record |= {"fast [GB]": fast["memory"], "exact [GB]": lapack["memory"]}
        record["memory aim [GB]"] = 1.5 + 12 * 8 * m * n / 1e9
        timings.append(record | {f"{name} [s]": fast["stages"][name] for name in STAGES.values()})
        accuracies.append({"shape": shape, **_distances(fast["rows"], lapack["rows"])})
    table = pd.DataFrame(timings)
    whole: dict[str, Any] = {"shape": "all", **table.iloc[:, 1:].sum(numeric_only=True)}
    whole["ratio"] = whole["exact [s]"] / whole["fast [s]"]
    for name in ("processor ratio", "fast [GB]", "exact [GB]", "memory aim [GB]"):
        whole[name] = math.nan
    table = pd.concat([table, pd.DataFrame([whole])], ignore_index=True)
    return {"layer": table, "accuracy": pd.DataFrame(accuracies)}


def _suite(m: int, n: int, config: DiagnosticsConfig, exact: bool, threads: int) -> dict[str, Any]:
    """Measure one planted pair here: rows, seconds, seconds by stage, and this process's peak memory."""
    weights = planted_pair(m, n)
    profile = cProfile.Profile()
    with parallel.threads(threads):
        began, computed = perf_counter(), process_time()
        rows = profile.runcall(measure_matrix, weights, [0, 1], config, exact=exact)
        seconds, processor = perf_counter() - began, process_time() - computed
    spent: dict[str, float] = dict.fromkeys(STAGES.values(), 0.0)
    for (_, _, function), (*_, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if function in STAGES:
            spent[STAGES[function]] += cumulative
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"rows": rows, "seconds": seconds, "processor": processor, "stages": spent, "memory": memory}


def _distances(fast: list[Row], exact: list[Row]) -> dict[str, float]:
    """How far the fast values lie from LAPACK's: the largest distance of every kind, and the bounds told."""
    theirs = {(row.metric, row.k if row.k == row.k else None): row.value for row in exact}
    ours = {(row.metric, row.k if row.k == row.k else None): row.value for row in fast}
    relative = ("spectral_shift", "stable_rank", "operator_norm", "hill_index", "top_energy")
    found = {
        f"{name} (relative)": max(
            abs(ours[key] - value) / abs(value) for key, value in theirs.items() if key[0] == name
        )
        for name in relative
    }
    found["angles [rad]"] = max(
        abs(ours[key] - value) for key, value in theirs.items() if key[0].startswith("angle_")
    )
    found["overlaps"] = max(
        abs(ours[key] - value) for key, value in theirs.items() if key[0].endswith("_overlap")
    )
    bounds = {name: value for (name, _), value in ours.items() if name.endswith("_bound")}
    return found | {name.replace("_", " "): value for name, value in bounds.items()}


def _bench_smollm2(report: Callable[[str], None]) -> pd.DataFrame:
    from paper_lib.training.models import load_smollm2  # transformers, which the other parts do without

    state = load_smollm2()[0].state_dict()
    names = [name for name, w in state.items() if w.ndim == 2 and "layers" in name]
    report(f"[bench] smollm2: {len(names)} matrices")
    pairs = [_rounded_pair(state[name], seed) for seed, name in enumerate(names)]
    config = sizes_for([(w.shape[0], w.shape[1]) for w, _ in pairs])
    began = perf_counter()
    run_parallel(
        _measure_pair,
        [(pair, config) for pair in pairs],
        labels=names,
        what="smollm2",
        report=report,
    )
    seconds = perf_counter() - began
    parameters = sum(w.numel() for w, _ in pairs) / 1e6
    return pd.DataFrame([{"matrices": len(names), "parameters [M]": parameters, "seconds": seconds}])


def _rounded_pair(w_0: Tensor, seed: int) -> list[Tensor]:
    """bf16 W_0 of a real matrix and the update that `planted_pair` gives its shape, at W_0's size."""
    start, end = (w.float() for w in planted_pair(w_0.shape[0], w_0.shape[1], seed))
    return [w_0.bfloat16(), (w_0 + (end - start) * w_0.norm() / start.norm()).bfloat16()]


def _measure_pair(weights: list[Tensor], config: DiagnosticsConfig) -> int:
    return len(measure_matrix(weights, [0, 1], config))


def _bench_growth(report: Callable[[str], None]) -> pd.DataFrame:
    """The same matrices once and twice, with one worker and with two."""

    def seconds(count: int, workers: int) -> float:
        config = sizes_for([(1024, 2048)])
        jobs = [(planted_pair(1024, 2048, i), config) for i in range(count)]
        labels = [str(i) for i in range(count)]
        options: dict[str, Any] = {"labels": labels, "what": "growth", "report": lambda line: None}
        run_parallel(
            _measure_pair, jobs[:workers], **(options | {"labels": labels[:workers]}), workers=workers
        )
        began = perf_counter()
        run_parallel(_measure_pair, jobs, **options, workers=workers)
        spent = perf_counter() - began
        report(f"[bench] growth: {count} matrices, {workers} at a time: {spent:.1f} s")
        return spent

    one, twice, shared = seconds(8, 1), seconds(16, 1), seconds(16, 2)
    record = {"8 matrices [s]": one, "16 [s]": twice, "growth": twice / one}
    return pd.DataFrame([record | {"16, two workers [s]": shared, "gain": twice / shared}])
