"""Is it size? The sparsity of an update from two numbers of ΔW that know nothing of where its entries lie.

The norm says how far the weights went, the evenness how the distance is shared: by the energy of the largest
tenth of the entries, 0.1 where all are equal. A log-linear fit over all runs asks how well the two predict.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paper_lib.figures.results import Results
from paper_lib.summaries import Untested

PREDICTORS: dict[str, float | None] = {"frobenius_norm": None, "coordinate_energy": 0.1}
APART = ("_projected_", "_subnetwork_", "small_student", "sft_small", "_sgd")
OBJECTIVES = ("opd", "sft", "rlvr", "mix")


def end_values(evidence: Results, *, also: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run and seed at the end: run, seed, objective (the first word of the run's name),
    update_sparsity, PREDICTORS and the metrics of `also`, means over matrices.

    Left out are runs without one of them, and those of APART: confined to a part of the weights, of another
    width, or under SGD, whose steps are as uneven as the gradient.
    """
    records = []
    for run in evidence.runs:
        if any(name in run for name in APART):
            continue
        try:
            columns = {name: evidence.end(run, name, k=k) for name, k in PREDICTORS.items()}
            columns |= {name: evidence.end(run, name) for name in ("update_sparsity", *also)}
        except Untested:
            continue
        rows = pd.DataFrame(columns).dropna()
        rows = rows[rows["update_sparsity"].between(0, 1, inclusive="neither")]
        records.append(rows.assign(run=run, objective=run.split("_")[0]))
    if not records:
        raise Untested("no run has both a size and a sparsity")
    return pd.concat(records).rename_axis("seed").reset_index()


def slopes(data: pd.DataFrame) -> pd.Series:
    """Least squares of the sparsity's log-odds on 1 and the logarithms of PREDICTORS; by name, "1" first.

    What rounding hides of an update of norm x is near c / x where x is large and near 1 − x / c where it is
    small: log-odds are a line of slope −1 in log x at both ends.
    """
    share = data["update_sparsity"]
    log_odds = (share / (1 - share)).map(np.log).to_numpy()
    solved = np.linalg.lstsq(_design(data), log_odds, rcond=None)[0]
    return pd.Series(solved, index=["1", *PREDICTORS])


def held_out(data: pd.DataFrame) -> pd.Series:
    """The sparsity that each kind of run would have by the fit over all other kinds, indexed as the data.

    Raises Untested with fewer than five kinds of run.
    """
    runs = data["run"].unique()
    if len(runs) < len(PREDICTORS) + 3:
        raise Untested(f"{len(runs)} kinds of run are too few to predict sparsity from size")
    predicted = pd.Series(index=data.index, dtype=float)
    for run in runs:
        own = data["run"] == run
        odds = np.exp(_design(data[own]) @ slopes(data[~own]).to_numpy())
        predicted[own] = odds / (1 + odds)
    return predicted


def in_words(data: pd.DataFrame) -> str:
    """The error of `held_out` over how many kinds of run, in one line."""
    error = 100 * ((data["update_sparsity"] - held_out(data)) ** 2).mean() ** 0.5
    kinds = data["run"].nunique()
    return f"Norm and evenness predict the sparsity of {kinds} kinds of run to {error:.1f} points"


def _design(data: pd.DataFrame) -> np.ndarray:
    return np.column_stack([np.ones(len(data)), *(np.log(data[name]) for name in PREDICTORS)])
