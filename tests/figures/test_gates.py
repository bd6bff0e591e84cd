"""The three gates show norms, curvature and density as the tables have them."""

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
from paper_lib.figures.results import Results
from paper_lib.figures.styles import OPD
from paper_lib.study.profiles import get_profile

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
    tables = {"trajectories": kl, "matrices": matrices, "curvature": mu}
    draw_kl_and_norm(ax, Results(study=get_profile("smoke"), tables=tables), runs=["sft", "opd"])
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
    results = Results(study=get_profile("smoke"), tables={"matrices": table})
    draw_principal_energy(ax, results, runs=["sft", "opd", "rlvr"], modules=["q"])
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
