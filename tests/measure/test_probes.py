"""Curvature is the second derivative of the KL between policies; drift is that KL, exact or unbiased."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import rel_entr, softmax
from tiny import PROMPTS, SHAPE
from torch.func import functional_call

from paper_lib.geometry.decompositions import lapack
from paper_lib.geometry.subspaces import principal_energy
from paper_lib.ground.tables import START
from paper_lib.measure import probes
from paper_lib.measure.probes import (
    _inputs,
    equal_rms,
    fisher_curvature,
    mean_kl,
    named_directions,
    policy_drift,
    random_direction,
    sequence_kl,
)
from paper_lib.training.models import build_model
from paper_lib.training.objectives import exact_kl
from paper_lib.training.rollouts import completion_logits, sample


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model(tokenizer):
    return build_model(SHAPE, tokenizer, seed=0).double()


@pytest.fixture
def batch(tokenizer, student):
    return sample(
        *(student, tokenizer, PROMPTS),
        samples=2,
        max_new_tokens=5,
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


def kl_of(model, batch, start, weights):
    kl = exact_kl(start, functional_call(model, weights, kwargs=_inputs(model, batch)).logits[:, :-1])
    return kl[batch.completion_mask].mean()


def test_the_forward_pass_is_the_one_that_trains(model, batch):
    with torch.no_grad():
        logits = model(**_inputs(model, batch)).logits[:, :-1]
        expected = completion_logits(model, batch)
    assert_allclose(logits[batch.completion_mask], expected[batch.completion_mask], atol=1e-12)


def test_curvature_is_the_second_difference_of_the_kl(model, batch, directions):
    before = model.config._attn_implementation
    found = [fisher_curvature(model, batch, direction) for direction in directions]
    assert model.config._attn_implementation == before
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    with torch.no_grad():
        start = model(**_inputs(model, batch)).logits[:, :-1]
        for mu, direction in zip(found, directions, strict=True):
            size = math.sqrt(sum(float(v.square().sum()) for v in direction.values()))
            shifted = [{n: parameters[n] + e / size * v for n, v in direction.items()} for e in (1e-2, -1e-2)]
            both = sum(kl_of(model, batch, start, weights) for weights in shifted)
            assert_allclose(mu, both / 1e-4, rtol=1e-4)  # norms are float32 even here


def test_curvature_is_what_differentiating_twice_gives(model, batch, directions):
    found = [fisher_curvature(model, batch, direction) for direction in directions]
    assert min(found) > 0
    model.set_attn_implementation("eager")
    start = model(**_inputs(model, batch)).logits[:, :-1].detach()
    parameters = model.state_dict()
    for mu, direction in zip(found, directions, strict=True):
        weights = {n: parameters[n].clone().requires_grad_() for n in direction}
        loss = kl_of(model, batch, start, weights)
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        along = sum((g * direction[n]).sum() for n, g in zip(weights, first, strict=True))
        second = torch.autograd.grad(along, list(weights.values()))
        product = sum(float((h * direction[n]).sum()) for n, h in zip(weights, second, strict=True))
        assert_allclose(mu, product / sum(float(v.square().sum()) for v in direction.values()), rtol=1e-6)


def test_curvature_knows_no_length_and_single_precision_suffices(model, batch, directions, tokenizer):
    single = build_model(SHAPE, tokenizer, seed=0)
    for direction in directions:
        once = fisher_curvature(model, batch, direction)
        longer = {n: -1e-3 * v for n, v in direction.items()}
        assert_allclose(fisher_curvature(model, batch, longer), once, rtol=1e-10)
        assert_allclose(fisher_curvature(single, batch, direction), once, rtol=1e-4)
        assert math.isnan(fisher_curvature(model, batch, {n: 0 * v for n, v in direction.items()}))


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_principal_directions_lie_inside_and_the_others_outside(shape):
    w = lapack(torch.randn(shape, generator=generator(0)), 3)
    kinds = ("principal", "off_principal")
    inside, outside = (random_direction(kind, w.u, w.v, generator(1)) for kind in kinds)
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


def drawn(model, tokenizer, *, samples=3, seed=0, max_new_tokens=5):
    return sample(
        *(model, tokenizer, PROMPTS),
        samples=samples,
        max_new_tokens=max_new_tokens,
        generator=torch.Generator().manual_seed(seed),
    )


def drift_of(start, now, tokenizer, **changes):
    settings = {"samples": 4, "max_new_tokens": 5, "seed": 0} | changes
    return policy_drift(start, now, tokenizer, PROMPTS, **settings)


@pytest.fixture
def moved(tokenizer, student):
    model = build_model(SHAPE, tokenizer, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return model


def test_kl_is_that_of_scipy_and_of_torch():
    a, b = torch.randn(2, 5, 7, 19, generator=torch.Generator().manual_seed(0)).double() * 3
    p, q = softmax(a.numpy(), -1), softmax(b.numpy(), -1)
    assert_allclose(exact_kl(a, b), rel_entr(p, q).sum(-1), rtol=1e-10)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=a), torch.distributions.Categorical(logits=b)
    )
    assert_allclose(exact_kl(a, b), kl, rtol=1e-10)
    assert (exact_kl(a, b) > 0).all()
    assert not exact_kl(a, a).any()
    with pytest.raises(ValueError, match=r"one \(\.\.\., V\), got \(5, 7, 19\), \(7, 19\)"):
        exact_kl(a, b[0])


def test_a_small_step_costs_half_its_fisher_norm():
    logits = torch.randn(4, 19, generator=torch.Generator().manual_seed(0)).double()
    v = torch.randn(4, 19, generator=torch.Generator().manual_seed(1)).double()
    p = logits.softmax(-1)
    fisher = (p * v.square()).sum(-1) - (p * v).sum(-1).square()
    assert_allclose(exact_kl(logits, logits + 1e-5 * v) / 1e-10, fisher / 2, rtol=1e-3)


def test_the_kl_of_completions_is_the_mean_log_ratio_of_samples(tokenizer, student, moved):
    batch = drawn(student, tokenizer, samples=4000, max_new_tokens=3)
    kl, tokens = sequence_kl(student, moved, batch)
    other = probes.completion_logits(moved, batch).log_softmax(-1)
    theirs = other.gather(-1, batch.completion_ids[..., None])[..., 0]
    ratio = ((batch.log_probs - theirs) * batch.completion_mask).sum(1).double().view(kl.shape)
    error = ratio.std() / math.sqrt(ratio.numel())
    assert abs(kl.mean() - ratio.mean()) < 4 * error
    assert kl.std() < ratio.std()
    assert_allclose(tokens.flatten(), batch.completion_mask.sum(1))


def test_parts_of_a_batch_give_what_the_whole_gives(tokenizer, student, moved, monkeypatch):
    batch = drawn(student, tokenizer)
    whole = sequence_kl(student, moved, batch)
    monkeypatch.setattr(probes, "CHUNK", 16)
    for one, other in zip(sequence_kl(student, moved, batch), whole, strict=True):
        assert_allclose(one, other, rtol=1e-4)


def test_errors_are_those_of_means_over_prompts():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 9, (400, 50, 4), generator=generator).double()
    level = torch.rand(400, 50, 1, generator=generator).double()
    kl = tokens * (level + torch.rand(400, 50, 4, generator=generator))
    found = [mean_kl(*pair) for pair in zip(kl, tokens, strict=True)]
    for metric in ("kl", "kl_sequence"):
        spread = np.std([each[metric] for each in found], ddof=1)
        assert_allclose(np.mean([each[f"{metric}_se"] for each in found]), spread, rtol=0.12)
    assert_allclose(found[0]["kl"], kl[0].sum() / tokens[0].sum())
    sums = kl[0].mean(1)
    assert_allclose(found[0]["kl_sequence_se"], sums.std() / math.sqrt(50))
    assert math.isnan(mean_kl(kl[0, :1], tokens[0, :1])["kl_se"])


def test_a_policy_has_not_drifted_from_itself_and_both_ways_are_distances(tokenizer, student, moved):
    still = drift_of(student, student, tokenizer)
    assert max(map(abs, still.values())) < 1e-12
    found, back = drift_of(student, moved, tokenizer), drift_of(moved, student, tokenizer)
    assert found == drift_of(student, moved, tokenizer)
    assert min(found.values()) > 0
    for a, b in (("forward", "reverse"), ("reverse", "forward")):
        assert found[f"{a}_kl"] == back[f"{b}_kl"]
