"""Which sizes the diagnostics take on matrices of any model: the paper's where they fit, scaled where not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paper_lib.config import DiagnosticsConfig
from paper_lib.errors import CompanionError

PAPER_WIDTH = 4096  # of Qwen3-8B, whose sizes the paper states
LARGE = 2048  # from this width on the paper's sizes are taken as they are
PAPER = {"principal_rank": 64, "angle_k": 512, "K": 16, "hill_k": 32, "energy_k": 16}
PER_WIDTH = {"principal_rank": 32, "angle_k": 8, "K": 40, "hill_k": 8, "energy_k": 32}
LEAST = {"principal_rank": 1, "angle_k": 1, "K": 1, "hill_k": 2, "energy_k": 1}


def model_width(shapes: Sequence[tuple[int, int]]) -> int:
    """The side that most matrices have, the smaller one in a tie: a transformer's hidden size."""
    sides = Counter(side for shape in shapes for side in set(shape))
    return max(sides, key=lambda side: (sides[side], -side))


def sizes_for(
    shapes: Sequence[tuple[int, int]], chosen: Mapping[str, Any] | None = None
) -> DiagnosticsConfig:
    """The sizes for matrices of these shapes, one set for all, so that means are means of one quantity.

    From width 2048 on they are the paper's: r = 64 of the principal mask, k = 512 of the angles (at most
    half of a matrix's short side, see `measure_matrix`), K = 16, the energy of 16; the k of Hill, which it
    leaves open, is 32. Below, they
    are the width divided by 32, 8, 40, 8 and 32, rounded, and at most the paper's; none exceeds the shortest
    side. chosen: fields of `DiagnosticsConfig` that replace these. Raises CompanionError for a chosen size
    that does not fit.
    """
    width, shortest = model_width(shapes), min(min(shape) for shape in shapes)
    sizes: dict[str, Any] = {}
    for name, most in PAPER.items():
        scaled = most if width >= LARGE else min(most, round(width / PER_WIDTH[name]))
        sizes[name] = max(LEAST[name], scaled if name == "angle_k" else min(scaled, shortest))
    for name, value in (chosen or {}).items():
        fits = name == "angle_k" or value <= shortest  # of the angles, `measure_matrix` takes what there is
        if name in PAPER and not (fits and value >= LEAST[name]):
            raise CompanionError(
                f"{name} = {value} does not fit: the smallest matrix has a side of {shortest}, so it must "
                f"lie in [{LEAST[name]}, {shortest}] (--modules leaves small matrices out)"
            )
        sizes[name] = value
    if sizes["hill_k"] > shortest:
        raise CompanionError(f"a matrix has a side of {shortest}, too small: leave it out with --modules")
    return DiagnosticsConfig(**sizes)
