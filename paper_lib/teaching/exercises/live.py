"""The exercises of 08_live: what watching costs, when a channel is left, a step confined from both sides."""

from typing import Any

import torch
from torch import Generator, Tensor

from paper_lib.teaching.judging import exercise, judge_function, judge_numbers

LAYERS, ENTRIES = 36, 4096 * 4096  # of Qwen3-8B's query matrices
GB = 1e9


@exercise("08-1", "What does watching cost?", minutes=5)
def _memory(answer: Any) -> str:
    kept, double = 2 * LAYERS * ENTRIES * 2 / GB, 2 * ENTRIES * 8 / GB
    judge_numbers(
        answer,
        kept + double,
        unit="one number, in GB of 10⁹ bytes",
        relative=0.02,
        mistakes={
            "one copy: the last measured weights are kept beside W₀": kept / 2 + double,
            "the float64 of one matrix is missing": kept,
            "all matrices in float64: it is taken of one at a time": kept + LAYERS * double,
            "kept in float32: weights are kept as they are stored": 2 * kept + double,
            "those are GiB, of 2³⁰ bytes": (kept + double) * GB / 2**30,
        },
    )
    return "Nearly all of it is the copies, which grow with the matrices that you watch: hence a sample."


def _weights(m: int, n: int, K: int, generator: Generator) -> tuple[Tensor, ...]:
    """Three matrices (m, n), each a step from the one before, and orthonormal U_K (m, K) and V_K (n, K)."""
    path = torch.randn(3, m, n, generator=generator, dtype=torch.float64).cumsum(0)
    u_k, v_k = (
        torch.linalg.qr(torch.randn(side, K, generator=generator, dtype=torch.float64)).Q for side in (m, n)
    )
    return *path, u_k, v_k


def _shapes() -> dict[str, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(82)
    sizes = {"tall": (7, 4), "wide": (4, 7), "square": (5, 5)}
    return {f"a {kind} {m} × {n} matrix": _weights(m, n, 2, generator) for kind, (m, n) in sizes.items()}


@exercise("08-2", "Has it left the channel?", minutes=10)
def _left(answer: Any) -> str:
    def share(part: Tensor, v_k: Tensor) -> Tensor:
        return (part @ v_k).square().sum() / part.square().sum()

    judge_function(
        answer,
        lambda w_0, w_s, w_t, v_k: share(w_t - w_s, v_k),
        returns="the share of the stretch's energy inside, between 0 and 1",
        cases={name: (*w, v_k) for name, (*w, _, v_k) in _shapes().items()},
        mistakes={
            "the whole update: it contains what V_K may have been taken from": lambda w_0, w_s, w_t, v: share(
                w_t - w_0, v
            ),
            "not squared: the share is one of energy": lambda w_0, w_s, w_t, v: share(w_t - w_s, v).sqrt(),
            "that is what lies outside": lambda w_0, w_s, w_t, v: 1 - share(w_t - w_s, v),
        },
    )
    return "By chance it is K/n, for a walk too: this number tells a channel from a shared beginning."


@exercise("08-3", "Confined from both sides", minutes=10)
def _both_sides(answer: Any) -> str:
    def confined(step: Tensor, u_k: Tensor, v_k: Tensor) -> Tensor:
        return u_k @ (u_k.mT @ step @ v_k) @ v_k.mT

    judge_function(
        answer,
        lambda w, w_new, u, v: w + confined(w_new - w, u, v),
        returns="the weights after the step, of the shape of W",
        cases={name: (w, w_new, u, v) for name, (w, w_new, _, u, v) in _shapes().items()},
        mistakes={
            "W' itself is projected, which throws the pretrained weights away": lambda w, w_new, u, v: (
                confined(w_new, u, v)
            ),
            "that is the step alone: it is added to W": lambda w, w_new, u, v: confined(w_new - w, u, v),
            "the rows alone: U_K confines the columns": lambda w, w_new, u, v: w + (w_new - w) @ v @ v.mT,
            "the columns alone: V_K confines the rows": lambda w, w_new, u, v: w + u @ u.mT @ (w_new - w),
        },
    )
    return "The step keeps K² of its m n numbers; the free one's moments in Adam keep all of them."
