"""A view to play with: controls, picture and data as one piece of HTML that loads nothing, without a kernel.

JupyterLab and the book show the HTML alike; without its script it is the picture.
"""

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from paper_lib.figures.styles import OPD, ORANGE, RLVR, SFT, SKY

COLORS = {"sft": SFT, "opd": OPD, "rlvr": RLVR, "plus": SKY, "minus": ORANGE}
DPI = 100
_FOLDER = Path(__file__).parent / "views"


@dataclass(frozen=True, kw_only=True)
class View:
    """A view in HTML, which the last line of a cell shows; for readers without HTML its still picture, a PNG
    in base64, and what that shows in a sentence or two, numbers included."""

    html: str
    png: str
    words: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.html, "image/png": self.png, "text/plain": self.words}


def view(name: str, data: Mapping[str, Any], still: Figure, words: str) -> View:
    """The view `name` of `data`, with a figure and its words for readers without scripts.

    views/<name>.html, views/<name>.js and views/view.css are its parts. Scripts and style reach what is in
    the view's root alone, so a page may hold several. Raises ValueError for NaN or infinity in `data`.
    """
    buffer = io.BytesIO()
    still.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    png = base64.b64encode(buffer.getvalue()).decode()
    colors = " ".join(f"--{key}: {color};" for key, color in COLORS.items())
    page = (
        f'<div class="paper-view" data-view="{name}" style="{colors}">\n'
        f"<style>\n{_read('view.css')}</style>\n"
        f'<img data-output="still" src="data:image/png;base64,{png}" alt="{html.escape(words)}">\n'
        f"{_read(f'{name}.html')}"
        f'<script type="application/json">{as_script(data)}</script>\n'
        f"<script>\n{_read(f'{name}.js')}</script>\n</div>\n"
    )
    return View(html=page, png=png, words=words)


def as_script(data: Mapping[str, Any]) -> str:
    """`data` as JSON that neither ends a script element nor begins a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")
