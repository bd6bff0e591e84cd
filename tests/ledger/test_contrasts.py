"""A comparison holds, fails or stays undecided by where its interval lies, whatever its mean."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from paper_lib.ledger.claim import Finding
from paper_lib.ledger.contrasts import (
    Contrast,
    above,
    absent,
    below,
    in_turn,
    left_by_null,
    more,
    same,
    same_factor,
    times,
)
from paper_lib.ledger.verdicts import (
    NOT_REPRODUCED,
    ORDER_ONLY,
    PARTLY,
    REPRODUCED,
    UNTESTED,
    beyond_null,
    judge,
    reason,
)


def seeds(*values: float) -> pd.Series:
    """One value a seed, from seed 0."""
    return pd.Series(values, dtype=float)


HOLDS = Contrast(text="a", values=seeds(1, 1.1, 0.9))
FAILS = Contrast(text="b", values=seeds(-1, -1.1, -0.9))
OPEN = Contrast(text="c", values=seeds(3, -1, 1))
MISSING = absent("d", "no such run")
IDLE = replace(HOLDS, idle="both would do")


def test_those_undecided_for_one_reason_share_it():
    finding = Finding(ours="", contrasts=(IDLE, replace(FAILS, idle="both would do"), OPEN))
    assert reason(finding) == "Undecided: a; b (both would do); c"


def test_a_ratio_near_one_has_a_digit_more():
    assert "× 1.028" in str(times(seeds(1.028, 1.03, 1.026), seeds(1, 1, 1), ""))
    assert "× 1.67 " in str(times(seeds(1.67, 1.69, 1.65), seeds(1, 1, 1), ""))


def test_an_order_is_decided_by_the_interval_and_not_by_the_mean():
    assert [each.outcome for each in (HOLDS, FAILS, OPEN, MISSING)] == [
        "holds",
        "fails",
        "undecided",
        "undecided",
    ]
    assert OPEN.mean > 0
    assert Contrast(text="", values=seeds(1, 1.1)).outcome == "undecided"


def test_what_is_to_be_equal_must_have_its_whole_interval_inside_the_margin():
    a, b = seeds(1.00, 1.01, 0.99), seeds(1, 1, 1)
    assert same(a, b, "", within=0.1).outcome == "holds"
    assert same(a, b, "", within=0.02).outcome == "undecided"  # no difference seen is not equality shown
    assert same(a + 1, b, "", within=0.1).outcome == "fails"
    assert same_factor(a, b, "", within=1.1).outcome == "holds"
    assert same_factor(3 * a, b, "", within=1.1).outcome == "fails"


def test_clearance_passes_one_exactly_where_the_outcome_is_decided():
    values = seeds(0.5, 0.9, 1.3, 0.6)
    half = (above(values, 0, "").interval[1] - above(values, 0, "").interval[0]) / 2
    for low in np.linspace(-1, 3, 41):
        contrast = above(values, low, "")
        assert contrast.clearance == pytest.approx((values.mean() - low) / half)
        assert (contrast.outcome == "holds") == (contrast.clearance > 1)
        assert (contrast.outcome == "fails") == (contrast.clearance < -1)
    assert below(values, 2, "").clearance == pytest.approx((2 - values.mean()) / half)


@pytest.mark.parametrize(("paper", "share"), [(12.0, "8.3"), (1.0, "100"), (0.01, "10000"), (-0.5, "-200")])
def test_a_share_of_the_papers_size_is_said_without_an_exponent(paper, share):
    assert str(replace(HOLDS, paper=paper)).endswith(f", {share} % of the paper's")


def test_differences_are_paired_so_that_what_seeds_share_cancels():
    shared = seeds(0, 10, 20, -10)
    assert more(shared + 1, shared, "").holds
    assert times(seeds(2, 20, 200), seeds(1, 10, 100), "").mean == pytest.approx(math.log(2))
    assert not times(seeds(2, 2.1, 1.9), seeds(1, 1, 1), "", by=3).holds
    assert more(pd.Series({0: 1.0, 1: 2.0}), pd.Series({1: 1.0, 2: 5.0}), "").seeds == 1


def test_effect_size_is_counted_from_the_edge_that_decides_and_positive_on_the_claims_side():
    assert HOLDS.effect == pytest.approx(1 / 0.1)
    assert above(seeds(1, 1.1, 0.9), 0.8, "").effect == pytest.approx(2)
    assert below(seeds(1, 1.1, 0.9), 0.8, "").effect == pytest.approx(-2)
    assert more(seeds(1, 1.1, 0.9), seeds(0, 0, 0), "", by=1.3).effect == pytest.approx(-3)
    assert same(seeds(1, 1.1, 0.9), seeds(0, 0, 0), "", within=1.5).effect == pytest.approx(5)
    assert Contrast(text="", values=seeds(2, 2, 2)).effect == math.inf
    assert math.isnan(MISSING.effect)


def test_an_order_of_several_is_read_pair_by_pair():
    values = {"x": seeds(1, 1.1, 1), "y": seeds(2, 2.1, 2.2), "z": seeds(1, 1.1, 0.9)}
    assert [each.outcome for each in in_turn(values, "<")] == ["holds", "fails"]
    assert [each.outcome for each in in_turn(values, ">", ratio=True)] == ["fails", "holds"]
    assert [each.text for each in in_turn(values, "<")] == ["x < y", "y < z"]


def test_a_null_that_gives_all_but_a_tenth_explains_an_effect():
    effect = seeds(1, 1.01, 0.99)
    assert left_by_null(effect, 0.8 * effect, "").outcome == "holds"
    assert left_by_null(effect, 0.95 * effect, "").outcome == "fails"


def test_a_contrast_says_its_mean_and_interval():
    assert (
        str(more(seeds(1, 2, 3), seeds(0, 0, 0), "a > b", unit="points"))
        == "? a > b: +2 [-0.484, +4.48] points"
    )
    assert str(times(seeds(2, 2, 2), seeds(1, 1, 1), "a > b")) == "✓ a > b: × 2 [× 2, × 2]"
    assert str(MISSING) == "? d: no such run"


@pytest.mark.parametrize(
    ("contrasts", "verdict"),
    [
        ((HOLDS, replace(HOLDS, paper=9.9)), REPRODUCED),
        ((HOLDS, replace(HOLDS, paper=10.1)), ORDER_ONLY),
        ((FAILS, replace(HOLDS, paper=10.1)), PARTLY),
        ((HOLDS, HOLDS), REPRODUCED),
        ((FAILS, FAILS), NOT_REPRODUCED),
        ((FAILS, OPEN), NOT_REPRODUCED),
        ((HOLDS, FAILS), PARTLY),
        ((HOLDS, OPEN), PARTLY),
        ((HOLDS, MISSING), PARTLY),
        ((OPEN, MISSING), UNTESTED),
        ((IDLE, IDLE), UNTESTED),
        ((IDLE, HOLDS), PARTLY),
        ((IDLE, FAILS), NOT_REPRODUCED),
        ((), UNTESTED),
    ],
)
def test_the_verdict_follows_from_the_outcomes(contrasts, verdict):
    assert judge(Finding(ours="", contrasts=contrasts)) == verdict


def test_the_reason_names_what_fails_and_what_is_open_and_why():
    finding = Finding(
        ours="", contrasts=(HOLDS, FAILS, MISSING), beyond=FAILS, explained="chance does as well"
    )
    assert reason(finding) == (
        "Holds: a. Fails: b. Undecided: d (no such run). Not shown beyond its null: chance does as well"
    )
    assert [
        beyond_null(Finding(ours="", contrasts=(), beyond=each)) for each in (HOLDS, OPEN, MISSING, None)
    ] == [*("yes", "no", "–", "–")]
