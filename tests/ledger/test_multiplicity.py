"""A correction for many comparisons takes away what is barely decided, and says which verdicts that moves."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from worlds import world

from paper_lib.ledger.contrasts import Contrast
from paper_lib.ledger.page import corrections, holm, p_value
from paper_lib.ledger.verdicts import read_all


def test_holms_values_are_those_of_the_textbook():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])


def test_a_p_value_is_students_against_the_edge_and_agrees_with_the_outcome():
    values = pd.Series([0.5, 0.9, 1.3, 0.6])
    for low in np.linspace(-1, 3, 41):
        contrast = Contrast(text="", values=values, low=low)
        assert p_value(contrast) == pytest.approx(stats.ttest_1samp(values, low).pvalue)
        assert (p_value(contrast) < 0.05) == (contrast.outcome != "undecided")


def test_what_is_barely_decided_is_lost_and_moves_its_verdict():
    evidence = world(seeds=(0, 1, 2, 3))
    rows = evidence.table("matrices").copy()
    by_seed = {"update_sparsity": (0.7, 1.1, 0.8, 0.7), "spectral_shift": (5e-5, 2e-4, 9e-5, 1.3e-4)}
    for metric, values in by_seed.items():
        chosen = rows["run"].eq("rlvr") & rows["metric"].eq(metric)
        rows["value"] = rows["value"].mask(chosen, rows["seed"].map(dict(enumerate(values))))
    evidence = replace(evidence, tables=evidence.tables | {"matrices": rows})
    readings = read_all(evidence, ["C1", "C3", "C4"])
    table = corrections(readings).set_index("correction")
    assert table.loc["Holm", "which"] == "OPD < RLVR"
    assert "C1, matched: partly" in table.loc["Holm", "verdicts that move"]
    assert int(table.loc["Holm", "tested"]) == 9  # the step from OPD to RLVR is one in both readings
