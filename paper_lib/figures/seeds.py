"""What every figure does with seeds: one interval from three on, the seeds themselves below, their number."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container

from paper_lib.figures.styles import BACKDROP
from paper_lib.summaries import over_seeds

LEVEL = 0.95
ENOUGH = 3  # seeds that make an interval; two would give one of twelve times their distance
_COUNTED = "seeds-"  # gid of an artist that stands for a mean over so many


def spread(summary: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds` with Student's 95 % interval of the mean: low and high, NaN for fewer than three seeds."""
    found = over_seeds(summary, level=LEVEL)
    found.loc[found["seeds"] < ENOUGH, ["low", "high"]] = np.nan
    return found


def draw_band(ax: Axes, x: pd.Series, line: pd.DataFrame, color: str, *, scale: float = 1.0) -> None:
    """Shade from low to high of rows of `spread` where there are any, at x."""
    if line["low"].notna().any():
        band = (scale * line["low"], scale * line["high"])
        ax.fill_between(x, *band, color=color, alpha=0.15, linewidth=0, gid=BACKDROP)


def draw_few(ax: Axes, x: Iterable[float], y: Iterable[float], color: str) -> None:
    """Small dots: the seeds themselves, for two of which there is no interval. One is its own mean."""
    look: dict[str, Any] = {"color": color, "s": 5, "linewidths": 0, "alpha": 0.6, "gid": BACKDROP}
    ax.scatter(list(x), list(y), **look)


def is_few(seeds: float) -> bool:
    """Whether a mean over so many seeds is shown with the seeds in place of an interval."""
    return 1 < seeds < ENOUGH


def counted(artist: Artist, seeds: float) -> None:
    """Note on an artist that it stands for a mean over so many seeds."""
    artist.set_gid(f"{_COUNTED}{int(seeds)}")


def count_of(artist: Artist | Container) -> int | None:
    """What `counted` noted, on the first of a container such as error bars; None for any other artist."""
    gid = (artist[0] if isinstance(artist, Container) else artist).get_gid() or ""
    return int(gid.removeprefix(_COUNTED)) if gid.startswith(_COUNTED) else None


def say_number(counts: Iterable[int]) -> str:
    """The counts in short: n = 8, or n = 1–8 where they differ."""
    least, most = min(found := list(counts)), max(found)
    return f"n = {most}" if least == most else f"n = {least}–{most}"


def say_seeds(counts: Iterable[int]) -> str:
    """The line of a legend that says over how many seeds its means go, and what bands and bars are."""
    least, most = min(found := list(counts)), max(found)
    words = f"{say_number(found)} seed{'s' if most > 1 else ''}"
    if most < ENOUGH:
        return f"{words}, no interval over seeds below {ENOUGH}"
    interval = f"{words}; bands and bars: Student's {100 * LEVEL:.0f} % interval of the mean"
    return interval if least >= ENOUGH else f"{interval}, from n = {ENOUGH} on"
