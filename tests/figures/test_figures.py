"""Figures: the same bytes from the same tables, never empty, never half written, with their sources."""

import hashlib
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib.errors import CompanionError
from paper_lib.figures.panels import draw_chance, draw_legend, draw_points, draw_trajectory
from paper_lib.figures.save import save_figure
from paper_lib.figures.seeds import say_seeds
from paper_lib.figures.styles import NULL, OPD, RLVR, RUN_STYLE, SFT, in_order, run_style
from paper_lib.figures.words import tell
from paper_lib.study.profiles import get_profile
from paper_lib.summaries import at_end, over_matrices
from paper_lib.tables import NULL_COLUMNS, RESULT_COLUMNS, write_table

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("fresh_figures")


def results(runs=("sft", "opd", "rlvr"), seeds=(0, 1)) -> pd.DataFrame:
    """A table whose value is 10 for SFT's last step, 20 for OPD's, …, plus a tenth of the seed."""
    steps = {"sft": (12, 24), "opd": (6, 12), "rlvr": (6, 12)}
    rows = [
        (
            "smoke",
            run,
            seed,
            step,
            layer,
            "q",
            metric,
            np.nan,
            scale * (10 * number * step / last + seed / 10),
        )
        for number, run in enumerate(runs, 1)
        for last in (steps[run][-1],)
        for seed in seeds
        for step in steps[run]
        for layer in (0, 1)
        for metric, scale in (("stable_rank", 1.0), ("frobenius_norm", 0.01))
    ]
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS))


@pytest.fixture
def table_path(tmp_path):
    path = tmp_path / "results" / "smoke" / "matrices.parquet"
    write_table(results(), path, columns=RESULT_COLUMNS, fingerprint="ab" * 8)
    return path


def trajectory_figure():
    fig, ax = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
    draw_trajectory(ax, results(), "stable_rank")
    draw_chance(ax, 5.0)
    ax.set_ylabel("stable rank")
    draw_legend(fig)
    return fig


def test_a_figure_is_three_files_and_the_json_names_its_sources(tmp_path, table_path):
    svg = save_figure(
        trajectory_figure(),
        "fig4",
        tmp_path / "figures",
        profile="smoke",
        inputs=[table_path],
        caption="A band.",
    )
    assert svg == tmp_path / "figures" / "smoke" / "fig4.svg"
    assert sorted(path.name for path in svg.parent.iterdir()) == ["fig4.json", "fig4.png", "fig4.svg"]
    about = json.loads(svg.with_suffix(".json").read_text())
    assert (about["figure"], about["profile"], about["caption"]) == ("fig4", "smoke", "A band.")
    (source,) = about["tables"]
    assert source["name"] == "smoke/matrices.parquet"
    assert source["rows"] == len(results())
    assert source["sha256"] == hashlib.sha256(table_path.read_bytes()).hexdigest()
    assert source["metadata"]["fingerprint"] == "ab" * 8
    assert {"paper_lib", "python", "torch", "matplotlib", "seaborn"} <= set(about["versions"])
    assert about["files"]["fig4.svg"] == hashlib.sha256(svg.read_bytes()).hexdigest()
    assert str(tmp_path) not in svg.with_suffix(".json").read_text()


def test_the_same_figure_twice_gives_the_same_bytes(tmp_path, table_path):
    for folder in ("a", "b"):
        save_figure(
            trajectory_figure(),
            "fig4",
            tmp_path / folder,
            profile="smoke",
            inputs=[table_path],
            caption="A band.",
        )
    for suffix in ("svg", "png", "json"):
        first, second = ((tmp_path / folder / "smoke" / f"fig4.{suffix}").read_bytes() for folder in "ab")
        assert first == second, suffix


def nothing():
    return plt.figure()


def drawn_and_not_told():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    return fig


def only_nan():
    fig, ax = plt.subplots()
    tell(ax, "OPD", [np.nan, np.inf])
    tell(ax, "path", [(np.nan, 1), (1, np.nan)])
    return fig


def only_chance():
    fig, ax = plt.subplots()
    draw_chance(ax, 0.3)
    return fig


def blank():
    fig, ax = plt.subplots()
    ax.set_axis_off()
    return fig


def one_panel_of_two():
    fig, (left, right) = plt.subplots(1, 2)
    tell(left, "OPD", 1)
    right.set_title("Hill")
    return fig


@pytest.mark.parametrize(
    "draw", [nothing, drawn_and_not_told, only_nan, only_chance, blank, one_panel_of_two]
)
def test_an_empty_figure_is_refused_and_nothing_is_written(tmp_path, table_path, draw):
    with pytest.raises(CompanionError, match=r"figure fig4 is empty") as caught:
        save_figure(
            draw(), "fig4", tmp_path / "figures", profile="smoke", inputs=[table_path], caption="A band."
        )
    assert not (tmp_path / "figures").exists()
    assert draw is not one_panel_of_two or "panel 2 of 2 (Hill)" in str(caught.value)


def a_picture_with_its_colours(fig):
    ax = fig.subplots()
    fig.colorbar(ax.imshow(np.eye(2)), ax=ax)
    tell(ax, "density", [0, 1])


def a_line_and_a_blank(fig):
    left, right = fig.subplots(1, 2)
    tell(left, "OPD", [np.nan, 1])
    right.set_axis_off()


def a_sentence(fig):
    ax = fig.subplots()
    ax.set_axis_off()
    tell(ax, "no run with rotated heads")


@pytest.mark.parametrize("draw", [a_picture_with_its_colours, a_line_and_a_blank, a_sentence])
def test_whatever_tells_something_is_saved(tmp_path, table_path, draw):
    fig = plt.figure()
    draw(fig)
    assert save_figure(
        fig, "any", tmp_path, profile="smoke", inputs=[table_path], caption="A band."
    ).is_file()


def test_a_figure_from_a_missing_input_is_refused(tmp_path):
    for name in ("matrices.parquet", "claims.csv"):
        with pytest.raises(CompanionError, match=f"{name} does not exist"):
            save_figure(
                trajectory_figure(),
                "fig4",
                tmp_path,
                profile="smoke",
                inputs=[tmp_path / name],
                caption="A band.",
            )
    assert list(tmp_path.iterdir()) == []


def test_the_objectives_keep_their_colours():
    assert [run_style(run).color for run in ("sft", "opd", "rlvr")] == [SFT, OPD, RLVR]
    assert run_style("mix_1").color == OPD.lower()
    assert run_style("mix_0").color == RLVR.lower()
    assert run_style("mix_0.05").label == r"mix, $\alpha$ = 0.05"
    assert run_style("a_new_run").label == "a new run"
    looks = [(style.color, style.linestyle, style.marker) for style in RUN_STYLE.values()]
    assert len(set(looks)) == len(looks)
    assert len({style.label for style in RUN_STYLE.values()}) == len(RUN_STYLE)


def test_every_run_of_the_study_has_a_look_of_its_own():
    looks = {run.name: run_style(run.name) for run in get_profile("reference").everything}
    assert [name for name, look in looks.items() if look.color == "black"] == []
    assert len({(look.color, look.linestyle, look.marker) for look in looks.values()}) == len(looks)
    assert len({look.label for look in looks.values()}) == len(looks)


@pytest.mark.parametrize(
    ("run", "label"),
    [
        ("rlvr_lr_5e-06", "RLVR, rate 5e-6"),
        ("sft_matched_batch_64", "SFT, matched, batch 64"),
        ("opd_projected_early_k12", "OPD, own early V, K = 12"),
        ("opd_projected_early_at_40", "OPD, own early V, at 40 %"),
        ("mix_0.25_unit", r"mix, $\alpha$ = 0.25, unit scale"),
    ],
)
def test_a_probe_is_labelled_by_its_run_and_what_it_changes(run, label):
    assert run_style(run).label == label
    assert run_style(f"unheard_of_{run}").color == "black"


def test_runs_are_listed_in_one_order_everywhere():
    shuffled = ["zeta", "mix_0.25", "rlvr", "mix_0.75", "opd", "sft", "opd"]
    assert in_order(shuffled) == ["sft", "opd", "rlvr", "mix_0.75", "mix_0.25", "zeta"]
    probes = ["mix_0.5_unit", "opd_batch_64", "opd_lr_2e-05", "opd_lr_5e-06", "mix_0.75_unit", "opd"]
    assert in_order(["mix_0.5", "rlvr", *probes]) == [
        *("opd", "opd_lr_5e-06", "opd_lr_2e-05", "opd_batch_64", "rlvr"),
        *("mix_0.75_unit", "mix_0.5", "mix_0.5_unit"),
    ]


def test_a_trajectory_is_the_mean_over_matrices_and_seeds_with_their_interval_as_band():
    ax = plt.subplots()[1]
    draw_trajectory(ax, results(seeds=(0, 1, 2)), "stable_rank", runs=("opd", "sft"), scale=2.0)
    opd, sft = ax.lines
    assert opd.get_label() == "OPD"
    np.testing.assert_allclose(opd.get_xydata(), [[0.5, 2 * 10.1], [1, 2 * 20.1]])
    np.testing.assert_allclose(sft.get_xdata(), [0.5, 1])
    band = ax.collections[0].get_paths()[0].get_extents()
    reach = 4.302653 * 0.1 / np.sqrt(3)  # Student's, two degrees of freedom
    np.testing.assert_allclose([band.ymin, band.ymax], [2 * (10.1 - reach), 2 * (20.1 + reach)], rtol=1e-6)
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
    assert title == "n = 1–3 seeds; bands and bars: Student's 95 % interval of the mean, from n = 3 on"
    assert [text.get_text() for text in legend.get_texts()] == ["SFT", "OPD", "RLVR (n = 1)"]
    assert say_seeds([8, 8]) == "n = 8 seeds; bands and bars: Student's 95 % interval of the mean"
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
    null = results().assign(null="random_walk", value=1.0)[list(NULL_COLUMNS)]
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
    assert means == pytest.approx({10.05: 0, 20.05: 1, 30.05: 2, 5.0: 2.3})
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
