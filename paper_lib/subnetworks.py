"""Training confined to entries: the subnetwork that a run visibly changed, or a random one of its size."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn


def random_mask(shape: torch.Size, count: int, generator: Generator) -> Tensor:
    """A bool mask with exactly `count` entries, every set of so many equally likely.

    shape: any; count: from 0 to the number of entries. Returns that shape.
    """
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:count]] = True
    return mask


class SubnetworkConstraint:
    """Confines named parameters to the entries of their mask: W ← W_before + M ∘ (W − W_before).

    masks: parameter name to M, bool, of its shape. What the optimizer applies outside M, its decay included,
    is undone to the bit; inside, the step is the one that free training would take from there, as AdamW and
    SGD treat each entry by itself and the gradient is clipped by its whole norm. Other parameters
    (embeddings, norms) train on, as in projected training. Call `on_gradient` after the backward pass,
    `on_update` after the optimizer's step.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        self._pairs = []
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                found = tuple(parameters[name].shape) if name in parameters else "no parameter of that name"
                raise ValueError(f"the mask of {name} has shape {tuple(mask.shape)}, the model {found}")
            self._pairs.append((parameters[name], mask.to(parameters[name].device)))
        self._before: list[Tensor] = []
        self.share_inside = float("nan")

    def on_gradient(self) -> None:
        """Remember the weights."""
        self._before = [parameter.detach().clone() for parameter, _ in self._pairs]

    @torch.no_grad()
    def on_update(self) -> None:
        """Put back what lies outside; `share_inside` is ‖M ∘ Δ‖² / ‖Δ‖² of what the optimizer proposed."""
        inside = total = 0.0
        for (parameter, mask), before in zip(self._pairs, self._before, strict=True):
            squares = (parameter - before).square()
            inside, total = inside + float(squares[mask].sum()), total + float(squares.sum())
            parameter.copy_(torch.where(mask, parameter, before))
        self.share_inside = inside / total if total else float("nan")
