"""The exercise and solution cells of the notebooks, and what they need of the cells before them."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from paper_lib.figures.execute import notebook_sources
from paper_lib.figures.results import Results, open_results
from paper_lib.study.profiles import get_profile

ROOT = Path(__file__).parents[2]
SOURCES = notebook_sources(ROOT / "notebooks")
HEADING = re.compile(r"### Exercise (\d\d-\d) — (.+) \((\d+) minutes\)\n")


def tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


@cache
def cells(source: Path) -> list[NotebookNode]:
    return jupytext.read(source).cells


@cache
def exercises(source: Path) -> dict[str, list[NotebookNode]]:
    """The cells of each exercise of a notebook, its heading first."""
    found: dict[str, list[NotebookNode]] = {}
    for cell in cells(source):
        heading = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            found[heading[1]] = [cell]
        elif found:
            found[list(found)[-1]].append(cell)
    return found


def solutions(name: str) -> list[str]:
    """The code of an exercise's solution, cell by cell."""
    source = next(each for each in SOURCES if each.stem[:2] == name[:2])
    return [c.source for c in exercises(source)[name] if tagged(c, "solution") and c.cell_type == "code"]


@cache
def results() -> Results:
    return open_results("reference", data_dir=ROOT / "data")


def reference(name: str) -> Any:
    return results().table(name)


def setting(name: str) -> dict[str, Any]:
    """What a solution finds: the notebook's imports that it uses, its parameters and the reference tables."""
    source = next(each for each in SOURCES if each.stem[:2] == name[:2])
    trees = [ast.parse(code) for code in solutions(name)]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names: dict[str, Any] = {"seed": 0, "sizes": get_profile("reference").diagnostics}
    names |= {"results": results()} if "results" in used else {}
    names |= {table: reference(table) for table in ("matrices", "nulls", "curves") if table in used}
    for statement in _imports(source):
        if used & {alias.asname or alias.name for alias in statement.names}:
            exec(ast.unparse(statement), names)
    return names


@cache
def solved(name: str) -> dict[str, Any]:
    """The names that a solution leaves."""
    names = setting(name)
    for code in solutions(name):
        exec(code, names)
    return names


def _imports(source: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    for cell in cells(source):
        if cell.cell_type == "code" and not tagged(cell, "solution"):
            yield from (s for s in ast.parse(cell.source).body if isinstance(s, ast.Import | ast.ImportFrom))
