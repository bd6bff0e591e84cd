"""Something to play with: controls and a picture that follows them, in one output for every reader.

JupyterLab shows the widgets, a page without a kernel the HTML, and whatever knows neither the PNG.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import ipywidgets as widgets
from matplotlib.figure import Figure

from paper_lib.errors import CompanionError
from paper_lib.figures.styles import OPD, ORANGE, RLVR, SFT, SKY

Options = Sequence[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Control:
    """One choice. name: the argument of the draw function; label: what stands beside it.

    options: words and value of each; or a function of the values of the controls before it, where what there
    is depends on them. start: the first value, None is the first option. kind: "list" or "slider".
    """

    name: str
    label: str
    options: Options | Callable[[Mapping[str, Any]], Options]
    start: Any = None
    kind: Literal["list", "slider"] = "list"

    def given(self, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """The options beside these values of the controls before it; CompanionError where there is none."""
        found = list(self.options(values) if callable(self.options) else self.options)
        if not found:
            raise CompanionError(f"control {self.name!r} has nothing to choose from at {dict(values)}")
        return found


@dataclass(frozen=True, kw_only=True)
class Still:
    """A picture as PNG, and what it shows in a sentence or two, numbers included."""

    png: bytes
    words: str

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    def image(self) -> str:
        """An HTML image that carries its words."""
        return f'<img style="max-width:100%" src="{self.source}" alt="{html.escape(self.words)}">'


class Play:
    """Controls and a picture that follows them; the last line of a cell shows it.

    draw: values by the controls' names to a figure and its words. view: the first picture to HTML that needs
    no kernel; None is that picture. One object has one set of widgets, so two views of it move together.
    """

    def __init__(
        self,
        controls: Sequence[Control],
        draw: Callable[..., tuple[Figure, str]],
        *,
        view: Callable[[Still], str] = Still.image,
    ) -> None:
        self._controls, self._draw, self._view = tuple(controls), draw, view
        self._start = self._settle({control.name: control.start for control in controls})

    def _settle(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The wanted values where they can be had, else the first option, control after control."""
        values: dict[str, Any] = {}
        for control in self._controls:
            offered = [value for _, value in control.given(values)]
            wish = wanted.get(control.name)
            values[control.name] = wish if wish in offered else offered[0]
        return values

    def _offered(self, values: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
        """The options of every control beside the values of those before it."""
        before = [dict(list(values.items())[:place]) for place in range(len(self._controls))]
        return {each.name: each.given(given) for each, given in zip(self._controls, before, strict=True)}

    def still(self, **values: Any) -> Still:
        """The picture at these values, the others being as at the start."""
        figure, words = self._draw(**self._settle(self._start | values))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return Still(png=buffer.getvalue(), words=words)

    @cached_property
    def first(self) -> Still:
        """The picture that is there before anything was turned."""
        return self.still()

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The widgets by the controls' names; setting the `value` of one redraws the picture."""
        found, offered = {}, self._offered(self._start)
        for control in self._controls:
            kind = widgets.SelectionSlider if control.kind == "slider" else widgets.Dropdown
            found[control.name] = kind(
                options=offered[control.name],
                value=self._start[control.name],
                description=control.label,
                style={"description_width": "initial"},
                layout={"width": "auto", "min_width": "14rem", "max_width": "100%"},
                **({"continuous_update": False} if control.kind == "slider" else {}),
            )
        for each in found.values():
            each.observe(self._turned, names="value")
        return found

    @cached_property
    def picture(self) -> Any:
        """The widget that holds the picture as an image with its words, and the words below it."""
        return widgets.HTML(value=_with_words(self.first))

    @cached_property
    def widget(self) -> Any:
        """Everything: the controls in rows that wrap, and the picture below them."""
        layout = {"flex_flow": "row wrap", "grid_gap": "0 1rem"}
        return widgets.VBox([widgets.Box(list(self.inputs.values()), layout=layout), self.picture])

    def _turned(self, change: Mapping[str, Any]) -> None:
        """Bring the options of the controls in line with the one that was turned, then draw once."""
        values = self._settle({name: each.value for name, each in self.inputs.items()})
        for each in self.inputs.values():
            each.unobserve(self._turned, names="value")
        try:
            for name, options in self._offered(values).items():
                if list(self.inputs[name].options) != options:
                    self.inputs[name].options = options
                self.inputs[name].value = values[name]
        finally:
            for each in self.inputs.values():
                each.observe(self._turned, names="value")
        self.picture.value = _with_words(self.still(**values))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Widgets, HTML, PNG and a sentence, in one output; the reader's program takes the first it can."""
        return {
            WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id},
            "text/html": self._view(self.first),
            "image/png": base64.b64encode(self.first.png).decode(),
            "text/plain": self.first.words,
        }


def _with_words(still: Still) -> str:
    return f'{still.image()}<p role="status">{html.escape(still.words)}</p>'


# --- A view: data, style and script as one piece of HTML that loads nothing and needs no kernel.

COLORS = {"sft": SFT, "opd": OPD, "rlvr": RLVR, "plus": SKY, "minus": ORANGE}
_FOLDER = Path(__file__).parent


def view(name: str, data: Mapping[str, Any], still: Still) -> str:
    """The view `name` of `data`, with `still` for readers without scripts.

    <name>.html, <name>.js and view.css beside this module are its parts. Scripts and style reach
    what is inside the view's root alone, which has no id, so a page may hold several. Raises ValueError for
    NaN or infinity in `data`.
    """
    colors = "".join(f"--{key}: {color}; " for key, color in COLORS.items())
    return (
        f'<div class="paper-view" data-view="{name}" style="{colors.strip()}">\n'
        f"<style>\n{_read('view.css')}</style>\n"
        f'<img data-output="still" src="{still.source}" alt="{html.escape(still.words)}">\n'
        f"{_read(f'{name}.html')}"
        f'<script type="application/json">{as_script(data)}</script>\n'
        f"<script>\n{_read(f'{name}.js')}</script>\n</div>\n"
    )


def as_script(data: Mapping[str, Any]) -> str:
    """`data` as JSON that neither ends a script element nor begins a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(file: str) -> str:
    return (_FOLDER / file).read_text(encoding="utf-8")


WIDGET = "application/vnd.jupyter.widget-view+json"
DPI = 100
