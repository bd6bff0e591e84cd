"""Where the reference runs end, which the package keeps: after new tables, run this file."""

from pathlib import Path

import pandas as pd

from paper_lib.compare.placing import AXES, REFERENCE, REGIMES, end_values
from paper_lib.ground.tables import read_table, table_metadata, write_table

TABLE = Path(__file__).parents[2] / "data" / "results" / "reference" / "matrices.parquet"
COLUMNS = ("run", "seed", "metric", "value")


def reference_ends(matrices: pd.DataFrame) -> pd.DataFrame:
    """Where SFT, OPD and RLVR end on every axis, from a table of runs: columns run, seed, metric, value."""
    runs = matrices[matrices["run"].isin(REGIMES)]
    ends = [end_values(runs, axis).assign(metric=axis.name) for axis in AXES]
    return pd.concat(ends, ignore_index=True)[list(COLUMNS)]


if __name__ == "__main__":
    made_from = table_metadata(TABLE)["fingerprint"]
    write_table(reference_ends(read_table(TABLE)), REFERENCE, columns=COLUMNS, fingerprint=made_from)
