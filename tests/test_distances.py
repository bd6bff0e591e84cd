"""How far apart trajectories are: a constant factor is its logarithm, and shared seeds cancel."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.summaries import distance, seed_spread


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
