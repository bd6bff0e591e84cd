"""What is played with from the tables says what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.study.profiles import get_profile
from paper_lib.teaching.play import play_projection, play_tolerance


def tolerances(values):
    """Rows of `trajectories` from {(run, seed, precision, η): sparsity}."""
    rows = [(run, seed, 9, f"update_sparsity_{p}", k, v) for (run, seed, p, k), v in values.items()]
    return pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "k", "value"])


@pytest.fixture
def tolerance():
    values = {("opd", 0, "bfloat16", k): 0.5 for k in (0.0, 1e-3, 1e-2)}
    values |= {("sft", 0, "bfloat16", k): 0.1 for k in (0.0, 1e-3)}
    values |= {("opd", 0, "float32", k): k for k in (0.0, 1e-3)}
    return play_tolerance(tolerances(values), runs=["sft", "opd", "rlvr"], eta=1e-3)


def test_a_tolerance_can_be_chosen_where_it_was_measured(tolerance):
    assert (
        "OPD stored in bf16: 50 % of the weights are unchanged at η = 0.001 (1 seed)" in tolerance.first.words
    )
    assert tolerance.first.words.endswith("From the least: SFT 10 %, OPD 50 %.")
    tolerance.inputs["stored"].value = ("float32", 0.0)
    assert "OPD stored in fp32: 0 % of the weights are unchanged at η = 0 " in tolerance.picture.value


def test_only_what_was_measured_is_offered(tolerance):
    offered = [words for words, _ in tolerance.inputs["stored"].options]
    stored = [f"bf16, η = {eta}" for eta in ("0", "0.001", "0.01")]
    assert offered == [*stored, "fp32, η = 0", "fp32, η = 0.001"]


@pytest.fixture
def projection():
    runs = {"opd": 0.9, "opd_projected_early": 0.8, "opd_projected_early_k1": 0.7, "sft": 0.6}
    rows = []
    for run, score in runs.items():
        for step in (40, 100):
            rows += [(run, 0, step, f"sampled_accuracy{s}", score) for s in ("", ":chain_sum")]
            rows += [(run, 0, step, f"sampled_accuracy_se{s}", 0.01) for s in ("", ":chain_sum")]
            rows += [(run, 0, step, "share_inside", 0.25)] * ("projected" in run)
    curves = pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "value"])
    return play_projection(get_profile("reference"), curves)


def test_projected_runs_can_be_chosen_where_the_table_has_them(projection):
    assert projection.inputs["run"].options == (
        ("OPD, own early V", "opd_projected_early"),
        ("OPD, own early V, K = 1", "opd_projected_early_k1"),
    )
    assert "Test accuracy minus the free run's: -0.1 (1 seed); 25 % of the energy" in projection.first.words
    projection.inputs["run"].value = "opd_projected_early_k1"
    assert "OPD, own early V, K = 1. Test" in projection.picture.value
    assert "-0.2 (1 seed)" in projection.picture.value
    assert not np.array_equal(projection.first.png, projection.still().png)
