"""The names, points and intervals of what is drawn, as they can be read back from artists."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import Container, ErrorbarContainer
from numpy.typing import NDArray

from paper_lib.plain_words import number, plain, span
from paper_lib.styles import hidden_name

Points = NDArray[np.float64]  # (n, 2)
_BESIDE = 0.15  # of a panel's width: how far right of a line's end its interval may stand


def name_of(artist: Artist | Container) -> str:
    """The words of an artist's label, hidden or not; empty for what matplotlib named itself."""
    label = str(artist.get_label() or "")
    return plain(hidden_name(label) if label.startswith("_") else label)


def interval_about(ax: Axes, color: Any, at: tuple[float, ...], along: str) -> str:
    """[low to high] of the interval drawn in this colour about a value, a bar or the end of a band.

    Of several it is the one whose middle is closest. Empty where there is none, or none of any width.
    """
    x, y = at[0], at[1]
    width, found = _BESIDE * abs(np.subtract(*ax.get_xlim())), []
    for (x0, y0), (x1, y1), shade in _segments(ax):
        if to_rgb(shade) != to_rgb(color):
            continue
        if along == "x" and abs(y0 - y) < 0.05 and y0 == y1 and x0 <= x <= x1:
            found.append((abs(x0 + x1 - 2 * x), x0, x1))
        if along == "y" and x0 == x1 and -1e-9 <= x0 - x <= width and y0 <= y <= y1:
            found.append((abs(y0 + y1 - 2 * y), y0, y1))
    _, low, high = min(found, default=(0, 0, 0))
    return f"[{span(low, high)}]" if number(low) != number(high) else ""


def _segments(ax: Axes) -> Iterator[tuple[Points, Points, Any]]:
    for line in ax.lines:
        points = finite(line.get_xydata())
        if len(points) == 2 and not name_of(line):
            yield points[0], points[1], line.get_color()
    for each in ax.containers:
        if isinstance(each, ErrorbarContainer):
            for bars in each.lines[2]:
                yield from ((s[0], s[-1], bars.get_color()[0]) for s in bars.get_segments()[::-1] if len(s))
    for band in ax.collections:
        if isinstance(band, PolyCollection) and len(band.get_facecolor()):
            points = finite(np.concatenate([path.vertices for path in band.get_paths()]))
            if len(points):
                edge = points[points[:, 0] == points[:, 0].max()]
                yield (
                    edge[edge[:, 1].argmin()],
                    edge[edge[:, 1].argmax()],
                    to_rgb(np.asarray(band.get_facecolor())[0]),
                )


def finite(points: Any) -> Points:
    """The points (n, 2) that have finite coordinates."""
    array = np.asarray(np.ma.filled(points, np.nan), dtype=float).reshape(-1, 2)
    return array[np.isfinite(array).all(1)]
