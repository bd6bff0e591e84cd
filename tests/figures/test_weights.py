"""Masks, overlaps and the planes of weights are drawn with what chance would give."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from paper_lib.figures.results import Results
from paper_lib.figures.styles import OPD
from paper_lib.figures.weights import (
    NUMBERS,
    block_density,
    cell,
    draw_density,
    draw_journey,
    draw_overlap,
    draw_paper,
    draw_plane,
    draw_reach_curve,
    line_spread,
    mask_of,
)
from paper_lib.figures.words import alt_text
from paper_lib.geometry.sparsity import overlap_bounds
from paper_lib.study.profiles import get_profile

pytestmark = pytest.mark.usefixtures("fresh_figures")


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def rows(metric: str, values: dict[tuple, float], k: float | list[float] = np.nan) -> pd.DataFrame:
    """Rows of q in layer 0 from {(run, seed, step): value}."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step"])
    return keys.assign(layer=0, module="q", metric=metric, k=k, value=list(values.values()))


def points(line) -> list[list[float]]:
    return np.asarray(line.get_xydata(), dtype=float).tolist()


def test_the_papers_value_stands_on_the_line_of_its_run(ax):
    draw_paper(ax, {"opd": 0.5, "rlvr": (0.9, 0.7)}, runs=["sft", "opd", "rlvr"])
    assert [points(line) for line in ax.lines[:2]] == [[[0.5, 1]], [[0.7, 2], [0.9, 2]]]
    assert ax.get_legend_handles_labels()[1] == ["paper, 8B"]


def test_a_bound_of_the_paper_is_an_arrow_head(ax):
    draw_paper(ax, {"sft": (10, math.inf), "rlvr": (0, 0.5)}, runs=["sft", "opd", "rlvr"])
    assert [(points(line), line.get_marker()) for line in ax.lines[:2]] == [
        ([[10, 0]], ">"),
        ([[0.5, 2]], "<"),
    ]


def test_the_shade_is_what_a_mask_can_overlap(ax):
    draw_reach_curve(ax, alpha=0.3)
    outline = ax.collections[0].get_paths()[0].vertices
    for density, overlap in outline:
        nearest = min(overlap_bounds(0.3, density), key=lambda bound: abs(bound - overlap))
        assert overlap == pytest.approx(nearest, abs=1e-6)
    assert (outline[:, 1].min(), outline[:, 1].max()) == (0, 1)


def test_an_overlap_is_drawn_with_chance_its_null_and_its_reach(ax):
    ends = {("opd", 0, 9): 0.4, ("opd", 1, 9): 0.5}
    overlap = rows("low_magnitude_overlap", ends, 0.3)
    density = rows("update_density", dict.fromkeys(ends, 0.8))
    null = overlap.assign(null="permuted", value=0.42)
    matrices = pd.concat([overlap, density])
    results = Results(study=get_profile("smoke"), tables={"matrices": matrices, "nulls": null})
    draw_overlap(ax, results, "low_magnitude", alpha=0.3, runs=["opd"], modules=["q"], paper={})
    at = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata())]
    assert {0.3, 0.42, 0.45} <= {round(x, 6) for x in at}
    bar, (low, high) = ax.patches[0], overlap_bounds(0.3, 0.8)
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((low, high))


def test_the_axis_of_principal_overlaps_holds_every_mark_and_no_more(ax):
    ends = {("opd", 0, 9): 0.27, ("rlvr", 0, 9): 0.268}
    overlap = rows("principal_overlap", ends, 0.3)
    matrices = pd.concat([overlap, rows("update_density", dict.fromkeys(ends, 0.5))])
    null = overlap.assign(null="permuted", value=0.25)
    results = Results(study=get_profile("smoke"), tables={"matrices": matrices, "nulls": null})
    which = {"runs": ["opd", "rlvr"], "modules": ["q"], "paper": {"opd": 0.2731}}
    draw_overlap(ax, results, "principal", alpha=0.3, **which)
    low, high = ax.get_xlim()
    assert 0.24 < low < 0.25 < 0.3 < high < 0.31
    assert "paper, 8B" in ax.get_legend_handles_labels()[1]


def test_a_plane_shows_the_mean_path_of_the_seeds_and_one_point_a_null(ax):
    frame = pd.DataFrame({"run": "opd", "seed": [0, 1, 0, 1], "step": [4, 4, 8, 8]})
    frame["x"], frame["y"] = [1.0, 3.0, 4.0, 6.0], [0.1, 0.3, 0.4, 0.6]
    null = frame[frame["step"] == 8].assign(null="permuted")
    draw_plane(ax, frame, x="x", y="y", nulls=null)
    np.testing.assert_allclose(points(ax.lines[0]), [[2, 0.2], [5, 0.5]])
    assert points(ax.lines[1]) == [[5, 0.5]]
    with pytest.raises(ValueError, match=r"no y of run 'rlvr'; there are \['opd'\]"):
        draw_plane(ax, frame, x="x", y="y", runs=["rlvr"])


def test_block_density_is_the_share_of_each_block_and_keeps_the_whole():
    mask = np.zeros((4, 6), dtype=bool)
    mask[:2, :3] = True
    assert_allclose(block_density(mask, 2), [[1, 0], [0, 0]])
    assert block_density(mask, 100).tolist() == mask.astype(float).tolist()
    odd = np.random.default_rng(0).random((7, 5)) < 0.4
    shares = block_density(odd, 3)
    assert shares.shape == (3, 3)
    assert shares.min() >= 0
    assert shares.max() <= 1


def test_lines_that_are_fuller_than_others_spread_more_than_independent_entries():
    rng = np.random.default_rng(0)
    independent = rng.random((400, 300)) < 0.3
    assert_allclose([line_spread(independent, axis) for axis in (0, 1)], 1, atol=0.25)
    rows = rng.random((400, 300)) < np.where(np.arange(400) % 2, 0.1, 0.5)[:, None]
    assert line_spread(rows, 0) > 20
    assert line_spread(rows, 1) < 1.5
    assert np.isnan(line_spread(np.ones((3, 3), dtype=bool), 0))


def test_a_mask_comes_back_from_its_table_and_its_density_is_described():
    rng = np.random.default_rng(1)
    planted = rng.random((8, 8)) < 0.5
    row, column = np.indices(planted.shape)
    masks = pd.DataFrame({"run": "opd", "row": row.ravel(), "column": column.ravel()})
    masks["update"] = planted.ravel()
    assert (mask_of(masks.sample(frac=1, random_state=0), "opd", "update") == planted).all()
    with pytest.raises(ValueError, match=r"no masks of run 'ppo'; there are \['opd'\]"):
        mask_of(masks, "ppo", "update")
    fig, ax = plt.subplots()
    half = np.zeros((8, 8), dtype=bool)
    half[:4, :2] = True
    draw_density(ax, half, OPD)
    assert alt_text(fig, "A.") == "A. Density of 8 × 8 blocks 0 to 1; columns 0 to 0.5; rows 0 to 0.25."


@pytest.mark.parametrize("stored", [1.0, -1.0, 0.0376, 1.9921875])
def test_a_cell_reaches_halfway_to_both_neighbours(stored):
    stored = np.float64(bf16(stored))
    low, high = cell(float(stored))
    assert low < stored < high
    assert [bf16(low + 1e-6 * abs(low)), bf16(high - 1e-6 * abs(high))] == [stored, stored]
    place = NUMBERS.tolist().index(stored)
    assert bf16(high + 1e-6 * abs(high)) == NUMBERS[place + 1]
    assert bf16(low - 1e-6 * abs(low)) == NUMBERS[place - 1]
    with pytest.raises(ValueError, match="is not a bf16 number"):
        cell(float(stored) * (1 + 1e-5))


def test_zero_lies_between_the_smallest_numbers():
    assert cell(0.0) == (-(2.0**-134), 2.0**-134)


def bf16(value: float) -> float:
    return torch.tensor([value], dtype=torch.float64).bfloat16().double().item()


def journeys(values: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame({"run": "opd", "k": 0.5, "step": range(len(values)), "value": values})
    return frame.assign(stored=frame["value"].map(bf16))


def test_a_journey_says_when_bf16_first_shows_it():
    fig, axes = plt.subplots(1, 4)
    gap = 2.0**-7
    draw_journey(axes[0], journeys([1.0, 1 + 0.4 * gap, 1 + 0.3 * gap]), "opd", 0.5)
    draw_journey(axes[1], journeys([1.0, 1 + 0.4 * gap, 1 + 0.6 * gap]), "opd", 0.5)
    draw_journey(axes[2], journeys([1.0, 1 + 0.6 * gap, 1 + 0.2 * gap]), "opd", 0.5)
    draw_journey(axes[3], journeys([1.0]), "rlvr", 0.5)
    titles = [ax.get_title() for ax in axes]
    assert titles == ["never shows", "shows at 100 %", "shows at 50 % and back", ""]
    assert "OPD in half gaps 0 to 1.2" in alt_text(fig, "A.")
    assert axes[1].get_ylim() == (-0.5 - 0.5, 2 + 0.5)  # below 1, the gap is half as wide
    assert axes[3].texts[0].get_text() == "no weight of RLVR was followed"
