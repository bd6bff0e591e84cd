"""The notebooks are text, short cells in one order, and leave the computing to the package."""

import ast
import re
from pathlib import Path

import jupytext
import pytest
from nbformat import NotebookNode

from paper_lib.figures.execute import notebook_sources
from paper_lib.ledger.contrasts import EXPLAINED
from paper_lib.ledger.rules.controls import PRESERVED
from paper_lib.ledger.rules.projection import KEPT
from paper_lib.ledger.rules.trajectory import BAND_FACTOR, NORM_FACTOR
from paper_lib.ledger.rules.weights import STABLE_SPARSITY

FOLDER = Path(__file__).parents[1] / "notebooks"
GALLERY = FOLDER.parent / "book" / "pages" / "figures.md"
SOURCES = notebook_sources(FOLDER)
LINES, COLUMNS = 15, 88
HEADINGS = ("**Question.**", "**In this notebook**", "## What we found", "## Exercises")
PARAMETER = re.compile(r"(\w+): (bool|int|float|str)(?: \| None)? = .+  # \S.+")
COMPUTING = (
    *("train", "collection", "study", "starts", "rollouts", "models", "pretrain", "runs"),
    *("evaluation", "extract", "found", "losses"),
)


def cells(source: Path, kind: str | None = None) -> list[NotebookNode]:
    return [cell for cell in jupytext.read(source).cells if kind in (None, cell.cell_type)]


def code(source: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(source, "code"))


def saves(cell: NotebookNode) -> list[str]:
    call = r'(?:save_figure|results\.(?:save|animate))\(\s*\w+,\s*"(\w+)"'
    return re.findall(call, cell.source) if cell.cell_type == "code" else []


every_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def test_text_is_the_only_source_and_there_are_eight():
    ignored = ("*.ipynb", "__pycache__", ".*")
    kept = [path for path in FOLDER.iterdir() if not any(path.match(pattern) for pattern in ignored)]
    assert {path.suffix for path in kept if path.name != "start.md"} == {".py"}
    assert [source.stem[:2] for source in SOURCES] == [f"{number:02}" for number in range(1, 9)]


@every_notebook
def test_it_asks_answers_and_sets_exercises_in_that_order(source):
    assert source.read_text().startswith("# ---\n# jupyter:")
    assert cells(source)[0].source.startswith("# ")
    prose = "\n\n".join(cell.source for cell in cells(source, "markdown"))
    places = [prose.find(heading) for heading in HEADINGS]
    assert -1 not in places, f"no {HEADINGS[places.index(-1)]}"
    assert places == sorted(places)
    exercises = re.findall(
        r"^### Exercise (\d\d)-(\d) — .+ \(\d+ minutes\)$", prose[places[-1] :], re.MULTILINE
    )
    assert 2 <= len(exercises) <= 4
    assert exercises == [(source.stem[:2], str(k)) for k in range(1, len(exercises) + 1)]


@every_notebook
def test_the_first_code_cell_holds_typed_literals_with_help_and_all_are_used(source):
    first, setup, *rest = cells(source, "code")
    assert "parameters" in first.metadata.get("tags", [])
    names = []
    for line in first.source.splitlines():
        match = PARAMETER.fullmatch(line)
        assert match, f"not of the form `name: type = literal  # help`: {line}"
        names.append(match[1])
    for statement in ast.parse(first.source).body:
        assert isinstance(statement, ast.AnnAssign)
        assert statement.value is not None
        ast.literal_eval(statement.value)
    assert {"profile", "data_dir"} <= set(names)
    assert 'profile: str = "laptop"' in first.source
    assert re.search(r"(get_profile|open_results)\(profile\b", setup.source)
    trees = [ast.parse(cell.source) for cell in (setup, *rest)]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(names) <= used, f"never used: {set(names) - used}"


@every_notebook
def test_cells_are_short_and_define_nothing_long(source):
    for cell in cells(source, "code"):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LINES, f"{len(lines)} lines:\n{cell.source}"
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.ClassDef | ast.Try), cell.source
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or node.lineno) - node.lineno < 5, f"def {node.name} is too long"


@every_notebook
def test_no_line_is_wider_than_the_page(source):
    assert [line for line in source.read_text().splitlines() if len(line) > COLUMNS] == []


@every_notebook
def test_no_sentence_is_broken_where_it_would_begin_a_list(source):
    lists = re.compile(r"^(?!\s|[-*] |\d+\. |#|\|).+\n(?:\d+\.|[-+*]) ", flags=re.MULTILINE)
    assert [cell.source for cell in cells(source, "markdown") if lists.search(cell.source)] == []


@every_notebook
def test_it_needs_no_magic_and_hides_nothing(source):
    text = code(source)
    assert not re.search(r"^\s*[%!]", text, flags=re.MULTILINE)
    for banned in ("filterwarnings", "simplefilter", "environ", "getenv", "subprocess", "get_ipython"):
        assert banned not in text
    strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
    paths = [s for s in strings if isinstance(s, str) and re.match(r"(/|~|[A-Za-z]:\\)\w", s)]
    assert paths == []


@every_notebook
def test_a_figure_is_a_claim_a_cell_that_ends_in_saving_it_and_a_reading(source):
    claimed, everything = False, cells(source)
    for cell, after in zip(everything, [*everything[1:], None], strict=True):
        claimed |= cell.cell_type == "markdown" and "**Claim" in cell.source
        if not saves(cell):
            continue
        assert claimed, f"{saves(cell)} comes without a bold claim"
        assert len(saves(cell)) == 1
        last = ast.parse(cell.source).body[-1]
        assert isinstance(last, ast.Expr)
        assert ast.unparse(last).startswith(("save_figure(", "results.save(", "results.animate("))
        assert after is not None
        assert after.cell_type == "markdown", f"{saves(cell)} comes without a reading"


def listed() -> dict[str, str]:
    """By figure, the notebook under whose heading the page of all figures has it."""
    notebooks = re.split(
        r"^## \[.*\]\(.*/(\w+)\.py\)$", GALLERY.read_text(encoding="utf-8"), flags=re.MULTILINE
    )[1:]
    return {
        name: notebook
        for notebook, table in zip(notebooks[::2], notebooks[1::2], strict=True)
        for name in re.findall(
            r"^\| (?:!\[.+\]\(\.\./\.\./figures/reference/\w+\.png\)|drawn by each run) \| .+\. `(\w+)` \|",
            table,
            re.MULTILINE,
        )
    }


def test_every_figure_is_drawn_where_the_page_of_all_figures_says_and_no_other():
    drawn = {name: source.stem for source in SOURCES for cell in cells(source) for name in saves(cell)}
    assert listed() == drawn
    committed = (FOLDER.parent / "figures" / "reference").glob("*.json")
    assert {path.stem for path in committed} <= drawn.keys()


@pytest.mark.parametrize(
    ("stem", "margin", "value", "words"),
    [
        ("03_sparsity", STABLE_SPARSITY, 0.06, "more than 6 points from it"),
        ("04_pca", EXPLAINED, 0.9, "rotate a tenth less"),
        ("05_locking", BAND_FACTOR, 0.5, "at half of another's or less"),
        ("05_locking", NORM_FACTOR, 1.5, "at 1.5 times and more"),
        ("05_locking", KEPT, 0.8, "lies above 0.8"),
        ("06_controls", PRESERVED, 0.1, "within a distance of 0.1"),
    ],
)
def test_a_margin_that_prose_quotes_is_that_of_the_ledger(stem, margin, value, words):
    prose = " ".join(cell.source for cell in cells(FOLDER / f"{stem}.py", "markdown"))
    assert margin == value, f"{stem} says {words!r}"
    assert words in " ".join(prose.split())


@pytest.mark.parametrize("source", SOURCES[2:], ids=lambda source: source.stem)
def test_drawing_from_tables_loads_no_training(source):
    imported = re.findall(r"from paper_lib\.(\w+) import", code(source))
    assert not set(imported) & set(COMPUTING)
