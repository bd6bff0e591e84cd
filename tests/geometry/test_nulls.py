"""Null updates and intervals, as sentences."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from paper_lib import summaries
from paper_lib.geometry import nulls, spectra

SHAPES = [(40, 12), (12, 40), (24, 24), (3, 20, 12)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def norms(w: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(w.double())


# Null updates


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gaussian_null_keeps_each_matrixs_norm_and_nothing_else(shape, dtype):
    delta_w = (1e-4 * normal(*shape) ** 3).to(dtype)
    null = nulls.same_norm_gaussian(delta_w, generator(1))
    assert (null.shape, null.dtype) == (delta_w.shape, dtype)
    torch.testing.assert_close(norms(null), norms(delta_w), rtol=1e-6, atol=0)
    assert torch.corrcoef(torch.stack([null.flatten(), delta_w.flatten()]))[0, 1].abs() < 0.2


def test_the_gaussian_null_is_gaussian_and_of_no_update_it_is_none():
    null = nulls.same_norm_gaussian(torch.full((200, 200), 0.01), generator())
    assert stats.kstest(null.flatten().double() / 0.01, "norm").pvalue > 1e-3
    assert not nulls.same_norm_gaussian(torch.zeros(4, 3), generator()).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_permutation_keeps_the_multiset_of_each_matrix(shape):
    delta_w = normal(*shape).float()
    null = nulls.permuted(delta_w, generator())
    assert (null.shape, null.dtype) == (delta_w.shape, delta_w.dtype)
    assert torch.equal(null.flatten(-2).sort(-1).values, delta_w.flatten(-2).sort(-1).values)
    assert (null != delta_w).double().mean() > 0.9


def test_every_permutation_is_equally_likely():
    source = generator()
    counts = Counter(
        tuple(nulls.permuted(torch.tensor([[1.0, 2.0, 3.0]]), source)[0].tolist()) for _ in range(3000)
    )
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_the_matrices_of_a_batch_are_permuted_each_by_itself():
    delta_w = torch.arange(50.0).reshape(1, 5, 10).expand(2, 5, 10)
    first, second = nulls.permuted(delta_w, generator())
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", SHAPES)
def test_rescaling_sets_the_norm_and_keeps_the_direction(shape):
    delta_w = normal(*shape).float()
    small = nulls.rescaled(delta_w, 0.452)
    assert (small.shape, small.dtype) == (delta_w.shape, delta_w.dtype)
    torch.testing.assert_close(norms(small), torch.full(shape[:-2], 0.452).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(nulls.rescaled(small, norms(delta_w)), delta_w)
    assert not nulls.rescaled(delta_w, 0).any()


# Random walks


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (24, 24)])
def test_a_random_walk_takes_the_steps_it_is_asked_for(shape):
    steps = [0.5, 0.0, 2.0, 1e-6]
    walk = nulls.random_walk(steps, shape, generator())
    assert walk.shape == (4, *shape)
    increments = walk.diff(dim=0, prepend=torch.zeros(1, *shape))
    torch.testing.assert_close(norms(increments), torch.tensor(steps).double(), rtol=1e-8, atol=0)


def test_a_random_walks_distance_grows_as_the_root_of_its_length():
    walk = nulls.random_walk([1.0] * 100, (100, 100), generator())
    torch.testing.assert_close(norms(walk), torch.arange(1, 101).double().sqrt(), rtol=0.05, atol=0)


def test_the_explained_variances_of_a_random_walk_add_to_one():
    assert nulls.random_walk_explained_variance(1) == pytest.approx(0.6079, abs=1e-4)
    assert sum(map(nulls.random_walk_explained_variance, range(1, 100_000))) == pytest.approx(1, abs=1e-4)


def test_one_seed_gives_one_null():
    delta_w = normal(6, 5)
    for null in (
        lambda source: nulls.same_norm_gaussian(delta_w, source),
        lambda source: nulls.permuted(delta_w, source),
        lambda source: nulls.random_walk([1.0, 2.0], (6, 5), source),
    ):
        assert torch.equal(null(generator(3)), null(generator(3)))
        assert not torch.equal(null(generator(3)), null(generator(4)))


# Intervals


@pytest.mark.parametrize("size", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_t_interval_is_scipys(size, level):
    values = np.random.default_rng(size).normal(3, 2, size)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert summaries.t_interval(values, level) == pytest.approx((low, high))
    assert summaries.t_interval(values.tolist(), level) == pytest.approx((low, high))


def test_the_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0, 1, (2000, 5))
    covered = np.mean([low < 0 < high for low, high in map(summaries.t_interval, draws)])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_equal_values_have_an_interval_of_no_width_and_one_value_has_none():
    assert summaries.t_interval([2.0, 2.0, 2.0]) == (2, 2)
    for value in (2.0, math.nan, -math.inf):
        assert all(math.isnan(end) for end in summaries.t_interval([value]))


# Bad input

W = torch.ones(6, 4)
NAN = W * torch.nan


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nulls.same_norm_gaussian(NAN, generator()), r"delta_w must be finite, got nan .* \(6, 4\)"),
        (lambda: nulls.same_norm_gaussian(W[0], generator()), r"\(4,\)"),
        (lambda: nulls.permuted(NAN, generator()), r"delta_w must be finite"),
        (lambda: nulls.permuted(W.long(), generator()), r"torch.int64"),
        (lambda: nulls.rescaled(NAN, 1.0), r"delta_w must be finite"),
        (lambda: nulls.rescaled(0 * W, 1.0), r"delta_w of shape \(6, 4\) is zero"),
        (lambda: nulls.rescaled(W, -1.0), r"norm .* got -1.0 for delta_w of shape \(6, 4\)"),
        (lambda: nulls.rescaled(W, math.inf), r"norm .* got inf"),
        (lambda: nulls.rescaled(W, torch.ones(6)), r"norm must be finite, >= 0, one a matrix"),
        (lambda: nulls.random_walk([], (6, 4), generator()), r"increment_norms .* got \[\] for \(6, 4\)"),
        (lambda: nulls.random_walk([-1.0], (6, 4), generator()), r"got \[-1.0\]"),
        (lambda: nulls.random_walk([math.nan], (6, 4), generator()), r"got \[nan\]"),
        (lambda: nulls.random_walk([1.0], (6, 0), generator()), r"shape .* got \(6, 0\)"),
        (lambda: nulls.random_walk_explained_variance(0), r"got 0"),
        (lambda: summaries.t_interval([]), r"values .* \(0,\)"),
        (lambda: summaries.t_interval([1.0, math.nan]), r"values must be \(N,\), finite"),
        (lambda: summaries.t_interval([[1.0, 2.0]]), r"shape \(1, 2\)"),  # type: ignore[list-item]
        (lambda: summaries.t_interval([1.0, 2.0], 1.0), r"level must lie in \(0, 1\), got 1.0 for 2 values"),
    ],
)
def test_bad_input_gets_one_clear_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_adam_on_noise_alone_moves_by_its_learning_rates() -> None:
    rates, steps = [1e-3, 2e-3, 0.0, 3e-3, 1e-3, 1e-3], [2, 4, 6]
    walk = nulls.adam_walk(rates, steps, (300, 400), torch.Generator().manual_seed(0))
    assert walk.shape == (3, 300, 400)
    for step, delta_w in zip(steps, walk, strict=True):
        np.testing.assert_allclose(spectra.drift_ratio(delta_w, rates[:step]), 1, rtol=0.01)
    increments = torch.stack([walk[0], walk[1] - walk[0], walk[2] - walk[1]]).flatten(1)
    np.testing.assert_allclose(torch.corrcoef(increments), torch.eye(3), atol=0.02)
    assert torch.equal(walk, nulls.adam_walk(rates, steps, (300, 400), torch.Generator().manual_seed(0)))


def test_adam_walks_as_it_does_on_gradients_without_a_direction() -> None:
    weight = torch.nn.Parameter(torch.zeros(100, 100))
    adam = torch.optim.Adam([weight], lr=1e-3, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        weight.grad = torch.randn(100, 100, generator=generator)
        adam.step()
    walk = nulls.adam_walk([1e-3] * 300, [300], (100, 100), generator)[0]
    np.testing.assert_allclose(weight.detach().std(), walk.std(), rtol=0.1)


@pytest.mark.parametrize("steps", [(), (0, 1), (2, 2), (1, 4)])
def test_an_adam_walk_needs_a_rate_for_each_step(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"steps must ascend within \[1, 3\]"):
        nulls.adam_walk([1e-3] * 3, steps, (2, 2), torch.Generator())
