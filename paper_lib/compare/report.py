"""A comparison's report: the executed notebook as one HTML file that loads nothing from anywhere."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters.markdown import markdown2html

from paper_lib.execute import run_notebooks
from paper_lib.ground.files import write_text

NOTEBOOK = "07_your_checkpoints"
# The project's, or the copy that an installed package carries.
NOTEBOOKS = (Path(__file__).parents[2] / "notebooks", Path(__file__).parent)
LEFT_OUT = {"notebook", "parameters", "setup"}  # tags of cells for those who have the notebook before them
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
    """Execute the notebook on the tables in `out`; returns out/report.html, with the executed copy beside it.

    The same tables give the same bytes. Raises CompanionError where a cell fails.
    """
    out = Path(out)
    (copy,) = run_notebooks(
        "reference",
        notebooks=[NOTEBOOK],
        parameters={"results_dir": str(out)},
        notebooks_dir=next(folder for folder in NOTEBOOKS if (folder / f"{NOTEBOOK}.py").is_file()),
        executed_dir=out,
    )
    notebook = nbformat.read(copy, as_version=4)
    account = json.loads((out / "pairing.json").read_text(encoding="utf-8"))
    title = f"{account['finetuned']} against {account['base']}"
    write_text(out / "report.html", html_report(notebook, out / "figures", title))
    return out / "report.html"


def html_report(notebook: nbformat.NotebookNode, figures: Path, title: str) -> str:
    """Prose and results of an executed notebook, without its code; figures are embedded as their PNGs."""
    cells = [cell for cell in notebook.cells if not LEFT_OUT & set(cell.metadata.get("tags", []))]
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
    picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    caption, alt = (html.escape(about[words], quote=True) for words in ("caption", "alt"))
    source = f"data:image/png;base64,{picture}"
    return f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'


def _plain_table(text: str) -> str:
    """A table without the style sheet and random names that pandas gives it."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r'\s(?:id|class)="[^"]*"', "", text)
