"""What storing in bf16 hides of an update and adds to it, by binade: there ½ ULP (Gate III) is one number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FINE = 2.0  # RMS of an update in ULPs from which rounding hardly moves it
FEWEST = 100  # entries for an estimate


def half_ulp_counts(w_0: Tensor, precision: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """The values of `sparsity.half_ulp` that W_0 has, and how many entries have each.

    w_0: any shape, finite. Returns (c,), float64, ascending, and (c,), int64; some counts may be 0.

    >>> half, counts = half_ulp_counts(torch.tensor([1.0, 1.5, 256.0]))
    >>> half[counts > 0].tolist(), counts[counts > 0].tolist()
    ([0.00390625, 1.0], [2, 1])
    """
    half, binade = _binades(w_0, precision)
    return half, torch.bincount(binade, minlength=len(half))


def shown_share(half: Tensor, counts: Tensor, size: float, *, normal: bool = False) -> float:
    """Share of the weights at which a change of this size shows, |size| > ½ ULP; with `normal` the mean of
    P(|Z| > ½ ULP) for Z ~ N(0, size²). half, counts: of `half_ulp_counts`. NaN without weights.

    >>> half, counts = half_ulp_counts(torch.tensor([1.0, 256.0]))
    >>> shown_share(half, counts, 0.01), round(shown_share(half, counts, 0.01, normal=True), 3)
    (0.5, 0.348)
    """
    spread = normal and size > 0
    shows = torch.erfc(half / (size * math.sqrt(2))) if spread else (half < size).double()  # (c,)
    total = int(counts.sum())
    return float((shows * counts).sum()) / total if total else math.nan


def adam_bound(betas: Sequence[float] = (0.9, 0.999)) -> float:
    """√((1 − β₁) / (1 − β₂)), at least 1: no step of Adam is longer than that times its learning rate
    (by Cauchy and Schwarz for β₁ ≤ β₂; arXiv 2602.03839).

    >>> round(adam_bound((0.9, 0.95)), 3)
    1.414
    """
    return max(1.0, math.sqrt((1 - betas[0]) / (1 - betas[1])))


def rounding_share(w_0: Tensor, w_t: Tensor) -> float:
    """1 − ‖ΔW‖ / ‖ΔŴ‖: the share of an update's norm that is rounding, where ΔŴ is what 16 bits stored of
    ΔW. Below 0 where rounding hides more than it adds.

    w_0, w_t: (m, n), one of them at least in bfloat16 or float16. Where weights are so small that ΔŴ has an
    RMS of 2 ULP or more, rounding adds u²/12 to the mean square of a binade of ULP u (Sheppard) and less than
    that again where W_0 was rounded as well. These binades give the RMS of ΔW, and so the norm of all of it
    if sizes do not depend on |W_0|, as Adam's do not. NaN for wider dtypes, for fewer than 100 such entries,
    and where nothing is left. Tests hold 1 / (1 − share) to 3 % on a real fine-tune in float32 and its
    bf16 copies.
    """
    narrow = [w.dtype for w in (w_0, w_t) if w.dtype in (torch.bfloat16, torch.float16)]
    if not narrow:
        return math.nan
    half, binade = _binades(w_0, narrow[0])
    square = (w_t.double() - w_0.double()).square().flatten()
    count = torch.bincount(binade, minlength=len(half)).double()
    total = torch.bincount(binade, weights=square, minlength=len(half))  # Σ ΔŴ² by binade
    ulp_square = (2 * half).square()
    fine = (count > 0) & (total >= FINE**2 * ulp_square * count)
    entries = float(count[fine].sum())
    if entries < FEWEST:
        return math.nan
    mean_square = float((total - count * ulp_square / 12)[fine].sum()) / entries
    return 1 - math.sqrt(mean_square * len(square) / float(total.sum()))


def patch_bytes(entries: int, changed: int, width: int) -> int:
    """Bytes of the smallest plain lossless patch of a matrix: all values; a bit an entry and the changed
    values; or four bytes of place and a value for each. width: bytes of a value.

    >>> [patch_bytes(800, changed, 2) for changed in (0, 10, 100, 800)]
    [0, 60, 300, 1600]
    """
    return min(entries * width, -(-entries // 8) + changed * width, changed * (4 + width))


def _binades(w_0: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    """½ ULP by binade, (c,), float64, and the binade of each entry, (m n,), int64."""
    grid = torch.finfo(precision)
    stored = w_0.to(precision).float().abs().clamp(min=grid.smallest_normal)
    exponent = torch.frexp(stored)[1].flatten().long()
    lowest = int(exponent.min())
    exponents = torch.arange(lowest, int(exponent.max()) + 1)
    half = torch.ldexp(torch.full((len(exponents),), grid.eps / 2, dtype=torch.float64), exponents - 1)
    return half, exponent - lowest
