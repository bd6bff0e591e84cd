"""One matrix of a comparison: read from every snapshot, measured, and told in rows."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paper_lib.comparison import Comparison
from paper_lib.errors import CompanionError
from paper_lib.matrices import Matrix
from paper_lib.measure import measure_matrix, measure_nulls
from paper_lib.pca import path_gram, update_gram
from paper_lib.tables import Row
from paper_lib.tasks import seeded_generator

MEASURED = ""  # the null of rows that are none
GRAM = "path_gram"  # ⟨ΔW_s, ΔW_t⟩, step s and k = t, in parts alone


def measure_shared(work: Comparison, matrix: Matrix) -> pd.DataFrame:
    """One matrix's rows of every table, with the columns of NULL_COLUMNS; its path's inner products are rows
    of the metric `GRAM`. Raises CompanionError, naming checkpoint and tensor, where that is impossible.
    """
    weights = [_read(work, matrix, step) for step in range(len(work.snapshots))]
    try:
        rows = {MEASURED: _metrics(work, weights) + _gram_rows(work, update_gram(weights))}
        if work.nulls:
            nulls, walks = measure_nulls(
                weights, work.steps, work.config, lambda null: seeded_generator(null, "compare", matrix.name)
            )
            rows |= nulls
            rows["random_walk"] += _gram_rows(work, path_gram(walks["random_walk"]))
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CompanionError(f"{work.finetuned.file(matrix.name)}: {matrix.name}: {reason}") from error
    place = {"layer": matrix.layer, "module": matrix.module, **run_keys(work)}
    return pd.DataFrame(
        [row._asdict() | place | {"null": null} for null, found in rows.items() for row in found]
    )


def _metrics(work: Comparison, weights: list[Tensor]) -> list[Row]:
    return measure_matrix(weights, work.steps, work.config, work.learning_rates, exact=work.exact)


def _read(work: Comparison, matrix: Matrix, index: int) -> Tensor:
    source = work.snapshots[index][1]
    w_t = source.read(matrix.name)
    if bad := int((~torch.isfinite(w_t)).sum()):
        raise CompanionError(
            f"{source.file(matrix.name)}: {matrix.name} has {bad} of {w_t.numel()} entries not finite"
        )
    return w_t


def _gram_rows(work: Comparison, gram: Tensor) -> list[Row]:
    steps = work.steps
    return [Row(s, GRAM, gram[i, j].item(), t) for i, s in enumerate(steps) for j, t in enumerate(steps)]


def run_keys(work: Comparison) -> dict[str, Any]:
    """The keys of a comparison's rows in the tidy tables."""
    return {"profile": "compare", "run": work.finetuned.label, "seed": 0}
