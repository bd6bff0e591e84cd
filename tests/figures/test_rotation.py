"""Angles in degrees, paths in their own units, and an animation that ends in its picture."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from paper_lib.figures.rotation import (
    animate_paths,
    draw_angles,
    draw_explained_variance,
    draw_layers,
    draw_paths,
)
from paper_lib.figures.save import LONGEST, save_animation
from paper_lib.figures.styles import RLVR
from paper_lib.ground.errors import CompanionError

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
    with pytest.raises(ValueError, match=r"no value of run 'sft'; there are \['opd'\]"):
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


def trajectories(runs=("opd", "rlvr"), metric="joint_pca_coordinate") -> pd.DataFrame:
    """Three snapshots each: (0, 0), (1, y), (2, 0), with y = 1 for the first run, 2 for the second."""
    rows = [
        (run, 0, step, metric, k, value)
        for y, run in enumerate(runs, 1)
        for step, point in ((0, (0.0, 0.0)), (10, (1.0, y)), (20, (2.0, 0.0)))
        for k, value in enumerate((*point, 9.0), 1)
    ]
    return pd.DataFrame(rows, columns=["run", "seed", "step", "metric", "k", "value"])


def test_a_path_is_interpolated_between_snapshots_and_dotted_at_those_it_has_passed():
    ax = plt.subplots()[1]
    draw = animate_paths(ax, trajectories(), runs=["opd", "rlvr"], seed=0)
    limits = ax.get_xlim(), ax.get_ylim()
    draw(0.75)
    passed, trace, head = [line for line in ax.lines if line.get_color() == RLVR][:3]
    assert_allclose(trace.get_xydata(), [[0, 0], [1, 2], [1.5, 1]])
    assert_allclose(passed.get_xydata(), [[1, 2]])
    assert_allclose(head.get_xydata(), [[1.5, 1]])
    assert (ax.get_xlim(), ax.get_ylim()) == limits
    with pytest.raises(ValueError, match="no joint_pca_coordinate of run 'sft', seed 0"):
        animate_paths(ax, trajectories(), runs=["sft"], seed=0)


def saved(folder, **options):
    fig, ax = plt.subplots(figsize=(3, 2), layout="constrained")
    draw = animate_paths(ax, trajectories(), runs=["opd", "rlvr"], seed=0)
    words = {"caption": "Two paths.", "seconds": 0.5} | options
    return save_animation(fig, "fig_path", folder, draw=draw, inputs=[], **words)


def test_an_animation_is_short_plays_once_and_comes_with_its_last_frame_and_words(tmp_path):
    gif = saved(tmp_path)
    assert sorted(path.name for path in gif.parent.iterdir()) == [
        *("fig_path.gif", "fig_path.json", "fig_path.png")
    ]
    about = json.loads(gif.with_suffix(".json").read_text())
    assert (
        about["alt"] == "Two paths. X: component 1 (weight units), y: component 2 (weight units): "
        "OPD (0, 0) to (2, 0); RLVR (0, 0) to (2, 0)."
    )
    assert set(about["files"]) == {"fig_path.gif", "fig_path.png"}
    frames = Image.open(gif)
    assert frames.n_frames == 6
    assert "loop" not in frames.info
    assert frames.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    lasting = 0.0
    for number in range(frames.n_frames):
        frames.seek(number)
        lasting += frames.info["duration"] / 1000
    assert lasting <= LONGEST


def test_an_animation_is_the_same_bytes_twice(tmp_path):
    first, second = saved(tmp_path / "a" / "smoke"), saved(tmp_path / "b" / "smoke")
    for suffix in (".gif", ".png", ".json"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


def test_an_animation_without_a_caption_or_too_long_is_refused(tmp_path):
    with pytest.raises(CompanionError, match="figure fig_path has no caption"):
        saved(tmp_path, caption="")
    with pytest.raises(ValueError, match=r"seconds is 20, expected in \(0, 8.5\]"):
        saved(tmp_path, seconds=20)
    assert not any(tmp_path.iterdir())
