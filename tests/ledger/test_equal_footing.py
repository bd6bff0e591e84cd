"""Runs cut where they are equally far are compared there, whatever they do afterwards."""

from dataclasses import replace
from inspect import isfunction, signature

import numpy as np
import pandas as pd
import pytest
from worlds import world

from paper_lib.figures.results import Results
from paper_lib.ledger.equal_footing import at_equal_accuracy, at_equal_norm, crossing
from paper_lib.ledger.verdicts import ledger
from paper_lib.summaries import Untested

RUNS = ("sft_matched", "opd")
# One path in the plane of norm and sparsity, which matched SFT follows at twice the speed.
ONE_PATH = {
    "frobenius_norm": {"sft_matched": (2, 4, 8), "opd": (1, 2, 4), "rlvr": (1, 2, 4)},
    "mlp frobenius_norm": {"sft_matched": (2, 4, 8), "opd": (1, 2, 4), "rlvr": (1, 2, 4)},
    "update_sparsity": {"sft_matched": (0.7, 0.6, 0.5), "opd": (0.8, 0.7, 0.6), "rlvr": (0.85, 0.75, 0.65)},
}


def learning(evidence: Results, paths: dict[str, tuple[float, ...]]) -> Results:
    """The evidence with these validation accuracies alone, at steps 0, 10, 20, 30."""
    rows = [
        ("smoke", run, seed, 10 * at, "sampled_accuracy", value)
        for run, path in paths.items()
        for seed in (0, 1, 2)
        for at, value in enumerate(path)
    ]
    names = ["profile", "run", "seed", "step", "metric", "value"]
    curves = evidence.table("curves")
    others = curves[curves["metric"] != "sampled_accuracy"]
    learned = pd.concat([others, pd.DataFrame(rows, columns=names)])
    return replace(evidence, tables=evidence.tables | {"curves": learned})


def test_a_path_crosses_its_target_between_snapshots():
    path = pd.DataFrame({0: [1.0, 2.0, 4.0], 1: [1.0, 1.0, 1.0], 2: [5.0, 6.0, 7.0]}, index=[0.2, 0.6, 1.0])
    found = crossing(path, pd.Series({0: 3.0, 1: 1.0, 2: 3.0}))
    assert found[0] == pytest.approx(0.8)
    assert found[1] == 0.2
    assert np.isnan(found[2])


def test_runs_on_one_path_are_equal_at_one_norm_and_differ_at_their_ends():
    evidence = world(ONE_PATH, jitter=0)
    cut = at_equal_norm(evidence, RUNS)
    assert cut.end("sft_matched", "frobenius_norm").tolist() == pytest.approx([4, 4, 4])
    assert cut.end("sft_matched", "update_sparsity").tolist() == pytest.approx([0.6] * 3)
    assert cut.end("opd", "update_sparsity").tolist() == pytest.approx([0.6] * 3)
    assert evidence.end("sft_matched", "update_sparsity").tolist() == pytest.approx([0.5] * 3)


def test_an_order_that_is_only_size_is_gone_at_equal_norm():
    row = ledger(world(ONE_PATH), ["C1"]).iloc[0]
    assert row["verdict, matched"] == "reproduced"
    assert row["equal norm"].startswith("partly")
    assert "✓ SFT, matched < OPD" not in row["equal norm"]
    apart = ONE_PATH["update_sparsity"] | {"sft_matched": (0.4, 0.3, 0.2)}
    row = ledger(world(ONE_PATH | {"update_sparsity": apart}), ["C1"]).iloc[0]
    assert row["equal norm"].startswith("reproduced")


def test_a_run_that_is_past_the_norm_at_its_first_snapshot_cannot_be_cut():
    evidence = world({"frobenius_norm": {"sft_matched": (5, 6, 8), "opd": (0.1, 0.2, 0.4)}})
    with pytest.raises(Untested, match="sft_matched is past the norm"):
        at_equal_norm(evidence, RUNS)


def test_runs_are_cut_at_the_accuracy_that_all_reach_even_if_it_falls_later():
    accuracies = {"sft_matched": (0.5, 0.7, 0.9, 0.8), "opd": (0.5, 0.6, 0.7, 0.8)}
    evidence = learning(world(ONE_PATH, jitter=0), accuracies)
    cut = at_equal_accuracy(evidence, RUNS)
    assert cut.end("opd", "update_sparsity").tolist() == pytest.approx([0.6] * 3)
    assert cut.end("sft_matched", "update_sparsity").tolist() == pytest.approx([0.65] * 3)


def test_what_belongs_to_whole_runs_is_not_there_at_a_cut():
    cut = at_equal_norm(world(ONE_PATH), RUNS)
    with pytest.raises(Untested, match="of the whole run"):
        cut.end("opd", "stable_rank", null="random_walk")
    with pytest.raises(Untested, match="rlvr is not among"):
        cut.end("rlvr", "stable_rank")


def test_whatever_else_the_tables_are_asked_of_a_cut_run_is_not_answered_for_the_whole():
    cut = at_equal_norm(world(ONE_PATH), RUNS)
    asked = {name for name, each in vars(Results).items() if isfunction(each) and not name.startswith("_")}
    cut_or_whole = {"path", "end", "first", "table", "save", "animate", "side_by_side"}
    for name in asked - cut_or_whole:
        _, *needed = signature(getattr(Results, name)).parameters.values()
        given = ["opd" for each in needed if each.default is each.empty and each.kind != each.VAR_KEYWORD]
        with pytest.raises(Untested, match="of the whole run alone"):
            getattr(cut, name)(*given)
