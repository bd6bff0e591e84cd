"""What a panel shows, read back from its artists: every named series with its values."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from paper_lib.drawing_seeds import count_of
from paper_lib.drawn_intervals import Points, finite, interval_about, name_of
from paper_lib.plain_words import number, plain, span
from paper_lib.styles import BACKDROP


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a panel.

    name: as in the legend, or the row it stands in. says: its values in words. within: the interval drawn
    about the last of them, or empty. aside: whether it is drawn only for comparison, such as a null. row: the
    one that a mark for comparison stands in, which its name begins with.
    """

    name: str
    says: str
    within: str = ""
    aside: bool = False
    row: str = ""


def series_of(ax: Axes) -> list[Series]:
    """Everything named in a panel, in the order drawn, marginal panels included.

    An artist is named by its label, by `styles.named`, or by the row in which the mean over seeds stands.
    A line says its first and last value, one value itself; where it starts and ends elsewhere than the
    others, both coordinates.
    """
    found = [*_lines(ax), *_containers(ax), *_clouds(ax), *_pictures(ax)]
    return _together(_by_kind([*found, *_marginals(ax)]))


def _by_kind(found: list[Series]) -> list[Series]:
    """Marks for comparison of one kind, such as a null, that stand in several rows as one series of all."""
    kinds: dict[str, list[Series]] = {}
    for each in found:
        if each.aside and each.row:
            kinds.setdefault(each.name.removeprefix(f"{each.row}: "), []).append(each)
    joined: dict[int, Series | None] = {}
    for kind, marks in kinds.items():
        if len({mark.row for mark in marks}) > 1:
            says = ", ".join(f"{mark.row} {mark.says}" for mark in marks)
            joined |= {id(marks[0]): Series(name=f"{kind}:", says=says, aside=True)}
            joined |= dict.fromkeys(map(id, marks[1:]))
    return [kept for each in found if (kept := joined.get(id(each), each)) is not None]


def _together(found: list[Series]) -> list[Series]:
    """Series of one name, such as the marks of one verdict, as one that says how many they are."""
    names = [each.name for each in found]
    once = {each.name: each for each in reversed(found)}
    return [
        once[name]
        if names.count(name) == 1 and once[name].says
        else replace(once[name], name=f"{names.count(name)} {name}", says="", within="")
        for name in dict.fromkeys(names)
    ]


def _lines(ax: Axes) -> Iterator[Series]:
    rows, path = rows_of(ax), _are_paths(ax)
    for line in ax.lines:
        points, name = finite(line.get_xydata()), name_of(line)
        if len(points) == 0:
            continue
        x, y = points.mean(0)
        row, beside = _row_at(rows, y), line.get_transform() != ax.transData
        aside = line.get_gid() == BACKDROP and not beside
        if row and not beside and (count_of(line) is not None or name):
            where = ": ".join(dict.fromkeys(word for word in (row, name) if word))
            reach = "" if aside else interval_about(ax, line.get_color(), (x, y), "x")
            says = span(points[:, 0].min(), points[:, 0].max())
            yield Series(name=where, says=says, within=reach, aside=aside, row=row if name else "")
        elif name and beside and len(points) == 1:
            yield Series(name=name, says="")  # a mark beside the axes has a place and no value
        elif name:
            reach = "" if aside else interval_about(ax, line.get_color(), tuple(points[-1]), "y")
            yield Series(name=name, says=_values(points, path=path), within=reach, aside=aside)


def _values(points: Points, *, path: bool) -> str:
    (x0, y0), (x1, y1) = points[0], points[-1]
    if len(points) > 1 and np.ptp(points[:, 1]) == 0:
        return number(y0)
    if len(points) > 1 and np.ptp(points[:, 0]) == 0:
        return number(x0)
    if not path:
        return span(y0, y1)
    start, end = f"({number(x0)}, {number(y0)})", f"({number(x1)}, {number(y1)})"
    return f"{start} to {end}" if len(points) > 1 else start


def _are_paths(ax: Axes) -> bool:
    """Whether x is a measured quantity here: it has negative values, the lines do not all run over one range
    of it, or there are none but single marks."""
    lines = [finite(line.get_xydata()) for line in ax.lines if name_of(line)]
    ends = np.array([(p[0, 0], p[-1, 0]) for p in lines if len(p) > 1 and np.ptp(p, axis=0).all()])
    if len(ends) == 0:
        return any(len(p) == 1 for p in lines)
    backwards, apart = (ends[:, 1] < ends[:, 0]).any(), np.abs(ends - ends[0]) > np.ptp(ends) / 4
    return bool((ends < 0).any() or backwards or apart.any())


def _marginals(ax: Axes) -> Iterator[Series]:
    """The lines of panels that stand beside one and share an axis of it: least to most along the other."""
    for child in ax.child_axes:
        across = isinstance(child, Axes) and child.get_shared_x_axes().joined(ax, child)
        for line in child.get_lines():
            if (name := name_of(line)) and len(points := finite(line.get_xydata())):
                values = points[:, 1] if across else points[:, 0]
                beside = line.get_transform() != child.transData
                if not beside:
                    yield Series(name=name, says=span(values.min(), values.max()))


def _containers(ax: Axes) -> Iterator[Series]:
    for each in ax.containers:
        name = name_of(each)
        if isinstance(each, ErrorbarContainer) and name and each.lines[0] is not None:
            points = finite(each.lines[0].get_xydata())
            if len(points):
                reach = interval_about(ax, each.lines[0].get_color(), tuple(points[-1]), "y")
                yield Series(name=name, says=span(points[0, 1], points[-1, 1]), within=reach)
        elif isinstance(each, BarContainer) and name:
            heights = [patch.get_height() for patch in each.patches]
            yield Series(name=name, says=f"{len(heights)} bars, {span(min(heights), max(heights))}")


def _clouds(ax: Axes) -> Iterator[Series]:
    rows = rows_of(ax)
    for cloud in ax.collections:
        if not isinstance(cloud, PathCollection) or not (name := name_of(cloud)):
            continue
        points = finite(np.ma.filled(cloud.get_offsets(), np.nan))
        if len(points):
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            row = _row_at(rows, points[:, 1].mean())
            words = f"{len(points)} points, {span(x0, x1)}" + ("" if row else f" by {span(y0, y1)}")
            aside = cloud.get_gid() == BACKDROP
            yield Series(name=f"{row}: {name}" if row else name, says=words, aside=aside)


def _pictures(ax: Axes) -> Iterator[Series]:
    for image in ax.images:
        values: NDArray[np.float64] = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
        high, wide = values.shape[:2]
        kinds = np.unique(values[np.isfinite(values)])
        if set(kinds) <= {0.0, 1.0, 2.0, 3.0}:
            words = f"{high} × {wide} entries, {100 * (values > 0).mean():.0f} % marked"
        else:
            words = f"{high} × {wide} cells, {span(np.nanmin(values), np.nanmax(values))}"
        yield Series(name=name_of(image) or "picture", says=words)


def rows_of(ax: Axes) -> dict[int, str]:
    """The names at the left where every row of a panel has one, by height."""
    axis = ax.yaxis
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    places = axis.get_majorticklocs()
    words = [plain(each) for each in axis.get_major_formatter().format_ticks(places.tolist())]
    named = {round(float(y)): each for y, each in zip(places, words, strict=True)}
    return named if any(not _is_number(each) for each in words) else {}


def _row_at(rows: dict[int, str], height: float) -> str:
    """The name of the row that something stands in, or a little above or below; empty where there is none."""
    near = min(rows, key=lambda row: abs(row - height), default=None)
    return rows[near] if near is not None and abs(near - height) <= 0.6 else ""


def _is_number(words: str) -> bool:
    return re.fullmatch(r"[-−\d.,e^· ]*", words) is not None
