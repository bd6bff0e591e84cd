"""A model probed as a whole, as table rows: its KL along a run, and the curvature of named directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import functional_call, jvp
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paper_lib.geometry.decompositions import Decomposition
from paper_lib.geometry.nulls import permuted
from paper_lib.geometry.sparsity import visible_mask
from paper_lib.ground.tables import START, Row
from paper_lib.study.config import ModelProbes
from paper_lib.study.run_config import RunConfig
from paper_lib.study.tasks import problems, seeded_generator
from paper_lib.training.checkpoints import load_checkpoint
from paper_lib.training.confinement import is_projected
from paper_lib.training.objectives import exact_kl
from paper_lib.training.rollouts import Batch, completion_logits, sample
from paper_lib.training.runs import find_accelerator
from paper_lib.training.train import Optimization, Policy, train_steps

# --- Gate II: how strongly the policy resists a direction in weight space, by the curvature of its KL.

Direction = Mapping[str, Tensor]  # by parameter name; what it does not name stays


def fisher_curvature(model: PreTrainedModel, batch: Batch, direction: Direction) -> float:
    """μ(v) = vᵀFv / vᵀv of a direction v: the Hessian of the mean KL per completion token at the weights as
    they are (App. D), which there is F = E_t[J_tᵀ (diag p_t − p_t p_tᵀ) J_t], J_t = ∂ logits_t / ∂θ.

    batch: completions that the model sampled. The direction's tensors have their parameters' shapes. Returns
    a float ≥ 0, in nats a token and squared unit of weight; NaN for the zero direction. vᵀFv is the mean
    variance over the vocabulary of the logits' directional derivative, exact to rounding: one forward pass in
    dual numbers, no Hessian, no differences. Computes in the dtype of the model.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    square = sum(float(v.double().square().sum()) for v in direction.values())
    if square == 0:
        return float("nan")
    chosen = {name: parameters[name] for name in direction}
    unit = {name: (v / square**0.5).to(chosen[name].dtype) for name, v in direction.items()}
    inputs, attention = _inputs(model, batch), model.config._attn_implementation

    def logits(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(model, weights, kwargs=inputs).logits[:, :-1]

    model.set_attn_implementation("eager")  # fused attention has no forward-mode derivative
    try:
        with torch.no_grad():
            found = jvp(logits, (chosen,), (unit,))
    finally:
        model.set_attn_implementation(attention)
    p, change = found[0].double().softmax(-1), found[1].double()  # (B, T, vocabulary) both
    variance = (p * (change - (p * change).sum(-1, keepdim=True)).square()).sum(-1)  # (B, T)
    return variance[batch.completion_mask].mean().item()


def random_direction(kind: str, u: Tensor, v: Tensor, generator: Generator) -> Tensor:
    """One of `RANDOM_DIRECTIONS`, (m, n), float64, from Z, standard normal.

    "principal": U Z Vᵀ, random within the top-r left × top-r right singular subspaces of W_0; "gaussian": Z,
    random among all directions; "off_principal": (I − UUᵀ) Z (I − VVᵀ), with no share in either subspace,
    0 where r is m or n. u: (m, r), v: (n, r), orthonormal columns.
    """
    u, v, side = u.double(), v.double(), 1 if kind == "principal" else 0
    z = torch.randn(u.shape[side], v.shape[side], generator=generator, dtype=torch.float64)
    if kind == "principal":
        return u @ z @ v.mT
    if kind == "gaussian":
        return z
    z = z - u @ (u.mT @ z)
    return z - (z @ v) @ v.mT


def equal_rms(direction: Tensor) -> Tensor:
    """The direction at an RMS entry of 1, so that every matrix weighs by its size, as under Adam.

    direction: (m, n), floating. Returns the same shape and dtype; 0 stays.
    """
    rms = direction.square().mean().sqrt()
    return direction / rms if rms > 0 else direction


def _inputs(model: PreTrainedModel, batch: Batch) -> dict[str, object]:
    """Prompts and completions side by side, and logits from the last prompt token on.

    Padding sees itself: a row of the mask with nothing in it would be NaN, and spread from there.
    """
    prompt = torch.arange(len(batch.prompt_ids), device=batch.prompt_ids.device)
    prompt = prompt.repeat_interleave(batch.group_size)
    there = torch.cat([batch.prompt_mask[prompt], batch.completion_mask], 1).bool()
    width = there.shape[1]
    seen = torch.ones(width, width, dtype=torch.bool, device=there.device).tril() & there[:, None]
    seen |= torch.eye(width, dtype=torch.bool, device=there.device)
    hidden = torch.zeros(seen.shape, dtype=model.dtype, device=there.device)
    hidden.masked_fill_(~seen, torch.finfo(model.dtype).min)
    return {
        "input_ids": torch.cat([batch.prompt_ids[prompt], batch.completion_ids], 1),
        "attention_mask": hidden[:, None],
        "position_ids": (there.cumsum(1) - 1).clamp(min=0),
        "logits_to_keep": batch.completion_ids.shape[1] + 1,
        "use_cache": False,
    }


# --- Gate I: how far a policy has moved, as the KL divergence from the start's distributions.

CHUNK = 8192  # completion positions at once


@torch.no_grad()
def sequence_kl(p: PreTrainedModel, q: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Σ_t KL(p(· | x, y_<t) ‖ q(· | x, y_<t)) over the tokens of each completion, and their number.

    Returns (P, G) twice, float64: over completions that p sampled, the first is an unbiased estimate of the
    KL between the distributions of whole completions, without the noise of sampled log-ratios.
    """
    total, count = list[Tensor](), list[Tensor]()
    step = max(1, CHUNK // (batch.group_size * batch.completion_ids.shape[1]))
    prompts = torch.arange(len(batch.prompt_ids), device=batch.prompt_ids.device)
    for chosen in prompts.split(step):
        part = batch.select(chosen)
        kl = exact_kl(completion_logits(p, part), completion_logits(q, part))
        total.append(kl.masked_fill(~part.completion_mask, 0.0).sum(1).cpu())
        count.append(part.completion_mask.sum(1).double().cpu())
    return torch.cat(total).view(-1, batch.group_size), torch.cat(count).view(-1, batch.group_size)


def mean_kl(kl: Tensor, tokens: Tensor) -> dict[str, float]:
    """Means per token and per sequence, and their standard errors over prompts drawn at random.

    kl, tokens: (P, G) of `sequence_kl`. The completions of a prompt count together, and the mean per token,
    a ratio of two sums, has the error of its linearisation. Returns kl, kl_sequence, and each with _se, which
    is NaN for a single prompt.
    """
    sums, sizes, prompts = kl.sum(1), tokens.sum(1), len(kl)
    rate = sums.sum() / sizes.sum()
    scale = math.sqrt(prompts / (prompts - 1)) if prompts > 1 else math.nan
    return {
        "kl": rate.item(),
        "kl_se": scale * torch.linalg.vector_norm(sums - rate * sizes).item() / sizes.sum().item(),
        "kl_sequence": kl.mean().item(),
        "kl_sequence_se": scale * torch.linalg.vector_norm(kl.mean(1) - kl.mean()).item() / prompts,
    }


def policy_drift(
    start: PreTrainedModel,
    now: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int,
    seed: object,
) -> dict[str, float]:
    """KL(π_0 ‖ π_t) on completions of π_0, "forward", and KL(π_t ‖ π_0) on completions of π_t, "reverse".

    prompts: of held-out problems; samples: completions of each, at temperature 1, both policies with the same
    uniform numbers. Returns forward_kl, reverse_kl (nats a token, exact over the vocabulary),
    forward_kl_sequence, reverse_kl_sequence (nats a completion), and each with _se.
    """
    found: dict[str, float] = {}
    for name, (p, q) in {"forward": (start, now), "reverse": (now, start)}.items():
        drawn = seeded_generator("drift", seed)
        batch = sample(p, tokenizer, prompts, samples=samples, max_new_tokens=max_new_tokens, generator=drawn)
        kl = mean_kl(*sequence_kl(p, q, batch))
        found |= {f"{name}_{metric}": value for metric, value in kl.items()}
    return found


RANDOM_DIRECTIONS = ("principal", "off_principal", "gaussian")
Named = tuple[str, str, Direction]  # of which run, which direction


def curvature_rows(
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    run: RunConfig,
    directions: Iterator[Named],
    config: ModelProbes,
    seed: object,
) -> list[tuple[str, str, Row]]:
    """Mean `curvature` μ of each (run, direction) over its draws, and `curvature_se` where there are several.

    All directions are measured on the same completions, sampled by the model: their ratios are known better
    than each by itself. Step 0, as this is a matter of W_0 alone.
    """
    prompts, drawn = validation_prompts(run, config.curvature_prompts), seeded_generator("curvature", seed)
    sizes: dict[str, Any] = {"samples": config.samples, "max_new_tokens": run.max_new_tokens}
    batch = sample(start, tokenizer, prompts, generator=drawn, **sizes)
    found: dict[tuple[str, str], list[float]] = {}
    for owner, name, direction in directions:
        found.setdefault((owner, name), []).append(fisher_curvature(start, batch, direction))
    rows = []
    for (owner, name), values in found.items():
        draws = torch.tensor(values, dtype=torch.float64)
        rows.append((owner, name, Row(0, "curvature", draws.mean().item())))
        if len(values) > 1:
            error = draws.std().item() / math.sqrt(len(values))
            rows.append((owner, name, Row(0, "curvature_se", error)))
    return rows


def named_directions(
    weights: Mapping[str, Decomposition],
    updates: Mapping[str, Direction],
    rank: int,
    draws: int,
    seed: object,
) -> Iterator[Named]:
    """The directions of Gate II, `draws` of each random one.

    weights: W_0's leading triplets, at least `rank` of them, by parameter name; updates: ΔW by run. W_0's
    own, under the name `START` and with equal RMS in all matrices: `principal_reconstruction` Σ_{i≤r} σ_i u_i
    v_iᵀ, `principal` and `off_principal` (see `curvature`), `gaussian`. Of each run: its `update`, and
    `permuted_update`, the same entries in random places of their matrix.
    """
    top = {n: (w.u[:, :rank], w.sigma[:rank], w.v[:, :rank]) for n, w in weights.items()}
    rebuilt = {n: equal_rms((u * sigma) @ v.mT) for n, (u, sigma, v) in top.items()}
    yield START, "principal_reconstruction", rebuilt
    for draw in range(draws):
        for name in RANDOM_DIRECTIONS:
            drawn = {n: (u, v, seeded_generator(name, seed, draw, n)) for n, (u, _, v) in top.items()}
            yield START, name, {n: equal_rms(random_direction(name, *of)) for n, of in drawn.items()}
    for run, update in updates.items():
        yield run, "update", update
        for draw in range(draws):
            draws_of = {n: seeded_generator("permuted_update", seed, run, draw, n) for n in update}
            yield run, "permuted_update", {n: permuted(w, draws_of[n]) for n, w in update.items()}


def step_rows(policy: Policy, run: RunConfig, states: Mapping[int, Path], seed: int) -> list[Row]:
    """What one step moves in bf16, over all projection matrices, from each of a run's training states on.

    states: by the steps taken. `step_density`: the share of the entries that the run's next step moves;
    `coasting_density`: that a step moves from there on a gradient of zero, by Adam's memory alone;
    `coasting_coverage`: the share of the first that the second moves too, NaN where the first is none.
    """
    accelerator, rows = find_accelerator(), list[Row]()
    for model in (policy.student, policy.teacher):
        if model is not None:
            model.to(accelerator.device)
    optimization = Optimization(policy, run, accelerator)
    for step, path in states.items():
        saved, masks = load_checkpoint(path), []
        told_step = partial(train_steps, optimization, seed, step, step + 1, record=lambda *_: None)
        for move in (told_step, partial(optimization.coast, step)):
            optimization.load_state(saved)
            move()
            weights = {n: p.detach().cpu() for n, p in optimization.parameters.items() if is_projected(n)}
            moved = [visible_mask(saved[f"model.{name}"], w).flatten() for name, w in weights.items()]
            masks.append(torch.cat(moved).double())
        told, coasted = masks
        shares = {"step_density": told.mean(), "coasting_density": coasted.mean()}
        shares["coasting_coverage"] = (told * coasted).sum() / told.sum()
        rows += [Row(step, metric, share.item()) for metric, share in shares.items()]
    return rows


def validation_prompts(run: RunConfig, number: int) -> list[str]:
    """The first held-out validation problems of the run's task, the same at every step."""
    chosen = problems(run.tasks[0], split="validation", number=number, seed="evaluation")
    return [problem.prompt for problem in chosen]
