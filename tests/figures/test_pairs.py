"""Masks of two runs stand beside those of chance, and layers that rotate are told from the others."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib.figures.pairs import (
    draw_cosines,
    draw_jaccard,
    draw_rotated,
    draw_shared,
    pair_values,
)
from paper_lib.figures.styles import PURPLE


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def places(ax) -> list[list[float]]:
    """Of every marker that stands alone."""
    return [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]


def pairs(values: dict[tuple, float], metric: str, seeds=(0,)) -> pd.DataFrame:
    """Rows from {(run, other, layer): value}."""
    keys = [(*key, seed, value) for key, value in values.items() for seed in seeds]
    frame = pd.DataFrame(keys, columns=["run", "other", "layer", "seed", "value"])
    return frame.assign(module="q", metric=metric)


def shared(values: dict[tuple, float]) -> pd.DataFrame:
    nulls = (("jaccard", 1.0), ("jaccard_chance", 0.5), ("jaccard_rounding", 0.8))
    return pd.concat([pairs({k: s * v for k, v in values.items()}, metric) for metric, s in nulls])


def test_masks_of_two_runs_stand_by_what_they_share_beyond_rounding_and_probes_are_left_out(ax):
    table = shared({("opd", "opd", 0): 0.6, ("opd", "rlvr", 0): 0.4, ("opd", "opd_256x1", 0): 0.9})
    draw_jaccard(ax, table, modules=["q"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD, next seed", "OPD – RLVR"]
    np.testing.assert_allclose(places(ax), [[12, 0], [8, 1]])
    assert "rounding alone" in ax.get_legend_handles_labels()[1]


def test_updates_stand_by_their_cosine_and_rotated_heads_are_left_out(ax):
    values = {("opd", "opd", 0): 0.6, ("opd", "rlvr", 0): 0.8, ("opd", "opd_rotated", 0): 0.7}
    draw_cosines(ax, pairs(values, "update_cosine"), modules=["q"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD – RLVR", "OPD, next seed"]
    assert places(ax) == [[0.8, 0], [0.6, 1]]


def test_rotated_layers_are_told_from_the_others_and_their_absence_is_said(ax):
    table = shared({("opd", "opd_rotated", 0): 0.6, ("opd", "opd_rotated", 1): 0.2})
    draw_rotated(ax, table, (1,))
    found = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_color() == PURPLE]
    np.testing.assert_allclose(found, [[4, 0], [12, 1]])
    empty = plt.subplots()[1]
    draw_rotated(empty, table, ())
    assert not empty.axison
    assert empty.texts[0].get_text() == "no run with rotated heads"


def test_what_seeds_share_is_marked_beside_the_end(ax):
    values = {("opd", "opd", 0): 0.2, ("opd", "rlvr", 0): 0.1, ("opd", "sft_matched", 0): 0.3}
    table = pairs(values, "subspace_alignment")
    draw_shared(ax, table, runs=["opd", "rlvr", "sft_matched"], modules=["q"])
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
    assert heights == [0.2, 0.1, 0.3]
    words = ax.get_legend_handles_labels()[1]
    assert words == ["with its next seed", "OPD with RLVR", "OPD with SFT, matched"]
    assert pair_values(table, ("opd", "rlvr"), "jaccard").empty
