"""Rotated and permuted heads: other weights, the same function, and a way back."""

import pytest
import torch
from tiny import draw, full_logits

from paper_lib.study.config import ModelConfig
from paper_lib.study.tasks import seeded_generator
from paper_lib.training.models import as_stored, build_model
from paper_lib.training.rotations import change_heads, random_change, random_orthogonal

GROUPED = ModelConfig(hidden_size=32, layers=3, heads=6, kv_heads=2, intermediate_size=48, head_dim=8)


def change(layer=0, *, heads=6, kv_heads=2, size=8):
    return random_change(heads, kv_heads, size, seeded_generator("change", layer))


def changed_in(state, layers):
    for layer in layers:
        state = change_heads(state, layer, *change(layer))
    return state


@pytest.fixture
def grouped(tokenizer):
    """A random decoder whose weights are those of a bf16 checkpoint, three query heads a group."""
    model = build_model(GROUPED, tokenizer, seed=0)
    with torch.no_grad():
        for layer in model.model.layers:  # norms that are not the identity, as after training
            layer.self_attn.q_norm.weight.mul_(torch.linspace(0.5, 2, 8))
    model.load_state_dict(as_stored(model.state_dict()))
    return model


def logits(model, batch, state):
    model.load_state_dict(state)
    with torch.no_grad():
        return full_logits(model, batch)


@pytest.mark.parametrize("layers", [(1,), (0, 2), (0, 1, 2)])
def test_the_function_is_unchanged(grouped, tokenizer, layers):
    batch, state = draw(grouped, tokenizer), {n: t.clone() for n, t in grouped.state_dict().items()}
    before = logits(grouped, batch, state)
    torch.testing.assert_close(logits(grouped, batch, changed_in(state, layers)), before, atol=1e-5, rtol=0)


def test_what_bf16_makes_of_it_is_as_far_as_bf16_goes(grouped, tokenizer):
    """Rounding again moves the logits as little as rounding random weights for the first time does."""
    batch, state = draw(grouped, tokenizer), {n: t.clone() for n, t in grouped.state_dict().items()}
    before = logits(grouped, batch, state)
    stored = as_stored(changed_in(state, (0, 2)))
    fresh = build_model(GROUPED, tokenizer, seed=0).state_dict()
    allowed = (logits(grouped, batch, as_stored(fresh)) - logits(grouped, batch, fresh)).abs().max()
    assert 0 < (logits(grouped, batch, stored) - before).abs().max() <= 2 * allowed


def test_other_layers_and_other_matrices_are_untouched(grouped):
    state = grouped.state_dict()
    changed = as_stored(change_heads(state, 1, *change(2)))
    touched = {name for name in state if not torch.equal(changed[name], state[name])}
    assert touched == {f"model.layers.1.self_attn.{m}_proj.weight" for m in "qkvo"}


def test_queries_and_keys_keep_their_entries_and_values_their_singular_values(grouped):
    state = {name: tensor.double() for name, tensor in grouped.state_dict().items()}
    changed = change_heads(state, 1, *change())
    for module in "qkvo":
        name = f"model.layers.1.self_attn.{module}_proj.weight"
        if module in "qk":
            assert torch.equal(changed[name].flatten().sort().values, state[name].flatten().sort().values)
            continue
        values = [torch.linalg.svdvals(s[name]) for s in (changed, state)]
        torch.testing.assert_close(*values, atol=1e-12, rtol=0)


def test_a_change_has_its_inverse(grouped):
    state = {name: tensor.double() for name, tensor in grouped.state_dict().items()}
    for layer in range(6):
        order, rotations = change(layer)
        kv_order = order[::3] // 3  # three query heads a group
        inverse = order.argsort(), rotations[kv_order.argsort()].mT
        back = change_heads(change_heads(state, 1, order, rotations), 1, *inverse)
        for name, tensor in state.items():
            torch.testing.assert_close(back[name], tensor, atol=1e-12, rtol=0)


def test_groups_stay_together_and_every_order_of_them_occurs():
    orders = {tuple(change(i, heads=4)[0].tolist()) for i in range(200)}
    assert len(orders) == 2 * 2 * 2  # two groups, two heads in each
    for order in orders:
        assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 1)), frozenset((2, 3))}


def test_a_random_orthogonal_matrix_is_orthogonal_and_uniform():
    """Haar: E tr Q = 0, E (tr Q)² = 1, E Q_ij² = 1/n, either determinant half of the time, and Q and −Q,
    hence R's sign convention, equally likely."""
    draws = torch.stack([random_orthogonal(4, seeded_generator("haar", i)) for i in range(4000)])
    identity = torch.eye(4, dtype=torch.float64).expand_as(draws)
    torch.testing.assert_close(draws @ draws.mT, identity, atol=1e-13, rtol=0)
    trace = draws.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 4.5 / 4000**0.5
    assert trace.square().mean() == pytest.approx(1, abs=4.5 * (2 / 4000) ** 0.5)
    torch.testing.assert_close(draws.square().mean(0), torch.full((4, 4), 0.25).double(), atol=0.02, rtol=0)
    assert torch.linalg.det(draws).sign().mean().abs() < 4.5 / 4000**0.5
    assert (draws > 0).double().mean(0).sub(0.5).abs().max() < 4.5 * 0.5 / 4000**0.5
