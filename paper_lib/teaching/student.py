"""The student edition: the notebooks without their solutions, to be handed out."""

import hashlib
from pathlib import Path

import jupytext
import nbformat

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json, write_json, write_text
from paper_lib.teaching.exercises import EXERCISES

SOLUTION = "solution"  # the tag of what is left out
ACCOUNT = ".student_edition.json"  # what was written, so that the next call knows its own from others' work
_REMEDY = "remove it, or name another folder with --out"


def write_student_edition(out: str | Path, notebooks_dir: str | Path = "notebooks") -> list[Path]:
    """Write every notebook without its solution cells to `out`, as .py and as .ipynb without outputs, and a
    README.md; returns the files.

    The same notebooks give the same bytes. An edition that is there already is replaced. Raises
    CompanionError, and writes nothing, where there are no notebooks, where `out` holds anything else, and
    where a file of the edition was edited, as it may hold somebody's answers.
    """
    out, sources = Path(out), notebook_sources(notebooks_dir)
    _require_own(out)
    texts = {"README.md": _readme(out, [source.stem for source in sources])}
    for source in sources:
        notebook = without_solutions(jupytext.read(source))
        texts[f"{source.stem}.py"] = jupytext.writes(notebook, fmt="py:percent")
        texts[f"{source.stem}.ipynb"] = nbformat.writes(notebook) + "\n"
    former = read_json(out / ACCOUNT, _REMEDY)
    # First what will be there, then the files: an edition that was cut short is still known as one.
    write_json(out / ACCOUNT, {name: _digest(text.encode()) for name, text in texts.items()})
    for name in former.keys() - texts.keys():
        (out / name).unlink(missing_ok=True)
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


def _require_own(out: Path) -> None:
    """Refuse a folder that holds more than an untouched edition."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CompanionError(f"{out} is a file, and the student edition is a folder: name another with --out")
    there = {path.name for path in out.iterdir()} - {".ipynb_checkpoints", "__pycache__"}
    if not there:
        return
    if ACCOUNT not in there:
        raise CompanionError(f"{out} is not empty and holds no student edition: {_REMEDY}")
    known = read_json(out / ACCOUNT, _REMEDY)
    if foreign := sorted(there - known.keys() - {ACCOUNT}):
        raise CompanionError(f"{out}/{foreign[0]} is not of the student edition: {_REMEDY}")
    for name, digest in known.items():
        path = out / name
        if path.is_file() and _digest(path.read_bytes()) != digest:
            raise CompanionError(f"{path} was edited and may hold answers: {_REMEDY}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _readme(out: Path, stems: list[str]) -> str:
    minutes = {stem: [e.minutes for e in EXERCISES.values() if e.name[:2] == stem[:2]] for stem in stems}
    rows = "\n".join(f"| `{stem}` | {len(each)} | {sum(each)} |" for stem, each in minutes.items())
    text = Path(__file__).with_name("student.md").read_text(encoding="utf-8")
    return text.format(notebooks=len(stems), exercises=len(EXERCISES), rows=rows, folder=out.as_posix())
