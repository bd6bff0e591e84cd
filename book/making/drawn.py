"""The values of every figure as CSV: panels say what they show while a notebook saves them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from paper_lib.figures import save
from paper_lib.figures.words import Series, panel_in_words, plain, told

COLUMNS = {
    "panel": "number of the panel in the figure",
    "series": "as in the legend, or beside the row",
    "of": "the run or row that the series belongs to",
    "x": "where a value lies along a line, or on the x axis of points; a column, of cells; from 0, of bars",
    "value": "the mean over seeds, or the value itself; of points, on the y axis",
    "low": "lower end of Student's 95 % interval of the mean; empty where none is drawn",
    "high": "upper end",
    "seeds": "how many the mean is over; 0 where it is none",
}
CITE = "a companion to On the Geometry of On-Policy Distillation (arXiv:2606.07082); CITATION.cff; Apache-2.0"


def keep_values(folder: str | Path) -> None:
    """From here on every figure that is saved leaves folder/<figure>.csv, its columns explained."""
    check = save.refuse_empty

    def check_and_keep(fig: Figure, name: str) -> None:
        check(fig, name)
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.csv").write_text(values_of(fig), encoding="utf-8")

    save.refuse_empty = check_and_keep


def values_of(fig: Figure) -> str:
    """What the panels of a figure show, as CSV below the meaning of columns and panels."""
    panels = [ax for ax in fig.axes if ax.get_visible() and told(ax)]
    said = [f"{column}: {meaning}" for column, meaning in COLUMNS.items()]
    places = [panel_in_words(ax, intervals=False).place for ax in panels]
    said += [f"panel {number}: {place}" for number, place in enumerate(places, 1)]
    return _comment(said) + _table(panels)


def write_data(figures: Path, values: Path, out: Path, numbers: dict[str, str]) -> None:
    """Write out/<figure>.csv for every figure, each opened by what it shows, its tables and how to cite it.

    figures: the folder of their JSONs; a CSV that lies there, the ledger's, is taken in place of the one in
    `values`, where `keep_values` left them. numbers: of the figures, by name.
    """
    out.mkdir(parents=True)
    for name, number in numbers.items():
        about = json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
        own = figures / f"{name}.csv"
        body = (own if own.is_file() else values / f"{name}.csv").read_text(encoding="utf-8")
        tables = ", ".join(f"{each['name']} (SHA-256 {each['sha256'][:16]})" for each in about["tables"])
        said = [f"Figure {number}, {name}: {about['caption']}", f"Drawn from {tables}", f"Cite: {CITE}"]
        (out / f"{name}.csv").write_text(_comment(said) + body, encoding="utf-8")


def _comment(lines: list[str]) -> str:
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _table(panels: list[Axes]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for panel, ax in enumerate(panels, 1):
        for series in told(ax):
            for row in _rows(ax, series):
                values = ("" if np.isnan(each) else f"{each:.6g}" for each in row)
                table.writerow([panel, series.name, series.of, *values, series.seeds])
        for bars in (each for each in ax.containers if isinstance(each, BarContainer)):
            for x, bar in enumerate(bars):
                table.writerow(
                    [panel, "bars", plain(str(bars.get_label())), x, f"{bar.get_height():.6g}", "", "", 0]
                )
        for picture in ax.images:
            cells: NDArray[np.float64] = np.ma.filled(np.ma.asarray(picture.get_array(), dtype=float), np.nan)
            for (row, column), value in np.ndenumerate(cells) if cells.ndim == 2 else ():
                table.writerow([panel, "cells", f"row {row}", column, f"{value:.6g}", "", "", 0])
    return text.getvalue()


def _rows(ax: Axes, series: Series) -> NDArray[np.float64]:
    """(n, 4): x, value, low and high of a series, NaN where there is none."""
    values = np.empty(0) if series.values is None else series.values
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines]
    if values.ndim == 2:  # points, or the box that many lie in
        of_all = (xy for xy in lines if len(xy) > len(values) and np.allclose(_box(xy), _box(values)))
        points = next(of_all, values)[:, -2:]
        return np.column_stack([points, np.full((len(points), 2), np.nan)])
    rows = np.column_stack([np.full(len(values), np.nan), values, np.full((len(values), 2), np.nan)])
    for line, xy in zip(ax.lines, lines, strict=True):
        finite = xy[np.isfinite(xy).all(1)]
        if len(values) > 1 and finite.shape == (len(values), 2) and np.allclose(finite[:, 1], values):
            rows[:, 0], rows[:, 2:] = finite[:, 0], _band(ax, line, finite)
            break
    if len(rows) and np.isnan(rows[-1, 2]):
        rows[-1, 2:] = series.interval
    return rows


def _box(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([np.nanmin(points, axis=0), np.nanmax(points, axis=0)])


def _band(ax: Axes, line: Line2D, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2): the ends of the band in a line's colour about its points, NaN where there is none."""
    for band in (each for each in ax.collections if isinstance(each, PolyCollection)):
        if np.allclose(np.asarray(band.get_facecolor())[0, :3], to_rgb(line.get_color())):
            corners = np.vstack([path.vertices for path in band.get_paths()])
            at = [corners[np.isclose(corners[:, 0], x), 1] for x, _ in points]
            if all(len(ys) and ys.min() <= y <= ys.max() for ys, (_, y) in zip(at, points, strict=True)):
                return np.array([(ys.min(), ys.max()) for ys in at])
    return np.full((len(points), 2), np.nan)
