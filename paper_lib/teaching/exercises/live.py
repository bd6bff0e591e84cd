"""The exercises of 08_live: what watching costs, when a channel is left, a step confined from both sides."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from paper_lib.teaching.judging import Outcomes, exercise, judge_function, judge_numbers

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
    judge_function(
        answer, outcomes, cases, returns="the share of the stretch's energy inside, between 0 and 1"
    )
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
