"""What bf16 shows of an update, as sentences."""

import math
from itertools import combinations

import pytest
import torch

from paper_lib.geometry import sparsity
from paper_lib.geometry.sparsity import (
    half_ulp,
    low_magnitude_mask,
    mask_overlap,
    principal_mask,
    visible_mask,
)

SHAPES = [(40, 12), (12, 40), (24, 24), (3, 20, 12)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bf16_weights(*shape: int, seed: int = 0) -> torch.Tensor:
    """Stored weights: float32 numbers that bf16 holds exactly, none of them a power of two."""
    mantissa = torch.randint(129, 256, shape, generator=generator(seed)).float()
    exponent = torch.randint(-16, 1, shape, generator=generator(seed + 1))
    sign = torch.randint(0, 2, shape, generator=generator(seed + 2)) * 2 - 1
    return torch.ldexp(mantissa * sign, exponent - 8)


def every_bf16(seed: int) -> torch.Tensor:
    """Random finite bf16 bit patterns: normal, subnormal and zero, of both signs."""
    bits = torch.randint(-(2**15), 2**15, (64, 1024), dtype=torch.int16, generator=generator(seed))
    values = bits.view(torch.bfloat16)
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


# Visibility


@pytest.mark.parametrize("shape", SHAPES)
def test_one_ulp_is_visible_and_less_than_half_is_not(shape):
    w_0 = bf16_weights(*shape)
    for sign in (1, -1):
        assert visible_mask(w_0, (w_0.double() + sign * 2 * half_ulp(w_0)).float()).all()
        assert visible_mask(w_0, (w_0.double() + sign * 1.01 * half_ulp(w_0)).float()).all()
        assert not visible_mask(w_0, (w_0.double() + sign * 0.99 * half_ulp(w_0)).float()).any()


def test_exactly_half_an_ulp_shows_on_odd_significands_only():
    w_0 = 1 + torch.arange(16.0).reshape(4, 4) / 128
    odd = torch.arange(16).reshape(4, 4) % 2 == 1
    assert torch.equal(visible_mask(w_0, w_0 + 2**-8), odd)


def test_below_a_power_of_two_a_quarter_ulp_is_the_threshold():
    w_0 = torch.tensor([[1.0]])
    assert half_ulp(w_0).item() == 2**-8
    assert visible_mask(w_0, w_0 - 2**-9 * 1.01).item()
    assert not visible_mask(w_0, w_0 - 2**-9 * 0.99).item()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_half_an_ulp_is_half_the_distance_to_the_next_number(precision):
    values = torch.cat([every_bf16(9).float().flatten()[:4096].clamp(-6e4, 6e4), torch.zeros(1)])
    stored = values.to(precision).abs()
    integer = torch.int32 if precision == torch.float32 else torch.int16
    following = (stored.view(integer) + 1).view(precision)
    assert torch.equal(2 * half_ulp(values, precision), following.double() - stored.double())


@pytest.mark.parametrize("eta", [0.0, 1e-3, 2**-9, 2**-8 * (1 - 1e-4)])
def test_any_eta_below_the_grid_of_bf16_means_bitwise_inequality(eta):
    a, other = every_bf16(0), every_bf16(1)
    neighbour = (a.view(torch.int16) + 1).view(torch.bfloat16)
    b = torch.where(torch.rand(a.shape, generator=generator(2)) < 0.5, a, other)
    b = torch.where((torch.rand(a.shape, generator=generator(3)) < 0.5) & neighbour.isfinite(), neighbour, b)
    differs = (a.view(torch.int16) != b.view(torch.int16)) & ~((a == 0) & (b == 0))
    assert torch.equal(visible_mask(a, b, eta=eta), differs)
    assert 0.1 < differs.double().mean() < 0.9


def test_at_eta_two_to_the_minus_eight_the_closest_neighbours_merge():
    two, below = torch.tensor([[2.0]]), torch.tensor([[2 - 2**-7]])
    assert visible_mask(two, below, eta=2**-9).item()
    assert not visible_mask(two, below, eta=2**-8).item()


@pytest.mark.parametrize("shape", SHAPES)
def test_visibility_is_symmetric_and_blind_to_scaling_by_powers_of_two(shape):
    w_0 = torch.randn(shape, generator=generator())
    w_t = w_0 + 3e-3 * torch.randn(shape, generator=generator(1))
    seen = visible_mask(w_0, w_t)
    assert torch.equal(seen, visible_mask(w_t, w_0))
    assert torch.equal(seen, visible_mask(w_0 * 2**-20, w_t * 2**-20))
    assert torch.equal(seen, visible_mask(-w_0, -w_t))


def test_an_update_independent_of_the_weights_shows_on_the_small_ones():
    w_0 = torch.randn(300, 300, generator=generator())
    w_t = w_0 + 1e-3 * torch.randn(300, 300, generator=generator(1))
    seen = visible_mask(w_0, w_t)
    assert mask_overlap(low_magnitude_mask(w_0, alpha=0.3), seen) > 0.6
    assert w_0[seen].abs().median() < w_0[~seen].abs().median()


# Sparsity


@pytest.mark.parametrize("shape", SHAPES)
def test_sparsity_and_density_add_to_one_matrix_by_matrix(shape):
    w_0 = torch.randn(shape, generator=generator())
    w_t = w_0 + 3e-3 * torch.randn(shape, generator=generator(1))
    sparsity_of = sparsity.update_sparsity(w_0, w_t)
    assert sparsity_of.shape == shape[:-2]
    assert sparsity_of.dtype == torch.float64
    torch.testing.assert_close(sparsity_of, 1 - visible_mask(w_0, w_t).double().mean((-2, -1)))
    torch.testing.assert_close(sparsity.update_sparsity(w_0, w_0), torch.ones_like(sparsity_of))


def test_full_precision_sees_what_bf16_hides():
    w_0 = torch.ones(8, 8)
    assert sparsity.update_sparsity(w_0, w_0 * (1 + 2**-10)) == 1
    assert sparsity.update_sparsity(w_0, w_0 * (1 + 2**-10), eta=0, precision=torch.float32) == 0


def test_absolute_sparsity_counts_updates_up_to_the_threshold():
    w_0 = torch.tensor([[0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    w_t = torch.tensor([[0.0, 1e-5, -1e-5, 1.1e-5]], dtype=torch.float64)
    assert sparsity.absolute_sparsity(w_0, w_t) == 0.75
    assert sparsity.absolute_sparsity(w_0, w_t, threshold=0) == 0.25


# Masks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.001, 0.1, 0.3, 0.5, 0.999])
def test_masks_hold_a_share_alpha_of_each_matrix(shape, alpha):
    w_0 = torch.randn(shape, generator=generator())
    for mask in (principal_mask(w_0, alpha=alpha, rank=4), low_magnitude_mask(w_0, alpha=alpha)):
        assert mask.shape == shape
        assert (mask.sum((-2, -1)) == round(alpha * shape[-2] * shape[-1])).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_low_magnitude_mask_takes_no_weight_above_one_it_leaves(shape):
    w_0 = torch.randn(shape, generator=generator())
    mask, size = low_magnitude_mask(w_0, alpha=0.3), w_0.abs()
    largest_taken = size.masked_fill(~mask, 0).amax((-2, -1))
    assert (largest_taken < size.masked_fill(mask, torch.inf).amin((-2, -1))).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_go_to_the_earlier_position(dtype):
    w_0 = torch.tensor([[1, -1, 2], [0, 1, -1]], dtype=dtype)
    expected = torch.tensor([[True, True, False], [True, False, False]])
    assert torch.equal(low_magnitude_mask(w_0, alpha=0.5), expected)
    flat = torch.ones(4, 5, dtype=dtype)
    assert torch.equal(low_magnitude_mask(flat, alpha=0.3).flatten(), torch.arange(20) < 6)


@pytest.mark.parametrize("shape", SHAPES)
def test_at_full_rank_the_principal_mask_is_the_top_of_the_weights_themselves(shape):
    w_0 = torch.randn(shape, generator=generator(), dtype=torch.float64)
    principal = principal_mask(w_0, alpha=0.3, rank=min(shape[-2:]))
    assert torch.equal(principal, ~low_magnitude_mask(w_0, alpha=0.7))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_principal_mask_sees_only_the_leading_factors(shape):
    w_0 = torch.randn(shape, generator=generator(), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(w_0, full_matrices=False)
    leading = (u[..., :3], s[..., :3], vh[..., :3, :])
    mask = principal_mask(w_0, alpha=0.2, rank=3)
    for factors in ((u, s, vh), leading):
        magnitude = sparsity.principal_magnitude(w_0, rank=3, factors=factors)
        assert torch.equal(mask, sparsity.mark_largest(magnitude, 0.2))
    assert torch.equal(
        mask, principal_mask((u[..., :3] * s[..., None, :3]) @ vh[..., :3, :], alpha=0.2, rank=3)
    )


# Overlap


def test_overlap_is_the_share_of_the_update_inside_the_mask():
    mask = torch.tensor([[[True, True, False, False]], [[True, True, False, False]]])
    update = torch.tensor([[[True, False, True, True]], [[False, False, False, False]]])
    first, second = mask_overlap(mask, update).tolist()
    assert first == pytest.approx(1 / 3)
    assert math.isnan(second)


def test_overlap_of_an_unrelated_mask_is_alpha():
    seen = torch.rand(500, 400, generator=generator()) < 0.4
    w_0 = torch.randn(500, 400, generator=generator(1))
    standard_error = math.sqrt(0.3 * 0.7 / int(seen.sum()))
    assert abs(mask_overlap(low_magnitude_mask(w_0, alpha=0.3), seen) - 0.3) < 4 * standard_error


@pytest.mark.parametrize("size_of_mask", [1, 3, 5])
@pytest.mark.parametrize("size_of_update", [1, 2, 4, 6])
def test_overlap_bounds_are_attained_and_never_passed(size_of_mask, size_of_update):
    update = (torch.arange(6) < size_of_update)[None]
    overlaps = []
    for chosen in combinations(range(6), size_of_mask):
        mask = torch.zeros(1, 6, dtype=torch.bool)
        mask[0, list(chosen)] = True
        overlaps.append(mask_overlap(mask, update).item())
    bounds = sparsity.overlap_bounds(size_of_mask / 6, size_of_update / 6)
    assert bounds == pytest.approx((min(overlaps), max(overlaps)))


def test_the_papers_overlaps_are_possible_at_alpha_three_tenths_and_not_at_one_half():
    principal, low_magnitude, density = 0.2966, 0.3188, 0.9273  # SFT, Fig. 3
    low, high = sparsity.overlap_bounds(0.3, density)
    assert low < principal < low_magnitude < high
    low, _ = sparsity.overlap_bounds(0.5, density)
    assert low == pytest.approx(0.461, abs=5e-4)
    assert low > low_magnitude > principal


def test_the_bounds_of_no_update_are_undefined_and_of_a_full_one_exact():
    assert all(math.isnan(bound) for bound in sparsity.overlap_bounds(0.3, 0))
    assert sparsity.overlap_bounds(0.3, 1) == pytest.approx((0.3, 0.3))


# Bad input

W = torch.ones(6, 4)
NAN = torch.full((6, 4), torch.nan)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: visible_mask(W, W.mT), r"one shape, got \(6, 4\) and \(4, 6\)"),
        (lambda: visible_mask(W[0], W[0]), r"shape \(4,\)"),
        (lambda: visible_mask(W, NAN), r"w_t in torch.bfloat16 must be finite, got nan \(24 such\)"),
        (lambda: visible_mask(W * 7e4, W, precision=torch.float16), r"w_0 in torch.float16 .* got inf"),
        (lambda: visible_mask(W, W, eta=-1), r"eta .* got -1"),
        (lambda: visible_mask(W, W, eta=math.nan), r"eta .* got nan"),
        (lambda: visible_mask(W, W, precision=torch.int8), r"got 0.001 and torch.int8"),
        (lambda: sparsity.update_sparsity(W, W.long()), r"w_t must be a real .* torch.int64 .* \(6, 4\)"),
        (lambda: sparsity.update_sparsity(W[:0], W[:0]), r"\(0, 4\)"),
        (lambda: sparsity.absolute_sparsity(NAN, W), r"w_0 must be finite"),
        (lambda: sparsity.absolute_sparsity(W, W, threshold=-1e-5), r"threshold .* got -1e-05 .* \(6, 4\)"),
        (lambda: low_magnitude_mask(W, alpha=0), r"alpha must lie in \(0, 1\), got 0 .* \(6, 4\)"),
        (lambda: low_magnitude_mask(W, alpha=math.nan), r"alpha .* got nan"),
        (lambda: principal_mask(W, alpha=1.0, rank=2), r"alpha must lie in \(0, 1\), got 1.0"),
        (lambda: principal_mask(NAN, alpha=0.3, rank=2), r"w_0 must be finite, got nan"),
        (lambda: principal_mask(W, alpha=0.3, rank=5), r"rank must lie in \[1, 4\], got 5 for w_0 \(6, 4\)"),
        (lambda: principal_mask(W, alpha=0.3, rank=0), r"got 0"),
        (
            lambda: sparsity.principal_magnitude(
                W, rank=2, factors=torch.linalg.svd(W.mT, full_matrices=False)
            ),
            r"no rank-2 SVD of w_0 of shape \(6, 4\)",
        ),
        (lambda: mask_overlap(W > 0, (W > 0).mT), r"got .* \(6, 4\) and .* \(4, 6\)"),
        (lambda: mask_overlap(W > 0, W), r"two bool masks .* and torch\.float32"),
        (lambda: sparsity.overlap_bounds(1.5, 0.5), r"got 1.5 and 0.5"),
        (lambda: sparsity.overlap_bounds(0.3, -0.1), r"got 0.3 and -0.1"),
        (lambda: half_ulp(NAN), r"w_0 in torch.bfloat16 must be finite"),
    ],
)
def test_bad_input_gets_one_clear_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
