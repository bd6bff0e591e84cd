"""Curvature along a direction is the second derivative of the KL, and subspaces hold their share of it."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from tiny import PROMPTS, SHAPE
from torch.func import functional_call

from paper_lib.geometry.decompositions import lapack
from paper_lib.geometry.subspaces import principal_energy
from paper_lib.measure.probes import (
    _inputs,
    equal_rms,
    fisher_curvature,
    named_directions,
    off_principal_direction,
    principal_direction,
)
from paper_lib.tables import START
from paper_lib.training.models import build_model
from paper_lib.training.objectives import exact_kl
from paper_lib.training.rollouts import completion_logits, encode_prompts, sample


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model(tokenizer):
    return build_model(SHAPE, tokenizer, seed=0).double()


@pytest.fixture
def batch(tokenizer, student):
    return sample(
        *(student, *encode_prompts(tokenizer, PROMPTS)),
        samples=2,
        max_new_tokens=5,
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        generator=generator(0),
    )


@pytest.fixture
def directions(model):
    names = [n for n, _ in model.named_parameters() if "proj" in n]
    shapes = {n: p.shape for n, p in model.named_parameters()}
    return [
        {n: torch.randn(shapes[n], generator=generator(10 * i + seed)).double() for i, n in enumerate(part)}
        for seed, part in enumerate((names, names[:1], names[-1:], names[3:5]))
    ]


def mean_kl(model, batch, start, weights):
    kl = exact_kl(start, functional_call(model, weights, kwargs=_inputs(model, batch)).logits[:, :-1])
    return kl[batch.completion_mask].mean()


def test_the_forward_pass_is_the_one_that_trains(model, batch):
    with torch.no_grad():
        logits = model(**_inputs(model, batch)).logits[:, :-1]
        expected = completion_logits(model, batch)
    assert_allclose(logits[batch.completion_mask], expected[batch.completion_mask], atol=1e-12)


def test_curvature_is_the_second_difference_of_the_kl(model, batch, directions):
    before = model.config._attn_implementation
    found = fisher_curvature(model, batch, directions)
    assert model.config._attn_implementation == before
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    with torch.no_grad():
        start = model(**_inputs(model, batch)).logits[:, :-1]
        for mu, direction in zip(found, directions, strict=True):
            size = math.sqrt(sum(float(v.square().sum()) for v in direction.values()))
            shifted = [{n: parameters[n] + e / size * v for n, v in direction.items()} for e in (1e-2, -1e-2)]
            both = sum(mean_kl(model, batch, start, weights) for weights in shifted)
            assert_allclose(mu, both / 1e-4, rtol=1e-4)  # norms are float32 even here


def test_curvature_is_what_differentiating_twice_gives(model, batch, directions):
    found = fisher_curvature(model, batch, directions)
    assert min(found) > 0
    model.set_attn_implementation("eager")
    start = model(**_inputs(model, batch)).logits[:, :-1].detach()
    parameters = model.state_dict()
    for mu, direction in zip(found, directions, strict=True):
        weights = {n: parameters[n].clone().requires_grad_() for n in direction}
        loss = mean_kl(model, batch, start, weights)
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        along = sum((g * direction[n]).sum() for n, g in zip(weights, first, strict=True))
        second = torch.autograd.grad(along, list(weights.values()))
        product = sum(float((h * direction[n]).sum()) for n, h in zip(weights, second, strict=True))
        assert_allclose(mu, product / sum(float(v.square().sum()) for v in direction.values()), rtol=1e-6)


def test_curvature_knows_no_length_and_single_precision_suffices(model, batch, directions, tokenizer):
    once = fisher_curvature(model, batch, directions)
    longer = [{n: -1e-3 * v for n, v in direction.items()} for direction in directions]
    assert_allclose(fisher_curvature(model, batch, longer), once, rtol=1e-10)
    single = build_model(SHAPE, tokenizer, seed=0)
    assert_allclose(fisher_curvature(single, batch, directions), once, rtol=1e-4)
    assert math.isnan(fisher_curvature(model, batch, [{n: 0 * v for n, v in directions[0].items()}])[0])


@pytest.mark.parametrize(
    ("name", "told"), [("none", "no parameter"), ("model.layers.0.self_attn.q_proj.weight", r"\(32, 32\)")]
)
def test_a_direction_of_another_model_is_refused(model, batch, name, told):
    with pytest.raises(ValueError, match=rf"direction {name} of shape \(2, 2\) does not fit .*{told}"):
        fisher_curvature(model, batch, [{name: torch.ones(2, 2)}])


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_principal_directions_lie_inside_and_the_others_outside(shape):
    w = lapack(torch.randn(shape, generator=generator(0)), 3)
    inside, outside = (d(w.u, w.v, generator(1)) for d in (principal_direction, off_principal_direction))
    assert_allclose(principal_energy(inside, w.u, w.v), 1)
    assert_allclose(principal_energy(outside, w.u, w.v), 0, atol=1e-28)
    assert torch.linalg.matrix_rank(inside) == 3
    assert_allclose(w.u.mT @ outside, 0, atol=1e-13)
    assert_allclose(outside @ w.v, 0, atol=1e-13)
    assert torch.linalg.matrix_rank(outside) == min(shape) - 3


def test_a_random_update_holds_its_share_of_dimensions():
    w = lapack(torch.randn(12, 20, generator=generator(0)), 3)
    shares = [principal_energy(torch.randn(12, 20, generator=generator(i)), w.u, w.v) for i in range(800)]
    assert_allclose(sum(shares) / 800, 3 / 12 * 3 / 20, rtol=0.06)
    assert principal_energy(torch.zeros(12, 20), w.u, w.v).isnan()


def test_matrices_weigh_by_their_size():
    direction = equal_rms(torch.randn(4, 9, generator=generator(0)))
    assert_allclose(torch.linalg.matrix_norm(direction), 6, rtol=1e-6)
    assert not equal_rms(torch.zeros(3, 3)).any()


def test_every_direction_has_its_name_and_draws():
    w = {name: torch.randn(8, 12, generator=generator(i)) for i, name in enumerate("ab")}
    weights = {name: lapack(each, 2) for name, each in w.items()}
    update = {name: torch.randn(8, 12, generator=generator(9)) for name in w}
    found = list(named_directions(weights, {"opd": update}, 2, 3, 0))
    names = [(run, name) for run, name, _ in found]
    assert sorted(set(names)) == [
        ("opd", "permuted_update"),
        ("opd", "update"),
        *((START, name) for name in ("gaussian", "off_principal", "principal", "principal_reconstruction")),
    ]
    assert names.count(("opd", "update")) == names.count((START, "principal_reconstruction")) == 1
    assert names.count((START, "gaussian")) == names.count(("opd", "permuted_update")) == 3
    by_name = {name: direction for _, name, direction in found}
    assert_allclose(by_name["permuted_update"]["a"].sort()[0].shape, (8, 12))
    assert_allclose(by_name["permuted_update"]["a"].flatten().sort()[0], update["a"].flatten().sort()[0])
    rank = by_name["principal_reconstruction"]["b"]
    u, s, vh = torch.linalg.svd(w["b"].double(), full_matrices=False)
    expected = (u[:, :2] * s[:2]) @ vh[:2]
    assert_allclose(rank, expected / expected.square().mean().sqrt(), atol=1e-12)
    gaussians = [d["a"] for _, name, d in found if name == "gaussian"]
    assert not torch.equal(gaussians[0], gaussians[1])
    again = list(named_directions(weights, {"opd": update}, 2, 3, 0))
    assert all(torch.equal(x["a"], y["a"]) for (*_, x), (*_, y) in zip(found, again, strict=True))
