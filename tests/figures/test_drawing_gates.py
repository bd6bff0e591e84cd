"""What the figures of the gates, of pairs and of projections draw is what the tables hold."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib.figures.gates import (
    draw_curvature,
    draw_kl_and_norm,
    draw_prediction,
    draw_principal_energy,
    draw_tolerances,
)
from paper_lib.figures.pairs import draw_jaccard, draw_rotated, draw_shared, named_pairs, pair_values
from paper_lib.figures.projected import accuracy_change, draw_change, draw_share_inside, projected_runs
from paper_lib.figures.styles import OPD, PURPLE
from paper_lib.study.profiles import get_profile

mpl.use("agg")
REACH = 4.302653 / np.sqrt(3)  # Student's half width of three values at a standard deviation of 1


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def rows(metric: str, values: dict[tuple, float], k: float = np.nan) -> pd.DataFrame:
    """Rows of q in layer 0 from {(run, seed, step): value}."""
    keys = pd.DataFrame(list(values), columns=["run", "seed", "step"])
    return keys.assign(layer=0, module="q", metric=metric, k=k, value=list(values.values()))


def places(ax) -> list[list[float]]:
    """Of every marker that stands alone."""
    return [line.get_xydata()[0].tolist() for line in ax.lines if len(line.get_xdata()) == 1]


def test_gate_i_has_the_squared_norm_of_all_matrices_and_the_line_of_its_curvature(ax):
    kl = rows("forward_kl", {("opd", 0, 5): 0.1, ("opd", 0, 10): 0.4, ("rlvr", 0, 10): 0.3})
    norm = rows("frobenius_norm", {("opd", 0, 5): 1.0, ("opd", 0, 10): 2.0, ("rlvr", 0, 10): 3.0})
    mu = pd.DataFrame({"run": ["opd"], "metric": "curvature", "direction": "update", "value": 0.2})
    matrices = pd.concat([norm, norm.assign(layer=1)])
    draw_kl_and_norm(ax, kl, matrices, mu, runs=["sft", "opd"])
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["OPD"], [[2, 0.1], [8, 0.4]])
    np.testing.assert_allclose(lines["other runs, at their end"], [[18, 0.3]])
    bound = next(line for line in ax.lines if line.get_linestyle() == "--" and line.get_color() == OPD)
    np.testing.assert_allclose(bound.get_ydata(), bound.get_xdata() * 0.1)


def test_curvature_has_a_row_a_direction_and_the_interval_of_three_seeds(ax):
    start = [("start", seed, "principal", value) for seed, value in enumerate((9.0, 10.0, 11.0))]
    table = pd.DataFrame([*start, ("opd", 0, "update", 5.0)], columns=["run", "seed", "direction", "value"])
    draw_curvature(ax, table.assign(metric="curvature"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["principal", "OPD, update (n = 1)"]
    assert places(ax) == [[10, 0], [5, 1]]
    bar = next(line for line in ax.lines if len(line.get_xdata()) == 2)
    np.testing.assert_allclose(bar.get_xdata().astype(float), [10 - REACH, 10 + REACH], rtol=1e-6)


def test_energy_is_over_that_of_chance(ax):
    end = {("opd", 0, 9): 0.2, ("rlvr", 0, 9): 0.05}
    table = pd.concat(
        [rows("principal_energy", end, 4), rows("principal_energy_chance", dict.fromkeys(end, 0.1), 4)]
    )
    draw_principal_energy(ax, table, runs=["sft", "opd", "rlvr"])
    assert places(ax) == [[2, 0], [0.5, 1]]


def test_predicted_stands_against_observed_density(ax):
    named = {"predicted_density": 0.3, "independent_density": 0.4, "update_density": 0.35}
    end = [rows(metric, {("opd", 0, 9): value, ("opd", 0, 3): 9.0}) for metric, value in named.items()]
    draw_prediction(ax, pd.concat(end), runs=["opd"])
    assert places(ax)[:2] == [[0.3, 0.35], [0.4, 0.35]]


def test_sparsity_over_tolerance_puts_zero_at_the_left_edge(ax):
    table = [rows("update_sparsity_bfloat16", {("opd", 0, 9): s}, k) for k, s in ((0, 0.5), (3e-3, 0.6))]
    draw_tolerances(ax, pd.concat(table), "opd", eta=1e-3)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1e-3, 0.5], [3e-3, 0.6]])


def pairs(values: dict[tuple, float], metric: str, seeds=(0,)) -> pd.DataFrame:
    """Rows from {(run, other, layer): value}."""
    keys = [(*key, seed, value) for key, value in values.items() for seed in seeds]
    frame = pd.DataFrame(keys, columns=["run", "other", "layer", "seed", "value"])
    return frame.assign(module="q", metric=metric)


def shared(values: dict[tuple, float]) -> pd.DataFrame:
    nulls = (("jaccard", 1.0), ("jaccard_chance", 0.5), ("jaccard_rounding", 0.8))
    return pd.concat([pairs({k: s * v for k, v in values.items()}, metric) for metric, s in nulls])


def test_masks_of_two_runs_stand_above_their_two_nulls(ax):
    table = shared({("opd", "opd", 0): 0.6, ("opd", "rlvr", 0): 0.4})
    assert named_pairs(table) == [("opd", "rlvr"), ("opd", "opd")]
    draw_jaccard(ax, table, modules=["q"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD – RLVR", "OPD, next seed"]
    np.testing.assert_allclose(
        places(ax), [[0.4, 0], [0.2, 0.3], [0.32, 0.3], [0.6, 1], [0.3, 1.3], [0.48, 1.3]]
    )


def test_rotated_layers_are_told_from_the_others_and_their_absence_is_said(ax):
    table = shared({("opd", "opd_rotated", 0): 0.6, ("opd", "opd_rotated", 1): 0.2})
    draw_rotated(ax, table, (1,))
    found = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_color() == PURPLE]
    assert found == [[0.2, 0], [0.6, 1]]
    empty = plt.subplots()[1]
    draw_rotated(empty, table, ())
    assert not empty.axison
    assert empty.texts[0].get_text() == "no run with rotated heads"


def test_what_seeds_share_is_marked_beside_the_end(ax):
    table = pairs({("opd", "opd", 0): 0.2, ("opd", "rlvr", 0): 0.1}, "subspace_alignment")
    draw_shared(ax, table, runs=["opd", "rlvr"], modules=["q"])
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
    assert heights == [0.2, 0.1]
    assert pair_values(table, ("opd", "rlvr"), "jaccard").empty


def projected_curves(values: dict[tuple[str, int], float]) -> pd.DataFrame:
    frame = pd.DataFrame([(*key, value) for key, value in values.items()], columns=["run", "seed", "value"])
    score = frame.assign(metric="sampled_accuracy:sums", step=9)
    return pd.concat([score, score.assign(metric="sampled_accuracy_se:sums", value=0.03)])


def test_projected_runs_say_what_they_vary():
    found = projected_runs(get_profile("reference")).set_index("run")
    assert found.loc["opd_projected_early_k12", ["parent", "K", "usual_K", "usual_at"]].tolist() == [
        "opd",
        12,
        False,
        True,
    ]
    assert found.loc["opd_projected_early_at_40", ["at", "usual_K", "usual_at"]].tolist() == [
        0.4,
        True,
        False,
    ]
    assert found.loc["opd_projected_early_both", "constrain"] == "both"


def test_a_change_is_against_the_free_run_of_the_same_seed(ax):
    values = {("opd", s): 0.8 + s / 10 for s in range(3)}
    values |= {("opd_projected_early", s): 0.7 + s / 5 for s in range(3)}
    values |= {("opd_projected_early_k1", 0): 0.5, ("opd_projected_early_k6", 7): 0.5}
    changes = accuracy_change(get_profile("reference"), projected_curves(values), "sums")
    found = changes.set_index(["run", "seed"])["change"].to_dict()
    early = {("opd_projected_early", s): -0.1 + s / 10 for s in range(3)}
    assert found == pytest.approx(early | {("opd_projected_early_k1", 0): -0.3})
    draw_change(ax, changes, "K")
    (bars,) = ax.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, -0.3], [3, 0]], atol=1e-12)
    one, three = (np.ptp(segment[:, 1]) / 2 for segment in bars.lines[2][0].get_segments())
    assert (one, three) == pytest.approx((0.03 * np.sqrt(2), 0.1 * REACH))
    with pytest.raises(ValueError, match="along is 'r'"):
        draw_change(ax, changes, "r")


def test_the_share_inside_is_the_mean_over_training_by_what_is_projected(ax):
    runs = {"opd_projected_early": 0.4, "opd_projected_early_both": 0.6, "opd_projected_early_k6": 0.9}
    shares = rows(
        "share_inside", {(run, 0, step): v + step / 10 for run, v in runs.items() for step in (0, 1)}
    )
    draw_share_inside(ax, get_profile("reference"), shares)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["OPD, gradient", "OPD, both"]
    assert [x for x, _ in places(ax)] == pytest.approx([0.45, 0.65])
