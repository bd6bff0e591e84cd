"""Something to play with: controls and a picture that follows them, in one output for every reader.

JupyterLab shows the widgets, a page without a kernel the HTML, and whatever knows neither the PNG.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from paper_lib.figures.gates import PRECISIONS, draw_tolerances, left_edge
from paper_lib.figures.panels import draw_points, draw_trajectory
from paper_lib.figures.projected import accuracy_change, draw_accuracy, projected_runs
from paper_lib.figures.styles import OPD, ORANGE, RLVR, SFT, SKY, in_order
from paper_lib.ground.errors import CompanionError
from paper_lib.ledger.claim import count_seeds, label
from paper_lib.study.config import Profile
from paper_lib.summaries import rows_with, say

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

    <name>.html, <name>.js and view.css beside this module are its parts. Scripts and style reach what is in
    the view's root alone, so a page may hold several. Raises ValueError for NaN or infinity in `data`.
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


# --- Sparsity to play with: the run, the precision its weights are stored in, and the tolerance η.


_METRIC = "update_sparsity_"


def play_tolerance(trajectories: pd.DataFrame, *, runs: list[str], eta: float) -> Play:
    """Choose a run, a precision and an η that was measured in it; see its sparsity, beside that of `runs` at
    the same two. trajectories: the table. eta: the paper's."""
    rows = trajectories[trajectories["metric"].str.startswith(_METRIC)]
    there = set(rows["metric"])

    def etas(values: Mapping[str, Any]) -> Options:
        found = rows_with(rows, run=values["run"], metric=_METRIC + values["precision"])
        return [(f"{k:.4g}", k) for k in sorted(found["k"].unique().tolist())]

    measured = [(label(run), run) for run in in_order(rows["run"].unique())]
    stored = [(words, name) for name, (words, *_) in PRECISIONS.items() if _METRIC + name in there]
    controls = (
        Control(name="run", label="Run", options=measured, start="opd"),
        Control(name="precision", label="Stored as", options=stored),
        Control(name="eta", label="Tolerance η", options=etas, start=eta, kind="slider"),
    )
    return Play(controls, partial(draw_tolerance, rows, tuple(runs), eta))


def draw_tolerance(
    rows: pd.DataFrame, runs: tuple[str, ...], paper: float, *, run: str, precision: str, eta: float
) -> tuple[Figure, str]:
    """Left, the run's sparsity over η in every precision, with the chosen one ringed; right, `runs` at the
    chosen precision and η. rows: those of `update_sparsity_<precision>`."""
    here = rows[(rows["metric"] == _METRIC + precision) & (rows["k"] == eta)]
    mine = here[here["run"] == run].set_index("seed")["value"]
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_tolerances(left, rows, run, eta=paper)
    left.plot(eta or left_edge(rows), mine.mean(), "o", color="black", mfc="none", markersize=11)
    left.legend()
    compared = [each for each in runs if each in set(here["run"])]
    draw_points(right, here, runs=compared)
    right.set(xlabel="update sparsity", xlim=(-0.03, 1.03))
    right.set_title(f"{PRECISIONS[precision][0]}, $\\eta$ = {eta:.4g}")
    means = here[here["run"].isin(compared)].groupby("run")["value"].mean().sort_values()
    order = ", ".join(f"{label(str(name))} {100 * value:.3g} %" for name, value in means.items())
    return figure, (
        f"{label(run)} stored in {PRECISIONS[precision][0]}: {say(mine, 100)} % of the weights are unchanged "
        f"at η = {eta:.4g} ({count_seeds({run: mine})}). From the least: {order}."
    )


# --- Projected training to play with: subspace, target, K and branch, beside free training.


_LABELS = {"parent": "Objective", "basis": "Subspace V", "constrain": "What is projected"}
_LABELS |= {"K": "K", "at": "V taken at"}
_WORDS = {"early": "its own early V", "other_seed": "V of other rollouts"}
_WORDS |= {"random": "random V", "principal": "top of W₀"}


def play_projection(profile: Profile, curves: pd.DataFrame) -> Play:
    """Choose among the projected runs that the table has; see its accuracy beside the free run's, and which
    share of its steps lay inside V. curves: the table."""
    runs = projected_runs(profile)
    runs = runs[runs["run"].isin(curves["run"]) & runs["parent"].isin(curves["run"])]
    rows = curves[curves["run"].isin({*runs["run"], *runs["parent"]})]
    names = _LABELS.items()
    controls = [Control(name=name, label=words, options=_offered(runs, name)) for name, words in names]
    return Play(controls, partial(draw_projection, profile, rows, runs))


def _offered(runs: pd.DataFrame, name: str) -> Callable[[Mapping[str, Any]], Options]:
    """The values of a column among the runs that have the values chosen before it."""

    def options(values: Mapping[str, Any]) -> Options:
        return [(_say(name, value), value) for value in rows_with(runs, **values)[name].unique().tolist()]

    return options


def draw_projection(
    profile: Profile, curves: pd.DataFrame, runs: pd.DataFrame, **chosen: Any
) -> tuple[Figure, str]:
    """Left, validation accuracy of the chosen run and its free parent from the branch on, and of the random V
    of the same K where there is one; right, the share of the step at each snapshot that lay inside V."""
    run, parent = rows_with(runs, **chosen).iloc[0]["run"], chosen["parent"]
    random = rows_with(runs, **chosen | {"basis": "random"})["run"].tolist()
    shown = list(dict.fromkeys([run, *random]))
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    branch = profile.run(run).branch
    draw_accuracy(left, curves, runs=[parent, *shown], since=branch[1] if branch else 0)
    snapshots = curves.loc[curves["metric"] == "sampled_accuracy", "step"].unique()
    draw_trajectory(right, curves[curves["step"].isin(snapshots)], "share_inside", runs=shown)
    left.set(ylabel="validation accuracy", xlim=(0, 1.2))
    right.set(title="step's share inside V", ylim=(0, 1.03))
    left.legend()
    return figure, _words(profile, curves, run, chosen)


def _words(profile: Profile, curves: pd.DataFrame, run: str, chosen: Mapping[str, Any]) -> str:
    start = ", ".join(f"{_LABELS[name]}: {_say(name, value)}" for name, value in chosen.items())
    home = profile.run(chosen["parent"]).tasks[0].name
    changes = accuracy_change(profile, curves, home)
    change = changes.loc[changes["run"] == run].set_index("seed")["change"]
    if change.empty:
        return f"{start}. No seed has both this run and the free one."
    inside = curves[(curves["run"] == run) & (curves["metric"] == "share_inside")]
    return (
        f"{start}. Test accuracy minus the free run's: {say(change)} ({count_seeds({run: change})}); "
        f"{100 * inside['value'].mean():.0f} % of the energy of its steps lay inside V."
    )


def _say(name: str, value: Any) -> str:
    if name == "at":
        return f"{100 * value:.0f} % of the run"
    return label(value) if name == "parent" else _WORDS.get(value, str(value))
