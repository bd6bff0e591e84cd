"""Alt text of a figure, with its own numbers: the caption, then panel by panel what is drawn."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_lib.drawn import Series, rows_of, series_of
from paper_lib.plain_words import plain
from paper_lib.styles import run_style

LIMIT = 1200  # characters: what a listener may be asked to sit through
_FIRST = tuple(run_style(run).label for run in ("sft", "opd", "rlvr", "sft_matched"))


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel in words: where it is (title and axes), and its series, the most important first."""

    place: str
    series: tuple[Series, ...]


def alt_text(fig: Figure, caption: str) -> str:
    """The caption as first sentence, then every panel's series with their values, as drawn.

    SFT, OPD, RLVR and matched SFT come first, then chance and other runs, then nulls. Where all of it would
    pass about 1200 characters, every panel says as many series as fit, those four at the cost of their
    intervals, and how many more it has. The same figure gives the same text.
    """
    first = caption.strip().rstrip(".") + "."
    panels = [panel for ax in fig.axes if (panel := read_panel(ax)).series]
    longest = max((len(panel.series) for panel in panels), default=0)
    sizes = [(most, True) for most in range(longest, len(_FIRST), -1)]
    sizes += [(most, within) for most in range(min(longest, len(_FIRST)), 0, -1) for within in (True, False)]
    for most, within in sizes:
        text = " ".join([first, *(_said(panel, most, within=within) for panel in panels)])
        if len(text) <= LIMIT:
            return text
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
    series = sorted(series_of(ax), key=_rank)
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


def _rank(series: Series) -> int:
    """The order of importance: the four main runs, chance, everything else, what is drawn for comparison."""
    for place, label in enumerate(_FIRST):
        if not series.aside and (series.name == label or series.name.startswith(f"{label} (n")):
            return place
    if series.name.startswith("chance"):
        return len(_FIRST)
    return len(_FIRST) + (2 if series.aside else 1)


def _said(panel: Panel, most: int, *, within: bool) -> str:
    shown = panel.series[:most]
    words = [" ".join(filter(None, (s.name, s.says, s.within if within else ""))) for s in shown]
    rest = len(panel.series) - most
    if rest > 0:
        words.append(f"and {rest} more series")
    text = (f"{panel.place}: " if panel.place else "") + "; ".join(words) + "."
    return text[:1].upper() + text[1:]
