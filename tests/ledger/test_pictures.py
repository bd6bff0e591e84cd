"""The ledger is a picture of every claim, and its overview has one row a measure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from worlds import FALSE, world

from paper_lib.figures.save import save_figure
from paper_lib.figures.seeds import draw_legend
from paper_lib.figures.styles import OPD
from paper_lib.geometry.metrics import METRICS
from paper_lib.ledger.pictures import (
    EDGE,
    MARKS,
    OVERVIEW,
    claims_figure,
    draw_overview,
    position,
    regime_ends,
)
from paper_lib.ledger.rules.weights import mean_angle
from paper_lib.ledger.verdicts import CLAIMS, VERDICTS, read_all
from paper_lib.summaries import ANGLE_MEAN


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_position_is_0_at_rlvr_and_1_at_sft_on_either_scale():
    low, high = pd.Series({0: 1.0, 1: 2.0}), pd.Series({0: 100.0, 1: 200.0})
    assert position(low, low, high, log=True).tolist() == [0, 0]
    assert position(high, low, high, log=False).tolist() == [1, 1]
    assert position(10 * low, low, high, log=True).tolist() == pytest.approx([0.5, 0.5])


def test_the_overview_has_a_row_a_measure_and_skips_what_is_missing():
    evidence = world(jitter=0)
    assert set(regime_ends(evidence, METRICS["update_sparsity"])) == {"sft", "sft_matched", "opd", "rlvr"}
    assert regime_ends(evidence, METRICS["drift_ratio"]) == {}
    ax = plt.subplots()[1]
    draw_overview(ax, evidence)
    assert len(ax.get_yticks()) == len(OVERVIEW)
    places = [line.get_xdata()[0] for line in ax.lines if line.get_color() == OPD and len(line.get_xdata())]
    assert places[0] == pytest.approx((0.516 - 0.772) / (0.081 - 0.772), rel=0.01)
    assert "; bars: " in draw_legend(ax.get_figure()).get_title().get_text()


def test_the_overview_and_the_ledger_have_one_number_for_a_rotation():
    evidence = world(jitter=0.1)
    for run, values in regime_ends(evidence, METRICS[ANGLE_MEAN]).items():
        np.testing.assert_allclose(values, np.degrees(mean_angle(evidence, run)))


def test_the_ledger_is_a_picture_of_every_claim_in_two_readings(tmp_path):
    readings = read_all(world())
    fig = claims_figure(readings)
    words = {text.get_text() for text in fig.axes[0].texts}
    assert {claim.id for claim in CLAIMS} | {claim.statement for claim in CLAIMS} <= words
    assert len(fig.axes) == 2
    assert save_figure(fig, "claims", tmp_path, inputs=[], caption="The ledger.").is_file()


def test_dots_stand_where_their_outcome_is():
    for changes, side in ((None, 1), (FALSE["C1"], -1)):
        fig = claims_figure(read_all(world(changes), ["C1"]))
        dots = [line.get_xdata()[0] for line in fig.axes[0].lines if line.get_markersize() == 3.2]
        assert len(dots) == 2
        assert all(1 < side * x <= EDGE for x in dots)


def test_a_claim_without_an_interval_says_why():
    fig = claims_figure(read_all(world(seeds=(0,), without=("opd_sgd",)), ["C1", "S7"]))
    words = {text.get_text() for text in fig.axes[0].texts}
    assert "fewer than 3 seeds" in words
    assert any(text.startswith("No sampled_accuracy:small_sums of opd_sgd") for text in words)


def test_every_verdict_has_a_mark_and_no_two_share_marker_and_fill():
    assert set(MARKS) == set(VERDICTS)
    assert len({(look["marker"], look.get("markerfacecolor")) for look in MARKS.values()}) == len(VERDICTS)
