"""What bf16 hides and adds, by counts over binades, against definitions by entry and float32 masters."""

import math

import pytest
import torch

from paper_lib.geometry.rounding import (
    adam_bound,
    half_ulp_counts,
    patch_bytes,
    rounding_share,
    shown_share,
)
from paper_lib.geometry.sparsity import half_ulp
from paper_lib.geometry.spectra import energy_rank
from paper_lib.geometry.subspaces import intruder_count

SHAPE = (500, 600)


def noise(seed: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_counts_by_binade_are_those_of_the_entries(precision):
    w_0 = torch.cat([noise(0), torch.zeros(2, 600), 1e-6 * noise(1)])
    half, counts = half_ulp_counts(w_0, precision)
    values, numbers = half_ulp(w_0, precision).unique(return_counts=True)
    assert torch.equal(half[counts > 0], values)
    assert torch.equal(counts[counts > 0], numbers)


def test_a_size_shows_where_it_is_above_half_an_ulp_and_noise_as_often_as_it_is():
    w_0, size = noise(0).bfloat16(), 3e-3
    half, counts = half_ulp_counts(w_0)
    assert shown_share(half, counts, size) == pytest.approx((size > half_ulp(w_0)).double().mean().item())
    shows = (size * noise(1)).abs() > half_ulp(w_0)
    error = 0.5 / math.sqrt(w_0.numel())
    assert abs(shown_share(half, counts, size, normal=True) - shows.double().mean().item()) < 5 * error


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.9, 0.98)])
def test_no_step_of_adam_is_longer_than_its_bound(betas):
    """The gradients that reach it: g_i proportional to the ratio of their weights in both moments."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=1.0, betas=betas, eps=0)
    steps, last = [], 0.0
    for step in range(3000):
        weight.grad = torch.tensor([(betas[1] / betas[0]) ** step], dtype=torch.float64)
        optimizer.step()
        steps.append(abs(weight.item() - last))
        last = weight.item()
    assert max(steps) <= adam_bound(betas) * (1 + 1e-9)
    assert max(steps) > 0.7 * adam_bound(betas)


@pytest.mark.parametrize("on_grid", [True, False], ids=["from bf16", "from float32"])
@pytest.mark.parametrize("size", [1e-3, 1e-4, 3e-5, 1e-5, 3e-6])
def test_the_share_of_rounding_is_that_against_the_float32_run(on_grid, size):
    w_0 = 0.02 * noise(0)
    w_0 = w_0.bfloat16().double() if on_grid else w_0
    delta_w = size * noise(1)
    stored = w_0.bfloat16(), (w_0 + delta_w).bfloat16()
    shown = (stored[1].double() - stored[0].double()).norm()
    factor = (shown / delta_w.norm()).item()
    assert 1 / (1 - rounding_share(*stored)) == pytest.approx(factor, rel=0.08 if size < 1e-5 else 0.03)
    if not on_grid:  # far too large a norm where steps are small, as a training team measured on masters
        assert factor > {3e-5: 1.5, 1e-5: 2.5, 3e-6: 4.5}.get(size, 1)


def test_nothing_is_said_of_wider_dtypes_of_too_few_entries_and_of_no_update():
    w_0 = noise(0)
    assert math.isnan(rounding_share(w_0.float(), w_0.float() + 1e-3))
    assert math.isnan(rounding_share(torch.ones(9, 9).bfloat16(), 2 * torch.ones(9, 9).bfloat16()))
    assert math.isnan(rounding_share(w_0.bfloat16(), w_0.bfloat16()))


def test_a_patch_is_the_smallest_of_three_that_hold_it():
    for changed in (0, 1, 50, 400, 1000):
        sizes = (1000 * 2, 125 + 2 * changed, 6 * changed)
        assert patch_bytes(1000, changed, 2) == min(sizes)


def test_the_rank_of_an_energy_is_the_least_that_holds_it():
    sigma = torch.linalg.svdvals(noise(0, (30, 40)))
    energy = (sigma**2).cumsum(0) / (sigma**2).sum()
    for share in (0.5, 0.9, 0.99, 1.0):
        rank = energy_rank(sigma, share)
        assert energy[rank - 1] >= share - 1e-12
        assert rank == 1 or energy[rank - 2] < share
    assert energy_rank(torch.zeros(3), 0.9) == 0
    with pytest.raises(ValueError, match="share must lie in"):
        energy_rank(sigma, 0)


def test_planted_intruders_are_counted_and_a_scaled_matrix_has_none():
    """Two directions of W_t that mix many of W_0's, on top of it; and what the leading vectors leave open."""
    w_0 = noise(0, (40, 60))
    u_0 = torch.linalg.svd(w_0, full_matrices=False).U
    assert intruder_count(torch.linalg.svd(1.1 * w_0).U[:, :10], u_0[:, :5], w_0) == 0
    signs = torch.ones(2, 40, dtype=torch.float64)
    signs[1, ::2] = -1
    spread = u_0 @ signs.mT / math.sqrt(40)  # |cos| = 0.16 with every one of W_0's
    other = torch.linalg.qr(noise(2, (60, 2))).Q
    w_t = w_0 + 100 * spread @ other.mT
    u_t = torch.linalg.svd(w_t).U[:, :10]
    every = (u_0.mT @ u_t).abs().amax(0)
    for known in (3, 40):
        assert intruder_count(u_t, u_0[:, :known], w_0) == int((every < 0.5).sum()) >= 2
