"""What a correction for the number of comparisons would take away from the ledger."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from paper_lib.ledger.contrasts import FEWEST_SEEDS, Contrast
from paper_lib.ledger.verdicts import Reading, judge

LEVEL = 0.05


def p_value(contrast: Contrast) -> float:
    """Two-sided, of Student's t of the mean against the edge that decides: below 0.05 where it is decided."""
    from scipy import stats  # most of a second, and only the page needs it

    return float(2 * stats.t.sf(abs(contrast.effect) * contrast.seeds**0.5, contrast.seeds - 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values, (N,): the running maximum of (N − i) p_(i) from i = 0, at most 1 (Holm 1979)."""
    order, adjusted = np.argsort(p), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted


def corrections(readings: Sequence[Reading]) -> pd.DataFrame:
    """One row a correction, all text: comparisons tested, decided, lost under it, and verdicts that it moves.

    A comparison counts once that two readings share; idle ones and those of too few seeds are left out.
    """
    from scipy import stats

    tested = {
        (contrast.text, contrast.mean): contrast
        for reading in readings
        for contrast in (reading.finding.contrasts if reading.finding else ())
        if contrast.seeds >= FEWEST_SEEDS and not contrast.idle
    }
    p = np.array([p_value(contrast) for contrast in tested.values()])
    rows = []
    for name, adjust in {"Holm": holm, "Benjamini–Hochberg": stats.false_discovery_control}.items():
        lost = {key for key, raw, fair in zip(tested, p, adjust(p), strict=True) if raw < LEVEL <= fair}
        moved = [words for reading in readings if (words := _moved(reading, lost))]
        counts = (str(len(p)), str((p < LEVEL).sum()), str(len(lost)))
        rows.append(
            (name, *counts, "; ".join(text for text, _ in sorted(lost)) or "–", "; ".join(moved) or "–")
        )
    return pd.DataFrame(
        rows, columns=["correction", "tested", "decided", "lost", "which", "verdicts that move"]
    )


def _moved(reading: Reading, lost: set[tuple[str, float]]) -> str:
    """How a verdict moves where these comparisons decide nothing; empty where it stays."""
    if reading.finding is None:
        return ""
    contrasts = [
        replace(each, idle="lost") if (each.text, each.mean) in lost else each
        for each in reading.finding.contrasts
    ]
    verdict = judge(replace(reading.finding, contrasts=contrasts))
    return "" if verdict == reading.verdict else f"{reading.claim.id}, {reading.name}: {verdict}"
