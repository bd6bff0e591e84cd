"""Something to play with: controls and a picture that follows them, in one output for every reader.

A view is HTML with a script, which JupyterLab and a page without a kernel show alike. Where the picture has
to be computed anew, widgets ask a kernel, and a page shows the first picture.
"""

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

    def image(self) -> str:
        """An HTML image that carries its words."""
        return f'<img style="max-width:100%" src="{self.source}" alt="{html.escape(self.words)}">'


def drawn(figure: Figure, words: str) -> Still:
    """A figure as it stands, and its words."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Still(png=buffer.getvalue(), words=words)


def choice(label: str, options: Sequence[tuple[str, Any]], start: Any = None, *, slider: bool = False) -> Any:
    """A control. label: what stands beside it; options: words and value of each; start: the first value, if
    it is among them, else the first option's. Raises CompanionError where there is nothing to choose from."""
    if not options:
        raise CompanionError(f"control {label!r} has nothing to choose from: was anything of it measured?")
    values = [value for _, value in options]
    kind = widgets.SelectionSlider if slider else widgets.Dropdown
    return kind(
        options=list(options),
        value=start if start in values else values[0],
        description=label,
        style={"description_width": "initial"},
        layout={"width": "auto", "min_width": "14rem", "max_width": "100%"},
        **({"continuous_update": False} if slider else {}),
    )


class Play:
    """Controls and a picture that follows them; the last line of a cell shows it.

    inputs: of `choice`, by the arguments of draw; draw: their values to a figure and its words. One object
    has one set of widgets, so two views of it move together.
    """

    def __init__(self, inputs: Mapping[str, Any], draw: Callable[..., tuple[Figure, str]]) -> None:
        self.inputs, self._draw = inputs, draw
        self.first = self.still()
        self.picture = widgets.HTML(value=_with_words(self.first))
        layout = {"flex_flow": "row wrap", "grid_gap": "0 1rem"}
        self.widget = widgets.VBox([widgets.Box(list(inputs.values()), layout=layout), self.picture])
        for each in inputs.values():
            each.observe(self._turned, names="value")

    def still(self, **values: Any) -> Still:
        """The picture at these values, the other controls being as they are."""
        now = {name: each.value for name, each in self.inputs.items()}
        return drawn(*self._draw(**now | values))

    def _turned(self, change: Mapping[str, Any]) -> None:
        self.picture.value = _with_words(self.still())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Widgets, HTML, PNG and a sentence, in one output; the reader's program takes the first it can."""
        model = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {WIDGET: model, "text/html": self.first.image(), **self.first.bundle}


def _with_words(still: Still) -> str:
    return f'{still.image()}<p role="status">{html.escape(still.words)}</p>'


# --- A view: data, style and script as one piece of HTML that loads nothing and needs no kernel.

COLORS = {"sft": SFT, "opd": OPD, "rlvr": RLVR, "plus": SKY, "minus": ORANGE}
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class View:
    """A view in HTML, and its still picture for readers that show none; the last line of a cell shows it."""

    html: str
    still: Still

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.html, **self.still.bundle}


def view(name: str, data: Mapping[str, Any], still: Still) -> View:
    """The view `name` of `data`, with `still` for readers without scripts.

    <name>.html, <name>.js and view.css beside this module are its parts. Scripts and style reach what is in
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


WIDGET = "application/vnd.jupyter.widget-view+json"
DPI = 100


# --- Sparsity to play with: the run, the precision its weights are stored in, and the tolerance η.


_METRIC = "update_sparsity_"


def play_tolerance(trajectories: pd.DataFrame, *, runs: list[str], eta: float) -> Play:
    """Choose a run, and a precision with an η that was measured in it; see its sparsity, beside that of
    `runs` at the same two. trajectories: the table. eta: the paper's."""
    rows = trajectories[trajectories["metric"].str.startswith(_METRIC)]
    measured = [
        (f"{words}, η = {k:.4g}", (name, k))
        for name, (words, *_) in PRECISIONS.items()
        for k in sorted(rows.loc[rows["metric"] == _METRIC + name, "k"].unique().tolist())
    ]
    inputs = {
        "run": choice("Run", [(label(run), run) for run in in_order(rows["run"])], "opd"),
        "stored": choice("Stored as", measured, ("bfloat16", eta), slider=True),
    }
    return Play(inputs, partial(draw_tolerance, rows, tuple(runs), eta))


def draw_tolerance(
    rows: pd.DataFrame, runs: tuple[str, ...], paper: float, *, run: str, stored: tuple[str, float]
) -> tuple[Figure, str]:
    """Left, the run's sparsity over η in every precision, with the chosen one ringed; right, `runs` at the
    chosen precision and η. rows: those of `update_sparsity_<precision>`."""
    (precision, eta), (words, *_) = stored, PRECISIONS[stored[0]]
    here = rows[(rows["metric"] == _METRIC + precision) & (rows["k"] == eta)]
    mine = here[here["run"] == run].set_index("seed")["value"]
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_tolerances(left, rows, run, eta=paper)
    left.plot(eta or left_edge(rows), mine.mean(), "o", color="black", mfc="none", markersize=11)
    left.legend()
    compared = [each for each in runs if each in set(here["run"])]
    draw_points(right, here, runs=compared)
    right.set(xlabel="update sparsity", xlim=(-0.03, 1.03), title=f"{words}, $\\eta$ = {eta:.4g}")
    means = here[here["run"].isin(compared)].groupby("run")["value"].mean().sort_values()
    order = ", ".join(f"{label(str(name))} {100 * value:.3g} %" for name, value in means.items())
    return figure, (
        f"{label(run)} stored in {words}: {say(mine, 100)} % of the weights are unchanged "
        f"at η = {eta:.4g} ({count_seeds({run: mine})}). From the least: {order}."
    )


# --- Projected training to play with: every arm that was measured, beside free training.


def play_projection(profile: Profile, curves: pd.DataFrame) -> Play:
    """Choose among the projected runs that the table has; see its accuracy beside the free run's, and which
    share of its steps lay inside V. curves: the table."""
    runs = projected_runs(profile)
    runs = runs[runs["run"].isin(curves["run"]) & runs["parent"].isin(curves["run"])]
    rows = curves[curves["run"].isin({*runs["run"], *runs["parent"]})]
    arms = [(label(run), run) for run in in_order(runs["run"])]
    return Play({"run": choice("Projected run", arms)}, partial(draw_projection, profile, rows, runs))


def draw_projection(
    profile: Profile, curves: pd.DataFrame, runs: pd.DataFrame, *, run: str
) -> tuple[Figure, str]:
    """Left, validation accuracy of the chosen run and its free parent from the branch on, and of the random V
    of the same K where there is one; right, the share of the step at each snapshot that lay inside V."""
    chosen = rows_with(runs, run=run).iloc[0]
    alike = {name: chosen[name] for name in ("parent", "constrain", "K", "at")}
    random = rows_with(runs, basis="random", **alike)["run"].tolist()
    shown = list(dict.fromkeys([run, *random]))
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    branch = profile.run(run).branch
    draw_accuracy(left, curves, runs=[chosen["parent"], *shown], since=branch[1] if branch else 0)
    snapshots = curves.loc[curves["metric"] == "sampled_accuracy", "step"].unique()
    draw_trajectory(right, curves[curves["step"].isin(snapshots)], "share_inside", runs=shown)
    left.set(ylabel="validation accuracy", xlim=(0, 1.2))
    right.set(title="step's share inside V", ylim=(0, 1.03))
    left.legend()
    home = profile.run(chosen["parent"]).tasks[0].name
    change = rows_with(accuracy_change(profile, curves, home), run=run).set_index("seed")["change"]
    if change.empty:
        return figure, f"{label(run)}. No seed has both this run and the free one."
    inside = rows_with(curves, run=run, metric="share_inside")["value"].mean()
    return figure, (
        f"{label(run)}. Test accuracy minus the free run's: {say(change)} ({count_seeds({run: change})}); "
        f"{100 * inside:.0f} % of the energy of its steps lay inside V."
    )
