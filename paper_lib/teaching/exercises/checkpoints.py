"""The exercises of 07_your_checkpoints: noise, rounding, and weights that differ where functions do not."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paper_lib.geometry.metrics import METRICS
from paper_lib.geometry.spectra import relative_norm
from paper_lib.teaching.judging import Wrong, as_matrix, exercise, judge_numbers, result_of
from paper_lib.training.rotations import random_orthogonal

DRAFT_STEPS = {"opd": 300, "rlvr": 1024}
DRAFT_RATE, ROOT_SIZE = 1e-6, 3072  # constant; the mean √(m n) of q, k, v and o of the 8B model


@exercise("07-1", "Is it more than noise?", minutes=5)
def _drift(answer: Any) -> str:
    steps = np.array([*DRAFT_STEPS.values()])
    rms = np.array([METRICS["frobenius_norm"].value(run) for run in DRAFT_STEPS]) / ROOT_SIZE
    right = rms / (DRAFT_RATE * np.sqrt(steps))
    mistakes = {
        "divided by lr · steps: the squares add up, so noise grows with √steps": rms / (DRAFT_RATE * steps),
        "the norm of the whole matrix: RMS is one entry's, the norm over √(m n)": right * ROOT_SIZE,
        "divided by √3072: that 3,072 is √(m n) already, the mean over the four matrices": (
            right * math.sqrt(ROOT_SIZE)
        ),
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
        found = result_of(answer, name, (w_v, w_o, rotation), returns)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong(f"it returns a {type(found).__name__}, expected two tensors, {returns}")
        _judge_head(found[0], found[1], w_v, w_o, rotation, name)
    return "Masks and principal directions of W_v and W_o changed, and no logit: P2 trains from such a start."


def _judge_head(new_v: Any, new_o: Any, w_v: Tensor, w_o: Tensor, rotation: Tensor, where: str) -> None:
    new_v, new_o = as_matrix(new_v, w_v.shape, "W_v", where), as_matrix(new_o, w_o.shape, "W_o", where)
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
