"""A view: data, style and script as one piece of HTML that loads nothing and needs no kernel."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paper_lib.play import Still
from paper_lib.styles import OPD, ORANGE, RLVR, SFT, SKY

COLORS = {"sft": SFT, "opd": OPD, "rlvr": RLVR, "plus": SKY, "minus": ORANGE}
_FOLDER = Path(__file__).parent


def view(name: str, data: Mapping[str, Any], still: Still) -> str:
    """The view `name` of `data`, with `still` for readers without scripts.

    view_<name>.html, view_<name>.js and view.css beside this module are its parts. Scripts and style reach
    what is inside the view's root alone, which has no id, so a page may hold several. Raises ValueError for
    NaN or infinity in `data`.
    """
    colors = "".join(f"--{key}: {color}; " for key, color in COLORS.items())
    return (
        f'<div class="paper-view" data-view="{name}" style="{colors.strip()}">\n'
        f"<style>\n{_read('view.css')}</style>\n"
        f'<img data-output="still" src="{still.source}" alt="{html.escape(still.words)}">\n'
        f"{_read(f'view_{name}.html')}"
        f'<script type="application/json">{as_script(data)}</script>\n'
        f"<script>\n{_read(f'view_{name}.js')}</script>\n</div>\n"
    )


def as_script(data: Mapping[str, Any]) -> str:
    """`data` as JSON that neither ends a script element nor begins a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")
