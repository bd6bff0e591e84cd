"""Alt text: the caption, then the numbers that are drawn, the same for the same figure."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from paper_lib.figures.panels import draw_chance, draw_points, draw_row, draw_trajectory
from paper_lib.figures.save import save_figure
from paper_lib.figures.weights import draw_paper
from paper_lib.figures.words import LIMIT, alt_text, number, plain, tell
from paper_lib.ground.errors import CompanionError

mpl.use("agg")
PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "figures" / "reference"
pytestmark = pytest.mark.usefixtures("fresh_figures")


def results(runs, seeds=(0, 1, 2)) -> pd.DataFrame:
    """Stable rank from 10 to 20 for the first run, to 30 for the second, …, a tenth of the seed apart."""
    columns = ["profile", "run", "seed", "step", "layer", "module", "metric", "k", "value"]
    rows = [
        ("tiny", run, seed, step, 0, "q", "stable_rank", np.nan, 10 * (1 + number * (step == 2)) + seed / 10)
        for number, run in enumerate(runs, 1)
        for seed in seeds
        for step in (1, 2)
    ]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (r"$\Vert\Delta W\Vert_F$", "‖ΔW‖_F"),
        (r"$\Vert\Delta W\Vert_F\,/\,\Vert W_0\Vert_F$", "‖ΔW‖_F / ‖W_0‖_F"),
        (r"½ $\mu\,\Vert\Delta W\Vert_F^2$", "½ μ ‖ΔW‖_F^2"),
        (r"$\mathrm{Sim}_{3}$", "Sim_3"),
        (r"mix, $\alpha$ = 0.25", "mix, α = 0.25"),
        (r"$6/(\pi^2k^2)$", "6/(π^2k^2)"),
        ("$2^{-8}$", "2^-8"),
        ("number\nsorting", "number sorting"),
        (r"$\theta_i$ (degrees)", "θ_i (degrees)"),
    ],
)
def test_a_label_is_read_without_its_mathtext(label, words):
    assert plain(label) == words


def test_numbers_have_three_digits_and_a_minus_sign():
    assert [number(v) for v in (0, -0.01234, 12.345, 4321.0)] == ["0", "−0.0123", "12.3", "4,321"]
    assert [number(v) for v in (6.4e-7, 2.5e6, float("nan"))] == [
        *("6.4 · 10^−7", "2.5 · 10^6", "nothing finite")
    ]


def test_a_line_says_its_first_and_last_value_and_the_interval_there():
    fig, ax = plt.subplots()
    draw_trajectory(ax, results(["opd", "sft"]), "stable_rank", runs=["opd", "sft"])
    draw_chance(ax, 0.3)
    ax.set(title="stable rank", ylabel="attention")
    reach = 4.302653 * 0.1 / np.sqrt(3)
    end = f"[{number(30.1 - reach)} to {number(30.1 + reach)}]"
    assert alt_text(fig, "Two runs.") == (
        "Two runs. Stable rank (x: training progress, y: attention): "
        f"SFT 10.1 to 30.1 {end}; OPD 10.1 to 20.1 [19.9 to 20.3]; chance 0.3."
    )


def test_a_row_says_its_mean_and_interval_and_a_null_those_of_all_rows():
    fig, (left, right) = plt.subplots(1, 2)
    ends = results(["sft", "opd"]).query("step == 2")
    draw_points(left, ends, runs=["sft", "opd"], nulls=ends.assign(null="permuted", value=5.0))
    draw_chance(left, 7, axis="x")
    draw_row(right, 0, "OPD – RLVR", pd.Series([1.0, 2.0]), color="black", marker="o")
    assert alt_text(fig, "Rows") == (
        "Rows. SFT 20.1 [19.9 to 20.3]; OPD 30.1 [29.9 to 30.3]; chance 7; entries permuted: SFT 5, OPD 5. "
        "OPD – RLVR 1.5."
    )


def test_what_runs_are_read_against_comes_before_other_runs():
    fig, (left, right) = plt.subplots(1, 2)
    runs = ["sft", "opd_exact", "opd_small_teacher"]
    ends = results(runs).query("step == 2")
    nulls = pd.concat([ends.assign(null=kind, value=5.0) for kind in ("adam_walk", "same_norm_gaussian")])
    draw_points(left, ends, runs=runs, nulls=nulls[nulls["run"] == "sft"])
    draw_chance(left, 7, axis="x")
    draw_paper(left, {"sft": 20.0, "opd_exact": (30.0, 31.0)}, runs=runs)
    draw_points(right, ends, runs=runs[1:], nulls=nulls)
    assert in_order_of(
        alt_text(fig, "Order."),
        *("SFT 20.1", "chance 7", "paper: SFT 20, OPD, exact reverse KL 30 to 31"),
        *("Gaussian of the same norm: SFT 5", "Adam on noise alone: SFT 5", "OPD, exact reverse KL 30.1"),
        *("OPD, smaller teacher 40.1", "Gaussian of the same norm: OPD, exact"),  # a panel without main runs
    )


def in_order_of(text: str, *parts: str) -> bool:
    """Whether each part follows the one before it."""
    return re.search(".*?".join(map(re.escape, parts)), text) is not None


def said(*told: tuple, **options) -> str:
    """What a figure of one panel says of series told by (name, values)."""
    fig, ax = plt.subplots()
    for name, values in told:
        tell(ax, name, values, **options)
    return alt_text(fig, "A.").removeprefix("A. ")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (2, "OPD 2."),
        ([1, 7, 3], "OPD 1 to 3."),
        ([np.nan, 1, 3, np.inf], "OPD 1 to 3."),
        ([2.0001, 9, 2], "OPD 2."),
        ([(1, 3), (2, 4), (0.5, 5)], "OPD (1, 3) to (0.5, 5)."),
        ([(0, np.nan), (1, 3)], "OPD (1, 3)."),
        (None, "OPD."),
        (np.nan, ""),
    ],
)
def test_a_series_says_its_first_and_last_finite_value(values, words):
    assert said(("OPD", values)).removeprefix("A.") == words


def test_an_interval_is_said_where_it_has_a_width():
    assert said(("OPD", [1, 2]), interval=(1.5, 2.5)) == "OPD 1 to 2 [1.5 to 2.5]."
    for interval in ((np.nan, np.nan), (2, np.inf), (2, 2.0001)):
        assert said(("OPD", 2), interval=interval) == "OPD 2."


def test_series_of_one_name_are_said_together_in_the_order_told():
    fig, ax = plt.subplots()
    tell(ax, r"$\alpha$", 1, of="b")
    tell(ax, "c", 2)
    tell(ax, r"$\alpha$", 3, of=r"$\mu$")
    assert alt_text(fig, "A.") == "A. Α: b 1, μ 3; c 2."


def test_means_over_fewer_seeds_than_others_of_their_panel_say_so():
    fig, ax = plt.subplots()
    for name, seeds in (("SFT", 8), ("OPD", 5), ("drawn by hand", 0)):
        tell(ax, name, 1, seeds=seeds)
    assert alt_text(fig, "A.") == "A. SFT 1; OPD (n = 5) 1; drawn by hand 1."


def test_a_panel_of_a_grid_has_the_words_of_its_column_and_row_and_a_picture_its_own():
    fig, axes = plt.subplots(2, 2)
    for ax in axes.flat:
        tell(ax, "OPD", [2, 3])
    axes[0, 1].set_title("rollouts")
    axes[1, 0].set_ylabel("accuracy")
    assert alt_text(fig, "Four.").endswith("Rollouts (y: accuracy): OPD 2 to 3.")
    axes[1, 1].imshow(np.eye(2))
    assert alt_text(fig, "Four.").endswith("Y: accuracy: OPD 2 to 3. OPD 2 to 3.")


def test_what_does_not_fit_is_counted_and_the_main_runs_stay():
    runs = ["sft", "sft_matched", "opd", "rlvr", *(f"mix_{alpha / 100}" for alpha in range(1, 40))]
    fig, axes = plt.subplots(1, 3)
    for ax in axes:
        draw_trajectory(ax, results(runs), "stable_rank")
    text = alt_text(fig, "Many.")
    assert len(text) <= LIMIT
    for label in ("SFT", "OPD", "RLVR", "SFT, matched"):
        assert len(re.findall(rf"[:;] {label} \d", text)) == 3
    assert len(re.findall(r"and \d+ more series", text)) == 3
    assert LIMIT - len(text) < 40  # the first panels say what still fits


def test_intervals_go_before_series_that_others_are_read_against():
    fig, axes = plt.subplots(1, 12)
    for ax in axes:
        ax.set_title("one of many")
        for name in ("SFT", "OPD", "RLVR"):
            tell(ax, name, [1.23, 4.56], interval=(4.45, 4.67))
        tell(ax, "chance", 0.5, aside=True)
    text = alt_text(fig, "Many.")
    assert len(text) <= LIMIT
    assert "[" not in text
    assert text.count("chance 0.5") == 12


def saved(tmp_path: Path) -> Path:
    fig, ax = plt.subplots()
    draw_trajectory(ax, results(["sft", "opd"]), "stable_rank")
    words = 'Ranks, "<" and Δ.'
    return save_figure(fig, "fig", tmp_path, inputs=[], caption=words)


def test_all_three_files_carry_it_and_bytes_stay(tmp_path):
    svg = saved(tmp_path / "a" / "smoke")
    alt = json.loads(svg.with_suffix(".json").read_text())["alt"]
    assert alt.startswith('Ranks, "<" and Δ. ')
    assert "SFT 10.1 to 20.1" in alt
    root = ET.fromstring(svg.read_bytes())
    title, description = root[0], root[1]
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", title.get("id"))
    assert root.get("aria-describedby") == description.get("id")
    assert (title.text, description.text) == ('Ranks, "<" and Δ.', alt)
    assert Image.open(svg.with_suffix(".png")).info["Description"] == alt
    again = saved(tmp_path / "b" / "smoke")
    for suffix in (".svg", ".png", ".json"):
        assert svg.with_suffix(suffix).read_bytes() == again.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("caption", ["", " \n"])
def test_a_figure_without_a_caption_is_refused(tmp_path, caption):
    fig, ax = plt.subplots()
    tell(ax, "OPD", 1)
    with pytest.raises(CompanionError, match="figure fig has no caption"):
        save_figure(fig, "fig", tmp_path, inputs=[], caption=caption)
    assert not any(tmp_path.iterdir())


def described() -> list[dict]:
    """The JSONs of the committed figures."""
    return [json.loads(path.read_text()) for path in sorted(REFERENCE.glob("*.json"))]


def test_every_committed_figure_has_a_caption_and_an_alt_text():
    for about in described():
        assert about["caption"], about["figure"]
        assert about["alt"].startswith(about["caption"].rstrip("."))
        assert re.search(r"\d", about["alt"].removeprefix(about["caption"])), about["figure"]
        assert len(about["alt"]) <= LIMIT
