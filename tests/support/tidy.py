"""A small table of results, whose values say where they stand."""

import numpy as np
import pandas as pd

from paper_lib.ground.tables import TABLES


def results(runs=("sft", "opd", "rlvr"), seeds=(0, 1)) -> pd.DataFrame:
    """A table whose value is 10 for SFT's last step, 20 for OPD's, …, plus a tenth of the seed."""
    steps = {"sft": (12, 24), "opd": (6, 12), "rlvr": (6, 12)}
    rows = [
        (
            "smoke",
            run,
            seed,
            step,
            layer,
            "q",
            metric,
            np.nan,
            scale * (10 * number * step / last + seed / 10),
        )
        for number, run in enumerate(runs, 1)
        for last in (steps[run][-1],)
        for seed in seeds
        for step in steps[run]
        for layer in (0, 1)
        for metric, scale in (("stable_rank", 1.0), ("frobenius_norm", 0.01))
    ]
    return pd.DataFrame(rows, columns=list(TABLES["matrices"]))
