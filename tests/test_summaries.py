"""Averages: matrices count equally, sparsity counts parameters, seeds come last."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.geometry.sparsity import overlap_bounds
from paper_lib.summaries import (
    ANGLE_MEAN,
    ATTENTION,
    MODULE_GROUPS,
    at_end,
    distance,
    mean_angles,
    over_matrices,
    over_seeds,
    overlap_range,
    rows_of_metric,
    seed_spread,
)


def table(metric: str, values: dict[tuple, float], k: float = np.nan) -> pd.DataFrame:
    """Rows from {(run, seed, step, module): value}, all in layer 0."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step", "module"])
    return keys.assign(layer=0, metric=metric, k=k, value=list(values.values()))


SIZES = table("parameters", {("opd", 0, 12, "q"): 100, ("opd", 0, 12, "up"): 300})


def test_matrices_count_equally_whatever_their_size():
    ranks = table("stable_rank", {("opd", 0, 12, "q"): 2.0, ("opd", 0, 12, "up"): 4.0})
    mean = over_matrices(pd.concat([ranks, SIZES]), "stable_rank")
    assert mean.to_dict("records") == [{"run": "opd", "seed": 0, "step": 12, "value": 3.0}]


def test_a_rotation_is_the_mean_angle_of_both_sides_whatever_their_k():
    sides = {("u", "q"): (0.1, 16), ("v", "q"): (0.3, 16), ("u", "k"): (0.5, 8), ("v", "k"): (0.7, 8)}
    rows = [
        table(f"angle_{side}_mean", {("opd", 0, 12, module): angle}, k)
        for (side, module), (angle, k) in sides.items()
    ]
    angles = pd.concat([*rows, SIZES])
    assert over_matrices(angles, ANGLE_MEAN)["value"].item() == pytest.approx(0.4)
    assert over_matrices(angles, ANGLE_MEAN, modules=("q",))["value"].item() == pytest.approx(0.2)
    assert over_matrices(mean_angles(angles), ANGLE_MEAN)["value"].item() == pytest.approx(0.4)
    assert mean_angles(SIZES).empty
    with pytest.raises(ValueError, match="no metric 'angle_mean'"):
        over_matrices(SIZES, ANGLE_MEAN)


def test_sparsity_is_the_unchanged_share_of_all_weights_together():
    sparsity = table("update_sparsity", {("opd", 0, 12, "q"): 0.5, ("opd", 0, 12, "up"): 0.9})
    mean = over_matrices(pd.concat([sparsity, SIZES]), "update_sparsity")
    assert mean["value"].item() == pytest.approx((50 + 270) / 400)


def test_nulls_stay_apart_and_borrow_the_sizes():
    sparsity = table("update_sparsity", {("opd", 0, 12, "q"): 0.5, ("opd", 0, 12, "up"): 0.9})
    nulls = pd.concat(
        [sparsity.assign(null="permuted"), sparsity.assign(null="same_norm_gaussian", value=0.2)]
    )
    means = over_matrices(nulls, "update_sparsity", sizes=SIZES).set_index("null")["value"]
    assert means.to_dict() == pytest.approx({"permuted": 0.8, "same_norm_gaussian": 0.2})
    with pytest.raises(ValueError, match="pass sizes="):
        over_matrices(nulls, "update_sparsity")


def test_a_matrix_without_a_value_is_left_out():
    overlap = table("principal_overlap", {("opd", 0, 12, "q"): np.nan, ("opd", 0, 12, "up"): 0.25}, k=0.3)
    assert over_matrices(overlap, "principal_overlap")["value"].item() == 0.25


def test_modules_and_k_choose_rows():
    values = {("opd", 0, 12, "q"): 1.0, ("opd", 0, 12, "up"): 3.0}
    both = pd.concat([table("overlap", values, k=0.3), table("overlap", values, k=0.5).assign(value=7.0)])
    assert over_matrices(both, "overlap", k=0.3, modules=ATTENTION)["value"].item() == 1.0
    with pytest.raises(ValueError, match=r"overlap is there for k in \[.*0\.3.*0\.5.*\]: name one"):
        over_matrices(both, "overlap")
    with pytest.raises(ValueError, match=r"no overlap at k = 0\.4"):
        over_matrices(both, "overlap", k=0.4)
    with pytest.raises(ValueError, match=r"no overlap of modules \['gate'\]"):
        over_matrices(both, "overlap", k=0.3, modules=["gate"])
    with pytest.raises(ValueError, match="no metric 'rank' in the table; it has"):
        over_matrices(both, "rank")


def test_curves_need_no_matrices():
    curve = pd.DataFrame(
        {"run": "opd", "seed": [0, 0], "step": [0, 12], "metric": "loss", "value": [2.0, 1.0]}
    )
    assert over_matrices(curve, "loss")["value"].tolist() == [2.0, 1.0]


def test_seeds_give_mean_extremes_and_interval():
    summary = pd.DataFrame({"run": "opd", "seed": [0, 1, 2], "step": 12, "value": [1.0, 2.0, 3.0]})
    spread = over_seeds(summary).iloc[0]
    assert (spread["mean"], spread["low"], spread["high"], spread["seeds"]) == (2.0, 1.0, 3.0, 3)
    reach = 4.302652729911275 / np.sqrt(3)
    interval = over_seeds(summary, level=0.95).iloc[0]
    assert (interval["low"], interval["high"]) == pytest.approx((2 - reach, 2 + reach))


def test_one_seed_has_no_interval_and_no_value_has_no_mean():
    one = pd.DataFrame({"run": "opd", "seed": [0, 1], "step": 12, "value": [1.0, np.nan]})
    assert over_seeds(one, level=0.95)[["low", "high"]].isna().all(axis=None)
    assert over_seeds(one)["seeds"].item() == 1
    none = over_seeds(one.assign(value=np.nan))
    assert none[["mean", "low", "high"]].isna().all(axis=None)


def test_the_end_is_each_runs_own_last_step():
    summary = pd.DataFrame({"run": ["sft", "sft", "opd"], "seed": 0, "step": [120, 240, 120], "value": 1.0})
    assert at_end(summary)["step"].tolist() == [240, 120]


def test_the_range_of_an_overlap_is_averaged_over_matrices_as_the_overlap_is():
    densities = {("sft", 0, 12, "q"): 0.95, ("sft", 0, 12, "up"): 0.85, ("sft", 0, 12, "down"): 0.0}
    found = overlap_range(table("update_density", densities), alpha=0.3).iloc[0]
    bounds = np.array([overlap_bounds(0.3, 0.95), overlap_bounds(0.3, 0.85)])
    assert (found["low"], found["high"]) == pytest.approx(tuple(bounds.mean(0)))
    attention = overlap_range(table("update_density", densities), alpha=0.3, modules=ATTENTION).iloc[0]
    assert attention["low"] == pytest.approx(0.25 / 0.95)
    with pytest.raises(ValueError, match="no update_density of these modules"):
        overlap_range(table("update_density", densities), alpha=0.3, modules=["gate"])


def test_recall_is_the_visible_share_of_a_masks_weights():
    update = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    mask = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    both, place = (mask & update).sum(), ("opd", 0, 12, "q")
    rows = [
        table(
            "low_magnitude_overlap", {place: both / update.sum(), (*place[:3], "k"): np.nan}, k=mask.mean()
        ),
        table("update_density", {place: update.mean(), (*place[:3], "k"): 0.0}),
    ]
    recall = rows_of_metric(pd.concat(rows), "low_magnitude_recall").set_index("module")
    assert recall["value"].to_dict() == pytest.approx({"q": both / mask.sum(), "k": 0.0})
    assert set(recall["k"]) == {mask.mean()}


def test_attention_and_mlp_make_up_all_modules():
    assert set(MODULE_GROUPS["all"]) == set(MODULE_GROUPS["attention"]) | set(MODULE_GROUPS["mlp"])
    assert not set(MODULE_GROUPS["attention"]) & set(MODULE_GROUPS["mlp"])


def test_distance_is_the_log_of_a_constant_factor_whatever_the_snapshots():
    path = pd.DataFrame({0: [2.0, 2.0, 2.0, 2.0]}, index=[0.25, 0.5, 0.75, 1.0])
    other = pd.DataFrame({0: [3.0, 3.0], 1: [9.0, 9.0]}, index=[0.5, 1.0])
    assert distance(path, other).to_dict() == pytest.approx({0: np.log(1.5)})


def test_seeds_that_move_two_runs_alike_do_not_move_their_distance():
    path = pd.DataFrame({0: [2.0, 2.0], 1: [6.0, 6.0]}, index=[0.5, 1.0])
    assert seed_spread(path, 5 * path) == pytest.approx(0, abs=1e-12)
    assert np.isnan(seed_spread(path[[0]], path))
    assert seed_spread(path, pd.DataFrame(1.0, index=path.index, columns=[0, 1])) == pytest.approx(
        np.log(3) / np.sqrt(2)
    )
