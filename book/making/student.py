"""The student edition: the notebooks without their solutions, to be handed out.

python book/making/student.py [--out DIR]
"""

import argparse
import sys
from pathlib import Path

import jupytext
import nbformat

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_text
from paper_lib.teaching.exercises import EXERCISES

SOLUTION = "solution"  # the tag of what is left out
_REMEDY = "remove it, or name another folder with --out"


def write_student_edition(out: str | Path, notebooks_dir: str | Path = "notebooks") -> list[Path]:
    """Write every notebook without its solution cells to `out`, as .py and as .ipynb without outputs, and a
    README.md; returns the files.

    The same notebooks give the same bytes. Raises CompanionError, and writes nothing, where there are no
    notebooks, and where `out` holds anything but files of this very edition: it may be somebody's answers.
    """
    out, sources = Path(out), notebook_sources(notebooks_dir)
    texts = {"README.md": _readme(out, [source.stem for source in sources])}
    for source in sources:
        notebook = without_solutions(jupytext.read(source))
        texts[f"{source.stem}.py"] = jupytext.writes(notebook, fmt="py:percent")
        texts[f"{source.stem}.ipynb"] = nbformat.writes(notebook) + "\n"
    _require_own(out, texts)
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without the cells tagged "solution" and without outputs; all other cells are equal."""
    kept = [cell.copy() for cell in notebook.cells if SOLUTION not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(kept):
        cell["id"] = f"cell-{number}"  # drawn at random otherwise
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return nbformat.v4.new_notebook(cells=kept, metadata=notebook.metadata)


def _require_own(out: Path, texts: dict[str, str]) -> None:
    """Refuse a file, and a folder that holds more than a part of an untouched edition."""
    if out.exists() and not out.is_dir():
        raise CompanionError(f"{out} is a file, and the student edition is a folder: name another with --out")
    there = {path.name for path in out.glob("*")} - {".ipynb_checkpoints", "__pycache__"}
    for name in sorted(there):
        path = out / name
        if name not in texts or path.is_dir() or path.read_bytes() != texts[name].encode():
            raise CompanionError(f"{path} is not of this student edition, or was edited: {_REMEDY}")


def _readme(out: Path, stems: list[str]) -> str:
    minutes = {stem: [e.minutes for e in EXERCISES.values() if e.name[:2] == stem[:2]] for stem in stems}
    rows = "\n".join(f"| `{stem}` | {len(each)} | {sum(each)} |" for stem, each in minutes.items())
    text = Path(__file__).with_name("student.md").read_text(encoding="utf-8")
    return text.format(notebooks=len(stems), exercises=len(EXERCISES), rows=rows, folder=out.as_posix())


def main() -> None:
    """Write the edition from the command line."""
    parser = argparse.ArgumentParser(description="Write the notebooks without their solutions.")
    parser.add_argument("--out", type=Path, default=Path("build/student"), metavar="DIR")
    options = parser.parse_args()
    try:
        write_student_edition(options.out)
    except (OSError, CompanionError) as error:
        sys.exit(f"error: {error}")
    print(f"notebooks in {options.out}: start with its README.md")


if __name__ == "__main__":
    main()
