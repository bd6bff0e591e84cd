"""Accuracy and its change where training is projected."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib.figures.projected import (
    accuracy_change,
    draw_accuracy,
    draw_change,
    draw_losses,
    draw_share_inside,
    projected_runs,
    scores,
)
from paper_lib.figures.results import Results
from paper_lib.study.profiles import get_profile

REACH = 4.302653 / np.sqrt(3)  # Student's half width of three values at a standard deviation of 1


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def curves(values: dict[tuple[str, int, int], float], error: float = 0.02, task: str = "") -> pd.DataFrame:
    """Accuracies from {(run, seed, step): value}, all with one standard error."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step"])
    kept = keys.assign(metric=f"sampled_accuracy{task}", value=list(values.values()))
    return pd.concat([kept, keys.assign(metric=f"sampled_accuracy_se{task}", value=error)])


def test_accuracy_is_the_mean_over_shared_seeds_and_its_error_shrinks_with_them():
    table = curves(
        {("opd", 0, 8): 0.6, ("opd", 1, 8): 0.8, ("opd", 2, 8): 0.1, ("rlvr", 0, 8): 0.5, ("rlvr", 1, 8): 0.7}
    )
    found = scores(table, ["opd", "rlvr"]).set_index("run")
    assert found["mean"].to_dict() == pytest.approx({"opd": 0.7, "rlvr": 0.6})
    assert found["error"].to_numpy() == pytest.approx(0.02 / np.sqrt(2))


def test_three_seeds_have_their_own_interval_and_fewer_the_evaluations_error():
    table = curves({("opd", seed, 8): 0.6 + seed / 10 for seed in range(3)})
    reach = 4.302653 * 0.1 / np.sqrt(3)
    three, two = scores(table, ["opd"]).iloc[0], scores(table[table["seed"] < 2], ["opd"]).iloc[0]
    assert (three["low"], three["high"]) == pytest.approx((0.7 - reach, 0.7 + reach))
    assert two["high"] - two["mean"] == pytest.approx(0.02 / np.sqrt(2))
    assert (three["seeds"], two["seeds"]) == (3, 2)


def test_accuracy_of_a_run_that_is_not_there_is_refused_by_name():
    table = curves({("opd", 0, 8): 0.6, ("rlvr", 1, 8): 0.6})
    with pytest.raises(ValueError, match="of run 'sft' in the curves"):
        scores(table, ["opd", "sft"])
    with pytest.raises(ValueError, match="no seed in common"):
        scores(table, ["opd", "rlvr"])


def test_accuracy_is_drawn_from_where_projection_begins():
    path = {("opd", 0, step): 0.5 + step / 100 for step in (0, 2, 10)}
    table = curves(path | {("opd_projected_early", 0, step): 0.5 for step in (0, 2, 10)})
    ax = plt.subplots()[1]
    draw_accuracy(ax, table, runs=["opd", "opd_projected_early"], since=2)
    free, projected = (
        next(line for line in ax.lines if line.get_label() == name) for name in ("OPD", "OPD, own early V")
    )
    np.testing.assert_allclose(free.get_xydata(), [[0.2, 0.52], [1, 0.6]])
    np.testing.assert_allclose(projected.get_xydata(), [[0.2, 0.5], [1, 0.5]])


def test_a_loss_is_the_free_run_minus_the_confined_one_in_points():
    values = {("opd", 0, 8): 0.6, ("opd", 1, 8): 0.8, ("opd_projected_early", 0, 8): 0.5}
    results = Results(study=get_profile("smoke"), tables={"curves": curves(values, task=":sums")})
    ax = plt.subplots()[1]
    lost = draw_losses(ax, results, "sums", runs=["opd_projected_early"], free="opd")
    assert lost.to_dict() == {"opd_projected_early": pytest.approx(10)}
    assert ax.lines[0].get_xydata().tolist() == [[pytest.approx(10), 0]]


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def rows(metric: str, values: dict[tuple, float], k: float = np.nan) -> pd.DataFrame:
    """Rows of q in layer 0 from {(run, seed, step): value}."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step"])
    return keys.assign(layer=0, module="q", metric=metric, k=k, value=list(values.values()))


def places(ax) -> list[list[float]]:
    """Of every marker that stands alone."""
    return [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]


def projected_curves(values: dict[tuple[str, int], float]) -> pd.DataFrame:
    frame = pd.DataFrame([(*key, value) for key, value in values.items()], columns=["run", "seed", "value"])
    score = frame.assign(metric="sampled_accuracy:sums", step=9)
    return pd.concat([score, score.assign(metric="sampled_accuracy_se:sums", value=0.03)])


def test_projected_runs_say_what_they_vary():
    found = projected_runs(get_profile("reference")).set_index("run")
    assert found.loc["opd_projected_early_k12", ["parent", "K", "usual_K", "usual_at"]].tolist() == [
        "opd",
        12,
        False,
        True,
    ]
    assert found.loc["opd_projected_early_at_40", ["at", "usual_K", "usual_at"]].tolist() == [
        0.4,
        True,
        False,
    ]
    assert found.loc["opd_projected_early_both", "constrain"] == "both"


def test_a_change_is_against_the_free_run_of_the_same_seed(ax):
    values = {("opd", s): 0.8 + s / 10 for s in range(3)}
    values |= {("opd_projected_early", s): 0.7 + s / 5 for s in range(3)}
    values |= {("opd_projected_early_k1", 0): 0.5, ("opd_projected_early_k6", 7): 0.5}
    changes = accuracy_change(get_profile("reference"), projected_curves(values), "sums")
    found = changes.set_index(["run", "seed"])["change"].to_dict()
    early = {("opd_projected_early", s): -0.1 + s / 10 for s in range(3)}
    assert found == pytest.approx(early | {("opd_projected_early_k1", 0): -0.3})
    draw_change(ax, changes, "K")
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, -0.3], [3, 0]], atol=1e-12)
    one, three = (np.ptp(segment[:, 1]) / 2 for segment in bars.lines[2][0].get_segments())
    assert (one, three) == pytest.approx((0.03 * np.sqrt(2), 0.1 * REACH))
    with pytest.raises(ValueError, match="along is 'r'"):
        draw_change(ax, changes, "r")


def test_the_share_inside_is_the_mean_over_training_by_what_is_projected(ax):
    runs = {"opd_projected_early": 0.4, "opd_projected_early_both": 0.6, "opd_projected_early_k6": 0.9}
    shares = rows(
        "share_inside", {(run, 0, step): v + step / 10 for run, v in runs.items() for step in (0, 1)}
    )
    draw_share_inside(ax, get_profile("reference"), shares)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD, gradient", "OPD, both"]
    assert [x for x, _ in places(ax)] == pytest.approx([0.45, 0.65])
