"""What size explains, and what the objective adds, is recovered from planted data."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from worlds import world

from paper_lib.ledger.pictures import draw_regression, draw_residuals
from paper_lib.ledger.size import (
    PREDICTORS,
    as_table,
    end_values,
    fit_size,
    linear,
    measured,
    objective_of,
    predicted,
)
from paper_lib.summaries import Untested

RUNS = (
    "sft",
    "sft_matched",
    "opd",
    "opd_exact",
    "opd_batch_64",
    "rlvr",
    "rlvr_lr_2e-05",
    "mix_0.5",
    "mix_0.05",
)


def planted(effect: dict[str, float], *, noise: float = 0.01, seeds: int = 5) -> pd.DataFrame:
    """log rank = −1 − 0.5 log norm + 0.2 log drift + effect of the objective + noise; so sparsity's odds."""
    generator = np.random.default_rng(0)
    rows = [(run, seed) for run in RUNS for seed in range(seeds)]
    data = pd.DataFrame(rows, columns=["run", "seed"]).assign(
        objective=[objective_of(run) for run, _ in rows]
    )
    for name in PREDICTORS:
        data[name] = np.exp(generator.normal(size=len(data)))
    shift = data["objective"].map(lambda kind: effect.get(kind, 0.0))
    log_y = -1 - 0.5 * np.log(data["frobenius_norm"]) + 0.2 * np.log(data["drift_ratio"]) + shift
    rank = np.exp(log_y + noise * generator.normal(size=len(data)))
    return data.assign(update_sparsity=rank / (1 + rank), stable_rank=rank)


def test_where_all_is_size_the_objective_adds_nothing():
    fit = fit_size(planted({}), "update_sparsity")
    assert fit.slopes.to_dict() == pytest.approx({"frobenius_norm": -0.5, "drift_ratio": 0.2}, abs=0.01)
    assert fit.r_squared > 0.99
    assert fit.partial < 0.2
    inside = fit.interval.loc[list(fit.objectives.index)]
    assert ((inside["low"] < 0.01) & (inside["high"] > -0.01)).all()


def test_a_share_is_fitted_by_its_odds_and_all_else_by_its_logarithm():
    data = planted({"sft": -0.6})
    share, rank = (fit_size(data, name) for name in ("update_sparsity", "stable_rank"))
    assert share.slopes.to_dict() == pytest.approx(rank.slopes.to_dict())
    for name in ("update_sparsity", "stable_rank"):
        assert measured(linear(data[name], name), name).to_numpy() == pytest.approx(data[name].to_numpy())


def test_an_effect_of_the_objective_is_found_beyond_size():
    fit = fit_size(planted({"sft": -0.6, "rlvr": 0.3}), "update_sparsity")
    assert fit.objectives.to_dict() == pytest.approx({"sft": -0.6, "rlvr": 0.3, "mix": 0.0}, abs=0.02)
    assert fit.partial > 0.95
    low, high = fit.interval.loc["sft"]
    assert low < -0.6 < high or abs(low + 0.6) < 0.02
    assert high < 0 < fit.interval.loc["rlvr", "low"]


def test_one_objective_alone_leaves_nothing_to_explain():
    data = planted({})
    fit = fit_size(data[data["objective"] == "opd"], "update_sparsity")
    assert fit.objectives.empty
    assert fit.partial == pytest.approx(0, abs=1e-9)


def test_the_intervals_draw_seeds_and_are_the_same_each_time():
    data = planted({"sft": -0.6})
    pd.testing.assert_frame_equal(*(fit_size(data, "update_sparsity").interval for _ in range(2)))
    assert set(fit_size(data, "update_sparsity").interval.index) == {
        *PREDICTORS, "sft", "rlvr", "mix", "r_squared", "partial"
    }  # fmt: skip


def test_too_few_runs_are_no_regression():
    with pytest.raises(Untested, match="too few"):
        fit_size(planted({}, seeds=1).head(5), "update_sparsity")


def test_end_values_are_of_runs_that_have_all_and_are_free():
    evidence = world(
        {"drift_ratio": {"opd": 2.0, "rlvr": 1.5, "opd_projected_early": 3.0, "opd_small_student": 2.0}}
    )
    data = end_values(evidence, ["update_sparsity"])
    assert set(data["run"]) == {"opd", "rlvr"}
    assert list(data["seed"]) == [0, 1, 2] * 2
    with pytest.raises(Untested, match="no run"):
        end_values(world(), ["update_sparsity"])


def test_the_table_has_a_row_an_outcome_with_intervals():
    table = as_table({"update_sparsity": fit_size(planted({"sft": -0.6}), "update_sparsity")})
    assert table.loc["update_sparsity", "SFT − OPD"].startswith("-0.60 [")
    assert table.loc["update_sparsity", "log frobenius norm"].startswith("-0.5")


def test_every_run_and_seed_is_a_point_and_residuals_are_of_size_alone():
    data, figure = planted({"sft": -0.6}), plt.figure()
    left, right = figure.subplots(1, 2)
    draw_regression(left, data, "update_sparsity", against="drift_ratio")
    draw_residuals(right, data, "update_sparsity")
    points = sum(len(each.get_offsets()) for each in left.collections)
    assert points == len(data)
    left_over = np.concatenate([np.asarray(each.get_offsets())[:, 0] for each in right.collections])
    odds = [share / (1 - share) for share in (data["update_sparsity"], predicted(data, "update_sparsity"))]
    assert np.sort(left_over) == pytest.approx(np.sort(np.log(odds[0] / odds[1]).to_numpy()))
    plt.close(figure)
