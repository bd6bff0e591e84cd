"""Every decomposition agrees with LAPACK's SVD to within the bound that it states."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from paper_lib.geometry import decompositions
from paper_lib.geometry.decompositions import (
    Spectrum,
    certified_shift,
    gram,
    krylov,
    lapack,
    update_spectrum,
    weight_spectrum,
)
from paper_lib.geometry.subspaces import principal_angles
from paper_lib.measure.matrix import measure_matrix
from paper_lib.study.config import DiagnosticsConfig

SHAPES = {"tall": (150, 60), "wide": (60, 150), "square": (90, 90), "thin": (40, 1), "tiny": (2, 2)}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(sigma: Tensor, m: int, n: int) -> Tensor:
    u, v = torch.linalg.qr(normal(m, len(sigma))).Q, torch.linalg.qr(normal(n, len(sigma), seed=1)).Q
    return (u * sigma) @ v.mT


KINDS = {
    **{name: normal(*shape) for name, shape in SHAPES.items()},
    "bf16": normal(120, 80).bfloat16(),
    "bf16 noise": (normal(90, 90) + 2e-3 * normal(90, 90, seed=1)).bfloat16() - normal(90, 90).bfloat16(),
    "rank-deficient": normal(90, 7) @ normal(7, 70, seed=1),
    "clustered": with_spectrum(torch.ones(60, dtype=torch.float64), 90, 60),
    "near-clustered": with_spectrum(1 + 1e-9 * torch.arange(60, 0, -1).double(), 90, 60),
    "graded": with_spectrum(torch.logspace(0, -14, 60, dtype=torch.float64), 90, 60),
    "one large direction": with_spectrum(
        torch.cat([torch.tensor([1e4]).double(), torch.linspace(2, 1, 59).double()]), 60, 90
    ),
    "tiny numbers": 1e-30 * normal(60, 50),
    "transposed view": normal(70, 110).mT,
    "zero": torch.zeros(30, 20, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_gram_singular_values_are_lapacks_to_within_their_bound(kind: str) -> None:
    w = KINDS[kind]
    k = max(1, min(w.shape) // 2)
    fast, exact = gram(w, k), lapack(w, k)
    assert fast.sigma.shape == exact.sigma.shape
    assert bool(((fast.sigma - exact.sigma).abs() <= fast.sigma_bound + exact.sigma_bound).all())
    for found, side in ((fast.u, w.shape[0]), (fast.v, w.shape[1])):
        assert found.shape == (side, k)
        torch.testing.assert_close(found.mT @ found, torch.eye(k).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("driver", ["sterf", "stemr"])
def test_lapack_steps_in_where_the_eigenproblem_does_not_converge(
    monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    original = decompositions.eigh_tridiagonal

    def fails(*arrays: np.ndarray, **options: Any) -> Any:
        if options["lapack_driver"] == driver:
            raise np.linalg.LinAlgError("did not converge")
        return original(*arrays, **options)

    monkeypatch.setattr(decompositions, "eigh_tridiagonal", fails)
    w = KINDS["clustered"]
    found, expected = gram(w, 5), lapack(w, 5)
    assert found.method == "lapack"
    assert torch.equal(found.sigma, expected.sigma)
    assert torch.equal(found.v, expected.v)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [gram, lapack])
def test_a_residual_bounds_what_the_triplets_miss(kind: str, method) -> None:  # type: ignore[no-untyped-def]
    w = KINDS[kind].double()
    k = max(1, min(w.shape) // 2)
    found = method(w, k)
    missed = torch.cat([w @ found.v - found.u * found.sigma[:k], w.mT @ found.u - found.v * found.sigma[:k]])
    assert float(torch.linalg.matrix_norm(missed)) <= found.residual + 1e-300


@pytest.mark.parametrize("kind", ["tall", "wide", "square", "bf16", "one large direction", "transposed view"])
def test_gram_subspaces_are_lapacks_to_within_the_angle_bound(kind: str) -> None:
    w = KINDS[kind]
    k = min(w.shape) // 2
    fast, exact = gram(w, k), lapack(w, k)
    bound = fast.angle_bound(k) + exact.angle_bound(k)
    assert bound < (1e-4 if kind == "one large direction" else 1e-9)
    for side in ("u", "v"):
        a, b = getattr(fast, side), getattr(exact, side)
        assert subspace_angles(a.numpy(), b.numpy()).max() <= bound


def test_a_gap_that_is_not_resolved_bounds_no_angle() -> None:
    assert lapack(KINDS["clustered"], 30).angle_bound(30) == gram(KINDS["clustered"], 30).angle_bound(30)
    assert gram(KINDS["clustered"], 30).angle_bound(30) == math.pi / 2
    assert gram(KINDS["clustered"], 60).angle_bound(60) < 1e-10  # all of the row space: no gap is needed
    with pytest.raises(ValueError, match=r"k must lie in \[1, 30\], got 31"):
        gram(KINDS["clustered"], 30).angle_bound(31)


@pytest.mark.parametrize("shape", [(300, 260), (260, 500), (500, 260)])
def test_krylov_finds_the_leading_triplets(shape: tuple[int, int]) -> None:
    w = normal(*shape) / 30 + normal(shape[0], 6) @ normal(6, shape[1], seed=1) / 30
    found, exact = krylov(w, 6), lapack(w, 6)
    assert found is not None
    assert found.sigma.shape == (7,)  # one more, for the gap
    torch.testing.assert_close(found.sigma[:6], exact.sigma[:6], rtol=1e-13, atol=0)
    for side in ("u", "v"):
        turned = principal_angles(getattr(found, side), getattr(exact, side)).max()
        assert turned <= found.angle_bound(6) + exact.angle_bound(6) < 1e-6


def test_krylov_gives_up_on_a_cluster_that_k_cuts_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompositions, "LARGEST_KRYLOV", 3)
    assert krylov(normal(400, 400), 20) is None


@pytest.fixture
def fast_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompositions, "SMALL", 8)
    monkeypatch.setattr(decompositions, "KRYLOV_FROM", 64)


def pair(kind: str) -> tuple[Tensor, Tensor]:
    """W_0 and W_t: a planted update of rank 6, in bf16 on top of a matrix of the kind."""
    w_0 = KINDS[kind].float()
    m, n = w_0.shape
    size = 1e-3 * float(w_0.norm()) / math.sqrt(6 * m * n)
    return w_0, w_0 + size * (normal(m, 6, seed=2) @ normal(6, n, seed=3)).float()


@pytest.mark.usefixtures("fast_at_any_size")
@pytest.mark.parametrize(
    "kind", ["tall", "wide", "square", "bf16", "rank-deficient", "clustered", "graded", "one large direction"]
)
def test_fast_and_exact_diagnostics_agree(kind: str) -> None:
    config = DiagnosticsConfig(principal_rank=4, angle_k=6, K=3, hill_k=6, energy_k=4)
    w_0, w_t = pair(kind)
    halfway = w_0 + (w_t - w_0) / 2
    tables = [
        measure_matrix([w_0, halfway, w_t], [0, 1, 2], config, [1e-3] * 2, exact=exact)
        for exact in (True, False)
    ]
    exact, fast = ({(r.step, r.metric, r.k): r.value for r in rows if r.k == r.k} for rows in tables)
    exact |= {(r.step, r.metric, None): r.value for r in tables[0] if r.k != r.k}
    fast |= {(r.step, r.metric, None): r.value for r in tables[1] if r.k != r.k}
    bounds = {key: value for key, value in fast.items() if key[1].endswith(("_bound", "_by_lapack"))}
    assert set(fast) - set(bounds) == set(exact)
    assert any(metric == "angle_bound" for _, metric, _ in bounds)
    for (step, metric, k), value in exact.items():
        if metric == "spectral_shift":
            reach = max(1e-9 * value, bounds.get((step, "spectral_shift_bound", None), 0.0), 1e-15)
            assert abs(fast[step, metric, k] - value) <= reach
        elif metric.startswith("angle"):
            bound = bounds.get((step, "angle_bound", 6.0), 0.0)  # none where LAPACK stepped in
            allowed = max(1e-9, bound if kind != "clustered" else math.pi)
            assert abs(fast[step, metric, k] - value) <= allowed
        else:
            assert fast[step, metric, k] == pytest.approx(value, rel=1e-6, nan_ok=True), (step, metric, k)


@pytest.mark.parametrize("angle", [1e-7, 1e-3])
def test_gram_recovers_a_planted_rotation(angle: float) -> None:
    sigma = torch.cat([torch.linspace(3, 2, 20), torch.linspace(1, 0.1, 60)]).double()
    w_0 = with_spectrum(sigma, 120, 80)
    v = torch.linalg.svd(w_0, full_matrices=False).Vh
    turn = torch.eye(80).double()
    turn[19, 19] = turn[20, 20] = math.cos(angle)
    turn[19, 20], turn[20, 19] = math.sin(angle), -math.sin(angle)
    w_t = w_0 @ v.mT @ turn @ v
    angles = principal_angles(gram(w_0, 20).v, gram(w_t, 20).v)
    assert float(angles.max()) == pytest.approx(angle, rel=1e-6)
    assert float(principal_angles(gram(w_0, 20).u, gram(w_t, 20).u).max()) < 1e-13


@pytest.mark.parametrize("shift", [1e-3, 1e-5, 1e-7])
def test_a_planted_shift_of_the_spectrum_is_recovered(shift: float) -> None:
    sigma = torch.linspace(2, 0.05, 80).double()
    w_0 = with_spectrum(sigma, 120, 80)
    before, after = (Spectrum(w=w, decomposition=gram(w, 10)) for w in (w_0, (1 + shift) * w_0))
    value, bound, _ = certified_shift(before, after)
    assert abs(value - shift) <= bound <= 1e-6 * shift
    exact = [Spectrum(w=w, decomposition=lapack(w, 10)) for w in (w_0, (1 + shift) * w_0)]
    assert abs(value - certified_shift(*exact)[0]) <= bound + certified_shift(*exact)[1]


def test_the_smallest_singular_values_are_as_good_as_lapacks() -> None:
    w = with_spectrum(torch.linspace(1, 1e-9, 200, dtype=torch.float64), 220, 200)
    fast, exact = gram(w, 20), lapack(w, 20)
    assert float((fast.sigma - exact.sigma)[-1].abs()) < 1e-15
    assert float(fast.sigma_bound[-1]) < 5 * float(exact.sigma_bound[-1])


def test_lapack_steps_in_where_squaring_lost_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompositions, "LARGEST_REFINEMENT", 0)
    w_0 = KINDS["rank-deficient"]
    w_t = w_0 * (1 + 1e-6)
    start, end = (Spectrum(w=w, decomposition=gram(w, 5)) for w in (w_0, w_t))
    value, bound, by_lapack = certified_shift(start, end)
    assert by_lapack
    assert abs(value - 1e-6) <= bound <= 1e-12
    assert gram(w_0, 20).method == "lapack"  # σ_20 is 0


@pytest.mark.usefixtures("fast_at_any_size")
def test_the_cheapest_method_that_resolves_is_taken() -> None:
    low = normal(300, 6) @ normal(6, 280, seed=1)
    assert weight_spectrum(normal(300, 280), 20).decomposition.method == "gram"
    assert weight_spectrum(normal(300, 280), 20, exact=True).decomposition.method == "lapack"
    assert update_spectrum(low + 1e-2 * normal(300, 280, seed=2), 6).method == "krylov"
    assert update_spectrum(low, 6, exact=True).method == "lapack"
    beyond = update_spectrum(low, 10)
    assert beyond.method == "lapack"  # four of the ten are 0, which only LAPACK tells from small
    assert bool((beyond.sigma[6:] == 0).all())
    nothing = update_spectrum(torch.zeros(70, 70).double(), 3)
    assert bool((nothing.sigma == 0).all())
