"""The picture of the ledger shows every claim and every comparison, where the rule puts it."""

import matplotlib.pyplot as plt
import pytest
from worlds import FALSE, world

from paper_lib.figures.save import save_figure
from paper_lib.ledger.pictures import EDGE, MARKS, claims_figure
from paper_lib.ledger.verdicts import CLAIMS, VERDICTS, read_all


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_the_ledger_is_a_picture_of_every_claim_in_two_readings(tmp_path):
    readings = read_all(world())
    fig = claims_figure(readings)
    words = {text.get_text() for text in fig.axes[0].texts}
    assert {claim.id for claim in CLAIMS} | {claim.statement for claim in CLAIMS} <= words
    assert len(fig.axes) == 2
    assert save_figure(fig, "claims", tmp_path, profile="smoke", inputs=[], caption="The ledger.").is_file()


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
    assert any(text.startswith("No sampled_accuracy:chain_sum of opd_sgd") for text in words)


def test_every_verdict_has_a_mark_and_no_two_share_marker_and_fill():
    assert set(MARKS) == set(VERDICTS)
    assert len({(look["marker"], look.get("markerfacecolor")) for look in MARKS.values()}) == len(VERDICTS)
