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
class Still:
    """A picture as PNG, and what it shows in a sentence or two, numbers included."""

    png: bytes
    words: str

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def bundle(self) -> dict[str, str]:
        """The picture and its words for readers that show no HTML."""
        return {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.words}


def drawn(figure: Figure, words: str) -> Still:
    """A figure as it stands, and its words."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Still(png=buffer.getvalue(), words=words)


@dataclass(frozen=True, kw_only=True)
class View:
    """A view in HTML, and its still picture for readers that show none; the last line of a cell shows it."""

    html: str
    still: Still

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.html, **self.still.bundle}


def view(name: str, data: Mapping[str, Any], still: Still) -> View:
    """The view `name` of `data`, with `still` for readers without scripts.

    views/<name>.html, views/<name>.js and views/view.css are its parts. Scripts and style reach what is in
    the view's root alone, so a page may hold several. Raises ValueError for NaN or infinity in `data`.
    """
    colors = "".join(f"--{key}: {color}; " for key, color in COLORS.items())
    page = (
        f'<div class="paper-view" data-view="{name}" style="{colors.strip()}">\n'
        f"<style>\n{_read('view.css')}</style>\n"
        f'<img data-output="still" src="{still.source}" alt="{html.escape(still.words)}">\n'
        f"{_read(f'{name}.html')}"
        f'<script type="application/json">{as_script(data)}</script>\n'
        f"<script>\n{_read(f'{name}.js')}</script>\n</div>\n"
    )
    return View(html=page, still=still)


def as_script(data: Mapping[str, Any]) -> str:
    """`data` as JSON that neither ends a script element nor begins a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")
