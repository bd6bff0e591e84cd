"""What a comparison says, in sentences and one table, computed from its numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from paper_lib.placing import (
    AXES,
    Axis,
    comparable,
    end_values,
    our_columns,
    placed,
    reproduced,
)
from paper_lib.sizes import PAPER_WIDTH
from paper_lib.summaries import ANGLE_MEAN

OUR_WIDTH = 128  # of the reference runs
MAPPED = ("update_sparsity", "relative_norm", ANGLE_MEAN, "stable_rank")
NULLS = {"same_norm_gaussian": "Gaussian of the same norm", "permuted": "entries permuted"}


def answer(
    matrices: pd.DataFrame,
    nulls: pd.DataFrame | None,
    reference: pd.DataFrame,
    account: Mapping[str, Any],
) -> str:
    """Where the run lies, in Markdown: what was compared, the places by metric, and what size explains.

    matrices, nulls: tables of a comparison; reference: `matrices` of the reference runs; account: its
    `pairing.json`.
    """
    count, failed = len(account["measured"]), len(account["failed"])
    weights = sum(m["shape"][0] * m["shape"][1] for m in account["measured"])
    head = (
        f"**{_code(account['finetuned'])} against {_code(account['base'])}**: {count} matrices with "
        f"{_count(weights)} weights"
    )
    head += f"; {failed} more could not be measured (listed below)." if failed else "."
    if identical(matrices):
        return f"{head}\n\n**The two are identical** in every matrix compared: there is no update."
    places = place_table(matrices, reference, account["width"])
    lines = [head, *_sentences(places, account["width"]), *_size(matrices, nulls)]
    return "\n\n".join(lines)


def identical(matrices: pd.DataFrame) -> bool:
    """Whether ΔW = 0 in every matrix."""
    return bool((matrices.loc[matrices["metric"] == "frobenius_norm", "value"] == 0).all())


def place_table(matrices: pd.DataFrame, reference: pd.DataFrame, width: int) -> pd.DataFrame:
    """A row an axis: `metric`, the `value`, and its place on the `paper`'s scale and on `ours`, "" where the
    two cannot be compared."""
    rows = []
    for axis in axes_of(matrices):
        value = end_values(matrices, axis)["value"].mean()
        paper = axis.paper if comparable(axis, width, PAPER_WIDTH) else {}
        ours = our_columns(reference, axis) if comparable(axis, width, OUR_WIDTH) else {}
        places = [placed(value, columns, share=axis.share) for columns in (paper, ours)]
        rows.append((axis.words, axis.show(value), *places))
    return pd.DataFrame(rows, columns=["metric", "value", "paper", "ours"])


def null_table(matrices: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    """The run beside its nulls, a row a metric that both have, with chance."""
    rows = []
    for axis in axes_of(matrices):
        theirs = end_values(nulls[nulls["null"].isin(NULLS)], axis, sizes=matrices)
        if theirs.empty:
            continue
        means = theirs.groupby("null")["value"].mean()
        row = {"metric": axis.words, "this run": axis.show(end_values(matrices, axis)["value"].mean())}
        row |= {label: axis.show(means[null]) for null, label in NULLS.items()}
        rows.append(row | {"chance": axis.show(axis.chance) if axis.chance else ""})
    return pd.DataFrame(rows)


def left_out_table(account: Mapping[str, Any]) -> pd.DataFrame:
    """What was not measured: how many tensors for which reason, the first of each by name; failures first."""
    kinds = {"failed": account["failed"], **account["left_out"]}
    rows = []
    for kind, names in kinds.items():
        reasons: dict[str, list[str]] = {}
        for name, reason in names.items():
            reasons.setdefault(reason, []).append(name)
        for reason, found in reasons.items():
            rows.append((kind, len(found), found[0], reason))
    return pd.DataFrame(rows, columns=["why", "tensors", "such as", "reason"])


def axes_of(matrices: pd.DataFrame) -> list[Axis]:
    """The axes on which the run has a value."""
    return [
        axis for axis in AXES if end_values(matrices, axis).get("value", pd.Series(dtype=float)).notna().any()
    ]


def maps_of(matrices: pd.DataFrame) -> list[Axis]:
    """Of these, the ones worth a map by layer."""
    return [axis for axis in axes_of(matrices) if axis.metric in MAPPED]


def _sentences(places: pd.DataFrame, width: int) -> list[str]:
    scales = {
        "paper": "On the scale of the paper (Qwen3-8B, width 4096)",
        "ours": f"Among the runs of this companion (width {OUR_WIDTH})",
    }
    lines = []
    for column, name in scales.items():
        known = places[places[column] != ""]
        groups = [
            f"{place} in {_list(list(rows['metric']))}" for place, rows in known.groupby(column, sort=False)
        ]
        if groups:
            lines.append(f"{name}, this run lies\n\n" + "\n".join(f"- {group}" for group in groups))
    return lines


def _size(matrices: pd.DataFrame, nulls: pd.DataFrame | None) -> list[str]:
    """What rounding alone explains of the metrics that an update's size may decide."""
    if nulls is None:
        return [
            "Whether these are more than the size of the update cannot be said: "
            "compare with `--nulls` to see what rounding alone gives."
        ]
    axes = [axis for axis in AXES if axis.by_size]
    found: dict[str, list[str]] = {"norm": [], "magnitudes": [], "neither": []}
    for axis in axes:
        kind = _explained(matrices, nulls, axis)
        if kind:
            found[kind].append(axis.words)
    lines = []
    if found["norm"]:
        lines.append(
            f"**The norm of the update alone explains its {_list(found['norm'])}**: a Gaussian update of the "
            "same norm, rounded alike, has the same. From these one cannot tell how the model was trained."
        )
    if found["magnitudes"]:
        lines.append(
            f"The magnitudes of its entries, in whatever places, explain its {_list(found['magnitudes'])}."
        )
    if found["neither"]:
        lines.append(
            f"Neither its norm nor the magnitudes of its entries explain its {_list(found['neither'])}: "
            "which weights it changes together matters there."
        )
    rank = next(axis for axis in AXES if axis.metric == "stable_rank")
    ours = end_values(matrices, rank)["value"].mean()
    theirs = end_values(nulls[nulls["null"] == "same_norm_gaussian"], rank)["value"].mean()
    lines.append(
        f"Its stable rank is {ours:.3g}, where an update without structure has {theirs:.3g}: the part of the "
        "picture that size cannot make."
    )
    return lines


def _explained(matrices: pd.DataFrame, nulls: pd.DataFrame, axis: Axis) -> str:
    by_norm = reproduced(matrices, nulls, axis, "same_norm_gaussian")
    if by_norm is None:
        return ""
    if by_norm:
        return "norm"
    return "magnitudes" if reproduced(matrices, nulls, axis, "permuted") else "neither"


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(number: int) -> str:
    for size, unit in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,}"


def _code(label: str) -> str:
    return f"`{label}`"
