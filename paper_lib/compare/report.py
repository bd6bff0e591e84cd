"""A comparison's report: the executed notebook as one HTML file that loads nothing from anywhere."""

import ast
import base64
import html
import json
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

# jsonschema's check of URIs, which no notebook needs, takes a second to import.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import jupytext  # noqa: E402
import matplotlib  # noqa: E402
import nbformat  # noqa: E402
from nbconvert.filters.markdown import markdown2html  # noqa: E402

from paper_lib.ground.errors import CompanionError  # noqa: E402
from paper_lib.ground.files import write_text  # noqa: E402

NOTEBOOK = "07_your_checkpoints"
# The project's, or the copy that an installed package carries.
NOTEBOOKS = (Path(__file__).parents[2] / "notebooks", Path(__file__).parent)
LESSON = "notebook"  # the tag of cells for those who have the notebook before them, which no other cell needs
_UNSHOWN = {"parameters", "setup"}
# A second line beside the escaping: whatever a name may hold, the page runs no script and loads nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SAVED = re.compile(r"figures/(\w+)\.svg")
_STYLE = """
:root { color-scheme: light; }
body {
  font: 17px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  margin: 0 auto; max-width: 46rem; padding: 1rem; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; }
code { font-size: 0.9em; background: #f2f2f2; padding: 0 0.2em; border-radius: 3px; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; max-width: 32rem; height: auto; margin: auto; }
figcaption { font-size: 0.85rem; color: #555; text-align: center; margin-top: 0.4rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; overflow-wrap: normal; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #ddd; }
a.anchor-link { display: none; }
"""


def write_report(out: str | Path) -> Path:
    """Execute the notebook, without its lessons, on the tables in `out`; returns out/report.html, with the
    executed copy beside it.

    The same tables give the same bytes. Raises CompanionError where a cell fails.
    """
    out = Path(out)
    folder = next(folder for folder in NOTEBOOKS if (folder / f"{NOTEBOOK}.py").is_file())
    notebook = executed_here(folder / f"{NOTEBOOK}.py", results_dir=str(out))
    write_text(out / f"{NOTEBOOK}.ipynb", nbformat.writes(notebook) + "\n")
    account = json.loads((out / "pairing.json").read_text(encoding="utf-8"))
    title = f"{account['finetuned']} against {account['base']}"
    write_text(out / "report.html", html_report(notebook, out / "figures", title))
    return out / "report.html"


def executed_here(source: Path, **parameters: Any) -> nbformat.NotebookNode:
    """A notebook without LESSON cells, executed in this process: a kernel starts longer than it runs.

    Each result is kept as Jupyter shows it, a saved figure with its PNG. Raises CompanionError for a cell
    that fails, by its number.
    """
    if "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("agg")  # no window for what is saved
    from matplotlib import pyplot as plt

    notebook = jupytext.read(source)
    notebook.cells = [cell for cell in notebook.cells if LESSON not in cell.metadata.get("tags", [])]
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = nbformat.v4.new_code_cell(given, metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(tagged[0] + 1, cell)
    names: dict[str, Any] = {"__name__": "__main__"}
    before = plt.get_fignums()
    with matplotlib.rc_context():
        code = (cell for cell in notebook.cells if cell.cell_type == "code")
        for cell.execution_count, cell in enumerate(code, start=1):
            printed = StringIO()
            try:
                with redirect_stdout(printed):
                    result = _run(cell.source, names)
            except Exception as error:
                kind = "" if isinstance(error, CompanionError) else f"{type(error).__name__}: "
                raise CompanionError(f"{source}, cell {cell.execution_count}: {kind}{error}") from error
            if printed.getvalue():
                cell.outputs.append(nbformat.v4.new_output("stream", text=printed.getvalue()))
            if result is not None:
                cell.outputs += _results(result, cell.execution_count)
    for number in set(plt.get_fignums()).difference(before):
        plt.close(number)
    return notebook


def _run(source: str, names: dict[str, Any]) -> Any:
    """Execute a cell; returns the value of its last line where that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if body else None
    value = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    exec(compile(source if value is None else ast.Module(body, []), "<cell>", "exec"), names)
    return None if value is None else eval(compile(value, "<cell>", "eval"), names)


def _results(value: Any, number: int) -> list[nbformat.NotebookNode]:
    data, shown = {"text/plain": repr(value)}, []
    for kind in ("markdown", "html"):
        text = getattr(value, f"_repr_{kind}_", lambda: None)()
        data |= {f"text/{kind}": text} if text else {}
    if isinstance(value, Path) and (picture := value.with_suffix(".png")).is_file():
        shown = [nbformat.v4.new_output("display_data", {"image/png": _encoded(picture)})]
    return [*shown, nbformat.v4.new_output("execute_result", data, execution_count=number)]


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def html_report(notebook: nbformat.NotebookNode, figures: Path, title: str) -> str:
    """Prose and results of an executed notebook, without its code; figures are embedded as their PNGs."""
    cells = [cell for cell in notebook.cells if not _UNSHOWN & set(cell.metadata.get("tags", []))]
    body = []
    for cell in cells:
        if cell.cell_type == "markdown":
            body.append(markdown2html(cell.source))
        elif cell.cell_type == "code":
            body += [part for output in cell.outputs if (part := _shown(output, figures))]
    text = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{text}\n</body>\n</html>\n"
    )


def _shown(output: nbformat.NotebookNode, figures: Path) -> str:
    """One output: a saved figure where its path was returned, else Markdown, a table or text. The notebook's
    own picture of a figure is left out, since the saved one is sharper and has a caption."""
    data: dict[str, Any] = output.get("data", {})
    if "image/png" in data:
        return ""
    if (text := data.get("text/plain", "")) and (found := _SAVED.search(text.replace("\\", "/"))):
        return _figure(figures / found[1])
    if "text/markdown" in data:
        return markdown2html(data["text/markdown"])
    if "text/html" in data:
        return f'<div class="table">{_plain_table(data["text/html"])}</div>'
    return ""


def _figure(path: Path) -> str:
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    picture = _encoded(path.with_suffix(".png"))
    caption, alt = (html.escape(about[words], quote=True) for words in ("caption", "alt"))
    source = f"data:image/png;base64,{picture}"
    return f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _plain_table(text: str) -> str:
    """A table without the style sheet and random names that pandas gives it."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r'\s(?:id|class)="[^"]*"', "", text)
