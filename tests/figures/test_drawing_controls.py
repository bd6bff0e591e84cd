"""What the figures of controls and the ledger draw: the values they say they draw."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from worlds import world

from paper_lib.figures.panels import draw_ratios, plain_log
from paper_lib.figures.projected import draw_accuracy, draw_scores, scores
from paper_lib.figures.styles import NULL, OPD, run_style
from paper_lib.geometry.metrics import METRICS
from paper_lib.ledger.pictures import OVERVIEW, draw_overview, position, regime_ends
from paper_lib.ledger.rules.weights import mean_angle
from paper_lib.summaries import ANGLE_MEAN, Untested


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


def test_scores_of_a_task_stand_side_by_side():
    ax = plt.subplots()[1]
    draw_scores(
        ax, curves({("sft", 0, 9): 0.4, ("opd", 0, 8): 0.6}, task=":sums"), "sums", runs=["sft", "opd"]
    )
    heights = [container.lines[0].get_ydata()[0] for container in ax.containers]
    assert heights == [0.4, 0.6]


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


def test_the_overview_and_the_ledger_have_one_number_for_a_rotation():
    evidence = world(jitter=0.1)
    for run, values in regime_ends(evidence, METRICS[ANGLE_MEAN]).items():
        np.testing.assert_allclose(values, np.degrees(mean_angle(evidence, run)))


def paths(noise: bool, seeds: tuple[int, ...] = (0, 1, 2)):
    """OPD at 10 and 20 in seed 0, ten times that in seed 1, …; a mix at 0.85, 0.9, 0.95 of its own seed's."""
    opd = pd.DataFrame({seed: [10.0 * 10**seed, 20.0 * 10**seed] for seed in seeds}, index=[0.5, 1.0])
    share = pd.Series({seed: 0.9 + 0.05 * (seed - 1) for seed in seeds})
    known = {"opd": opd, "mix_0.5": opd * share, "rlvr": 0.5 * opd} | ({"opd_restream": opd} if noise else {})

    def path(run: str) -> pd.DataFrame:
        if run not in known:
            raise Untested(f"no {run}")
        return known[run]

    return path


def labelled(ax, run):
    return next(line for line in ax.lines if line.get_label() == run_style(run).label)


def test_a_ratio_is_of_one_seed_and_its_mean_geometric():
    ax = plt.subplots()[1]
    draw_ratios(ax, paths(noise=True), "rank", runs=["mix_0.5", "rlvr"], seeds=(0, 1, 2))
    mean = (0.85 * 0.9 * 0.95) ** (1 / 3)
    np.testing.assert_allclose(labelled(ax, "mix_0.5").get_xydata(), [[0.5, mean], [1, mean]])
    np.testing.assert_allclose(labelled(ax, "rlvr").get_ydata(), [0.5, 0.5])
    bars = [line.get_ydata() for line in ax.lines if line.get_color() == run_style("mix_0.5").color]
    low, high = bars[-1]
    assert low < 0.85 < 0.95 < high
    assert len(ax.collections) == 1  # the band of other rollouts
    assert [line.get_color() for line in ax.lines].count(NULL) == 2
    assert ax.get_ylabel() == "rank over OPD's"


def test_ratios_of_one_seed_have_no_bars_and_need_no_other_rollouts():
    ax = plt.subplots()[1]
    draw_ratios(ax, paths(noise=False, seeds=(0,)), "rank", runs=["mix_0.5"], seeds=(0,))
    np.testing.assert_allclose(labelled(ax, "mix_0.5").get_ydata(), [0.85, 0.85])
    assert len(ax.collections) == 0
    assert NULL not in [line.get_color() for line in ax.lines]
    draw_ratios(ax, paths(noise=False, seeds=(0, 1)), "rank", runs=["mix_0.5"], seeds=(0, 1))
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 1], [0.85, 0.9])
    with pytest.raises(Untested, match="no sft"):
        draw_ratios(ax, paths(noise=False), "rank", runs=["sft"], seeds=(0,))


def test_plain_ticks_of_a_logarithmic_axis():
    ax = plt.subplots()[1]
    ax.plot([0, 1], [0.001, 0.02])
    plain_log(ax)
    ax.figure.canvas.draw()
    assert {"0.001", "0.002", "0.005", "0.01", "0.02"} <= {tick.get_text() for tick in ax.get_yticklabels()}
