"""The exercises of the notebooks on a reader's own weights and runs, 07_your_checkpoints and 08_live."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.spectra import relative_norm
from paper_lib.teaching import judging
from paper_lib.teaching.judging import Outcomes, Wrong, exercise, judge_function, judge_numbers
from paper_lib.training.rotations import random_orthogonal

# --- 07_your_checkpoints: noise, rounding, and weights that differ where functions do not.

DRAFT_STEPS = {"opd": 300, "rlvr": 1024}
DRAFT_RATE, ROOT_SIZE = 1e-6, 3072  # constant; the mean √(m n) of q, k, v and o of the 8B model


@exercise("07-1", "Is it more than noise?", minutes=5)
def _drift(answer: Any) -> str:
    steps = np.array([*DRAFT_STEPS.values()])
    rms = np.array([METRICS["frobenius_norm"].value(run) for run in DRAFT_STEPS]) / ROOT_SIZE
    right = rms / (DRAFT_RATE * np.sqrt(steps))
    twice = right * math.sqrt(ROOT_SIZE)
    mistakes = {
        "divided by lr · steps: the squares add up, so noise grows with √steps": rms / (DRAFT_RATE * steps),
        "the norm of the whole matrix: RMS is one entry's, the norm over √(m n)": right * ROOT_SIZE,
        "divided by √3072: that 3,072 is √(m n) already, the mean over the four matrices": twice,
        "not divided by √steps: every step adds its noise": rms / DRAFT_RATE,
        "the other way round: OPD's comes first": right[::-1],
    }
    unit = "two numbers, the drift ratios of OPD and of RLVR"
    judge_numbers(answer, right, mistakes, unit=unit, relative=0.02)
    return (
        "RLVR's norm is within a factor of two of what Adam makes of noise: the norm alone does not tell it "
        "from noise, and its rank and Sim_K may."
    )


@exercise("07-2", "The size of rounding", minutes=10)
def _rounding(answer: Any) -> str:
    w = torch.randn(512, 512, generator=torch.Generator().manual_seed(71))
    by_format = {p: relative_norm(w.to(p).float() - w, w).item() for p in (torch.bfloat16, torch.float16)}
    right = by_format[torch.bfloat16]
    mistakes = {
        "the smallest relative half step: errors are spread between none and half a step": 2**-9,
        "the largest error that rounding can make: most entries have less": 2**-8,
        "the gap between neighbours: an error is at most half of it, and mostly less": 2**-7,
        "that is float16, which has three bits more": by_format[torch.float16],
        "a percentage: give the share": 100 * right,
    }
    judge_numbers(answer, right, mistakes, unit="one share, ‖rounding error‖ over ‖W‖", relative=0.03)
    return "The sibling paper's OPD moves less (0.036 to 0.142 %): compare checkpoints of one precision."


@exercise("07-3", "Other weights, the same function", minutes=20)
def _head(answer: Any) -> str:
    generator = torch.Generator().manual_seed(73)
    returns = "W_v and W_o, changed"
    for size, width in ((4, 10), (3, 6)):
        w_v = torch.randn(size, width, generator=generator, dtype=torch.float64)
        w_o = torch.randn(width, size, generator=generator, dtype=torch.float64)
        rotation = random_orthogonal(size, generator)
        name = f"a head of size {size} in a model of width {width}"
        found = judging.result_of(answer, name, (w_v, w_o, rotation), returns)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong(f"it returns a {type(found).__name__}, expected two tensors, {returns}")
        _judge_head(found[0], found[1], w_v, w_o, rotation, name)
    return "Masks and principal directions of W_v and W_o changed, and no logit: P2 trains from such a start."


def _judge_head(new_v: Any, new_o: Any, w_v: Tensor, w_o: Tensor, rotation: Tensor, where: str) -> None:
    new_v, new_o = (
        judging.as_matrix(new_v, w_v.shape, "W_v", where),
        judging.as_matrix(new_o, w_o.shape, "W_o", where),
    )
    if _same(new_v, w_v) and _same(new_o, w_o):
        raise Wrong("nothing changed: rotate the values, W_v, and undo it in W_o")
    if _same(new_o @ new_v, w_o @ w_v):
        if _same(new_v, rotation @ w_v):
            return
        raise Wrong("the function is kept, but the values are not R times the old ones")
    if _same(new_v, rotation @ w_v) and _same(new_o, w_o):
        raise Wrong("the values turn and W_o does not know: turn its columns back")
    if _same(new_v, rotation @ w_v) and _same(new_o, w_o @ rotation):
        raise Wrong("W_o R turns twice in one direction: the inverse of a rotation is its transpose")
    raise Wrong(f"W_o W_v is not what it was on {where}: the head computes something else")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0.0, atol=1e-5)  # float32 will do


# --- 08_live: what watching costs, when a channel is left, a step confined from both sides.

LAYERS, ENTRIES = 36, 4096 * 4096  # of Qwen3-8B's query matrices
GB = 1e9


@exercise("08-1", "What does watching cost?", minutes=5)
def _memory(answer: Any) -> str:
    kept, double = 2 * LAYERS * ENTRIES * 2 / GB, 2 * ENTRIES * 8 / GB
    mistakes = {
        "one copy: the last measured weights are kept beside W₀": kept / 2 + double,
        "the float64 of one matrix is missing": kept,
        "all matrices in float64: it is taken of one at a time": kept + LAYERS * double,
        "kept in float32: weights are kept as they are stored": 2 * kept + double,
        "those are GiB, of 2³⁰ bytes": (kept + double) * GB / 2**30,
    }
    judge_numbers(answer, kept + double, mistakes, unit="one number, in GB of 10⁹ bytes", relative=0.02)
    return "Nearly all of it is the copies, which grow with the matrices that you watch: hence a sample."


def _shapes() -> dict[str, tuple[Tensor, ...]]:
    """Three matrices (m, n), each a step from the one before, and orthonormal U_K (m, K) and V_K (n, K)."""
    normal = partial(torch.randn, generator=torch.Generator().manual_seed(82), dtype=torch.float64)
    cases = {}
    for kind, m, n in (("tall", 7, 4), ("wide", 4, 7), ("square", 5, 5)):
        path, u_k, v_k = normal(3, m, n).cumsum(0), *(torch.linalg.qr(normal(side, 2)).Q for side in (m, n))
        cases[f"a {kind} {m} × {n} matrix"] = (*path, u_k, v_k)
    return cases


@exercise("08-2", "Has it left the channel?", minutes=10)
def _left(answer: Any) -> str:
    def outcomes(w_0: Tensor, w_s: Tensor, w_t: Tensor, v_k: Tensor) -> Outcomes:
        right, of_all = ((part @ v_k).square().sum() / part.square().sum() for part in (w_t - w_s, w_t - w_0))
        return right, {
            "the whole update: it contains what V_K may have been taken from": of_all,
            "not squared: the share is one of energy": right**0.5,
            "that is what lies outside": 1 - right,
        }

    cases = {name: (*w, v_k) for name, (*w, _, v_k) in _shapes().items()}
    judge_function(answer, outcomes, cases, returns="the share of the stretch's energy inside, in [0, 1]")
    return "By chance it is K/n, for a walk too: this number tells a channel from a shared beginning."


@exercise("08-3", "Confined from both sides", minutes=10)
def _both_sides(answer: Any) -> str:
    def outcomes(w: Tensor, w_new: Tensor, u_k: Tensor, v_k: Tensor) -> Outcomes:
        step, columns, rows = w_new - w, u_k @ u_k.mT, v_k @ v_k.mT
        return w + columns @ step @ rows, {
            "W' itself is projected, which throws the pretrained weights away": columns @ w_new @ rows,
            "that is the step alone: it is added to W": columns @ step @ rows,
            "the rows alone: U_K confines the columns": w + step @ rows,
            "the columns alone: V_K confines the rows": w + columns @ step,
        }

    cases = {name: (w, w_new, u, v) for name, (w, w_new, _, u, v) in _shapes().items()}
    judge_function(answer, outcomes, cases, returns="the weights after the step, of the shape of W")
    return "The step keeps K² of its m n numbers; the free one's moments in Adam keep all of them."
