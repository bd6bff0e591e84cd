"""Alt text of a figure, with its own numbers: the caption, then panel by panel what is drawn."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_lib.drawn import Series, rows_of, series_of
from paper_lib.plain_words import plain
from paper_lib.styles import run_style

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
