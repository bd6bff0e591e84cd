"""The exercises of the notebooks that compute, 01_train and 02_extract."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paper_lib.geometry import spectra
from paper_lib.geometry.sparsity import update_sparsity
from paper_lib.geometry.spectra import singular_values, stable_rank
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, judge_numbers, shaped_cases
from paper_lib.training.objectives import group_advantages, reverse_kl

# --- 01_train: how much data, and what credit.

PAPER_STEPS = {"sft": 5375, "opd": 300, "rlvr": 1024}  # Shen et al. 2026, the tables of settings
PAPER_BATCH = {"sft": 256, "opd": 64, "rlvr": 512}  # sequences: for OPD and RLVR 8 samples a prompt are in it
SAMPLES = 8


@exercise("01-1", "How much more does SFT see?", minutes=5)
def _sequences(answer: Any) -> str:
    seen = {run: PAPER_STEPS[run] * PAPER_BATCH[run] for run in PAPER_STEPS}
    steps = PAPER_STEPS["sft"] / PAPER_STEPS["opd"]
    right = seen["sft"] / seen["opd"]
    mistakes = {
        "the ratio of the steps: a step of SFT also holds more sequences than one of OPD": steps,
        "the wrong way up: SFT's sequences belong above the line": 1 / right,
        "the 8 samples of a prompt are in OPD's batch already: do not multiply again": right / SAMPLES,
        "you counted OPD's prompts; every one of its 8 samples is a sequence": right * SAMPLES,
        "that is SFT against RLVR": seen["sft"] / seen["rlvr"],
    }
    judge_numbers(answer, right, mistakes, unit="one number, SFT's sequences over OPD's", relative=0.02)
    return "With ten times the learning rate as well, SFT and OPD differ in much more than their objective."


@exercise("01-2", "The advantage of a group", minutes=10)
def _advantages(answer: Any) -> str:
    groups = {
        "a group of 8 with 3 right answers": [1, 0, 0, 1, 0, 0, 1, 0],
        "a group of 4 with one right answer": [0, 0, 1, 0],
        "a group of 4 that are all right": [1, 1, 1, 1],
        "a group of 4 that are all wrong": [0, 0, 0, 0],
    }

    def outcomes(r: Tensor) -> Outcomes:
        centred, std = r - r.mean(), r.std()
        return group_advantages(r, len(r)), {
            "centred, but not divided by the group's standard deviation": centred,
            "that deviation divides by G, not by G − 1": _over(centred, r.std(correction=0)),
            "divided by the variance, not by its root": _over(centred, r.var()),
            "not centred: a group's advantages have mean 0": _over(r, std),
            "nan where rewards are equal and the deviation is 0: what can such a group teach?": centred / std,
        }

    cases = {name: (torch.tensor(r).double(),) for name, r in groups.items()}
    # Within whatever small number stands beside the deviation.
    judge_function(answer, outcomes, cases, returns="a tensor of the group's (G,) advantages", relative=2e-3)
    return "A group that is all right or all wrong teaches RLVR nothing; OPD still learns from it."


def _over(values: Tensor, scale: Tensor) -> Tensor:
    return values / scale if scale > 0 else torch.zeros_like(values)


@exercise("01-3", "Why the negative gap is the right credit", minutes=25)
def _gradient(answer: Any) -> str:
    generator = torch.Generator().manual_seed(7)
    pairs = [torch.randn(2, size, generator=generator, dtype=torch.float64) for size in (4, 9)]

    def outcomes(z: Tensor, t: Tensor) -> Outcomes:
        right, p, q, gap = _by_autograd(z, t), z.softmax(0), t.softmax(0), z.log_softmax(0) - t.log_softmax(0)
        of_teacher, unweighted = q * gap - (q * gap).sum() * p, gap - (p * gap).sum()
        return right, {
            "the sign: the credit −r_t climbs, the divergence falls": -right,
            "∇ log p_v is not e_v alone: the softmax takes p away": p * gap,
            "averaged over the teacher's distribution; on-policy samples are the student's": of_teacher,
            "that is the gradient of the forward KL, as SFT on the teacher's samples has it": p - q,
            "every token counts the same here: weight it by how often the student samples it": unweighted,
        }

    cases = {f"a vocabulary of {len(a)}": (a, b) for a, b in pairs}
    # The exact divergence is float32.
    judge_function(answer, outcomes, cases, returns="a tensor of (V,) derivatives", relative=1e-4)
    return "−r_t is an unbiased credit although r_t depends on θ: the mean of ∇ log p is 0."


def _by_autograd(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(reverse_kl(leaf, teacher_logits), leaf)
    return gradient


# --- 02_extract: what the diagnostics measure, and what they do not.

METRICS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "update_sparsity": (lambda w_0, d: update_sparsity(w_0, w_0 + d), "a step of bf16 does not double"),
    "frobenius_norm": (lambda w_0, d: spectra.frobenius_norm(d), "a norm doubles with its matrix"),
    "relative_norm": (lambda w_0, d: spectra.relative_norm(d, w_0), "only its numerator doubles"),
    "spectral_shift": (
        lambda w_0, d: spectra.spectral_shift(singular_values(w_0), singular_values(w_0 + d)),
        "W_0 is not doubled, and W_t − W_0 is",
    ),
    "stable_rank": (lambda w_0, d: stable_rank(d), ""),
    "hill_index": (lambda w_0, d: spectra.hill_index(singular_values(d), 4), ""),
    "top_energy": (lambda w_0, d: spectra.top_energy(singular_values(d), 2), ""),
    "drift_ratio": (lambda w_0, d: spectra.drift_ratio(d, [1e-3] * 10), "its denominator, the rates, stays"),
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
        in_float16, absolute = update_sparsity(a, b, precision=torch.float16), (apart <= 1e-3).double().mean()
        return right, {
            "counted in float32, where every change shows: round both to bf16 and compare": exact,
            "η is applied to float32 values; it is meant for the values as bf16 stores them": by_eta,
            "float16 has three bits more in its fraction than bf16, and shows more": in_float16,
            "that is the density, the share that changed; sparsity is what did not": 1 - right,
            "η is relative: compare with η times the larger of the two magnitudes": absolute,
            "a percentage: give the share, in [0, 1]": 100 * right,
        }

    judge_function(answer, outcomes, cases, returns="one number, a share in [0, 1]")
    return "Unchanged is not untouched: an entry may move by up to half a step of bf16 and not be seen."


@exercise("02-3", "Stable rank by hand", minutes=10)
def _stable_rank(answer: Any) -> str:
    def outcomes(delta_w: Tensor) -> Outcomes:
        right, s = stable_rank(delta_w), singular_values(delta_w)
        energy, rank, share = s.square().sum(), torch.linalg.matrix_rank(delta_w), s / s.sum()
        nuclear, effective = s.sum() ** 2 / energy, (-(share * share.log()).sum()).exp()
        return right, {
            "the singular values are not squared: energy is σ²": s.sum() / s[0],
            "a quotient of norms, not of their squares": right**0.5,
            "divided by the smallest singular value: the operator norm is the largest": energy / s[-1] ** 2,
            "that is the rank, which counts every direction alike, however little it carries": rank,
            "the nuclear norm over Frobenius's: take the Frobenius norm over the operator norm": nuclear,
            "the exponential of an entropy is the effective rank, another measure": effective,
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
