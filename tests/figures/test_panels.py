"""A panel shows the mean over matrices and seeds with its interval, and its legend says of how many."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tidy import results

from paper_lib.figures.panels import draw_points, draw_ratios, draw_trajectory, plain_log
from paper_lib.figures.seeds import draw_legend, say_seeds
from paper_lib.figures.styles import NULL, run_style
from paper_lib.ground.tables import TABLES
from paper_lib.summaries import Untested, at_end, over_matrices

pytestmark = pytest.mark.usefixtures("fresh_figures")


def test_a_trajectory_is_the_mean_over_matrices_and_seeds_with_their_interval_as_band():
    ax = plt.subplots()[1]
    draw_trajectory(ax, results(seeds=(0, 1, 2)), "stable_rank", runs=("opd", "sft"))
    opd, sft = ax.lines
    assert opd.get_label() == "OPD"
    np.testing.assert_allclose(opd.get_xydata(), [[0.5, 10.1], [1, 20.1]])
    np.testing.assert_allclose(sft.get_xdata(), [0.5, 1])
    band = ax.collections[0].get_paths()[0].get_extents()
    reach = 4.302653 * 0.1 / np.sqrt(3)  # Student's, two degrees of freedom
    np.testing.assert_allclose([band.ymin, band.ymax], [10.1 - reach, 20.1 + reach], rtol=1e-6)
    draw_trajectory(ax, results(), "stable_rank", runs=("opd",), against="step")
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), [6, 12])


def test_two_seeds_are_dots_and_no_band():
    ax = plt.subplots()[1]
    draw_trajectory(ax, results(), "stable_rank", runs=("opd",))
    assert len(ax.collections) == 1
    dots = ax.collections[0].get_offsets().data.tolist()
    assert sorted(dots) == [[0.5, 10.0], [0.5, 10.1], [1.0, 20.0], [1.0, 20.1]]


def test_the_legend_says_how_many_seeds_and_which_runs_have_fewer():
    fig, ax = plt.subplots()
    table = results(seeds=(0, 1, 2))
    table = table[(table["run"] != "rlvr") | (table["seed"] == 0)]
    draw_trajectory(ax, table, "stable_rank")
    legend = draw_legend(fig)
    title = legend.get_title().get_text()
    assert title == "n = 1–3 seeds; bands: Student's 95 % interval of the mean, from n = 3 on"
    assert [text.get_text() for text in legend.get_texts()] == ["SFT", "OPD", "RLVR (n = 1)"]
    assert say_seeds([8, 8]) == "n = 8 seeds; bands and bars: Student's 95 % interval of the mean"
    assert say_seeds([8, 8], "bars") == "n = 8 seeds; bars: Student's 95 % interval of the mean"
    assert say_seeds([1]) == "n = 1 seed, no interval over seeds below 3"
    assert draw_legend(fig, seeds=False).get_title().get_text() == ""
    assert draw_legend(fig, of="shares").get_title().get_text() == f"shares: {title}"
    draw_trajectory(ax, table[table["seed"] < 2], "stable_rank", runs=("opd",))
    assert [text.get_text() for text in draw_legend(fig).get_texts()][1] == "OPD (n = 2–3)"


def test_one_seed_has_no_band():
    ax = plt.subplots()[1]
    draw_trajectory(ax, results(seeds=(0,)), "stable_rank")
    assert len(ax.collections) == 0


def test_a_null_is_drawn_in_the_same_panel_with_one_legend_entry():
    ax = plt.subplots()[1]
    null = results().assign(null="random_walk", value=1.0)[list(TABLES["nulls"])]
    draw_trajectory(ax, results(), "stable_rank", null=null)
    assert [line.get_linestyle() for line in ax.lines].count(":") == 4  # one a run, and the legend's
    assert ax.get_legend_handles_labels()[1] == ["SFT", "OPD", "RLVR", "random walk"]
    draw_trajectory(ax, results(), "stable_rank", null=null.assign(null="adam_walk"))
    assert [line.get_linestyle() for line in ax.lines].count("-.") == 4


def test_points_are_one_line_a_run_from_the_top():
    fig, ax = plt.subplots(figsize=(7.2, 2.8))
    ends = at_end(over_matrices(results(), "stable_rank"))
    nulls = ends.assign(null="permuted", value=5.0)
    draw_points(ax, ends, runs=("sft", "opd", "rlvr"), nulls=nulls)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SFT", "OPD", "RLVR"]
    assert ax.yaxis_inverted()
    means = {
        float(x): float(y)
        for x, y in (line.get_xydata()[0] for line in ax.lines if len(line.get_xdata()) == 1)
    }
    assert means == pytest.approx({10.05: 0, 20.05: 1, 30.05: 2, 5.0: 2.26})
    assert [line.get_color() for line in ax.lines].count(NULL) == 4
    draw_legend(fig)


def test_points_have_a_bar_from_three_seeds_on_and_say_who_has_fewer():
    ax = plt.subplots()[1]
    ends = at_end(over_matrices(results(seeds=(0, 1, 2)), "stable_rank"))
    draw_points(ax, ends[(ends["run"] != "rlvr") | (ends["seed"] < 2)], runs=("opd", "rlvr"))
    bars = {line.get_ydata()[0]: line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2}
    reach = 4.302653 * 0.1 / np.sqrt(3)
    assert bars.keys() == {0}
    assert list(bars[0]) == pytest.approx([20.1 - reach, 20.1 + reach])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD", "RLVR (n = 2)"]


def test_a_run_that_is_not_there_is_named():
    ax = plt.subplots()[1]
    with pytest.raises(ValueError, match=r"no stable_rank of run 'ppo'; there are \['opd', 'rlvr', 'sft'\]"):
        draw_trajectory(ax, results(), "stable_rank", runs=("ppo",))


def test_one_legend_names_every_label_once():
    fig, axes = plt.subplots(1, 2)
    for ax, metric in zip(axes, ("stable_rank", "frobenius_norm"), strict=True):
        draw_trajectory(ax, results(), metric)
    assert [text.get_text() for text in draw_legend(fig).get_texts()] == ["SFT", "OPD", "RLVR"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


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


def marked(ax, run):
    color = run_style(run).color
    return [x for line in ax.lines if line.get_color() == color for x in line.get_xdata()]


def test_a_ratio_is_of_one_seed_and_other_rollouts_are_shaded():
    ax = plt.subplots()[1]
    draw_ratios(ax, paths(noise=True), "rank", runs=["mix_0.5", "rlvr"], seeds=(0, 1, 2))
    low, high, mean = marked(ax, "mix_0.5")
    assert mean == pytest.approx(0.9)
    assert low < 0.85 < 0.95 < high
    assert marked(ax, "rlvr")[-1] == pytest.approx(0.5)
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [0.85, 0.9, 0.95])
    assert len(ax.patches) == 1
    assert [label.get_text() for label in ax.get_yticklabels()] == [r"mix, $\alpha$ = 0.5", "RLVR"]
    assert ax.get_xlabel() == "rank over OPD's"


def test_ratios_of_one_seed_have_no_bars_and_need_no_other_rollouts():
    ax = plt.subplots()[1]
    draw_ratios(ax, paths(noise=False, seeds=(0,)), "rank", runs=["mix_0.5"], seeds=(0,))
    assert marked(ax, "mix_0.5") == pytest.approx([0.85])
    assert len(ax.collections) + len(ax.patches) == 0
    with pytest.raises(Untested, match="no sft"):
        draw_ratios(ax, paths(noise=False), "rank", runs=["sft"], seeds=(0,))


def test_plain_ticks_of_a_logarithmic_axis():
    ax = plt.subplots()[1]
    ax.plot([0, 1], [0.001, 0.02])
    plain_log(ax)
    ax.figure.canvas.draw()
    assert {"0.001", "0.002", "0.005", "0.01", "0.02"} <= {tick.get_text() for tick in ax.get_yticklabels()}
