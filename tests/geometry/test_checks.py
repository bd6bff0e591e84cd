"""A tensor that no diagnostic can use is refused in one line, and any other one is not."""

import pytest
import torch

from paper_lib.geometry.spectra import require_finite, require_finite_matrix, require_matrix


def test_large_entries_whose_sum_overflows_are_finite():
    large = torch.full((4, 4), 1e308, dtype=torch.float64)
    assert not torch.isfinite(large.sum())
    require_finite("w", large)


def test_entries_that_are_not_finite_are_counted_even_where_they_cancel():
    w = torch.tensor([[1.0, torch.inf], [-torch.inf, 0.0]])
    with pytest.raises(ValueError, match=r"w must be finite, got inf \(2 such\) in shape \(2, 2\)"):
        require_finite_matrix("w", w)


@pytest.mark.parametrize("wrong", [torch.ones(3), torch.ones(0, 3), torch.ones(2, 2, dtype=torch.int64)])
def test_what_is_no_real_matrix_is_refused(wrong):
    for require in (require_matrix, require_finite_matrix):
        with pytest.raises(ValueError, match=r"w must be a real \(\.\.\., m, n\), got torch\."):
            require("w", wrong)
