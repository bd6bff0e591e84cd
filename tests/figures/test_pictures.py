"""Masks as density, journeys through bf16 and animated paths: what they draw is what was planted."""

import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

from paper_lib.errors import CompanionError
from paper_lib.figures.rotation import animate_paths
from paper_lib.figures.save import LONGEST, save_animation
from paper_lib.figures.styles import OPD, RLVR
from paper_lib.figures.weights import (
    block_density,
    cell,
    draw_density,
    draw_journey,
    draw_update_density,
    line_spread,
    mask_of,
    neighbour,
)
from paper_lib.figures.words import alt_text

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("fresh_figures")


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
        draw_update_density(plt.subplots()[1], masks, "ppo")
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
    assert bf16(high + 1e-6 * abs(high)) == neighbour(float(stored), 1)
    assert bf16(low - 1e-6 * abs(low)) == neighbour(float(stored), -1)
    with pytest.raises(ValueError, match="is not a bf16 number"):
        cell(float(stored) * (1 + 1e-5))


def test_zero_lies_between_the_smallest_numbers():
    assert cell(0.0) == (-(2.0**-134), 2.0**-134)
    assert neighbour(neighbour(0.0, 1), -1) == neighbour(neighbour(0.0, -1), 1) == 0


def bf16(value: float) -> float:
    return torch.tensor([value], dtype=torch.float64).bfloat16().double().item()


def journeys(values: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame({"run": "opd", "k": 0.5, "step": range(len(values)), "value": values})
    return frame.assign(stored=frame["value"].map(bf16))


def test_a_journey_says_when_bf16_first_shows_it():
    fig, axes = plt.subplots(1, 4)
    gap = neighbour(1.0, 1) - 1.0
    draw_journey(axes[0], journeys([1.0, 1 + 0.4 * gap, 1 + 0.3 * gap]), "opd", 0.5)
    draw_journey(axes[1], journeys([1.0, 1 + 0.4 * gap, 1 + 0.6 * gap]), "opd", 0.5)
    draw_journey(axes[2], journeys([1.0, 1 + 0.6 * gap, 1 + 0.2 * gap]), "opd", 0.5)
    draw_journey(axes[3], journeys([1.0]), "rlvr", 0.5)
    titles = [ax.get_title() for ax in axes]
    assert titles == ["never shows", "shows at 100 %", "shows at 50 % and back", ""]
    assert "OPD ends 1.2 half gaps away, 1." in alt_text(fig, "A.")
    assert axes[3].texts[0].get_text() == "no weight of RLVR was followed"


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
    return save_animation(fig, "fig_path", folder, draw=draw, profile="smoke", inputs=[], **words)


def test_an_animation_is_short_plays_once_and_comes_with_its_last_frame_and_words(tmp_path):
    gif = saved(tmp_path)
    assert sorted(path.name for path in gif.parent.iterdir()) == [
        *("fig_path.gif", "fig_path.json", "fig_path.png")
    ]
    about = json.loads(gif.with_suffix(".json").read_text())
    assert (
        about["alt"]
        == "Two paths. X: component 1, y: component 2: OPD (0, 0) to (2, 0); RLVR (0, 0) to (2, 0)."
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
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b")
    for suffix in (".gif", ".png", ".json"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


def test_an_animation_without_a_caption_or_too_long_is_refused(tmp_path):
    with pytest.raises(CompanionError, match="figure fig_path has no caption"):
        saved(tmp_path, caption="")
    with pytest.raises(ValueError, match=r"seconds is 20, expected in \(0, 8.5\]"):
        saved(tmp_path, seconds=20)
    assert not any(tmp_path.iterdir())
