"""Decks of slides from the cells of the executed notebooks, and the lecture's, which open without a network.

python book/making/slides.py --executed DIR --figures DIR --out DIR

A cell with `slideshow` in its metadata is shown, in the terms of nbconvert: `slide` opens a topic, `subslide`
goes on with it, `-` and `fragment` stay on the slide, and `notes` are for the speaker's view (key S).
"""

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path

import nbformat
from executed import SAVES, figure_numbers, figures_in, page_of
from nbconvert.exporters import SlidesExporter
from nbformat import NotebookNode

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError

BOOK = Path(__file__).resolve().parents[1]
TIMETABLE = BOOK / "pages" / "teaching.md"
LECTURE = "lecture"
BROUGHT = {  # folder beside the decks: the package that carries it, and where
    "reveal": ("sphinx_revealjs", "_static/revealjs"),
    "mathjax": ("sphinx-mathjax-offline", "static/mathjax"),
}
_UNREAD = shutil.ignore_patterns("*.map", "*.scss")
_LINK = re.compile(r"\[([^\]]+)\]\((?:#[\w-]+|\w+\.ipynb)\)")  # within the book
_ROW = re.compile(r"^\| (\d+–\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_FIGURE = re.compile(r"`((?:fig|table)\d*_\w+|claims)`")
_NAMED = re.compile(rf'{_FIGURE.pattern}|"([^"]+)"')

Topic = list[NotebookNode]  # the cells from one `slide` to the next


@dataclass(frozen=True, kw_only=True)
class Part:
    """A row of the lecture's timetable: its minutes, and three texts in Markdown."""

    minutes: str
    shown: str
    question: str
    outcome: str

    @property
    def names(self) -> list[str]:
        """The figures that the row names, and the phrases of notebooks that it quotes."""
        return [figure or phrase for figure, phrase in _NAMED.findall(self.shown)]


def write_decks(executed: Path, figures: Path, out: Path) -> dict[str, int]:
    """Write a deck a notebook and the lecture's to `out`, emptied first; returns the slides of each.

    executed, figures: where `paper_lib figures` left a profile's notebooks and figures. Raises
    FileNotFoundError where one is missing, FileExistsError where `out` is something else, CompanionError
    for a copy without its slides and for a row of the timetable that names none of their topics.
    """
    if out.exists() and not (out / f"{LECTURE}.html").exists():
        raise FileExistsError(f"{out} is there and has no slides in it: name another folder")
    decks: dict[str, Topic] = {}
    topics: list[Topic] = []
    for source in notebook_sources(BOOK.parent / "notebooks"):
        if "slideshow=" in source.read_text(encoding="utf-8"):
            page = page_of(executed / f"{source.stem}.ipynb", figures)
            own = topics_of(page)
            decks[source.stem] = [_title(page), *(cell for topic in own for cell in topic)]
            topics += own
    decks[LECTURE] = lecture(TIMETABLE.read_text(encoding="utf-8"), topics)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for folder, (package, inside) in BROUGHT.items():
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise CompanionError(f"{package}, which carries {folder}, is not installed")
        shutil.copytree(Path(found.submodule_search_locations[0]) / inside, out / folder, ignore=_UNREAD)
    for name, cells in decks.items():
        (out / f"{name}.html").write_text(as_html(name, cells), encoding="utf-8")
    return {name: sum(_opens(cell) for cell in cells) for name, cells in decks.items()}


def topics_of(page: NotebookNode) -> list[Topic]:
    """The cells of a page that are shown, from one `slide` to the next, figures with their captions."""
    topics: list[Topic] = []
    numbers, words = figure_numbers(), figures_in(page)
    for cell in (cell for cell in page.cells if "slideshow" in cell.metadata):
        if cell.metadata.slideshow.slide_type == "slide":
            topics.append([])
        if not topics:
            raise CompanionError(f"the first cell shown is no slide: {cell.source[:60]!r}")
        topics[-1].append(_shown(cell, numbers, words))
    if not topics:
        raise CompanionError("an executed notebook has no slides")
    return topics


def lecture(timetable: str, topics: list[Topic]) -> Topic:
    """The cells of the lecture: each row's question, what should come out as notes, and what it names.

    timetable: a page with the rows. Raises CompanionError where it has none, and where a name is that of no
    topic or of several.
    """
    parts = [
        Part(minutes=minutes, shown=shown, question=question, outcome=outcome)
        for minutes, shown, question, outcome in _ROW.findall(timetable)
    ]
    if not parts:
        raise CompanionError("the timetable of the lecture has no rows")
    numbers = figure_numbers()
    cells = [_markdown("# The geometry of on-policy distillation\n\nA lecture of 90 minutes", "slide")]
    for part in parts:
        shown = _FIGURE.sub(lambda named: f"Figure {numbers[named[1]]}", part.shown)
        cells.append(_markdown(f"## {part.question}\n\n{shown}\n\n{part.minutes} minutes", "slide"))
        cells.append(_markdown(part.outcome, "notes"))
        for name in part.names:
            cells += [_below(cell) for cell in _topic(name, topics, name in numbers)]
    return cells


def as_html(name: str, cells: Topic) -> str:
    """A deck as one page, which reads its scripts from the folders of BROUGHT beside it; code is hidden."""
    exporter = SlidesExporter(
        template_name="slides",
        extra_template_basedirs=[str(BOOK)],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        mathjax_url="mathjax/tex-chtml.js",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    notebook = nbformat.v4.new_notebook(cells=[cell.copy() for cell in cells], metadata={"title": name})
    text, _ = exporter.from_notebook_node(notebook)
    return str(text)


def _topic(name: str, topics: list[Topic], is_figure: bool) -> Topic:
    """The only topic that saves the figure, or has the phrase in its prose."""
    has = _saves if is_figure else _says
    matching = [topic for topic in topics if any(has(cell, name) for cell in topic)]
    if len(matching) != 1:
        raise CompanionError(f"the lecture names {name!r}, which {len(matching)} topics of the slides have")
    return matching[0]


def _saves(cell: NotebookNode, figure: str) -> bool:
    return cell.cell_type == "code" and figure in SAVES.findall(cell.source)


def _says(cell: NotebookNode, phrase: str) -> bool:
    return cell.cell_type == "markdown" and phrase in " ".join(cell.source.split())


def _title(page: NotebookNode) -> NotebookNode:
    """A notebook's title and question, without its list of contents."""
    return _markdown(_LINK.sub(r"\1", page.cells[0].source.partition("**In this notebook**")[0]), "slide")


def _shown(cell: NotebookNode, numbers: dict[str, str], words: dict[str, tuple[str, str]]) -> NotebookNode:
    """A cell of a page without links into the book, its picture described and captioned."""
    cell = nbformat.from_dict(cell)
    if cell.cell_type == "markdown":
        cell.source = _LINK.sub(r"\1", cell.source)
    for name in SAVES.findall(cell.source) if cell.cell_type == "code" else ():
        caption, alt = words[name]
        (picture,) = [output.data["image/png"] for output in cell.outputs if _is_picture(output)][-1:]
        figure = (
            f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{picture}">'
            f"<figcaption>Figure {numbers[name]}. {escape(caption)}</figcaption></figure>"
        )
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": figure})]
    return cell


def _is_picture(output: NotebookNode) -> bool:
    return "image/png" in output.get("data", {})


def _below(cell: NotebookNode) -> NotebookNode:
    """A cell that opened a topic goes on with the lecture's question."""
    cell = nbformat.from_dict(cell)
    if cell.metadata.slideshow.slide_type == "slide":
        cell.metadata.slideshow.slide_type = "subslide"
    return cell


def _markdown(text: str, kind: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def _opens(cell: NotebookNode) -> bool:
    return cell.metadata.slideshow.slide_type in ("slide", "subslide")


def main() -> None:
    """Write the decks from the command line; what is missing or damaged is said in one line."""
    parser = argparse.ArgumentParser(description="Write slides from the executed notebooks.")
    for name in ("executed", "figures", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    try:
        slides = write_decks(options.executed, options.figures, options.out)
    except (OSError, KeyError, CompanionError) as error:
        sys.exit(f"error: {str(error).splitlines()[0]} (make slides draws what it needs)")
    for name, count in slides.items():
        print(f"{options.out / name}.html: {count} slides")


if __name__ == "__main__":
    main()
