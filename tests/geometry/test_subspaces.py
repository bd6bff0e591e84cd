"""Angles, alignments and paths, as sentences."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from paper_lib.geometry import nulls
from paper_lib.geometry.subspaces import (
    chance_alignment,
    path_gram,
    path_pca,
    principal_angles,
    subspace_alignment,
    top_right_singular_vectors,
)

SHAPES = [(40, 12), (12, 40), (24, 24), (3, 20, 12)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(normal(*shape, seed=seed)).Q


def planted(theta: torch.Tensor, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two bases of len(theta) columns with exactly these angles, each column set turned within its span."""
    k = len(theta)
    q = basis(n, 2 * k, seed=seed)
    turned = q[:, :k] * theta.cos() + q[:, k:] * theta.sin()
    return q[:, :k] @ basis(k, k, seed=seed + 1), turned @ basis(k, k, seed=seed + 2)


# Top-K subspaces


@pytest.mark.parametrize("shape", SHAPES)
def test_the_top_right_vectors_are_orthonormal_and_carry_the_leading_singular_values(shape):
    delta_w = normal(*shape).float()
    v = top_right_singular_vectors(delta_w, 5)
    assert v.shape == (*shape[:-2], shape[-1], 5)
    assert v.dtype == torch.float64
    torch.testing.assert_close(v.mT @ v, torch.eye(5, dtype=torch.float64).expand(*shape[:-2], 5, 5))
    sigma = torch.linalg.svdvals(delta_w.double())
    torch.testing.assert_close((delta_w.double() @ v).norm(dim=-2), sigma[..., :5])


def test_the_signs_do_not_depend_on_the_updates_sign_or_scale():
    delta_w = normal(20, 12)
    v = top_right_singular_vectors(delta_w, 4)
    torch.testing.assert_close(top_right_singular_vectors(-1e-7 * delta_w, 4), v)
    assert (v.gather(0, v.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_left_subspace_is_the_right_one_of_the_transpose():
    delta_w = normal(20, 12)
    u = torch.linalg.svd(delta_w, full_matrices=False).U[:, :4]
    assert principal_angles(top_right_singular_vectors(delta_w.mT, 4), u).max() < 1e-14


# Principal angles


@pytest.mark.parametrize("theta", [*np.logspace(-9, 0, 19), math.pi / 4, math.pi / 2 - 1e-9, math.pi / 2])
@pytest.mark.parametrize(("n", "k"), [(8, 1), (50, 6), (400, 32)])
def test_a_planted_rotation_is_recovered_at_any_angle(theta, n, k):
    a, b = planted(torch.full((k,), float(theta), dtype=torch.float64), n)
    angles = principal_angles(a, b)
    torch.testing.assert_close(
        angles, torch.full((k,), float(theta), dtype=torch.float64), rtol=0, atol=5e-15
    )


def test_small_and_large_angles_are_recovered_side_by_side():
    theta = [0, 1e-9, 1e-6, 1e-3, 0.5, math.pi / 4, 1.2, math.pi / 2 - 1e-9, math.pi / 2]
    theta = torch.tensor(theta, dtype=torch.float64)
    angles = principal_angles(*planted(theta, 60))
    torch.testing.assert_close(angles, theta, rtol=0, atol=5e-15)
    assert (angles.diff() >= 0).all()


@pytest.mark.parametrize(("p", "q"), [(1, 1), (5, 5), (3, 7), (7, 3), (12, 12), (18, 15)])
def test_angles_agree_with_scipy(p, q):
    a, b = basis(24, p), basis(24, q, seed=1)
    expected = scipy.linalg.subspace_angles(a.numpy(), b.numpy())[::-1]
    np.testing.assert_allclose(principal_angles(a, b).numpy(), expected, rtol=0, atol=2e-14)


def test_angles_depend_on_the_spans_alone_and_not_on_the_order():
    a, b = basis(3, 30, 5), basis(3, 30, 7, seed=1)
    angles = principal_angles(a, b)
    assert angles.shape == (3, 5)
    torch.testing.assert_close(principal_angles(b, a), angles)
    torch.testing.assert_close(principal_angles(a @ basis(5, 5, seed=2), b @ basis(7, 7, seed=3)), angles)
    torch.testing.assert_close(principal_angles(basis(30, 30) @ a, basis(30, 30) @ b), angles)


def test_a_subspace_makes_no_angle_with_one_that_contains_it():
    b = basis(30, 7)
    assert principal_angles(b[:, 2:6] @ basis(4, 4), b).max() < 1e-14
    assert principal_angles(b[:, :3], b[:, 3:]).numpy() == pytest.approx(math.pi / 2, abs=1e-14)


def test_wedin_bounds_the_rotation_by_the_update_over_the_gap():
    w_0 = torch.diag(torch.tensor([9.0, 8.0, 2.0, 1.0, 0.5])).double()
    for size in (1e-8, 1e-3, 0.3):
        delta_w = size * normal(5, 5)
        before, after = (top_right_singular_vectors(w, 2) for w in (w_0, w_0 + delta_w))
        norm = torch.linalg.matrix_norm(delta_w, 2)
        gap = 8 - torch.linalg.svdvals(w_0 + delta_w)[2]
        assert principal_angles(before, after).max().sin() <= norm / gap


# Sim_K


def test_alignment_is_one_on_one_span_and_nothing_on_orthogonal_ones():
    v = basis(3, 40, 8)
    torch.testing.assert_close(subspace_alignment(v, v @ basis(8, 8, seed=1)), torch.ones(3).double())
    assert subspace_alignment(v[..., :4], v[..., 4:]).max() < 1e-28


def test_alignment_is_the_mean_squared_cosine_of_the_angles():
    a, b = basis(5, 30, 6), basis(5, 30, 6, seed=1)
    torch.testing.assert_close(subspace_alignment(a, b), principal_angles(a, b).cos().square().mean(-1))


@pytest.mark.parametrize(("K", "n"), [(1, 10), (4, 32), (16, 64), (10, 10)])
def test_alignment_of_random_subspaces_averages_k_over_n(K, n):
    values = subspace_alignment(basis(1000, n, K), basis(1000, n, K, seed=1))
    standard_error = (values.std() / math.sqrt(len(values))).item()
    assert values.mean().item() == pytest.approx(chance_alignment(K, n), abs=4 * standard_error + 1e-12)


# Paths


def test_a_path_of_few_points_is_known_by_its_components_up_to_a_motion():
    updates = normal(6, 300).float()
    coordinates, ratios = path_pca(path_gram(list(updates[:, None])))
    assert coordinates.shape == (6, 5)
    torch.testing.assert_close(torch.pdist(coordinates), torch.pdist(updates.double()))
    assert ratios.sum().item() == pytest.approx(1)
    assert (ratios.diff() <= 0).all()
    assert (coordinates[-1] >= 0).all()


def test_a_straight_path_has_one_component():
    shares, direction = torch.linspace(0, 1, 9, dtype=torch.float64), normal(1, 500)
    coordinates, ratios = path_pca(path_gram([share * direction for share in shares]))
    assert ratios[0].item() == pytest.approx(1)
    torch.testing.assert_close(coordinates[:, 0], (shares - 0.5) * direction.norm())


def test_explained_variance_of_a_long_random_walk_falls_as_one_over_k_squared():
    walk = nulls.random_walk([1.0] * 200, (60, 100), torch.Generator().manual_seed(0))
    coordinates, ratios = path_pca(path_gram(list(walk)))
    expected = torch.tensor([nulls.random_walk_explained_variance(k) for k in range(1, 6)]).double()
    torch.testing.assert_close(ratios, expected, rtol=0.12, atol=0)
    # The first component is half a cosine in time, whatever was trained: the arc one is tempted to read.
    half_cosine = torch.cos(math.pi * (torch.arange(200, dtype=torch.float64) + 0.5) / 200)
    assert abs(torch.corrcoef(torch.stack([coordinates[:, 0], half_cosine]))[0, 1]) > 0.99


def test_a_path_that_never_moves_has_no_components():
    coordinates, ratios = path_pca(torch.zeros(4, 4, dtype=torch.float64))
    assert torch.equal(coordinates, torch.zeros(4, 3, dtype=torch.float64))
    assert ratios.isnan().all()


# Bad input

W = normal(6, 4)
V = basis(6, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: top_right_singular_vectors(W, 5), r"K must lie in \[1, 4\], got 5 .* \(6, 4\)"),
        (lambda: top_right_singular_vectors(W, 0), r"got 0"),
        (
            lambda: top_right_singular_vectors(W * torch.nan, 2),
            r"delta_w must be finite, got nan \(24 such\)",
        ),
        (lambda: top_right_singular_vectors(W[0], 1), r"\(4,\)"),
        (lambda: top_right_singular_vectors(0 * W, 1), r"numerical rank 0, got 1 .* \(6, 4\)"),
        (lambda: top_right_singular_vectors(W[:, :1] @ W[:1], 2), r"numerical rank 1, got 2"),
        (lambda: principal_angles(V, basis(5, 2)), r"got \(6, 2\) and \(5, 2\)"),
        (lambda: principal_angles(W, V), r"a \(6, 4\) needs orthonormal columns"),
        (lambda: principal_angles(V, V.mT), r"b cannot have 6 orthonormal columns of length 2"),
        (lambda: principal_angles(V, V * torch.inf), r"b must be finite"),
        (lambda: subspace_alignment(V, V[:, :1]), r"got \(6, 2\) and \(6, 1\)"),
        (lambda: subspace_alignment(V, 2 * V), r"v_b \(6, 2\) needs orthonormal columns, got .* 3.0e\+00"),
        (lambda: chance_alignment(5, 4), r"K 5, n 4"),
        (lambda: chance_alignment(0, 4), r"K 0, n 4"),
    ],
)
def test_bad_input_gets_one_clear_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
