"""The catalogue: one source of labels, of the paper's values and of what measures a metric."""

import math

import pytest

from paper_lib.geometry.metrics import FIGURES, METRICS, REGIMES, Metric, metrics_of


def test_each_metric_is_measured_by_a_public_equation():
    for metric in METRICS.values():
        assert metric.function.__module__.startswith("paper_lib.geometry."), metric.name
        assert not metric.function.__name__.startswith("_"), metric.name


def test_a_figure_draws_metrics_of_the_catalogue():
    assert all(metrics_of(figure) for figure in FIGURES)
    assert [metric.name for metric in metrics_of("fig4_intrinsic_geometry")] == [
        *("stable_rank", "frobenius_norm", "hill_index")
    ]
    assert metrics_of("fig_training_curves") == ()


def test_the_papers_values_are_read_in_the_unit_that_is_shown():
    sparsity, angle = METRICS["update_sparsity"], METRICS["angle_mean"]
    assert sparsity.by_regime() == "8.1 / 51.6 / 77.2 %"
    assert sparsity.show(0.0814) == "8.14 %"
    assert sparsity.value("opd_small_teacher") == 0.503
    assert angle.show(angle.value("opd")) == "1°"
    assert angle.spans()["sft"][1] == math.inf
    for metric in METRICS.values():
        for run in set(REGIMES) & set(metric.paper):
            low, high = metric.spans()[run]
            assert low <= metric.value(run) <= high, metric.name


@pytest.mark.parametrize(("name", "value"), [("over", "mlp"), ("mean", "median"), ("unit", "kg")])
def test_an_unknown_choice_is_refused(name, value):
    options = {"name": "x", "symbol": "$x$", "where": "", "function": sum, name: value}
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        Metric(**options)
