"""One's own numbers to place: sparsity, relative norm and stable rank among SFT, OPD, RLVR and nulls."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from paper_lib.compare import placing
from paper_lib.compare.placing import NULLS, REGIMES, explaining, our_columns, placed, position
from paper_lib.figures.styles import NULL, run_style
from paper_lib.geometry.metrics import METRICS
from paper_lib.teaching.play import View, view

NULL_ENDS = Path(__file__).parent / "views" / "nulls.parquet"  # made by tests/support/reference_ends.py
RANGES = {"update_sparsity": (0.0, 1.0), "relative_norm": (0.0, 1.0), "stable_rank": (1.0, 1e5)}
_TICKS = [float(f"{digit}e{power}") for power in range(-6, 6) for digit in (1, 2, 3, 5)]
_MARKS = {"same_norm_gaussian": "D", "permuted": "s"}


def play_placing(reference: pd.DataFrame, nulls: pd.DataFrame, start: Mapping[str, float]) -> View:
    """Type or paste one's own numbers; see where each lies. reference, nulls: the tables at
    `placing.REFERENCE` and NULL_ENDS. start: by metric, the numbers to begin with, to three digits."""
    start = {name: float(f"{value:.3g}") for name, value in start.items() if not isnan(value)}
    axes = [placing_axis(name, reference, nulls) for name in RANGES]
    begin = {name: METRICS[name].show(value) for name, value in start.items()}
    rule = {"near": placing.NEAR, "alike": placing.ALIKE, "like": placing.LIKE}
    words = {"regimes": REGIMES, "nulls": NULLS, "width": placing.OUR_WIDTH}
    said = " ".join(words_at(axis, start[axis["name"]]) for axis in axes if axis["name"] in start)
    return view("placing", {"axes": axes, "start": begin, **rule, **words}, _figure(axes, start), said)


def placing_axis(name: str, reference: pd.DataFrame, nulls: pd.DataFrame) -> dict[str, Any]:
    """What the view needs of one metric: its columns and nulls by regime, in the tables' unit and in words,
    and what its axis spans, on the scale of `position`."""
    metric, columns = METRICS[name], our_columns(reference, METRICS[name])
    rows = nulls[nulls["metric"] == name]
    theirs = {str(run): dict(zip(of["null"], of["value"], strict=True)) for run, of in rows.groupby("run")}
    values = [*(end for ends in columns.values() for end in ends), *rows["value"]]
    low, high = (position(end(values), metric.share) for end in (min, max))
    span = [low - 0.25 * (high - low), high + 0.25 * (high - low)]
    ticks = [[at, metric.show(x)] for x in _TICKS if span[0] < (at := position(x, metric.share)) < span[1]]
    label = metric.words[0].upper() + metric.words[1:]
    about = {"name": name, "label": label, "unit": metric.unit, "share": metric.share, "range": RANGES[name]}
    return {**about, "columns": columns, "nulls": theirs, "span": span, "ticks": ticks}


def words_at(axis: Mapping[str, Any], value: float) -> str:
    """Where a value lies among the regimes and whether their nulls have it. axis: of `placing_axis`."""
    metric, nulls = METRICS[axis["name"]], axis["nulls"]
    alike = [REGIMES[run] for run in REGIMES if explaining(value, nulls.get(run, {}), share=axis["share"])]
    ends = [metric.show(end(x for of in nulls.values() for x in of.values())) for end in (min, max) if nulls]
    beside = "Its nulls keep the norm and tell nothing here."
    if nulls:
        beside = f"No null lies there: they go from {' to '.join(ends)}."
    if alike:
        beside = f"So has an update without structure of the size of {' or '.join(alike)}."
    where = placed(value, axis["columns"], share=axis["share"])
    return f"{axis['label']} {metric.show(value)}: {where}. {beside}"


def _figure(axes: list[dict[str, Any]], start: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(6.0, 4.6), layout="constrained")
    for ax, axis in zip(figure.subplots(len(axes), 1), axes, strict=True):
        for row, run in enumerate(REGIMES):
            ends = [position(end, axis["share"]) for end in axis["columns"][run]]
            ax.plot(ends, [row, row], color=run_style(run).color, linewidth=6)
            for null, value in axis["nulls"].get(run, {}).items():
                ax.plot(position(value, axis["share"]), row + 0.35, _MARKS[null], color=NULL, mfc="none")
        if axis["name"] in start:
            at = position(start[axis["name"]], axis["share"])
            ax.axvline(min(max(at, axis["span"][0]), axis["span"][1]), color="black", linestyle="--")
        ax.set(title=axis["label"], xlim=axis["span"], ylim=(2.6, -0.6))
        ax.set_yticks(range(len(REGIMES)), REGIMES.values())
        ax.set_xticks(*zip(*axis["ticks"], strict=True))
    return figure
