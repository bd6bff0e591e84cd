"""What norm and evenness predict of sparsity is recovered from planted data."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from worlds import world

from paper_lib.ledger.pictures import draw_size
from paper_lib.ledger.size import end_values, held_out, in_words, slopes
from paper_lib.summaries import Untested

RUNS = ("sft", "opd", "opd_exact", "opd_batch_64", "rlvr", "rlvr_lr_2e-05", "mix_0.5")


def planted(effect: dict[str, float] | None = None, *, runs: tuple[str, ...] = RUNS) -> pd.DataFrame:
    """Three seeds of log-odds = −1 − 1.2 log norm + log e + what a run adds."""
    generator = np.random.default_rng(0)
    data = pd.DataFrame([(run, seed) for run in runs for seed in range(3)], columns=["run", "seed"])
    for name in ("frobenius_norm", "coordinate_energy"):
        data[name] = np.exp(generator.normal(size=len(data)))
    logs = -1 - 1.2 * np.log(data["frobenius_norm"]) + np.log(data["coordinate_energy"])
    odds = np.exp(logs + data["run"].map(effect or {}).fillna(0.0))
    return data.assign(objective=data["run"].str.split("_").str[0], update_sparsity=odds / (1 + odds))


def test_where_all_is_size_a_run_is_predicted_by_the_others():
    data = planted()
    assert slopes(data).tolist() == pytest.approx([-1, -1.2, 1])
    assert held_out(data).tolist() == pytest.approx(data["update_sparsity"].tolist())
    assert in_words(data).endswith("7 kinds of run to 0.0 points")


def test_what_a_run_adds_beyond_size_is_left_over():
    data = planted({"rlvr": 2.0})
    left = logit(data["update_sparsity"]) - logit(held_out(data))
    assert left[data["run"] == "rlvr"].tolist() == pytest.approx([2.0] * 3)


def test_too_few_kinds_of_run_predict_nothing():
    with pytest.raises(Untested, match="4 kinds of run are too few"):
        held_out(planted(runs=RUNS[:4]))


def test_end_values_are_of_runs_that_have_all_and_are_free():
    sizes = {"opd": 0.4, "rlvr": 0.45, "opd_projected_early": 0.4, "opd_small_student": 0.4}
    data = end_values(world({"coordinate_energy": sizes}))
    assert set(data["run"]) == {"opd", "rlvr"}
    assert list(data["seed"]) == [0, 1, 2] * 2
    with pytest.raises(Untested, match="no run"):
        end_values(world())


def test_every_kind_of_run_is_a_mark_at_its_mean():
    data, ax = planted(), plt.subplots()[1]
    draw_size(ax, data, names=["opd_exact"])
    marks = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in marks) == len(RUNS)
    measured = np.sort(np.concatenate([line.get_ydata() for line in marks]))
    assert measured == pytest.approx(np.sort(100 * data.groupby("run")["update_sparsity"].mean()))
    assert [text.get_text() for text in ax.texts] == ["OPD, exact reverse KL"]
    plt.close("all")
