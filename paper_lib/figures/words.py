"""What a panel shows, told by what draws it, and a figure's alternative text, written from that."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    of: str = ""
    interval: tuple[float, float] = (math.nan, math.nan)
    aside: bool = False
    seeds: int = 0

    @property
    def empty(self) -> bool:
        """Whether it was given values, and none of them is finite."""
        return self.values is not None and len(self.values) == 0

    def says(self, *, most: int, intervals: bool) -> str:
        """Whose it is, its first and last value and the interval about the last, and n where below `most`."""
        few = f"(n = {self.seeds})" if 0 < self.seeds < most else ""
        within = f"[{_span(*self.interval)}]" if intervals and _is_wide(*self.interval) else ""
        values = "" if self.values is None else _span(self.values[0], self.values[-1])
        return " ".join(filter(None, (self.of, few, values, within)))


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
    low, high = map(float, interval)
    series = Series(name=plain(name), values=finite, of=plain(of), interval=(low, high), aside=aside)
    told(ax).append(replace(series, seeds=int(seeds)))


def told(ax: Axes) -> list[Series]:
    """Every series that was told of a panel, in the order drawn."""
    series: list[Series] = vars(ax).setdefault("paper_lib_told", [])
    return series


def _span(first: float | NDArray[np.float64], last: float | NDArray[np.float64]) -> str:
    """From one value to another, in the least words that tell them apart; a point is (x, y)."""
    ends = [", ".join(map(number, np.atleast_1d(end))) for end in (first, last)]
    return " to ".join(dict.fromkeys(f"({end})" if np.ndim(first) else end for end in ends))


def _is_wide(low: float, high: float) -> bool:
    return math.isfinite(low) and math.isfinite(high) and number(low) != number(high)


# --- The alternative text: the caption, then panel by panel what was told.

LIMIT = 1200  # characters: what a listener may be asked to sit through
_MAIN = ("this run", *(run_style(run).label for run in ("sft", "opd", "rlvr", "sft_matched")))
_MARKS = ("chance", "paper")  # what values are read against before nulls


def alt_text(fig: Figure, caption: str) -> str:
    """The caption as first sentence, then every panel's series with their values, as told.

    The runs that are compared (SFT, OPD, RLVR, matched SFT) come first, then what they are to be read
    against: chance, the paper's values, nulls; then other runs. Where all of it would pass about 1200
    characters, all panels say equally many series, the first ones what still fits, and how many more there
    are; intervals are left out where even the runs compared and what they are read against do not fit with
    them. The same figure gives the same text.
    """
    first = caption.strip().rstrip(".") + "."
    panels = [panel for ax in fig.axes if ax.get_visible() and (panel := _panel(ax)).groups]

    def text(sizes: list[int], *, intervals: bool) -> str:
        said = (panel.says(size, intervals=intervals) for panel, size in zip(panels, sizes, strict=True))
        return " ".join([first, *said])

    intervals = len(text([panel.important for panel in panels], intervals=True)) <= LIMIT
    sizes = [0] * len(panels)
    for size in range(1, 1 + max((len(panel.groups) for panel in panels), default=0)):
        for place, panel in enumerate(panels):
            more = [*sizes[:place], size, *sizes[place + 1 :]]
            if sizes[place] == size - 1 and size <= len(panel.groups):
                sizes = more if len(text(more, intervals=intervals)) <= LIMIT else sizes
    whole = text(sizes, intervals=intervals)
    return whole if len(whole) <= LIMIT else first


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """A panel in words: its title and axes, its series by name, and how many of those are not other runs'."""

    place: str
    groups: list[list[Series]]
    important: int

    def says(self, size: int, *, intervals: bool) -> str:
        most = max(series.seeds for group in self.groups for series in group)
        words = [_said(group, most, intervals=intervals) for group in self.groups[:size]]
        if len(self.groups) > size:
            words.append(("and " if size else "") + f"{len(self.groups) - size} more series")
        text = (f"{self.place}: " if self.place else "") + "; ".join(words) + "."
        return text[:1].upper() + text[1:]


def _said(group: list[Series], most: int, *, intervals: bool) -> str:
    name = group[0].name + (":" if group[0].of else "")
    values = ", ".join(series.says(most=most, intervals=intervals) for series in group)
    return f"{name} {values}".strip()


def _panel(ax: Axes) -> _Panel:
    """Title, axes and series of a panel; a panel of a grid has the words of its column and row that it lacks,
    but for rows and pictures, whose y axis points down: they are no part of a grid of lines."""
    title, x, y = ax.get_title(), ax.get_xlabel(), ax.get_ylabel()
    if not ax.yaxis_inverted():
        title = title or next(filter(None, (other.get_title() for other in _before(ax, "colspan"))), "")
        beside = (other.get_ylabel() for other in _before(ax, "rowspan") if not other.yaxis_inverted())
        y = y or next(filter(None, beside), "")
    words = ", ".join(f"{name}: {plain(label)}" for name, label in (("x", x), ("y", y)) if label)
    named: dict[str, list[Series]] = {}
    for series in told(ax):
        if not series.empty:
            named.setdefault(series.name, []).append(series)
    main = any(_rank(group[0]) < len(_MAIN) for group in named.values())
    groups = sorted(named.values(), key=lambda group: _rank(group[0], nulls_last=not main))
    place = f"{plain(title)} ({words})" if title and words else plain(title) or words
    return _Panel(place=place, groups=groups, important=sum(_rank(group[0]) <= _NULL for group in groups))


def _before(ax: Axes, span: str) -> list[Axes]:
    """The panels above ("colspan") or at the left ("rowspan") in the same grid, the nearest first."""
    mine = ax.get_subplotspec()
    grids = [(other, spec) for other in ax.figure.axes if (spec := other.get_subplotspec()) is not None]
    return [
        other
        for other, spec in reversed(grids)
        if mine is not None and spec.get_gridspec() is mine.get_gridspec() and spec.num1 < mine.num1
        if getattr(spec, span).start == getattr(mine, span).start
    ]


_NULL = len(_MAIN) + len(_MARKS)


def _rank(series: Series, *, nulls_last: bool = False) -> int:
    """The order of importance: the runs compared, chance and the paper's values, nulls, all other runs."""
    if not series.aside:
        return _MAIN.index(series.name) if series.name in _MAIN else _NULL + 1
    for place, words in enumerate(_MARKS):
        if words in series.name:
            return len(_MAIN) + place
    return _NULL + 2 if nulls_last else _NULL
