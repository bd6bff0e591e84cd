"""Gate III holds entry by entry, and the null of independent sizes is the mean over permutations."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from paper_lib.geometry.nulls import permuted
from paper_lib.geometry.sparsity import (
    half_ulp,
    predicted_mask,
    prediction_agreement,
    showing_probability,
    top_coordinate_energy,
    update_sparsity,
    visible_mask,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stored(m: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, n, generator=generator(seed)).bfloat16().float()


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_half_an_ulp_is_the_threshold(shape: tuple[int, int]) -> None:
    w_0 = stored(*shape).double()
    away = w_0.sign() * half_ulp(w_0)
    assert not predicted_mask(w_0, w_0 + 0.99 * away).any()
    assert predicted_mask(w_0, w_0 + 1.01 * away).all()
    assert_allclose(prediction_agreement(w_0, w_0 + 0.99 * away), 1)
    assert_allclose(prediction_agreement(w_0, w_0 + 1.01 * away), 1)


def test_the_prediction_fails_only_towards_zero_from_a_power_of_two() -> None:
    w_0 = stored(200, 300)
    w_t = w_0 + 2e-3 * torch.randn(200, 300, generator=generator(1))
    wrong = predicted_mask(w_0, w_t) != visible_mask(w_0, w_t)
    power = w_0.abs().frexp().mantissa == 0.5
    assert 0 < wrong.sum() < 0.01 * wrong.numel()
    assert (power & ((w_t - w_0) * w_0 < 0))[wrong].all()
    assert_allclose(prediction_agreement(w_0, w_t), 1 - wrong.double().mean())


def test_the_agreement_of_unrelated_masks_is_that_of_chance() -> None:
    w_0, w_t = stored(300, 300), stored(300, 300, seed=1)  # their difference is visible almost everywhere
    coarse = visible_mask(w_0, w_t, eta=0.9).double().mean()
    found = prediction_agreement(w_0, w_t, eta=0.9)
    d = predicted_mask(w_0, w_t).double().mean()
    assert_allclose(found, 1 - d - coarse + 2 * d * coarse, atol=5e-3)


def test_random_places_show_what_permutations_show_on_average() -> None:
    w_0 = stored(40, 60)
    delta_w = 3e-3 * torch.randn(40, 60, generator=generator(1)).double() * (w_0.abs() > 1)
    expected = showing_probability(w_0, w_0 + delta_w)
    draws = [permuted(delta_w, generator(seed)) for seed in range(400)]
    shown = torch.stack([predicted_mask(w_0.double(), w_0 + draw) for draw in draws]).double().mean(0)
    assert_allclose(shown.mean(), expected.mean(), rtol=0.01)
    spread = (expected * (1 - expected) / len(draws)).sqrt()
    assert ((shown - expected).abs() <= 5 * spread + 1e-9).all()
    assert_allclose(update_sparsity(w_0, w_0 + draws[0]), 1 - expected.mean(), atol=0.02)


def test_an_update_aimed_at_small_weights_shows_more_than_its_sizes_would() -> None:
    w_0 = stored(64, 64)
    sizes = (1e-3 * torch.randn(64 * 64, generator=generator(1))).abs().double()
    aimed = torch.zeros(64 * 64, dtype=torch.float64)
    aimed[w_0.flatten().abs().argsort()] = sizes.sort(descending=True).values
    aimed = aimed.view(64, 64)
    assert predicted_mask(w_0, w_0 + aimed).double().mean() > showing_probability(w_0, w_0 + aimed).mean()


def test_nothing_moved_has_nothing_to_show() -> None:
    w_0 = stored(8, 8)
    assert not showing_probability(w_0, w_0).any()
    assert prediction_agreement(w_0, w_0) == 1
    assert top_coordinate_energy(torch.zeros(8, 8), 0.1).isnan()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.175, 1.0])
def test_top_coordinates_hold_the_energy_of_the_tail(fraction: float) -> None:
    equal = torch.ones(100, 100)
    assert_allclose(top_coordinate_energy(equal, fraction), fraction)
    normal = torch.randn(400, 500, generator=generator(2))
    cut = stats.norm.isf(fraction / 2)
    tail = fraction + 2 * cut * stats.norm.pdf(cut) if fraction < 1 else 1
    assert_allclose(top_coordinate_energy(normal, fraction), tail, rtol=0.03)
    assert_allclose(top_coordinate_energy(-3 * normal.T, fraction), top_coordinate_energy(normal, fraction))


def test_what_cannot_be_compared_is_refused() -> None:
    w_0 = stored(4, 6)
    with pytest.raises(ValueError, match=r"one shape, got \(4, 6\) and \(6, 4\)"):
        predicted_mask(w_0, w_0.T)
    with pytest.raises(ValueError, match="must be finite"):
        predicted_mask(w_0, w_0 * math.inf)
    with pytest.raises(ValueError, match=r"one matrix \(m, n\), got shape \(1, 4, 6\)"):
        showing_probability(w_0[None], w_0[None])
    with pytest.raises(ValueError, match=r"fraction must lie in \(0, 1\], got 0"):
        top_coordinate_energy(w_0, 0)
