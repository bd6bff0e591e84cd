"""The exercises as assignments for nbgrader, which grades them without a reader.

python book/making/graded.py --out DIR [--data DIR]

An exercise becomes two cells: the answer, whose solution nbgrader cuts out, and a locked test of as many
points as the exercise has minutes. What else a notebook does, it does with the committed tables.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_text
from paper_lib.teaching.exercises import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = tuple(path.stem for path in notebook_sources(ROOT / "notebooks"))
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "geometry"
c.ClearSolutions.code_stub = {"python": "answer = ..."}
c.ClearSolutions.enforce_metadata = True
# In seconds. After the usual 30 for a cell and 4 for its output, a busy computer loses a whole submission.
c.Execute.timeout = 600
c.Execute.iopub_timeout = 60
"""
_VERDICT = re.compile(
    r'^verdict = (check\("(\d\d-\d)", .*\))\nassert verdict\.right, verdict\nverdict$', re.MULTILINE
)


def write_course(out: Path, data: Path) -> list[Path]:
    """Write `out` as a course of nbgrader, one assignment a notebook; returns the notebooks.

    data: the folder of the tables as whoever runs an assignment sees it, students and the grader. Raises
    CompanionError, and writes nothing, where `out` holds anything: it may be a course with submissions.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CompanionError(f"{out} is not empty, and may hold what was handed in: name another with --out")
    texts = {"nbgrader_config.py": CONFIG}
    for stem in NOTEBOOKS:
        notebook = assignment(jupytext.read(ROOT / "notebooks" / f"{stem}.py"), data)
        texts[f"source/{stem}/{stem}.ipynb"] = nbformat.writes(notebook) + "\n"
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts if name.endswith(".ipynb")]


def assignment(notebook: NotebookNode, data: Path) -> NotebookNode:
    """The instructor's version of a notebook: solutions between nbgrader's marks, and a test after each."""
    cells: list[NotebookNode] = []
    solution: list[str] = []
    asked = ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and cell.cell_type == "code":
            solution.append(cell.source)
            verdict = _VERDICT.search(cell.source)
            if verdict:
                code = _VERDICT.sub("", "\n\n".join(solution)).strip()
                cells += _graded(verdict[2], asked, code, verdict[1])
                solution = []
        elif "exercise" in tags:
            asked = cell.source.splitlines()[0].removeprefix("answer = ...").strip()
        elif "parameters" in tags:
            source = re.sub(r'^(profile: str = )"\w+"', r'\1"reference"', cell.source, flags=re.MULTILINE)
            tables = f'"{data.resolve().as_posix()}"'
            source = source.replace('_dir: str = "data"', f"_dir: str = {tables}")
            cells.append(_code(source, "parameters", locked=True))
        elif "solution" not in tags:
            cells.append(cell.copy())
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # drawn at random otherwise
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebook.metadata.kernelspec})


def _graded(name: str, asked: str, code: str, call: str) -> list[NotebookNode]:
    answer = f"{asked}\n### BEGIN SOLUTION\n{code}\n### END SOLUTION"
    test = (
        "from paper_lib.teaching.exercises import check\n\n"
        f"verdict = {call}\nassert verdict.right, verdict\nprint(verdict)"
    )
    points = EXERCISES[name].minutes
    return [
        _code(answer, f"answer-{name}", solution=True),
        _code(test, f"check-{name}", locked=True, grade=True, points=points),
    ]


def _code(source: str, name: str, **kinds: bool | int) -> NotebookNode:
    """A cell of code with what nbgrader keeps of it, in the third version of its schema."""
    about: dict[str, Any] = {"schema_version": 3, "grade_id": name, "cell_type": "code", "task": False}
    about |= {"grade": False, "locked": False, "solution": False} | kinds
    return nbformat.v4.new_code_cell(source, metadata={"nbgrader": about})


def main() -> None:
    """Write the course from the command line."""
    parser = argparse.ArgumentParser(description="Write the exercises as a course of nbgrader.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data", metavar="DIR", help="where the tables are"
    )
    options = parser.parse_args()
    try:
        written = write_course(options.out, options.data)
    except (OSError, CompanionError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{len(written)} assignments in {options.out}/source: nbgrader generate_assignment NAME releases one"
    )


if __name__ == "__main__":
    main()
