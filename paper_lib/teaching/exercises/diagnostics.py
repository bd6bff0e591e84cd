"""The exercises of 02_extract: what the diagnostics measure, and what they do not."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paper_lib.geometry import spectra
from paper_lib.geometry.sparsity import update_sparsity
from paper_lib.geometry.spectra import singular_values, stable_rank
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, shaped_cases

METRICS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "update_sparsity": (lambda w_0, d: update_sparsity(w_0, w_0 + d), "a step of bf16 does not double"),
    "frobenius_norm": (
        lambda w_0, d: spectra.frobenius_norm(d),
        "a norm is as many times larger as its matrix",
    ),
    "relative_norm": (lambda w_0, d: spectra.relative_norm(d, w_0), "only its numerator doubles"),
    "spectral_shift": (
        lambda w_0, d: spectra.spectral_shift(singular_values(w_0), singular_values(w_0 + d)),
        "W_0 is not doubled, and W_t − W_0 is",
    ),
    "stable_rank": (lambda w_0, d: stable_rank(d), ""),
    "hill_index": (lambda w_0, d: spectra.hill_index(singular_values(d), 4), ""),
    "top_energy": (lambda w_0, d: spectra.top_energy(singular_values(d), 2), ""),
    "drift_ratio": (
        lambda w_0, d: spectra.drift_ratio(d, [1e-3] * 10),
        "its denominator, the learning rates, stays",
    ),
}


@exercise("02-1", "What forgets the size of the update?", minutes=5)
def _scale_free(answer: Any) -> str:
    if isinstance(answer, str) or not isinstance(answer, set | frozenset | list | tuple):
        raise Wrong(f"answer is a {type(answer).__name__}, expected a set of metric names")
    chosen = set(map(str, answer))
    if unknown := sorted(chosen - set(METRICS)):
        raise Wrong(f"no metric {unknown[0]!r} in the list; it has {', '.join(METRICS)}")
    generator = torch.Generator().manual_seed(3)
    w_0 = torch.randn(24, 16, generator=generator)
    delta = 4e-3 * torch.randn(24, 16, generator=generator)
    same = {name for name, (f, _) in METRICS.items() if torch.isclose(f(w_0, delta), f(w_0, 2 * delta))}
    if changed := [name for name in METRICS if name in chosen - same]:
        raise Wrong(f"{changed[0]} changes: {METRICS[changed[0]][1]}")
    if missing := same - chosen:
        raise Wrong(f"all of these stay, and {len(missing)} more: they are quotients of singular values")
    return "These three compare runs of unequal norm as they are; all others mix in the size of the update."


@exercise("02-2", "Sparsity by hand", minutes=10)
def _sparsity(answer: Any) -> str:
    generator = torch.Generator().manual_seed(5)
    cases = {}
    for kind, shape, size in (("tall", (40, 12), 3e-3), ("wide", (10, 36), 1e-3), ("square", (20, 20), 2e-2)):
        w_0 = torch.randn(shape, generator=generator)
        delta = size * torch.randn(shape, generator=generator)
        delta[:2] = 0  # rows that stay in any precision
        cases[f"a {kind} {shape[0]} × {shape[1]} matrix"] = (w_0, w_0 + delta)

    def outcomes(a: Tensor, b: Tensor) -> Outcomes:
        right, apart = update_sparsity(a, b), (a.bfloat16().float() - b.bfloat16().float()).abs()
        exact, by_eta = (update_sparsity(a, b, eta=eta, precision=torch.float32) for eta in (0, 1e-3))
        in_float16 = update_sparsity(a, b, precision=torch.float16)
        return right, {
            "counted in float32, where every change shows: round both to bf16 and compare": exact,
            "η is applied to float32 values; it is meant for the values as bf16 stores them": by_eta,
            "float16 has three bits more in its fraction than bf16, and shows more": in_float16,
            "that is the density, the share that changed; sparsity is what did not": 1 - right,
            "η is relative: compare with η times the larger of the two magnitudes": (
                (apart <= 1e-3).double().mean()
            ),
            "a percentage: give the share, in [0, 1]": 100 * right,
        }

    judge_function(answer, outcomes, cases, returns="one number, a share in [0, 1]")
    return "Unchanged is not untouched: an entry may move by up to half a step of bf16 and not be seen."


@exercise("02-3", "Stable rank by hand", minutes=10)
def _stable_rank(answer: Any) -> str:
    def outcomes(delta_w: Tensor) -> Outcomes:
        right, s = stable_rank(delta_w), singular_values(delta_w)
        energy, rank, share = s.square().sum(), torch.linalg.matrix_rank(delta_w), s / s.sum()
        return right, {
            "the singular values are not squared: energy is σ²": s.sum() / s[0],
            "a quotient of norms, not of their squares": right**0.5,
            "divided by the smallest singular value: the operator norm is the largest": energy / s[-1] ** 2,
            "that is the rank, which counts every direction alike, however little it carries": rank,
            "the nuclear norm over Frobenius's: take the Frobenius norm over the operator norm": (
                s.sum() ** 2 / energy
            ),
            "the exponential of an entropy is the effective rank, another measure": (
                (-(share * share.log()).sum()).exp()
            ),
        }

    judge_function(answer, outcomes, shaped_cases(11), returns="one number")
    return "It is at least 1, and the number of equal singular values where all of them are equal."


@exercise("02-4", "The end contains the beginning", minutes=15)
def _shared_prefix(answer: Any) -> str:
    def outcomes(f: float) -> Outcomes:
        right = math.sqrt(f)
        return right, {
            "⟨ΔW_f, ΔW_end⟩ grows like f, but it is to be divided by both norms, √f and 1": f,
            "squared once too often: divide the inner product by the norms": f**2,
            "that is what the rest of the walk shares with the end": math.sqrt(1 - f),
            "an angle in degrees: give its cosine": math.degrees(math.acos(right)),
            "an angle in radians: give its cosine": math.acos(right),
            "the end contains the beginning, so they are not independent": 0.0,
        }

    cases = {f"f = {f}": (f,) for f in (0.1, 0.25, 0.5, 0.9)}
    # A simulated walk will do.
    judge_function(answer, outcomes, cases, returns="one number, a cosine in [0, 1]", relative=0.02)
    return "A tenth of a walk shares nearly a third of its end, with no training at all."
