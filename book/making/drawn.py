"""The values of every figure as CSV: notebooks draw again, unrendered, and panels say what they show."""

import contextlib
import csv
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jupytext
import numpy as np
from executed import SAVES
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

import paper_lib.figures
from paper_lib.figures.execute import notebook_sources
from paper_lib.figures.results import Results
from paper_lib.figures.words import Series, panel_in_words, plain, told

ROOT = Path(__file__).resolve().parents[2]
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


def write_data(figures: Path, out: Path, numbers: dict[str, str], data_dir: Path = ROOT / "data") -> None:
    """Write out/<figure>.csv for every figure that a notebook saves, each opened by its dictionary.

    figures: the folder of their JSONs; a CSV that lies there, the ledger's, is taken in place of what is
    drawn. Runs the cells of the notebooks but for exercises, and keeps their figures from being rendered.
    """
    out.mkdir(parents=True)
    for name, fig in drawn(data_dir):
        about = json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
        own = figures / f"{name}.csv"
        panels = [ax for ax in fig.axes if ax.get_visible() and told(ax)]
        body = own.read_text(encoding="utf-8") if own.is_file() else _table(panels)
        tables = ", ".join(f"{each['name']} (SHA-256 {each['sha256'][:16]})" for each in about["tables"])
        said = [
            f"Figure {numbers[name]}, {name}: {about['caption']}",
            f"Drawn from {tables}",
            f"Cite: {CITE}",
        ]
        if not own.is_file():
            said += [f"{column}: {meaning}" for column, meaning in COLUMNS.items()]
            places = [panel_in_words(ax, intervals=False).place for ax in panels]
            said += [f"panel {number}: {place}" for number, place in enumerate(places, 1)]
        head = "".join(f"# {' '.join(line.split())}\n" for line in said)
        (out / f"{name}.csv").write_text(head + body, encoding="utf-8")


def drawn(data_dir: Path) -> Iterator[tuple[str, Figure]]:
    """Name and figure of all that the notebooks save, as it is saved."""
    for source in notebook_sources(ROOT / "notebooks"):
        saved: list[tuple[str, Figure]] = []
        code = [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]
        with _unrendered(lambda fig, name, *_, **__: saved.append((name, fig))):  # noqa: B023
            names: dict[str, Any] = {"display": lambda *_: None}
            for cell in code if SAVES.search(source.read_text(encoding="utf-8")) else ():
                tags = cell.metadata.get("tags", [])
                if not {"exercise", "solution"} & set(tags):
                    exec(compile(cell.source, source.name, "exec"), names)
                if "parameters" in tags:
                    names |= {"profile": "reference", "data_dir": str(data_dir)}
        yield from saved
        plt.close("all")


@contextlib.contextmanager
def _unrendered(keep: Callable[..., None]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for method in ("save", "animate"):
            stack.enter_context(patch.object(Results, method, lambda _, *args, **named: keep(*args, **named)))
        stack.enter_context(patch.object(paper_lib.figures, "save_figure", keep))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # said when the page was executed
        yield


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
