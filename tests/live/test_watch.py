"""The watch: what it measures is what a comparison of the saved checkpoints measures."""

import subprocess
import sys
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import SHAPE

from paper_lib.compare.run import compare, read_comparison
from paper_lib.geometry.spectra import frobenius_norm, stable_rank
from paper_lib.ground.errors import CompanionError
from paper_lib.live import Watch
from paper_lib.live.watch import inside, unchanged_by_chance
from paper_lib.study.tasks import character_tokenizer
from paper_lib.training.confinement import random_subspace
from paper_lib.training.models import build_model, save_model

RATE = 3e-3


@pytest.fixture
def model():
    return build_model(SHAPE, character_tokenizer(), seed=0)


def walk(model, steps, watch=None, seed=0):
    """Adam on gradients of chance."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    handle = watch.follow(optimizer) if watch is not None else None
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    if handle is not None:
        handle.remove()


def test_the_table_is_that_of_a_comparison_of_the_saved_checkpoints(model, tmp_path):
    for folder in ("base", "tuned"):
        (tmp_path / folder).mkdir()
    watch = Watch(model, matrices="all", K=2)
    save_model(model, character_tokenizer(), tmp_path / "base", card="", recipe={}, dtype=torch.float32)
    walk(model, 3, watch)
    watch.measure()
    save_model(model, character_tokenizer(), tmp_path / "tuned", card="", recipe={}, dtype=torch.float32)
    live = read_comparison(watch.save(tmp_path / "live")).matrices
    compare(
        tmp_path / "base", tmp_path / "tuned", out=tmp_path / "out", nulls=False, learning_rates=[RATE] * 3
    )
    theirs = read_comparison(tmp_path / "out").matrices
    keys = ["layer", "module", "metric"]
    names = ["frobenius_norm", "relative_norm", "update_sparsity", "stable_rank", "drift_ratio"]
    ours, theirs = (t[t["metric"].isin(names)].set_index(keys)["value"].sort_index() for t in (live, theirs))
    assert set(ours.index) == set(theirs.index)
    assert (ours / theirs - 1).abs().max() < 1e-6


def test_every_step_of_the_optimizer_counts_at_its_rate(model):
    watch = Watch(model, K=2)
    walk(model, 4, watch)
    assert watch.rates == [RATE] * 4
    assert watch.measure(spectra_too=False).keys() >= {
        "frobenius_norm",
        "drift_ratio",
        "null_update_sparsity",
    }
    assert "stable_rank" not in watch.measure(spectra_too=False)


def test_the_gaussian_null_of_the_sparsity_is_what_gaussian_updates_show(model):
    w_0 = torch.randn(200, 200, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(200, 200, generator=torch.Generator().manual_seed(2)) * 2e-3
    shown = ((w_0 + noise).bfloat16() == w_0.bfloat16()).double().mean().item()
    assert unchanged_by_chance(w_0, frobenius_norm(noise)) == pytest.approx(shown, abs=0.01)
    assert unchanged_by_chance(w_0, torch.tensor(0.0)) == 1


def test_a_channel_that_stays_is_said_to_lock_and_a_turn_to_leave_it(model):
    watch = Watch(model, matrices=2, K=1)
    first, other = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for generator in (first, first, first, other):
            for each in watch.watched:
                m, n = each.matrix.shape
                direction = torch.outer(torch.ones(m), torch.randn(n, generator=generator))
                parameter = dict(model.named_parameters())[each.matrix.name]
                steps = getattr(watch, "_direction", {})
                direction = steps.setdefault((each.matrix.name, id(generator)), direction)
                watch._direction = steps
                parameter.data += 0.01 * direction
            watch.step(RATE)
            watch.measure()
    words = [str(each.message) for each in said]
    assert ["locked" in each for each in words] == [True, False]
    assert "leaves its channel" in words[1]


def test_half_of_the_energy_lies_in_half_of_the_directions():
    v_k = random_subspace(40, 20, torch.Generator().manual_seed(0))
    delta_w = torch.randn(400, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert inside(delta_w, v_k) == pytest.approx(0.5, abs=0.03)
    assert inside(delta_w @ v_k @ v_k.T, v_k) == pytest.approx(1)


def test_of_a_lora_the_product_of_its_factors_is_measured(model):
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
    watch = Watch(adapted, matrices="all", K=1)
    walk(adapted, 2, watch)
    found = watch.measure()
    merged = dict(adapted.merge_and_unload().named_parameters())
    start = dict(build_model(SHAPE, character_tokenizer(), seed=0).named_parameters())
    ranks = [
        stable_rank((merged[each.matrix.name] - start[each.matrix.name]).double()).item()
        for each in watch.watched
    ]
    assert found["stable_rank"] == pytest.approx(sum(ranks) / len(ranks), rel=1e-4)
    assert "update_sparsity" not in found


def test_what_a_checkpoint_holds_is_taken_up_again(model):
    watch = Watch(model, matrices=3, K=2)
    walk(model, 3, watch)
    watch.measure()
    again = Watch(model, matrices=3, K=2)
    again.load_state(watch.state(), watch.rows)
    for each in (watch, again):
        walk(model, 0, each)
    assert again.measure() == watch.measure()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"K": 1000}, "exceeds the shorter side"),
        ({"matrices": 0}, "at least 1"),
        ({"matrices": "nothing_like_it"}, "no matrix is named like nothing_like_it"),
    ],
)
def test_what_cannot_be_watched_is_refused(model, options, words):
    with pytest.raises(CompanionError, match=words):
        Watch(model, **options)


def test_other_models_are_refused(model):
    with pytest.raises(CompanionError, match="nothing to watch"):
        Watch(torch.nn.Linear(3, 3))
    with pytest.raises(CompanionError, match="another model"):
        Watch(model, K=2).load_state({"rates": torch.tensor([])})
    quantised = build_model(SHAPE, character_tokenizer(), seed=0)
    weight = quantised.model.layers[0].mlp.up_proj
    weight.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(CompanionError, match="quantised"):
        Watch(quantised, K=2)


def test_what_cannot_be_read_here_is_refused(model):
    layer = model.model.layers[0].mlp
    layer.up_proj.weight = torch.nn.Parameter(torch.zeros(48 * 32))
    with pytest.raises(CompanionError, match="FSDP 1: use FSDP 2"):
        Watch(model, K=2)
    layer.up_proj.weight = torch.nn.Parameter(torch.zeros(48, 32, device="meta"))
    with pytest.raises(CompanionError, match="offloaded"):
        Watch(model, K=2)


def test_masters_are_what_the_optimizer_steps_in_place_of_the_weights(model):
    watch = Watch(model.bfloat16(), K=2)
    watch.follow(torch.optim.AdamW(model.parameters()))
    assert watch.precision == "weights in bfloat16, no masters beside them"
    watch.follow(torch.optim.AdamW([weight.detach().float() for weight in model.parameters()]))
    assert watch.precision == "weights in bfloat16, masters in float32"


@pytest.mark.slow
def test_the_hooks_of_torch_need_no_transformers():
    script = "import sys, paper_lib.live; print({'transformers', 'trl', 'accelerate'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_weights_that_are_not_finite_are_named(model):
    watch = Watch(model, matrices=1, K=2)
    walk(model, 1, watch)
    dict(model.named_parameters())[watch.watched[0].matrix.name].data[0, 0] = float("nan")
    with pytest.raises(
        CompanionError, match=f"{watch.watched[0].matrix.name} has values that are not finite"
    ):
        watch.measure()
