"""Masks of two runs meet as often as densities, rounding, or a common structure makes them."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.metrics import jaccard_score

from paper_lib.geometry.nulls import permuted
from paper_lib.geometry.sparsity import chance_jaccard, jaccard, showing_probability, visible_mask
from paper_lib.measure.matrix import alignment, measure_pair, update_cosine, update_span
from paper_lib.study.config import DiagnosticsConfig

CONFIG = DiagnosticsConfig(K=2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(m: int, n: int, seed: int) -> torch.Tensor:
    return torch.randn(m, n, generator=generator(seed))


def values(one: torch.Tensor, other: torch.Tensor, w_0: torch.Tensor) -> dict[str, float]:
    rows = measure_pair((w_0, w_0 + one), (w_0, w_0 + other), 7, CONFIG)
    assert {row.step for row in rows} == {7}
    return {row.metric: row.value for row in rows}


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_jaccard_is_that_of_scikit_learn(shape: tuple[int, int]) -> None:
    a, b = noise(*shape, 0) > 0.5, noise(*shape, 1) > 0
    assert_allclose(jaccard(a, b), jaccard_score(a.flatten(), b.flatten()))
    assert_allclose(jaccard(torch.stack([a, b]), torch.stack([a, a])), [1, jaccard(a, b)])
    assert jaccard(a & ~a, b & ~b).isnan()


def test_independent_masks_meet_at_chance() -> None:
    a, b = noise(400, 500, 0) > 0.5, noise(400, 500, 1) > 0
    d_a, d_b = a.double().mean(), b.double().mean()
    assert_allclose(chance_jaccard(a, b), d_a * d_b / (d_a + d_b - d_a * d_b))
    assert_allclose(jaccard(a, b), chance_jaccard(a, b), rtol=0.01)
    flat = torch.full((400, 500), 1.0).double()
    assert_allclose(chance_jaccard(d_a * flat, d_b * flat), chance_jaccard(a, b))


def test_rounding_alone_makes_masks_meet_above_chance() -> None:
    w_0 = (noise(200, 300, 0) * noise(200, 300, 1)).bfloat16().double()
    a, b = (1e-3 * noise(200, 300, seed).double() for seed in (2, 3))
    found = values(a, b, w_0)
    assert found["jaccard_rounding"] > found["jaccard_chance"] + 0.05
    assert_allclose(found["jaccard"], found["jaccard_rounding"], rtol=0.02)
    assert_allclose(found["coverage"], found["coverage_rounding"], rtol=0.02)
    assert_allclose(found["reverse_coverage"], found["reverse_coverage_rounding"], rtol=0.02)
    dealt = [visible_mask(w_0, w_0 + permuted(x, generator(9 + i))) for i, x in enumerate((a, b))]
    assert_allclose(jaccard(*dealt), found["jaccard_rounding"], rtol=0.02)
    p_a, p_b = (showing_probability(w_0, w_0 + x) for x in (a, b))
    assert_allclose(found["coverage_rounding"], (p_a * p_b).sum() / p_b.sum())


def test_a_common_subnetwork_shows_above_its_rounding() -> None:
    w_0 = noise(60, 80, 0).bfloat16().double()
    where = noise(60, 80, 1) > 1
    a, b = (where * noise(60, 80, seed).double() for seed in (2, 3))
    found = values(a, b, w_0)
    assert found["jaccard"] > 0.9 > 0.3 > found["jaccard_rounding"] > found["jaccard_chance"] - 0.01
    assert abs(found["update_cosine"]) < 0.1


def test_an_update_is_itself_and_its_half_is_covered() -> None:
    w_0 = noise(24, 16, 0).bfloat16().double()
    a = 0.1 * noise(24, 16, 1).double()
    same = values(a, a, w_0)
    for metric in ("jaccard", "coverage", "reverse_coverage", "update_cosine", "subspace_alignment"):
        assert_allclose(same[metric], 1, err_msg=metric)
    part = a.clone()
    part[12:] = 0
    found = values(part, a, w_0)
    assert_allclose(found["reverse_coverage"], 1)
    assert_allclose(found["coverage"], found["density"] / found["other_density"])
    assert_allclose(update_cosine(a, -a), -1)


def test_the_two_runs_may_start_from_different_weights() -> None:
    w_a, w_b = (noise(24, 16, seed).bfloat16().double() for seed in (0, 1))
    delta_w = 0.1 * noise(24, 16, 2).double()
    found = measure_pair((w_a, w_a + delta_w), (w_b, w_b + delta_w), 1, CONFIG)
    rows = {row.metric: row.value for row in found}
    assert_allclose([rows["subspace_alignment"], rows["update_cosine"]], 1)
    assert_allclose(rows["other_density"], visible_mask(w_b, w_b + delta_w).double().mean())


def test_unrelated_updates_share_a_subspace_at_chance() -> None:
    spans = [update_span(noise(16, 24, i), 2) for i in range(120)]
    found = [alignment(*pair) for pair in zip(spans[:60], spans[60:], strict=True)]
    assert_allclose(sum(found) / 60, 2 / 24, atol=0.03)
    assert math.isnan(alignment(spans[0], update_span(torch.zeros(16, 24), 2)))


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two bool masks of one shape .*float32 \(2, 2\)"):
        jaccard(torch.ones(2, 2), torch.ones(2, 2).bool())
