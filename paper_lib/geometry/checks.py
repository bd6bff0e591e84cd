"""What the diagnostics ask of every tensor that they are given."""

import torch
from torch import Tensor


def require_matrix(name: str, w: Tensor) -> None:
    """Raise ValueError unless w is a non-empty real (..., m, n)."""
    if w.ndim < 2 or w.numel() == 0 or not w.is_floating_point():
        raise ValueError(f"{name} must be a real (..., m, n), got {w.dtype} of shape {tuple(w.shape)}")


def require_finite(name: str, values: Tensor) -> None:
    """Raise ValueError, with the first and the number of such, where entries of any shape are not finite."""
    if torch.isfinite(values.sum(dtype=torch.float64)):  # one pass; a sum that overflows is looked at again
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        first, count = values[bad][0].item(), int(bad.sum())
        raise ValueError(f"{name} must be finite, got {first} ({count} such) in shape {tuple(values.shape)}")


def require_finite_matrix(name: str, w: Tensor) -> None:
    """Raise ValueError unless w is a non-empty, finite, real (..., m, n)."""
    require_matrix(name, w)
    require_finite(name, w)
