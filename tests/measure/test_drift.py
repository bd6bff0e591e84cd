"""The KL between two policies is exact over the vocabulary, and estimates over completions are unbiased."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import rel_entr, softmax
from tiny import PROMPTS, SHAPE

from paper_lib.measure import probes
from paper_lib.measure.probes import mean_kl, policy_drift, sequence_kl
from paper_lib.training.models import build_model
from paper_lib.training.objectives import exact_kl
from paper_lib.training.rollouts import encode_prompts, sample


def drawn(model, tokenizer, *, samples=3, seed=0, max_new_tokens=5):
    return sample(
        *(model, *encode_prompts(tokenizer, PROMPTS)),
        samples=samples,
        max_new_tokens=max_new_tokens,
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        generator=torch.Generator().manual_seed(seed),
    )


def drift_of(start, now, tokenizer, **changes):
    settings = {"samples": 4, "max_new_tokens": 5, "seed": 0} | changes
    ends = {"pad_id": tokenizer.pad_token_id, "end_id": tokenizer.eos_token_id}
    return policy_drift(start, now, encode_prompts(tokenizer, PROMPTS), **ends, **settings)


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
    for unit in ("token", "sequence"):
        spread = np.std([means[unit] for means, _ in found], ddof=1)
        assert_allclose(np.mean([errors[unit] for _, errors in found]), spread, rtol=0.12)
    assert_allclose(found[0][0]["token"], kl[0].sum() / tokens[0].sum())
    sums = kl[0].mean(1)
    assert_allclose(found[0][1]["sequence"], sums.std() / math.sqrt(50))
    assert math.isnan(mean_kl(kl[0, :1], tokens[0, :1])[1]["token"])


def test_a_policy_has_not_drifted_from_itself_and_both_ways_are_distances(tokenizer, student, moved):
    still = drift_of(student, student, tokenizer)
    assert max(map(abs, still.values())) < 1e-12
    found, back = drift_of(student, moved, tokenizer), drift_of(moved, student, tokenizer)
    assert found == drift_of(student, moved, tokenizer)
    assert min(found.values()) > 0
    for a, b in (("forward", "reverse"), ("reverse", "forward")):
        assert found[f"{a}_kl"] == back[f"{b}_kl"]
