"""Is it size? Runs at their end, a metric against the norm and the drift ratio of the update.

ΔW's norm, and its norm over what Adam does on noise, might predict all that the paper reads from an update. A
log-linear fit over all runs asks how much they do, and what the objective adds to them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.geometry.metrics import METRICS
from paper_lib.ledger.claim import label
from paper_lib.summaries import MODULE_GROUPS, Untested

SHARES = ("update_sparsity", "update_density")  # in (0, 1), with saturation at both ends
PREDICTORS = ("frobenius_norm", "drift_ratio")
APART = ("_projected_", "_subnetwork_", "small_student", "sft_small", "_sgd")
OBJECTIVES = ("opd", "sft", "rlvr", "mix")  # the first is what the others are compared with
DRAWS = 400


@dataclass(frozen=True, kw_only=True)
class SizeFit:
    """f(y) ~ 1 + log norm + log drift (+ objective), least squares over runs × seeds; f as in `linear`.

    slopes, objectives: coefficients, the latter against OPD given size; interval: by their names, 95 % of a
    bootstrap over seeds. r_squared: of size alone; partial: the share of what it leaves that the objective
    explains.
    """

    r_squared: float
    partial: float
    slopes: pd.Series
    objectives: pd.Series
    interval: pd.DataFrame
    units: int
    seeds: int


def end_values(
    evidence: Results, outcomes: Sequence[str], *, runs: Iterable[str] | None = None
) -> pd.DataFrame:
    """One row a run and seed at the end: run, seed, objective, then the outcomes and PREDICTORS.

    All are means over matrices; masks at the first α. Left out are runs without one of them and those of
    APART: confined to a part of the weights, of another model, or under SGD, which has no such drift ratio.
    """
    alpha, records = evidence.study.diagnostics.alphas[0], []
    for run in evidence.runs if runs is None else runs:
        if any(name in run for name in APART):
            continue
        try:
            columns = {
                name: evidence.end(
                    run,
                    name,
                    k=alpha if METRICS[name].alpha else None,
                    modules=MODULE_GROUPS[METRICS[name].over] if name in outcomes else None,
                )
                for name in (*outcomes, *PREDICTORS)
            }
        except Untested:
            continue
        rows = pd.DataFrame(columns).dropna()
        for share in set(SHARES) & set(columns):
            rows = rows[rows[share].between(0, 1, inclusive="neither")]
        records.append(rows.assign(run=run, objective=objective_of(run)))
    if not records:
        raise Untested("no run has both a size and what it is to predict")
    return pd.concat(records).rename_axis("seed").reset_index()


def objective_of(run: str) -> str:
    """sft, opd, rlvr or mix, by the first word of a run's name."""
    return run.split("_")[0]


def linear(values: pd.Series, outcome: str) -> pd.Series:
    """f(y): the logarithm, and for SHARES log y / (1 − y). What rounding hides of an update of norm x is near
    c / x where x is large and near 1 − x / c where it is small: a line of slope −1 in f at both ends."""
    y = values.astype(float)
    return (y / (1 - y) if outcome in SHARES else y).map(np.log)


def measured(values: pd.Series, outcome: str) -> pd.Series:
    """The inverse of `linear`."""
    odds = values.map(np.exp)
    return odds / (1 + odds) if outcome in SHARES else odds


def fit_size(data: pd.DataFrame, outcome: str, *, draws: int = DRAWS, seed: int = 0) -> SizeFit:
    """How size predicts `outcome`, and what the objective adds; data: as `end_values` returns it.

    The intervals draw whole seeds, with replacement: runs of one seed share its anchor and problems. Raises
    Untested with fewer rows than coefficients need.
    """
    kinds = [kind for kind in OBJECTIVES if kind in set(data["objective"])]
    if len(data) <= 3 + len(kinds):
        raise Untested(f"{len(data)} runs and seeds are too few to fit {outcome} against size")
    full, y = _design(data, kinds), linear(data[outcome], outcome).to_numpy()
    size = full[:, :3]
    plain, both = _solve(size, y), _solve(full, y)
    left, left_by_both = y - size @ plain, y - full @ both
    names = [*PREDICTORS, *kinds[1:]]
    groups = [np.flatnonzero(data["seed"] == each) for each in sorted(set(data["seed"]))]
    drawn = _bootstrap(full, y, groups, draws, seed)
    interval = pd.DataFrame(drawn, columns=[*names, "r_squared", "partial"]).quantile([0.025, 0.975]).T
    interval.columns = ["low", "high"]
    return SizeFit(
        r_squared=_explained(left, y - y.mean()),
        partial=_explained(left_by_both, left),
        slopes=pd.Series(plain[1:3], index=list(PREDICTORS)),
        objectives=pd.Series(both[3:], index=kinds[1:], dtype=float),
        interval=interval,
        units=len(data),
        seeds=data["seed"].nunique(),
    )


def predicted(data: pd.DataFrame, outcome: str) -> pd.Series:
    """What size alone predicts of `outcome`, in its own unit, indexed as the data."""
    design = _design(data, ["opd"])
    fitted = design @ _solve(design, linear(data[outcome], outcome).to_numpy())
    return measured(pd.Series(fitted, index=data.index), outcome)


def explained_by_size(evidence: Results, outcomes: Sequence[str]) -> str:
    """How much of each outcome norm and drift ratio explain over all runs, in one line."""
    data, words = end_values(evidence, outcomes), []
    for outcome in outcomes:
        fit = fit_size(data, outcome)
        rest = f", the objective {100 * fit.partial:.0f} % of the rest" if len(fit.objectives) else ""
        words.append(f"{100 * fit.r_squared:.0f} % of {METRICS[outcome].words}{rest}")
    return f"over {data['run'].nunique()} runs norm and drift ratio explain {'; '.join(words)}"


def as_table(fits: dict[str, SizeFit]) -> pd.DataFrame:
    """One row an outcome, in words: R², slopes, the objectives' coefficients, partial R², with intervals."""
    rows = {}
    for outcome, fit in fits.items():
        values = {"R² of size": ("r_squared", fit.r_squared)}
        values |= {f"log {name.replace('_', ' ')}": (name, fit.slopes[name]) for name in PREDICTORS}
        values |= {f"{label(kind)} − OPD": (kind, fit.objectives[kind]) for kind in fit.objectives.index}
        values["partial R² of the objective"] = ("partial", fit.partial)
        low, high = fit.interval["low"], fit.interval["high"]
        rows[outcome] = {
            name: f"{value:.2f} [{low[key]:.2f}, {high[key]:.2f}]" for name, (key, value) in values.items()
        }
    return pd.DataFrame(rows).T


def _design(data: pd.DataFrame, kinds: Sequence[str]) -> np.ndarray:
    """Columns 1, log norm, log drift, then one a further objective."""
    logs = [np.log(data[name].to_numpy(float)) for name in PREDICTORS]
    groups = [(data["objective"] == kind).to_numpy(float) for kind in kinds[1:]]
    return np.column_stack([np.ones(len(data)), *logs, *groups])


def _solve(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(design, y, rcond=None)[0]


def _explained(left: np.ndarray, of: np.ndarray) -> float:
    total = float(of @ of)
    return 1 - float(left @ left) / total if total > 0 else float("nan")


def _bootstrap(
    design: np.ndarray, y: np.ndarray, groups: list[np.ndarray], draws: int, seed: int
) -> np.ndarray:
    """Slopes of size alone, the objectives' coefficients, R², partial R²: one row a draw of whole groups."""
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = np.concatenate([groups[at] for at in generator.integers(len(groups), size=len(groups))])
        full, values = design[rows], y[rows]
        if not full.any(axis=0).all():
            continue  # an objective that only other seeds have
        plain, both = _solve(full[:, :3], values), _solve(full, values)
        left = values - full[:, :3] @ plain
        shares = (_explained(left, values - values.mean()), _explained(values - full @ both, left))
        drawn.append([*plain[1:], *both[3:], *shares])
    return np.array(drawn)
