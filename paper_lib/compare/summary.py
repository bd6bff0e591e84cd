"""What a comparison leaves in its folder, and what its tables say in one JSON object and in small tables."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paper_lib.compare.placing import NULLS, axes_of, end_value, explaining, places
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json
from paper_lib.ground.matrices import OUTSIDE
from paper_lib.ground.tables import read_table

TABLE_NAMES, SUMMARY = ("matrices", "nulls", "trajectories", "pairs"), "summary.json"
_NORM = re.compile(r"norm|(?:^|[._])ln", re.IGNORECASE)
_COUNTS = ("intruders", "patch_bytes", "patch_bytes_bf16")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a comparison left in its folder; tables that it has not are None. outside: rows of embeddings and
    output heads, which the tables hold only where there is nothing else: a mean over matrices would be
    neither theirs nor the layers'."""

    matrices: pd.DataFrame
    outside: pd.DataFrame
    nulls: pd.DataFrame | None
    trajectories: pd.DataFrame | None
    pairs: pd.DataFrame | None
    account: dict[str, Any]
    paths: tuple[Path, ...]


def read_comparison(folder: str | Path) -> Tables:
    """The tables and the account in a folder that `compare` filled; raises CompanionError where it is not."""
    folder = Path(folder)
    path, remedy = folder / "pairing.json", f"`python -m paper_lib compare … --out {folder}` makes it"
    if not (account := read_json(path, remedy)):
        raise CompanionError(f"{path} is missing or empty: {remedy}")
    files = {name: folder / f"{name}.parquet" for name in TABLE_NAMES}
    paths = tuple(path for name, path in files.items() if path.is_file() or name == "matrices")
    tables: dict[str, Any] = {name: read_table(f) if f in paths else None for name, f in files.items()}
    is_outside = {
        name: t["module"].str.partition(".")[0].isin(OUTSIDE)
        for name, t in tables.items()
        if t is not None and name != "trajectories"
    }
    outside = tables["matrices"][is_outside["matrices"]]
    if not is_outside["matrices"].all():
        tables |= {name: tables[name][~rows] for name, rows in is_outside.items()}
    return Tables(paths=paths, account=account, outside=outside, **tables)


def read_summary(folder: str | Path) -> dict[str, Any]:
    """What `summary` found of the comparison in a folder."""
    return read_json(Path(folder) / SUMMARY, "compare again")


def summary(of: Tables, reference: pd.DataFrame) -> dict[str, Any]:
    """All that the report says, for machines; `summary.json` keeps it, with null for what is not known.

    version, base, finetuned, other: of what. matrices, weights: measured; failed; left_out: how many tensors,
    by kind. trained: by name the matrices and other tensors that did not move, of how many others, and
    `stuck_share` and `hidden_share` of all weights (`facts.end_rows`). metrics: by name the value, its nulls,
    which of these explains it (`placing.explaining`) and its place on the paper's scale and on ours.
    beyond_size: the metrics that the Gaussian null does not explain. rounding_share: of the norm of all
    matrices. modules: by module, the median and largest rank for 90 and 99 % of the energy, intruder
    dimensions and bytes of a lossless patch. beside: how the two updates meet, taken as one vector (cosine,
    orthogonal_share, norm_ratio) and in means over matrices. reference: the table `REFERENCE`.

    verdicts: identical, no matrix changed; not-more-than-size, nothing is beyond size; frozen-norms, no norm
    changed; mostly-rounding, over half of the norm is rounding.
    """
    account, matrices, nulls = of.account, of.matrices, of.nulls
    end, every = ends(matrices), ends(pd.concat([matrices, of.outside]).drop_duplicates())
    still = every.index[every["frobenius_norm"] == 0]
    metrics: dict[str, dict[str, Any]] = {}
    for axis in axes_of(matrices):
        value = end_value(matrices, axis)
        theirs = {n: nan if nulls is None else end_value(nulls, axis, null=n, sizes=matrices) for n in NULLS}
        why = explaining(value, theirs, share=axis.share)
        scales = zip(("paper", "ours"), places(axis, value, reference, account["width"]), strict=True)
        metrics[axis.name] = {"value": value, **theirs, "explained_by": why, **dict(scales)}
    judged = {name: of["explained_by"] for name, of in metrics.items() if of["explained_by"] is not None}
    beyond = [name for name, null in judged.items() if null != "same_norm_gaussian"]
    unmoved = account["unmoved"]
    norms = [name for name in unmoved["among"] if _NORM.search(name)]
    shares = {
        name: np.average(end[name], weights=end["parameters"])
        for name in ("stuck_share", "hidden_share")
        if name in end
    }
    rounding = nan
    if "rounding_share" in end and len(known := end.dropna(subset="rounding_share")):
        trained = np.linalg.norm(known["frobenius_norm"] * (1 - known["rounding_share"]))
        rounding = float(1 - trained / np.linalg.norm(known["frobenius_norm"]))
    return _known(
        {
            **{name: account[name] for name in ("version", "base", "finetuned", "other")},
            "matrices": len(every),
            "weights": int(every["parameters"].sum()),
            "failed": len(account["failed"]),
            "left_out": {kind: len(names) for kind, names in account["left_out"].items()},
            "verdicts": {
                "identical": len(still) == len(every),
                "not-more-than-size": not beyond if judged and len(still) < len(every) else None,
                "frozen-norms": set(norms) <= set(unmoved["names"]) if norms else None,
                "mostly-rounding": None if isnan(rounding) else bool(rounding > 0.5),
            },
            "trained": {
                "unmoved_matrices": [
                    m["name"] for m in account["measured"] if (m["layer"], m["module"]) in still
                ],
                "unmoved_others": unmoved["names"],
                "others": len(unmoved["among"]),
                **shares,
            },
            "metrics": metrics,
            "beyond_size": beyond,
            "rounding_share": rounding,
            "modules": _by_module(every, [m["module"].partition(".")[0] for m in account["measured"]]),
            "beside": {} if of.pairs is None else _beside(end, ends(of.pairs)),
        }
    )


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """Every metric at the last step, a column each, by (layer, module); its mean where it has several k."""
    rows = table[table["step"] == table["step"].max()]
    return rows.groupby(["layer", "module", "metric"])["value"].mean().unstack()


def _by_module(end: pd.DataFrame, modules: Iterable[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    groups = end.groupby(lambda name: name[1].partition(".")[0])
    for module in dict.fromkeys(modules):
        rows = groups.get_group(module)
        found[module] = {"matrices": len(rows)}
        for share in (90, 99):
            ranks = rows[f"energy_rank_{share}"]
            found[module] |= {f"rank_{share}": ranks.median(), f"rank_{share}_most": int(ranks.max())}
        found[module] |= {name: int(rows[name].sum()) for name in _COUNTS if name in rows}
    return found


def _beside(end: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, float]:
    ours, theirs = end.loc[pairs.index, "frobenius_norm"], pairs["other_norm"]
    norm, other = np.linalg.norm(ours), np.linalg.norm(theirs)
    cosine = float((pairs["update_cosine"].fillna(0) * ours * theirs).sum() / (norm * other))
    chance = float(end["subspace_alignment_chance"].mean())
    means = {str(name): float(pairs[name].mean()) for name in pairs} | {"subspace_alignment_chance": chance}
    return means | {"cosine": cosine, "orthogonal_share": 1 - cosine**2, "norm_ratio": float(norm / other)}


def _known(value: Any) -> Any:
    """The same in plain numbers, None for those that JSON has not."""
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    return (float(value) if np.isfinite(value) else None) if isinstance(value, float) else value
