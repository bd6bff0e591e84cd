"""Alt text of a figure, with its own numbers: the caption, then panel by panel what is drawn."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer, Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from paper_lib.figures.seeds import count_of
from paper_lib.figures.styles import BACKDROP, hidden_name, run_style

# --- A figure's labels and numbers as plain text, for those who hear a figure and do not see it.

_SYMBOLS = {
    **{"Vert": "‖", "Delta": "Δ", "theta": "θ", "alpha": "α", "eta": "η", "mu": "μ", "pi": "π", "sigma": "σ"},
    **{"cdot": "·", "times": "×", "top": "⊤", "leq": "≤", "geq": "≥", "ast": "*", "rho": "ρ", "lambda": "λ"},
}
_STYLING = re.compile(r"\\(?:mathrm|mathit|mathbf|text|operatorname)\s*\{([^{}]*)\}")


def plain(label: str) -> str:
    """A label as matplotlib takes it, without its mathtext: `$\\Vert\\Delta W\\Vert_F$` is ‖ΔW‖_F.

    Line breaks become spaces, a single symbol in braces loses them, unknown commands keep their names.
    """
    parts = label.split("$")
    parts[1::2] = [_of_math(part) for part in parts[1::2]]
    return re.sub(r"\s+", " ", "".join(parts)).strip()


def _of_math(text: str) -> str:
    text = _STYLING.sub(r"\1", text)
    text = re.sub(r"\\[,;:! ]", "\t", text)  # a space that no command before it swallows
    text = re.sub(r"\\([A-Za-z]+) ?", lambda found: _SYMBOLS.get(found[1], found[1]), text)
    text = re.sub(r"\{([^{}]*)\}", r"\1", text)
    return text.replace("\t", " ")


def number(value: float) -> str:
    """Three significant digits, with a real minus sign and no exponent between 0.001 and 99,999."""
    if not math.isfinite(value):
        return "nothing finite"
    size = abs(value)
    if size >= 100 and size < 99_999.5:
        words = f"{value:,.0f}"
    elif size == 0 or 1e-3 <= size < 100:
        words = f"{value:.3g}"
    else:
        mantissa, exponent = f"{value:.1e}".split("e")
        words = f"{mantissa} · 10^{int(exponent)}"
    return words.replace("-", "−")


def span(low: float, high: float) -> str:
    """From one number to another, in the least words that tell them apart."""
    one, other = number(low), number(high)
    return one if one == other else f"{one} to {other}"


# --- The names, points and intervals of what is drawn, as they can be read back from artists.

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


# --- What a panel shows, read back from its artists: every named series with its values.


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


LIMIT = 1200  # characters: what a listener may be asked to sit through
_FIRST = ("this run", *(run_style(run).label for run in ("sft", "opd", "rlvr", "sft_matched")))
_OTHERS = len(_FIRST) + 3  # the rank of all other runs


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel in words: where it is (title and axes), and its series, the most important first."""

    place: str
    series: tuple[Series, ...]


def alt_text(fig: Figure, caption: str) -> str:
    """The caption as first sentence, then every panel's series with their values, as drawn.

    A run that is compared, SFT, OPD, RLVR and matched SFT come first, then what they are to be read against:
    chance, the paper's values, nulls; then other runs. Where all of it would pass about 1200 characters, a
    panel says as many series as fit in each, all but the other runs at the cost of intervals, the first ones
    what still fits, and how many more there are. The same figure gives the same text.
    """
    first = caption.strip().rstrip(".") + "."
    panels = [panel for ax in fig.axes if (panel := read_panel(ax)).series]
    longest = max((len(panel.series) for panel in panels), default=0)
    dear = max((sum(_rank(each) < _OTHERS for each in panel.series) for panel in panels), default=0)
    sizes = [(most, True) for most in range(longest, dear, -1)]
    sizes += [(most, within) for most in range(dear, 0, -1) for within in (True, False)]
    for most, within in sizes:
        if len(_told(first, panels, [most] * len(panels), within=within)) <= LIMIT:
            return _filled(first, panels, most, within=within)
    for shown in range(len(panels) - 1, 0, -1):
        rest = f"And {len(panels) - shown} more panels."
        text = " ".join([first, *(_said(panel, 1, within=False) for panel in panels[:shown]), rest])
        if len(text) <= LIMIT:
            return text
    return first


def read_panel(ax: Axes) -> Panel:
    """Title, axes and series of one panel; a colour bar and a panel that is hidden have none.

    A panel of a grid that has no title, or no words on its y axis, has those of its column or row.
    """
    if not ax.get_visible() or ax.get_label() == "<colorbar>":
        return Panel(place="", series=())
    title, y = plain(ax.get_title()), ax.get_ylabel()
    if not rows_of(ax) and ax.lines:
        title, y = title or _above(ax), y or _at_left(ax)
    words = [f"{name}: {plain(said)}" for name, said in (("x", ax.get_xlabel()), ("y", y)) if said]
    place = f"{title} ({', '.join(words)})" if title and words else title or ", ".join(words)
    series = _sorted(series_of(ax))
    if not ax.axison and not series:
        series = [Series(name=plain(text.get_text()), says="") for text in ax.texts]
    return Panel(place=place, series=tuple(series))


def _grid(ax: Axes) -> list[tuple[Axes, int, int]]:
    """The panels of the same grid, with their rows and columns."""
    mine = ax.get_subplotspec()
    if mine is None:
        return []
    specs = [(other, other.get_subplotspec()) for other in ax.figure.axes]
    same = [(other, spec) for other, spec in specs if spec and spec.get_gridspec() is mine.get_gridspec()]
    return [(other, spec.rowspan.start, spec.colspan.start) for other, spec in same]


def _above(ax: Axes) -> str:
    places = {other: (row, column) for other, row, column in _grid(ax)}
    row, column = places.get(ax, (0, 0))
    above = [other for other, (r, c) in places.items() if c == column and r < row]
    return next((plain(other.get_title()) for other in above[::-1] if other.get_title()), "")


def _at_left(ax: Axes) -> str:
    places = {other: (row, column) for other, row, column in _grid(ax)}
    row, column = places.get(ax, (0, 0))
    left = [other for other, (r, c) in places.items() if r == row and c < column and not rows_of(other)]
    return next((other.get_ylabel() for other in left[::-1] if other.get_ylabel()), "")


def _sorted(found: list[Series]) -> list[Series]:
    """The most important first; in a panel without main runs, nulls come after its own runs."""
    if any(_rank(series) < len(_FIRST) for series in found):
        return sorted(found, key=_rank)
    return sorted(found, key=lambda series: (_rank(series) != len(_FIRST), series.aside))


def _rank(series: Series) -> int:
    """The order of importance: the main runs, chance and the paper's values, nulls, all other runs."""
    for place, label in enumerate(_FIRST):
        if not series.aside and (series.name == label or series.name.startswith(f"{label} (n")):
            return place
    if series.name.startswith("chance"):
        return len(_FIRST)
    if series.aside:
        return _OTHERS - (2 if "paper" in series.name else 1)
    return _OTHERS


def _told(first: str, panels: list[Panel], sizes: list[int], *, within: bool) -> str:
    said = (_said(panel, size, within=within) for panel, size in zip(panels, sizes, strict=True))
    return " ".join([first, *said])


def _filled(first: str, panels: list[Panel], most: int, *, within: bool) -> str:
    """What `most` series a panel leave of LIMIT, filled with more of them, panel by panel."""
    sizes = [most] * len(panels)
    for place, panel in enumerate(panels):
        for size in range(most + 1, len(panel.series) + 1):
            more = [*sizes[:place], size, *sizes[place + 1 :]]
            if len(_told(first, panels, more, within=within)) > LIMIT:
                break
            sizes = more
    return _told(first, panels, sizes, within=within)


def _said(panel: Panel, most: int, *, within: bool) -> str:
    shown = panel.series[:most]
    words = [" ".join(filter(None, (s.name, s.says, s.within if within else ""))) for s in shown]
    rest = len(panel.series) - most
    if rest > 0:
        words.append(f"and {rest} more series")
    text = (f"{panel.place}: " if panel.place else "") + "; ".join(words) + "."
    return text[:1].upper() + text[1:]
