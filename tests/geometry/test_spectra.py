"""Spectra of weights and updates, as sentences."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from paper_lib.geometry import spectra
from paper_lib.geometry.spectra import hill_index, singular_values, spectral_shift, stable_rank, top_energy

SHAPES = [(40, 12), (12, 40), (24, 24), (3, 20, 12), (2, 2, 8, 9)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed)).Q


def with_spectrum(sigma: torch.Tensor, m: int, n: int) -> torch.Tensor:
    core = torch.zeros(m, n, dtype=torch.float64)
    core.diagonal()[: len(sigma)] = sigma
    return rotation(m, 1) @ core @ rotation(n, 2)


# Singular values and their shift


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_lapacks_in_float64_whatever_the_input(shape):
    w = normal(*shape).float()
    sigma = singular_values(w)
    assert sigma.dtype == torch.float64
    assert sigma.shape == (*shape[:-2], min(shape[-2:]))
    matrices = w.double().reshape(-1, *shape[-2:]).numpy()
    for ours, matrix in zip(sigma.reshape(len(matrices), -1).numpy(), matrices, strict=True):
        np.testing.assert_allclose(ours, scipy.linalg.svdvals(matrix), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0])
def test_no_singular_value_moves_more_than_the_updates_norm(shape, size):
    w_0, delta_w = normal(*shape), size * normal(*shape, seed=1)
    before, after = singular_values(w_0), singular_values(w_0 + delta_w)
    slack = 1e-14 * before[..., 0]
    assert ((after - before).abs().amax(-1) <= singular_values(delta_w)[..., 0] + slack).all()
    assert ((after - before).norm(dim=-1) <= spectra.frobenius_norm(delta_w) + slack).all()
    assert (spectral_shift(before, after) <= spectra.relative_norm(delta_w, w_0) + 1e-14).all()


def test_the_spectral_shift_of_a_rescaling_is_its_relative_size_and_of_a_rotation_nothing():
    w_0 = normal(12, 20)
    sigma_0 = singular_values(w_0)
    assert spectral_shift(sigma_0, singular_values(1.25 * w_0)).item() == pytest.approx(0.25)
    assert spectral_shift(sigma_0, singular_values(rotation(12, 3) @ w_0 @ rotation(20, 4))) < 1e-14
    assert spectral_shift(sigma_0, sigma_0) == 0


def test_the_spectral_shift_scales_with_neither_factor():
    sigma_0, sigma_t = singular_values(normal(12, 20)), singular_values(normal(12, 20, seed=1))
    torch.testing.assert_close(spectral_shift(7 * sigma_0, 7 * sigma_t), spectral_shift(sigma_0, sigma_t))


# Norms and stable rank


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_are_those_of_the_spectrum(shape):
    delta_w = normal(*shape)
    sigma = singular_values(delta_w)
    torch.testing.assert_close(spectra.frobenius_norm(delta_w), sigma.norm(dim=-1))
    torch.testing.assert_close(
        spectra.relative_norm(delta_w, -4 * delta_w), torch.full(shape[:-2], 0.25).double()
    )


@pytest.mark.parametrize(("m", "n"), [(40, 12), (12, 40), (12, 12)])
@pytest.mark.parametrize("r", [1, 3, 12])
def test_stable_rank_of_r_equal_singular_values_is_r(m, n, r):
    delta_w = with_spectrum(torch.full((r,), 0.37, dtype=torch.float64), m, n)
    assert stable_rank(delta_w).item() == pytest.approx(r, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_stable_rank_is_the_ratio_of_the_norms_between_one_and_the_smaller_side(shape):
    delta_w = normal(*shape)
    rank = stable_rank(delta_w)
    largest = singular_values(delta_w)[..., 0]
    torch.testing.assert_close(rank, (spectra.frobenius_norm(delta_w) / largest) ** 2)
    assert ((rank >= 1) & (rank <= min(shape[-2:]))).all()


@pytest.mark.parametrize("scale", [1e-200, -1e-6, 1e6, 1e200])
def test_stable_rank_is_invariant_under_scale_and_rotation(scale):
    delta_w = normal(20, 12)
    turned = scale * rotation(20, 3) @ delta_w @ rotation(12, 4)
    torch.testing.assert_close(stable_rank(turned), stable_rank(delta_w), rtol=1e-12, atol=0)


# The tail


@pytest.mark.parametrize("exponent", [0.8, 2.34, 2.93, 6.0])
def test_hill_recovers_the_exponent_of_a_pareto_sample(exponent):
    draws = np.random.default_rng(0).pareto(exponent, size=200_000) + 1
    sigma = torch.from_numpy(np.sort(draws)[::-1].copy())
    k = 20_000
    assert hill_index(sigma, k).item() == pytest.approx(exponent, rel=4 / math.sqrt(k))


def test_hill_of_a_geometric_spectrum_is_known_in_closed_form():
    sigma = 0.5 ** torch.arange(20, dtype=torch.float64)
    for k in (2, 5, 20):  # log(σ_i / σ_k) = (k − i) log 2, whose mean over i < k is k/2 log 2
        assert hill_index(sigma, k).item() == pytest.approx(2 / (k * math.log(2)))


def test_hill_ignores_scale_and_everything_below_the_top_k():
    sigma = singular_values(normal(3, 20, 12))
    shrunk = torch.cat([sigma[..., :6], 0.1 * sigma[..., 6:]], dim=-1)
    torch.testing.assert_close(hill_index(1e-9 * sigma, 6), hill_index(sigma, 6))
    torch.testing.assert_close(hill_index(shrunk, 6), hill_index(sigma, 6))


def test_hill_of_equal_values_is_infinite_and_of_a_vanishing_tail_undefined():
    assert hill_index(torch.ones(5), 5) == math.inf
    assert hill_index(torch.tensor([2.0, 1.0, 0.0]), 3).isnan()
    assert hill_index(torch.tensor([2.0, 1.0, 0.0]), 2).isfinite()


@pytest.mark.parametrize("shape", SHAPES)
def test_top_energy_is_what_the_best_low_rank_approximation_keeps(shape):
    delta_w = normal(*shape)
    u, s, vh = torch.linalg.svd(delta_w, full_matrices=False)
    best = (u[..., :3] * s[..., None, :3]) @ vh[..., :3, :]
    kept = (spectra.frobenius_norm(best) / spectra.frobenius_norm(delta_w)) ** 2
    torch.testing.assert_close(top_energy(s, 3), kept)
    torch.testing.assert_close(top_energy(s, s.shape[-1]), torch.ones(shape[:-2]).double())
    torch.testing.assert_close(top_energy(s, 1), 1 / stable_rank(delta_w))
    norm = torch.linalg.vector_norm(delta_w, dim=(-2, -1))
    torch.testing.assert_close(stable_rank(delta_w, sigma=s[..., :2], norm=norm), stable_rank(delta_w))


# Drift


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_drift_is_the_root_of_the_number_of_steps_and_a_random_walk_is_one(shape):
    rates = [1e-5] * 100
    assert spectra.drift_ratio(torch.full(shape, 1e-3), rates).numpy() == pytest.approx(10, rel=1e-6)
    signs = torch.randint(0, 2, (100, 200, 200), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    assert spectra.drift_ratio(1e-5 * signs.sum(0), rates).item() == pytest.approx(1, abs=0.02)


def test_drift_counts_each_steps_own_learning_rate():
    delta_w = torch.ones(2, 3)
    assert spectra.drift_ratio(delta_w, [3.0, 0.0, 4.0]).item() == pytest.approx(1 / 5)
    assert spectra.drift_ratio(delta_w, torch.tensor([3.0, 4.0])).item() == pytest.approx(1 / 5)
    assert spectra.drift_ratio(torch.zeros(2, 3), [1.0]) == 0


# Nothing moved


def test_ratios_over_a_zero_update_are_nan_only_where_it_is_zero():
    delta_w = torch.stack([torch.zeros(5, 4), torch.eye(5, 4)])
    sigma = singular_values(delta_w)
    for value in (stable_rank(delta_w), hill_index(sigma, 3), top_energy(sigma, 2)):
        assert value.isnan().tolist() == [True, False]
    assert spectra.relative_norm(delta_w, delta_w).isnan().tolist() == [True, False]
    assert spectral_shift(sigma, sigma + 1).isnan().tolist() == [True, False]
    assert spectra.frobenius_norm(delta_w)[0] == 0


# Bad input

W = torch.ones(6, 4)
SIGMA = torch.tensor([3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: singular_values(W * torch.inf), r"w must be finite, got inf \(24 such\) in shape \(6, 4\)"),
        (lambda: singular_values(W[0]), r"w must be a real .* \(4,\)"),
        (lambda: singular_values(W[:0]), r"\(0, 4\)"),
        (lambda: singular_values(W.to(torch.complex64)), r"torch.complex64"),
        (lambda: spectral_shift(SIGMA, SIGMA[:2]), r"got \(3,\) and \(2,\)"),
        (lambda: spectral_shift(SIGMA, SIGMA.flip(0)), r"sigma_t must be >= 0 and descending.* \(3,\)"),
        (lambda: spectral_shift(-SIGMA.flip(0), SIGMA), r"sigma_0 must be >= 0"),
        (lambda: spectra.relative_norm(W, W.mT), r"got \(6, 4\) and \(4, 6\)"),
        (lambda: spectra.frobenius_norm(W * torch.nan), r"delta_w must be finite, got nan"),
        (lambda: hill_index(SIGMA, 1), r"k must lie in \[2, 3\], got 1 for \(3,\)"),
        (lambda: hill_index(SIGMA, 4), r"k must lie in \[2, 3\], got 4"),
        (lambda: hill_index(SIGMA * torch.nan, 2), r"sigma must be finite, got nan"),
        (lambda: top_energy(SIGMA, 0), r"k must lie in \[1, 3\], got 0"),
        (lambda: spectra.drift_ratio(W, []), r"learning_rates .* got \[\] for delta_w \(6, 4\)"),
        (lambda: spectra.drift_ratio(W, [0.0, 0.0]), r"not all 0, got \[0.0, 0.0\]"),
        (lambda: spectra.drift_ratio(W, [1e-5, -1e-5]), r">= 0"),
        (lambda: spectra.drift_ratio(W, [math.nan]), r"finite"),
    ],
)
def test_bad_input_gets_one_clear_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
