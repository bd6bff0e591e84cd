"""Executed notebooks become pages: figures with number, caption and alternative text, folded code, links."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from paper_lib.figures.execute import notebook_sources
from paper_lib.geometry.metrics import metrics_of
from paper_lib.ground.errors import CompanionError

SAVES = re.compile(r'(?:save_figure|results\.(?:save|animate))\(\s*\w+,\s*"(\w+)"')
_NOTEBOOK = re.compile(r"`(0\d_[a-z_]+)`")
_FIGURE = re.compile(r"`((?:fig|table)\d*_\w+)`")
_FOLDED = {  # by the tag that folds a cell's code: what opens and closes it
    "hide-input": {"code_prompt_show": "Show the code", "code_prompt_hide": "Hide the code"},
    "hide-cell": {"code_prompt_show": "The solution in code", "code_prompt_hide": "Hide the code"},
}
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
_FIGURE_RESULT = re.compile(r"\w*Path\('.*'\)")
_KEPT = ("tags", "jupyter", "slideshow")  # of a cell's metadata


def page_of(executed: Path, figures: Path) -> NotebookNode:
    """The notebook as the book shows it.

    executed: a copy that Papermill made; figures: the folder of the figures it saved, with a JSON each.
    Raises CompanionError for a damaged copy, FileNotFoundError for one or a figure that is not there,
    KeyError for a figure without a caption or alternative text.
    """
    notebook, numbers = _cleaned(executed), figure_numbers()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _NOTEBOOK.sub(r"[`\1`](\1.ipynb)", cell.source)
            cell.source = _FIGURE.sub(lambda found: _figure_link(found[1], numbers), cell.source)
        for name in SAVES.findall(cell.source) if cell.cell_type == "code" else ():
            _as_figure(cell, name, figures, numbers)
    notebook.cells = [
        each for cell in notebook.cells for each in (cell, *_player(cell), *_equations(cell), *_data(cell))
    ]
    return notebook


def figure_numbers() -> dict[str, str]:
    """By figure: its notebook and its place in it, as in 03-2, which no figure of the paper is called."""
    numbers: dict[str, str] = {}
    for source in notebook_sources(NOTEBOOKS):
        saved = SAVES.findall(source.read_text(encoding="utf-8"))
        numbers |= {name: f"{source.stem[:2]}-{place}" for place, name in enumerate(saved, 1)}
    return numbers


def _figure_link(name: str, numbers: dict[str, str]) -> str:
    """What prose calls by the name of its file: the figure's number, which leads to it."""
    return f"[Figure {numbers[name]}](#{name.replace('_', '-')})" if name in numbers else f"`{name}`"


def _cleaned(executed: Path) -> NotebookNode:
    """An executed notebook without the traces of its execution."""
    try:
        notebook = nbformat.read(executed, as_version=4)
        kept = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
        notebook.metadata = nbformat.from_dict(kept)
        notebook.cells = [_clean(cell) for cell in notebook.cells if not _is_injected(cell)]
    except (AttributeError, KeyError, TypeError, ValueError, nbformat.ValidationError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CompanionError(f"{executed} is no executed notebook ({reason}): delete it") from error
    return notebook


def figures_in(page: NotebookNode) -> dict[str, tuple[str, str]]:
    """Caption and alternative text of the figures that a page has, by name, in its order."""
    return {
        name: (_plain(cell.metadata.mystnb.figure.caption), cell.metadata.mystnb.image.alt)
        for cell in page.cells
        if cell.cell_type == "code"
        for name in SAVES.findall(cell.source)
    }


def _plain(caption: str) -> str:
    """A caption without its number."""
    return re.sub(r"^\*\*Figure \d\d-\d+\.\*\* ", "", caption)


def _about(name: str, figures: Path) -> dict[str, Any]:
    """What the JSON beside a figure says of it, with `caption` and `alt` in it."""
    found: dict[str, Any] = json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
    missing = [key for key in ("caption", "alt") if not found.get(key)]
    if missing:
        raise KeyError(f"{figures / name}.json has no {' and no '.join(missing)}: draw the figure again")
    return found


def _player(cell: NotebookNode) -> list[NotebookNode]:
    """After an animation, whose last frame is the figure: a link to play it."""
    moving = (
        re.findall(r'results\.animate\(\s*\w+,\s*"(\w+)"', cell.source) if cell.cell_type == "code" else []
    )
    link = '<p><a class="play" data-of="{}" href="../figures/{}.gif">Play the animation</a></p>'
    return [nbformat.v4.new_markdown_cell(link.format(name.replace("_", "-"), name)) for name in moving]


def _equations(cell: NotebookNode) -> list[NotebookNode]:
    """After a figure: what it draws, each with a link to the code that computes it."""
    names = SAVES.findall(cell.source) if cell.cell_type == "code" else []
    drawn = [metric for name in names for metric in metrics_of(name)]
    links = "; ".join(f"{m.symbol} in {code_link(m.function)} ({m.where})" for m in drawn)
    return [nbformat.v4.new_markdown_cell(f"Equations: {links}.")] if links else []


def _data(cell: NotebookNode) -> list[NotebookNode]:
    """After a figure: its values to download."""
    names = SAVES.findall(cell.source) if cell.cell_type == "code" else []
    link = '<p>Data: <a href="../data/{0}.csv" download>{0}.csv</a>, with its columns and how to cite it.</p>'
    return [nbformat.v4.new_markdown_cell(link.format(name), metadata={"tags": []}) for name in names]


def code_link(function: Callable[..., Any]) -> str:
    """From a page of a notebook to a function on the page of its module's code, which viewcode writes."""
    module, name = function.__module__, function.__name__
    text = f"{module.rpartition('.')[2]}.{name}"
    page = f"../_modules/{module.replace('.', '/')}.html"
    return f'<a href="{page}#{name}"><code class="docutils literal notranslate">{text}</code></a>'


def _is_injected(cell: NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", [])


def _clean(cell: NotebookNode) -> NotebookNode:
    cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in _KEPT if key in cell.metadata})
    tags = cell.metadata.get("tags", [])
    if cell.cell_type == "code":
        if "solution" in tags:
            tags.append("hide-cell")
        elif SAVES.search(cell.source) and "hide-input" not in tags:
            tags.append("hide-input")
        prompts = [words for tag, words in _FOLDED.items() if tag in tags]
        if prompts:
            cell.metadata["mystnb"] = prompts[-1]
        cell.outputs = [_fitting(output) for output in cell.outputs if not _is_clutter(output)]
    cell.metadata["tags"] = tags
    return cell


def _is_clutter(output: NotebookNode) -> bool:
    text = output.get("data", {}).get("text/plain", "") if output.output_type == "execute_result" else ""
    return bool(_FIGURE_RESULT.fullmatch(text))


def _fitting(output: NotebookNode) -> NotebookNode:
    """An output without what needs a kernel; a widget keeps its still picture or its view."""
    if "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return output


def _as_figure(cell: NotebookNode, name: str, figures: Path, numbers: dict[str, str]) -> None:
    """Show the picture that was saved, at its full resolution, as a figure that can be referred to."""
    said = _about(name, figures)
    picture = base64.b64encode((figures / f"{name}.png").read_bytes()).decode()
    shown = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    if not shown:
        shown = [nbformat.v4.new_output("display_data", {})]
        cell.outputs += shown
    shown[-1].data = nbformat.from_dict({"image/png": picture, "text/plain": said["caption"]})
    number = f"**Figure {numbers[name]}.** " if name in numbers else ""
    cell.metadata["mystnb"] = {
        **cell.metadata.get("mystnb", {}),
        "figure": {"caption": number + said["caption"], "name": name.replace("_", "-")},
        "image": {"alt": said["alt"], "classes": "result"},
    }
