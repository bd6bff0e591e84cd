"""Where a value lies among regimes, and whether a null explains it, by the stated rules."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paper_lib.compare.answer import answer, left_out_table, null_table, place_table
from paper_lib.compare.placing import AXES, REFERENCE, comparable, explained, placed, reference_ends
from paper_lib.geometry.metrics import METRICS
from paper_lib.ground.tables import read_table

POINTS = {"sft": (100.0, 100.0), "opd": (10.0, 10.0), "rlvr": (1.0, 1.0)}
RANK, SPARSITY = METRICS["stable_rank"], METRICS["update_sparsity"]
ACCOUNT = {
    "base": "anchor",
    "finetuned": "tuned",
    "width": 128,
    "measured": [{"layer": i, "module": "q", "name": f"{i}.q", "shape": [10, 10]} for i in range(4)],
    "failed": {},
    "left_out": {"skipped": {"a.norm": "a vector", "b.norm": "a vector"}},
}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (10.0, "at OPD"),
        (10.0 * 10**0.24, "near OPD"),
        (10.0 * 10**0.26, "between SFT and OPD"),
        (10.0 * 10**0.76, "near SFT"),
        (3.0, "between OPD and RLVR"),
        (100.0 * 10**0.2, "near SFT"),
        (1000.0, "beyond SFT"),
        (0.1, "beyond RLVR"),
        (0.0, "beyond RLVR"),
        (math.nan, ""),
    ],
)
def test_places_are_by_quarters_of_the_gap_in_logarithms(value, place):
    assert placed(value, POINTS) == place


def test_shares_are_placed_by_log_odds():
    columns = {"sft": (0.1, 0.1), "rlvr": (0.9, 0.9)}
    assert placed(0.5, columns, share=True) == "between SFT and RLVR"
    assert placed(0.9, columns, share=True) == "at RLVR"
    assert placed(1.0, columns, share=True) == "beyond RLVR"


def test_regimes_that_overlap_are_one():
    columns = {"sft": (5.0, 6.0), "opd": (1.0, 2.0), "rlvr": (1.5, 2.5)}
    assert placed(2.2, columns) == "at OPD or RLVR"
    assert placed(3.6, columns) == "between SFT and OPD or RLVR"
    assert placed(2.6, columns) == "near OPD or RLVR"


def test_one_regime_alone_has_a_below_and_an_above():
    assert placed(1.0, {"opd": (20.0, 30.0)}) == "below OPD"
    assert placed(31.0, {"opd": (20.0, 30.0)}) == "above OPD"
    assert placed(1.0, {}) == ""


def test_the_paper_s_own_values_are_at_its_own_regimes():
    for axis in AXES:
        for run, (low, high) in axis.spans().items():
            middle = high if low == 0 else low
            assert placed(middle, axis.spans(), share=axis.share) == f"at {run.upper()}"


def test_a_stable_rank_is_not_compared_across_widths():
    assert comparable(RANK, 1024, 4096)
    assert not comparable(RANK, 128, 4096)
    assert comparable(SPARSITY, 128, 4096)


def table(metric: str, values, run: str = "tuned", **keys) -> pd.DataFrame:
    place = {"profile": "x", "run": run, "seed": 0, "step": 1, "metric": metric, "k": np.nan, **keys}
    frame = pd.DataFrame({"value": values}).assign(**place)
    return frame.assign(layer=range(len(frame)), module="q")


def both_nulls(metric: str, gaussian, permuted) -> pd.DataFrame:
    kinds = {"same_norm_gaussian": gaussian, "permuted": permuted}
    return pd.concat([table(metric, values, null=kind) for kind, values in kinds.items()])


def test_a_null_explains_what_it_has_within_a_point_or_a_tenth():
    sizes = table("parameters", [100.0] * 3)
    ours = pd.concat([table("update_sparsity", [0.3, 0.4, 0.5]), sizes])
    for shift, null in ((0.009, "same_norm_gaussian"), (0.02, "permuted"), (-0.02, "permuted")):
        theirs = both_nulls("update_sparsity", [0.3 + shift, 0.4 + shift, 0.5 + shift], [0.5, 0.4, 0.3])
        assert explained(ours, theirs) == {"update_sparsity": null}
    ours = table("spectral_shift", [1e-5, 2e-5, 4e-5])
    for factor, null in ((1.05, "same_norm_gaussian"), (1.5, "")):
        theirs = ours["value"] * factor
        assert explained(ours, both_nulls("spectral_shift", theirs, [0.0, 0, 0])) == {"spectral_shift": null}
    assert explained(ours, both_nulls("stable_rank", [3.0], [3.0])) == {}


def test_a_null_explains_what_the_picture_shows_and_not_another_mean():
    """One large embedding beside small matrices: alike in most matrices, far apart in most weights."""
    sizes = table("parameters", [100.0] * 9 + [1e6])
    ours = pd.concat([table("update_sparsity", [0.3] * 9 + [0.9]), sizes])
    nulls = both_nulls("update_sparsity", [0.3] * 9 + [0.3], [0.3] * 9 + [0.9])
    assert explained(ours, nulls) == {"update_sparsity": "permuted"}
    shown = null_table(ours, nulls).iloc[0]
    assert (shown["this run"], shown["Gaussian of the same norm"]) == ("89.9 %", "30 %")


@pytest.fixture
def measured() -> pd.DataFrame:
    values = {"update_sparsity": 0.5, "stable_rank": 3.0, "frobenius_norm": 1.0, "parameters": 100.0}
    return pd.concat([table(metric, [value] * 4) for metric, value in values.items()])


@pytest.fixture
def reference() -> pd.DataFrame:
    runs = {"sft": 0.1, "opd": 0.35, "rlvr": 0.36, "sft_matched": 0.9}
    parts = [table("update_sparsity", [value] * 4, run) for run, value in runs.items()]
    parts += [table("parameters", [100.0] * 4, run) for run in runs]
    return reference_ends(pd.concat(parts))


def test_the_package_holds_the_ends_of_the_reference_runs():
    tables = Path(__file__).parents[2] / "data" / "results" / "reference" / "matrices.parquet"
    keys = ["run", "seed", "metric"]
    ends = reference_ends(read_table(tables)).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(read_table(REFERENCE), ends, check_exact=True, check_dtype=False)


def test_the_answer_names_places_and_what_size_explains(measured, reference):
    null = {"update_sparsity": 0.5, "stable_rank": 40.0}
    nulls = pd.concat([both_nulls(metric, [value] * 4, [value] * 4) for metric, value in null.items()])
    told = answer(measured, nulls, reference, ACCOUNT)
    assert "`tuned` against `anchor`**: 4 matrices with 400 weights." in told
    assert "- at OPD in update sparsity" in told
    assert "- beyond RLVR in update sparsity" in told
    assert "**The norm of the update alone explains its update sparsity**" in told
    assert "stable rank is 3, where an update without structure has 40" in told
    assert list(null_table(measured, nulls)["Gaussian of the same norm"]) == ["50 %", "40"]
    assert "--nulls" in answer(measured, None, reference, ACCOUNT)
    places = place_table(measured, reference, 4096).set_index("metric")
    assert places.loc["stable rank", "paper"] == "below OPD"
    assert places.loc["stable rank", "ours"] == ""


def test_the_answer_names_what_never_moved(measured, reference):
    norms = (measured["metric"] == "frobenius_norm") & (measured["layer"] < 1)
    told = answer(measured.assign(value=measured["value"].mask(norms, 0.0)), None, reference, ACCOUNT)
    assert "1 of these never moved: `0.q`." in told


def test_the_answer_says_identical_and_how_many_failed(measured, reference):
    still = measured.assign(value=measured["value"].where(measured["metric"] != "frobenius_norm", 0.0))
    account = ACCOUNT | {"failed": {"a": "broken"}}
    told = answer(still, None, reference, account)
    assert "identical" in told
    assert "1 more could not be measured" in told
    rows = left_out_table(account)
    assert rows.to_numpy().tolist() == [["failed", 1, "a", "broken"], ["skipped", 2, "a.norm", "a vector"]]
