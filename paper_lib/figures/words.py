"""What a panel shows, told by what draws it, and a figure's alternative text, written from that."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from paper_lib.figures.styles import run_style

# --- A label and a number as plain text, for those who hear a figure and do not see it.

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


# --- What a panel shows: a list that every drawing function adds to, kept on the axes.


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a panel, as `tell` takes it; of its values the finite ones."""

    name: str
    values: NDArray[np.float64] | None
    of: str
    interval: tuple[float, float]
    aside: bool
    seeds: int

    @property
    def empty(self) -> bool:
        """Whether it was given values, and none of them is finite."""
        return self.values is not None and len(self.values) == 0

    def says(self, *, most: int, interval: bool) -> str:
        """Whose it is, n if it is below `most`, its first and last value and the interval about the last."""
        low, high = self.interval
        wide = interval and math.isfinite(high - low) and number(low) != number(high)
        few = f"(n = {self.seeds})" if 0 < self.seeds < most else ""
        values = "" if self.values is None else _span(self.values[0], self.values[-1])
        return " ".join(filter(None, (self.of, few, values, f"[{_span(low, high)}]" if wide else "")))


def tell(
    ax: Axes,
    name: str,
    values: ArrayLike | None = None,
    *,
    of: str = "",
    interval: Sequence[float] | pd.Series = (math.nan, math.nan),
    aside: bool = False,
    seeds: float = 0,
) -> None:
    """Say what was drawn in a panel: what its alternative text says, and what makes it not empty.

    name: as in the legend or beside the row. values: a number, (n,) along a line or (n, 2) points of a path,
    of which the first and last finite ones are said; None is a sentence by itself. of: whose they are; series
    of one name are said together ("paper: SFT 0.1, OPD 0.5"). interval: low and high about the last value,
    NaN where there is none. aside: drawn for comparison only, such as chance or a null: alone it makes no
    figure. seeds: over how many the values are means, for the legend; 0 if they are none.
    """
    array = None if values is None else np.atleast_1d(np.asarray(values, dtype=float))
    finite = None if array is None else array[np.isfinite(array).reshape(len(array), -1).all(1)]
    (low, high), name, of = map(float, interval), plain(name), plain(of)
    about: dict[str, Any] = {"interval": (low, high), "aside": aside, "seeds": int(seeds)}
    told(ax).append(Series(name=name, values=finite, of=of, **about))


def told(ax: Axes) -> list[Series]:
    """Every series that was told of a panel, in the order drawn."""
    series: list[Series] = vars(ax).setdefault("paper_lib_told", [])
    return series


def _span(first: float | NDArray[np.float64], last: float | NDArray[np.float64]) -> str:
    """From one value to another, in the least words that tell them apart; a point is (x, y)."""
    ends = [", ".join(map(number, np.atleast_1d(end))) for end in (first, last)]
    return " to ".join(dict.fromkeys(f"({end})" if np.ndim(first) else end for end in ends))


# --- The alternative text: the caption, then panel by panel what was told.

LIMIT = 1200  # characters: what a listener may be asked to sit through
_MAIN = ("this run", *(run_style(run).label for run in ("sft", "opd", "rlvr", "sft_matched")))
_MARKS = ("chance", "paper")  # what values are read against before nulls
_NULL = len(_MAIN) + len(_MARKS)


def alt_text(fig: Figure, caption: str) -> str:
    """The caption as first sentence, then every panel's series with their values, as told.

    The runs that are compared (SFT, OPD, RLVR, matched SFT) come first, then what they are to be read
    against: chance, the paper's values, nulls; then other runs. Where all of it would pass about 1200
    characters, all panels say equally many series, the first ones what still fits, and how many more there
    are; intervals are left out where even the runs compared and what they are read against do not fit with
    them. The same figure gives the same text.
    """

    def text(sizes: list[int]) -> str:
        said = (panel.says(size) for panel, size in zip(panels, sizes, strict=True))
        return " ".join([caption.strip().rstrip(".") + ".", *said])

    for intervals in (True, False):
        shown = [ax for ax in fig.axes if ax.get_visible()]
        panels = [panel for ax in shown if (panel := panel_in_words(ax, intervals=intervals)).series]
        if len(text([panel.important for panel in panels])) <= LIMIT:
            break
    sizes = [0] * len(panels)
    for size in range(1, 1 + max((len(panel.series) for panel in panels), default=0)):
        for place, panel in enumerate(panels):
            more = [*sizes[:place], size, *sizes[place + 1 :]]
            if sizes[place] == size - 1 < len(panel.series) and len(text(more)) <= LIMIT:
                sizes = more
    return text(sizes)


class _Panel(NamedTuple):
    """A panel in words: its title and axes, each of its series, and how many of those are not other runs'."""

    place: str
    series: list[str]
    important: int

    def says(self, size: int) -> str:
        rest = f"{'and ' if size else ''}{len(self.series) - size} more series"
        words = "; ".join(self.series[:size] + [rest] * (size < len(self.series)))
        text = f"{self.place}: {words}." if self.place else f"{words}."
        return text[:1].upper() + text[1:]


def panel_in_words(ax: Axes, *, intervals: bool) -> _Panel:
    title = ax.get_title() or _borrowed(ax, "colspan", Axes.get_title)
    labels = (("x", ax.get_xlabel()), ("y", ax.get_ylabel() or _borrowed(ax, "rowspan", Axes.get_ylabel)))
    axes = ", ".join(f"{name}: {label}" for name, label in labels if label)
    named: dict[str, list[Series]] = {}
    for series in told(ax):
        if not series.empty:
            named.setdefault(series.name, []).append(series)
    ranks = {name: _rank(group[0]) for name, group in named.items()}
    own = min(ranks.values(), default=0) >= len(_MAIN)  # where no main run is, nulls come after all others
    most = max((series.seeds for series in told(ax)), default=0)
    said = []
    for name in sorted(named, key=lambda name: (own and ranks[name] == _NULL, ranks[name])):
        values = ", ".join(series.says(most=most, interval=intervals) for series in named[name])
        said.append(f"{name}{':' * bool(named[name][0].of)} {values}".strip())
    place = plain(f"{title} ({axes})" if title and axes else title or axes)
    return _Panel(place, said, sum(rank <= _NULL for rank in ranks.values()))


def _borrowed(ax: Axes, span: str, words: Callable[[Axes], str]) -> str:
    """The words of the nearest panel above ("colspan") or at the left ("rowspan") in its grid that has any.

    Panels of rows and pictures, whose y axis points down, neither borrow nor lend.
    """
    mine = ax.get_subplotspec()
    for other in reversed(ax.figure.axes):
        spec = other.get_subplotspec()
        if mine is None or spec is None or ax.yaxis_inverted() or other.yaxis_inverted():
            continue
        beside = spec.get_gridspec() is mine.get_gridspec() and spec.num1 < mine.num1
        if beside and getattr(spec, span).start == getattr(mine, span).start and words(other):
            return words(other)
    return ""


def _rank(series: Series) -> int:
    """The order of importance: the runs compared, chance and the paper's values, nulls, all other runs."""
    if not series.aside:
        return _MAIN.index(series.name) if series.name in _MAIN else _NULL + 1
    marks = (len(_MAIN) + place for place, words in enumerate(_MARKS) if words in series.name)
    return next(marks, _NULL)
