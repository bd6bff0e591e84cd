"""Accuracy: avg@k with the standard error of a mean over problems, and greedy, both seeded."""

import numpy as np
import pytest
import torch
from tiny import SUMS

from paper_lib.study.tasks import problems
from paper_lib.training import rollouts
from paper_lib.training.rollouts import accuracy

TEST = problems(SUMS, split="test", number=10, seed=0)


def measure(model, tokenizer, chosen=TEST, *, samples=4, seed=0):
    return accuracy(model, tokenizer, chosen, samples=samples, max_new_tokens=6, seed=seed)


def test_the_mean_and_its_error_are_those_of_the_problems(base, tokenizer, monkeypatch):
    generator = np.random.default_rng(0)
    drawn = []

    def planned(tokenizer, batch, part):
        drawn.append(generator.integers(0, 2, len(batch.completion_ids)))
        return torch.from_numpy(drawn[-1]).float()

    monkeypatch.setattr(rollouts, "rewards", planned)
    found = measure(base, tokenizer)
    means = drawn[0].reshape(10, 4).mean(1)
    assert found["sampled_accuracy"] == pytest.approx(means.mean())
    assert found["sampled_accuracy_se"] == pytest.approx(means.std(ddof=1) / np.sqrt(10))
    assert found["greedy_accuracy"] == pytest.approx(drawn[1].mean())


def test_the_error_is_how_the_mean_varies_over_problem_sets(base, tokenizer):
    many = problems(SUMS, split="train", number=640, seed=1)
    found = [measure(base, tokenizer, many[i : i + 32], samples=2, seed=i) for i in range(0, 640, 32)]
    spread = np.std([f["sampled_accuracy"] for f in found], ddof=1)
    error = np.mean([f["sampled_accuracy_se"] for f in found])
    assert 0.5 < spread / error < 2


def test_the_seed_decides_the_samples_and_greedy_needs_none(base, tokenizer):
    first, again, other = (measure(base, tokenizer, samples=16, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["greedy_accuracy"] == other["greedy_accuracy"]
    assert first["sampled_accuracy"] != other["sampled_accuracy"]


def test_many_problems_are_evaluated_in_parts(base, tokenizer, monkeypatch):
    whole = measure(base, tokenizer)
    monkeypatch.setattr(rollouts, "ROWS_AT_ONCE", 12)
    parts = measure(base, tokenizer)
    assert parts["greedy_accuracy"] == whole["greedy_accuracy"]
    assert 0 <= parts["sampled_accuracy"] <= 1


def test_one_problem_has_no_error(base, tokenizer):
    assert measure(base, tokenizer, TEST[:1])["sampled_accuracy_se"] == 0.0
