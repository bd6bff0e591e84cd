"""Gate II: how strongly the policy resists a direction in weight space, by the curvature of its KL at W_0.

Near W_0 the mean KL per token is KL(π_0 ‖ π_{W_0 + εv}) = ½ ε² vᵀFv + O(ε³), with F the Fisher matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Generator, Tensor
from torch.func import functional_call, jvp
from transformers import PreTrainedModel

from paper_lib.batches import Batch

Direction = Mapping[str, Tensor]  # by parameter name; what it does not name stays


def fisher_curvature(model: PreTrainedModel, batch: Batch, directions: Iterable[Direction]) -> list[float]:
    """μ(v) = vᵀFv / vᵀv of each direction: the Hessian of the mean KL per completion token at the weights as
    they are (App. D), which there is F = E_t[J_tᵀ (diag p_t − p_t p_tᵀ) J_t], J_t = ∂ logits_t / ∂θ.

    batch: completions that the model sampled. A direction's tensors have their parameters' shapes. Returns
    floats ≥ 0, in nats a token and squared unit of weight; NaN for the zero direction. vᵀFv is the mean
    variance over the vocabulary of the logits' directional derivative, exact to rounding: one forward pass in
    dual numbers each, no Hessian, no differences. Computes in the dtype of the model. Raises ValueError for
    an unknown parameter or a direction of another shape.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # fused attention has no forward-mode derivative
    try:
        return [_curvature(model, batch, parameters, direction) for direction in directions]
    finally:
        model.set_attn_implementation(before)


def principal_direction(u: Tensor, v: Tensor, generator: Generator) -> Tensor:
    """U Z Vᵀ, Z standard normal: random within the top-r left × top-r right singular subspaces of W_0.

    u: (m, r), v: (n, r), orthonormal columns. Returns (m, n), float64.
    """
    inner = torch.randn(u.shape[1], v.shape[1], generator=generator, dtype=torch.float64)
    return u.double() @ inner @ v.double().mT


def gaussian_direction(u: Tensor, v: Tensor, generator: Generator) -> Tensor:
    """Z, standard normal: (m, n), float64, for u (m, ·) and v (n, ·). Random among all directions."""
    return torch.randn(u.shape[0], v.shape[0], generator=generator, dtype=torch.float64)


def off_principal_direction(u: Tensor, v: Tensor, generator: Generator) -> Tensor:
    """(I − UUᵀ) Z (I − VVᵀ), Z standard normal: random, with no share in either singular subspace.

    u: (m, r), v: (n, r), orthonormal columns. Returns (m, n), float64; 0 where r is m or n.
    """
    z = gaussian_direction(u, v, generator)
    z = z - u.double() @ (u.double().mT @ z)
    return z - (z @ v.double()) @ v.double().mT


def principal_energy(delta_w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """‖Uᵀ ΔW V‖_F² / ‖ΔW‖_F²: the share of an update inside the top-r left × top-r right subspace of W_0.

    delta_w: (m, n); u: (m, r), v: (n, r), orthonormal columns. Returns a float64 scalar in [0, 1], NaN where
    ΔW = 0. Its mean for an update of independent, equally likely directions is (r/m)(r/n) exactly.
    """
    inside = u.double().mT @ delta_w.double() @ v.double()
    return inside.square().sum() / delta_w.double().square().sum()


def equal_rms(direction: Tensor) -> Tensor:
    """The direction at an RMS entry of 1, so that every matrix weighs by its size, as under Adam.

    direction: (m, n), floating. Returns the same shape and dtype; 0 stays.
    """
    rms = direction.square().mean().sqrt()
    return direction / rms if rms > 0 else direction


def _curvature(
    model: PreTrainedModel, batch: Batch, parameters: Mapping[str, Tensor], direction: Direction
) -> float:
    for name, v in direction.items():
        if name not in parameters or parameters[name].shape != v.shape:
            known = tuple(parameters[name].shape) if name in parameters else "no parameter"
            raise ValueError(f"direction {name} of shape {tuple(v.shape)} does not fit the model's: {known}")
    square = sum(float(v.double().square().sum()) for v in direction.values())
    if square == 0:
        return float("nan")
    chosen = {name: parameters[name] for name in direction}
    unit = {name: (v / square**0.5).to(chosen[name].dtype) for name, v in direction.items()}

    inputs = _inputs(model, batch)

    def logits(weights: dict[str, Tensor]) -> Tensor:
        return functional_call(model, weights, kwargs=inputs).logits[:, :-1]

    with torch.no_grad():
        found = jvp(logits, (chosen,), (unit,))
    p, change = found[0].double().softmax(-1), found[1].double()
    variance = (p * (change - (p * change).sum(-1, keepdim=True)).square()).sum(-1)
    return variance[batch.completion_mask].mean().item()


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
