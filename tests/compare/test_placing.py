"""Where a value lies among regimes, and whether a null explains it, by the stated rules."""

import math

import numpy as np
import pandas as pd
import pytest
from reference_ends import TABLE, reference_ends, reference_nulls

from paper_lib.compare.answer import answer, left_out_table, null_table, place_table
from paper_lib.compare.placing import AXES, REFERENCE, comparable, placed
from paper_lib.compare.summary import Tables, summary
from paper_lib.geometry.metrics import METRICS
from paper_lib.ground.tables import read_table
from paper_lib.teaching.placing import NULL_ENDS

POINTS = {"sft": (100.0, 100.0), "opd": (10.0, 10.0), "rlvr": (1.0, 1.0)}
RANK, SPARSITY = METRICS["stable_rank"], METRICS["update_sparsity"]
ACCOUNT = {
    "base": "anchor",
    "finetuned": "tuned",
    "other": "",
    "version": "1",
    "unmoved": {"among": ["a.norm", "b.norm"], "names": ["b.norm"]},
    "width": 128,
    "measured": [{"layer": i, "module": "q", "name": f"{i}.q", "shape": [10, 10]} for i in range(4)],
    "failed": {},
    "left_out": {"skipped": {"a.norm": "a vector", "b.norm": "a vector"}},
}


def told(matrices, nulls=None, reference=None, account=ACCOUNT):
    """The summary of a comparison with these tables; the reference has no rows where None is given."""
    none = matrices.iloc[:0]
    if "energy_rank_90" not in set(matrices["metric"]):
        matrices = pd.concat([matrices, measured_of(matrices)])
    tables = {"matrices": matrices, "nulls": nulls, "trajectories": None, "pairs": None}
    return summary(
        Tables(**tables, outside=none, account=account, paths=()), none if reference is None else reference
    )


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
    assert explained(ours, None) == {}
    ranks = table("stable_rank", [3.0, 3.0])
    for rank, null in ((3.2, "same_norm_gaussian"), (40.0, "")):
        assert explained(ranks, both_nulls("stable_rank", [rank] * 2, [rank] * 2)) == {"stable_rank": null}


def test_a_null_explains_what_the_picture_shows_and_not_another_mean():
    """One large embedding beside small matrices: alike in most matrices, far apart in most weights."""
    sizes = table("parameters", [100.0] * 9 + [1e6])
    ours = pd.concat([table("update_sparsity", [0.3] * 9 + [0.9]), sizes])
    nulls = both_nulls("update_sparsity", [0.3] * 9 + [0.3], [0.3] * 9 + [0.9])
    assert explained(ours, nulls) == {"update_sparsity": "permuted"}
    shown = null_table(told(ours, nulls)).iloc[0]
    assert (shown["this run"], shown["Gaussian of the same norm"]) == ("89.9 %", "30 %")


def measured_of(rows):
    """What a summary needs beside these rows."""
    values = {"frobenius_norm": 1.0, "energy_rank_90": 3.0, "energy_rank_99": 4.0, "parameters": 100.0}
    number, missing = rows["layer"].nunique(), values.keys() - set(rows["metric"])
    return pd.concat([table(metric, [values[metric]] * number) for metric in sorted(missing)])


def explained(matrices, nulls):
    found = told(matrices, nulls)["metrics"].items()
    return {name: of["explained_by"] for name, of in found if of["explained_by"] is not None}


@pytest.fixture
def measured() -> pd.DataFrame:
    values = {"update_sparsity": 0.5, "stable_rank": 3.0, "parameters": 100.0}
    rows = pd.concat([table(metric, [value] * 4) for metric, value in values.items()])
    return pd.concat([rows, measured_of(rows)])


@pytest.fixture
def reference() -> pd.DataFrame:
    runs = {"sft": 0.1, "opd": 0.35, "rlvr": 0.36, "sft_matched": 0.9}
    parts = [table("update_sparsity", [value] * 4, run) for run, value in runs.items()]
    parts += [table("parameters", [100.0] * 4, run) for run in runs]
    return reference_ends(pd.concat(parts))


def test_the_package_holds_the_ends_of_the_reference_runs_and_of_their_nulls():
    keys = ["run", "seed", "metric"]
    matrices = read_table(TABLE)
    ends = reference_ends(matrices).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(read_table(REFERENCE), ends, check_exact=True, check_dtype=False)
    nulls = reference_nulls(read_table(TABLE.with_name("nulls.parquet")), matrices)
    nulls = nulls.sort_values(["null", "run", "metric"], ignore_index=True)
    pd.testing.assert_frame_equal(read_table(NULL_ENDS), nulls, check_exact=True, check_dtype=False)


def test_the_answer_names_places_and_what_size_explains(measured, reference):
    null = {"update_sparsity": 0.5, "stable_rank": 40.0}
    nulls = pd.concat([both_nulls(metric, [value] * 4, [value] * 4) for metric, value in null.items()])
    found = told(measured, nulls, reference)
    words = answer(found)
    assert "`tuned` against `anchor`**: 4 matrices with 400 weights." in words
    assert "- at OPD in update sparsity" in words
    assert "- beyond RLVR in update sparsity" in words
    assert "**The norm of the update alone explains its update sparsity**" in words
    assert "stable rank is 3, where an update without structure has 40" in words
    assert list(null_table(found)["Gaussian of the same norm"]) == ["50 %", "40"]
    assert found["verdicts"]["not-more-than-size"] is False
    assert "--nulls" in answer(told(measured, None, reference))
    places = place_table(told(measured, None, reference, ACCOUNT | {"width": 4096})).set_index("metric")
    assert places.loc["stable rank", "paper"] == "below OPD"
    assert places.loc["stable rank", "ours"] == ""


def test_the_answer_names_what_never_moved(measured, reference):
    norms = (measured["metric"] == "frobenius_norm") & (measured["layer"] < 1)
    found = told(measured.assign(value=measured["value"].mask(norms, 0.0)), None, reference)
    assert found["trained"]["unmoved_matrices"] == ["0.q"]
    assert "Of 4 matrices 1 never moved (`0.q`)." in answer(found)
    assert "Of 2 norms, biases and embeddings beside them 1 never moved (`b.norm`)." in answer(found)


@pytest.mark.parametrize(
    ("ranks", "sparsity", "verdict"), [(3.1, 0.505, True), (40.0, 0.505, False), (3.1, 0.6, False)]
)
def test_no_more_than_size_is_what_a_gaussian_update_has_in_all_and_in_rank(
    measured, ranks, sparsity, verdict
):
    theirs = {"update_sparsity": sparsity, "stable_rank": ranks}
    nulls = pd.concat([both_nulls(metric, [value] * 4, [value] * 4) for metric, value in theirs.items()])
    found = told(measured, nulls)
    assert found["verdicts"]["not-more-than-size"] is verdict
    assert ("**It is no more than its size**" in answer(found)) is verdict
    assert told(measured)["verdicts"]["not-more-than-size"] is None


@pytest.mark.parametrize(
    ("names", "frozen"), [(["n.norm.weight", "h.0.ln_1.bias"], True), (["n.norm.weight"], False)]
)
def test_norms_that_never_moved_are_a_verdict(measured, names, frozen):
    among = ["n.norm.weight", "h.0.ln_1.bias", "h.0.attn.bias"]
    found = told(measured, account=ACCOUNT | {"unmoved": {"among": among, "names": names}})
    assert found["verdicts"]["frozen-norms"] is frozen
    assert ("**None of the norms moved.**" in answer(found)) is frozen
    nothing = told(measured, account=ACCOUNT | {"unmoved": {"among": [], "names": []}})
    assert nothing["verdicts"]["frozen-norms"] is None


@pytest.mark.parametrize(
    ("share", "verdict", "words"),
    [
        (0.6, True, "About 60 % of the norm is rounding"),
        (0.0, False, "About 0 % of the norm is rounding"),
        (-1.0, False, "it was about 2 times that"),
    ],
)
def test_the_share_of_rounding_is_said_and_judged(measured, share, verdict, words):
    found = told(pd.concat([measured, table("rounding_share", [share] * 4)]))
    assert found["rounding_share"] == pytest.approx(share)
    assert found["verdicts"]["mostly-rounding"] is verdict
    assert words in answer(found)
    assert told(measured)["verdicts"]["mostly-rounding"] is None


def test_the_answer_says_identical_and_how_many_failed(measured, reference):
    still = measured.assign(value=measured["value"].where(measured["metric"] != "frobenius_norm", 0.0))
    account = ACCOUNT | {"failed": {"a": "broken"}}
    found = told(still, None, reference, account)
    assert found["verdicts"]["identical"] is True
    assert "identical" in answer(found)
    assert "1 more could not be measured" in answer(found)
    rows = left_out_table(account)
    assert rows.to_numpy().tolist() == [["failed", 1, "a", "broken"], ["skipped", 2, "a.norm", "a vector"]]
