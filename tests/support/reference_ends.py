"""Where the reference runs and their nulls end, which the package keeps: after new tables, run this file."""

import itertools
from pathlib import Path

import pandas as pd

from paper_lib.compare.placing import AXES, NULLS, REFERENCE, REGIMES, end_value, end_values
from paper_lib.geometry.metrics import METRICS
from paper_lib.ground.tables import read_table, table_metadata, write_table
from paper_lib.teaching.placing import NULL_ENDS, RANGES

TABLE = Path(__file__).parents[2] / "data" / "results" / "reference" / "matrices.parquet"
COLUMNS = ("run", "seed", "metric", "value")
NULL_COLUMNS = ("null", "run", "metric", "value")


def reference_ends(matrices: pd.DataFrame) -> pd.DataFrame:
    """Where SFT, OPD and RLVR end on every axis, from a table of runs: columns run, seed, metric, value."""
    runs = matrices[matrices["run"].isin(REGIMES)]
    ends = [end_values(runs, axis).assign(metric=axis.name) for axis in AXES]
    return pd.concat(ends, ignore_index=True)[list(COLUMNS)]


def reference_nulls(nulls: pd.DataFrame, matrices: pd.DataFrame) -> pd.DataFrame:
    """The nulls of SFT, OPD and RLVR that can be placed beside, means over seeds: columns NULL_COLUMNS."""
    sizes = matrices[matrices["metric"] == "parameters"]
    rows = []
    for metric, null, run in itertools.product(RANGES, NULLS, REGIMES):
        value = end_value(nulls[nulls["run"] == run], METRICS[metric], null=null, sizes=sizes)
        rows.append((null, run, metric, value))
    return pd.DataFrame(rows, columns=NULL_COLUMNS).dropna(ignore_index=True)


if __name__ == "__main__":
    matrices, nulls = read_table(TABLE), TABLE.with_name("nulls.parquet")
    made_from = table_metadata(TABLE)["fingerprint"]
    write_table(reference_ends(matrices), REFERENCE, columns=COLUMNS, fingerprint=made_from)
    ends = reference_nulls(read_table(nulls), matrices)
    write_table(ends, NULL_ENDS, columns=NULL_COLUMNS, fingerprint=made_from)
