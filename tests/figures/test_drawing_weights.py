"""What the figures of sparsity and rotation draw is what the tables hold, in the units on the axes."""

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib.figures.rotation import draw_angles, draw_explained_variance, draw_layers, draw_paths
from paper_lib.figures.weights import (
    draw_mask,
    draw_overlap,
    draw_paper,
    draw_plane,
    draw_reach,
    draw_reach_curve,
)
from paper_lib.geometry.sparsity import overlap_bounds

mpl.use("agg")


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


def test_a_bar_reaches_from_the_least_to_the_most_possible_overlap(ax):
    ranges = pd.DataFrame({"run": ["opd", "opd"], "low": [0.1, 0.3], "high": [0.5, 0.7]})
    draw_reach(ax, ranges, runs=["opd"])
    bar = ax.patches[0]
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((0.2, 0.6))


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
    draw_overlap(ax, matrices, null, "low_magnitude", alpha=0.3, runs=["opd"], modules=["q"])
    assert ax.get_title() == "low magnitude\n" + r"$\alpha$ = 0.3"
    at = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata())]
    assert {0.3, 0.42, 0.45} <= {round(x, 6) for x in at}
    assert ax.patches[0].get_width() == pytest.approx(0.3 / 0.8 - 0.1 / 0.8)


def test_the_axis_of_principal_overlaps_holds_every_mark_and_no_more(ax):
    ends = {("opd", 0, 9): 0.27, ("rlvr", 0, 9): 0.268}
    overlap = rows("principal_overlap", ends, 0.3)
    matrices = pd.concat([overlap, rows("update_density", dict.fromkeys(ends, 0.5))])
    null = overlap.assign(null="permuted", value=0.25)
    draw_overlap(
        ax, matrices, null, "principal", alpha=0.3, runs=["opd", "rlvr"], modules=["q"], paper={"opd": 0.2731}
    )
    low, high = ax.get_xlim()
    assert 0.24 < low < 0.25 < 0.3 < high < 0.31
    assert "paper, 8B" in ax.get_legend_handles_labels()[1]


def test_a_mask_is_shown_as_it_is_and_the_weights_in_four_kinds(ax):
    places = [(r, c) for r in range(3) for c in range(3)]
    masks = pd.DataFrame(places, columns=["row", "column"]).assign(run="opd")
    masks["update"] = masks["row"] == masks["column"]
    masks["principal"], masks["low_magnitude"] = masks["row"] == 0, masks["column"] == 1
    draw_mask(ax, masks, "opd", window=2)
    assert ax.images[0].get_array().tolist() == [[1, 0], [0, 1]]
    draw_mask(ax, masks, "opd", window=2, of="weights")
    assert ax.images[1].get_array().tolist() == [[1, 3], [0, 2]]
    with pytest.raises(ValueError, match=r"no masks of run 'sft'; there are \['opd'\]"):
        draw_mask(ax, masks, "sft", window=2)


def test_a_plane_shows_the_mean_path_of_the_seeds_and_one_point_a_null(ax):
    frame = pd.DataFrame({"run": "opd", "seed": [0, 1, 0, 1], "step": [4, 4, 8, 8]})
    frame["x"], frame["y"] = [1.0, 3.0, 4.0, 6.0], [0.1, 0.3, 0.4, 0.6]
    null = frame[frame["step"] == 8].assign(null="permuted")
    draw_plane(ax, frame, x="x", y="y", nulls=null)
    np.testing.assert_allclose(points(ax.lines[0]), [[2, 0.2], [5, 0.5]])
    assert points(ax.lines[1]) == [[5, 0.5]]
    with pytest.raises(ValueError, match=r"no y of run 'rlvr'; there are \['opd'\]"):
        draw_plane(ax, frame, x="x", y="y", runs=["rlvr"])


def test_angles_are_drawn_in_degrees_by_index_and_by_layer(ax):
    by_index = pd.concat(
        [
            rows("angle_u", {("opd", seed, 8): angle}, k)
            for k, angle in ((1, 0.1), (2, 0.2))
            for seed in (0, 1)
        ]
    )
    draw_angles(ax, by_index, "u", runs=["opd"])
    np.testing.assert_allclose(points(ax.lines[0]), [[1, math.degrees(0.1)], [2, math.degrees(0.2)]])
    largest = rows("angle_u_max", {("opd", 0, 8): 0.1})
    draw_layers(ax, pd.concat([largest, largest.assign(layer=1, value=0.3)]), "angle_u_max", runs=["opd"])
    np.testing.assert_allclose(points(ax.lines[-1]), [[0, math.degrees(0.1)], [1, math.degrees(0.3)]])
    with pytest.raises(ValueError, match=r"nothing of run 'sft' here; there are \['opd'\]"):
        draw_angles(ax, by_index, "u", runs=["sft"])


def path(metric: str, first: list[float], second: list[float]) -> pd.DataFrame:
    steps = range(len(first))
    pair = [
        rows(metric, {("opd", 0, s): v for s, v in zip(steps, c, strict=True)}, k)
        for k, c in ((1, first), (2, second))
    ]
    return pd.concat(pair)


def test_a_joint_path_keeps_its_units_and_an_own_path_is_in_spreads(ax):
    draw_paths(
        ax,
        path("joint_pca_coordinate", [0, 2, 4], [1, 0, 1]),
        runs=["opd"],
        seed=0,
        metric="joint_pca_coordinate",
    )
    assert points(ax.lines[0]) == [[0, 1], [2, 0], [4, 1]]
    assert ax.get_aspect() == 1
    own = path("pca_coordinate", [-2, 0, 2], [1, 0, 1])
    draw_paths(ax, own, runs=["opd"], seed=0, null=own.assign(null="random_walk"))
    np.testing.assert_allclose(points(ax.lines[2]), [[-1, 0.5], [0, 0], [1, 0.5]])
    assert "random walk" in ax.get_legend_handles_labels()[1]
    with pytest.raises(ValueError, match="no pca_coordinate of run 'opd', seed 3"):
        draw_paths(ax, own, runs=["opd"], seed=3)


def test_shares_are_means_over_seeds_beside_those_of_the_walk(ax):
    share = [rows("explained_variance_ratio", {("opd", seed, 8): v}, 1.0) for seed, v in ((0, 0.8), (1, 0.9))]
    table = pd.concat([*share, rows("explained_variance_ratio", {("opd", 0, 8): 0.1}, 2.0)])
    walk = table.assign(null="random_walk", value=0.6)
    draw_explained_variance(
        ax, table, pd.concat([walk, walk.assign(null="permuted", value=7.0)]), runs=["opd"]
    )
    np.testing.assert_allclose(points(ax.lines[0]), [[1, 0.85], [2, 0.1]])
    np.testing.assert_allclose(points(ax.lines[1]), [[1, 0.6], [2, 0.6]])
