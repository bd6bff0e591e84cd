"""Training confined to a subspace of every matrix, or to a subnetwork, some of its entries."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from paper_lib.ground.matrices import MODULES


class Confinement(ABC):
    """Keeps named parameters where their limits let them go, and frozen ones to the bit; others train on.

    Call `on_gradient` after the backward pass, `on_update` after the optimizer's step. share_inside is then
    ‖what lies inside of Δ‖² / ‖Δ‖² of the step Δ that the optimizer proposed, NaN where it proposed none.
    """

    def __init__(self, model: nn.Module, limits: Mapping[str, Tensor], frozen: Collection[str] = ()) -> None:
        parameters = dict(model.named_parameters())
        if unknown := sorted({*limits, *frozen} - set(parameters)):
            raise ValueError(f"no parameter named {unknown[0]!r} in the model; use its parameter names")
        self._pairs = [(parameters[name], v.to(parameters[name].device)) for name, v in limits.items()]
        self._frozen = [parameters[name] for name in frozen]
        self._before: list[Tensor] = []
        self._kept: list[Tensor] = []
        self.share_inside = float("nan")

    def on_gradient(self) -> None:
        """Remember the weights."""
        self._before = [parameter.detach().clone() for parameter, _ in self._pairs]
        self._kept = [parameter.detach().clone() for parameter in self._frozen]

    @torch.no_grad()
    def on_update(self) -> None:
        """Confine the applied update, and take its share inside."""
        inside = total = 0.0
        for (parameter, limit), before in zip(self._pairs, self._before, strict=True):
            total += float((parameter - before).square().sum())
            inside += self._confine(parameter, before, limit)
        for parameter, kept in zip(self._frozen, self._kept, strict=True):
            parameter.copy_(kept)
        self.share_inside = inside / total if total else float("nan")

    @abstractmethod
    def _confine(self, parameter: Tensor, before: Tensor, limit: Tensor) -> float:
        """Put one parameter back inside; returns the squared length of the proposed step's inside part."""


# --- Confined to the subspace V_K: the gradient, the applied update, or both (Shen et al. 2026, §4.2).

PROJECTED = tuple(f"{module}_proj" for module in MODULES)


def is_projected(name: str) -> bool:
    """Whether a parameter is one of the seven tracked projection matrices of a decoder layer."""
    return name.endswith(".weight") and name.split(".")[-2] in PROJECTED


def project_right(matrix: Tensor, v_k: Tensor) -> Tensor:
    """G V_K V_Kᵀ: rows of G (m, n) projected on the span of V_K (n, K), orthonormal columns (§4.2)."""
    return (matrix @ v_k) @ v_k.T


def random_subspace(dimension: int, K: int, generator: Generator) -> Tensor:
    """K orthonormal columns (dimension, K) in float64, uniform on the Grassmannian.

    Raises ValueError for K outside [1, dimension].
    """
    if not 1 <= K <= dimension:
        raise ValueError(f"K is {K}, expected 1 <= K <= {dimension}, the dimension")
    return torch.linalg.qr(torch.randn(dimension, K, generator=generator, dtype=torch.float64))[0]


class SubspaceConstraint(Confinement):
    """Confines named parameters to their V_K and keeps `frozen` ones to the bit; all others train on.

    bases: parameter name to V_K (n, K). constrain "gradient" is the paper's g ← g V_K V_Kᵀ before the
    optimizer, whose elementwise scaling and weight decay leave the subspace again; "update" projects what
    the optimizer applied; "both" does both.
    """

    def __init__(
        self,
        model: nn.Module,
        bases: Mapping[str, Tensor],
        constrain: Literal["gradient", "update", "both"],
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__(model, bases, frozen)
        self._pairs = [(parameter, v_k.to(parameter.dtype)) for parameter, v_k in self._pairs]
        self._gradient, self._update = constrain in ("gradient", "both"), constrain in ("update", "both")

    def on_gradient(self) -> None:
        """Project the gradients, where asked, and remember the weights."""
        for parameter, v_k in self._pairs:
            if self._gradient and parameter.grad is not None:
                parameter.grad.copy_(self._inside(parameter, parameter.grad, v_k))
        super().on_gradient()

    def _confine(self, parameter: Tensor, before: Tensor, limit: Tensor) -> float:
        kept = self._inside(parameter, parameter - before, limit)  # (m, n)
        if self._update:
            parameter.copy_(before + kept)
        return float(kept.square().sum())

    def _inside(self, parameter: Tensor, matrix: Tensor, v_k: Tensor) -> Tensor:
        """The part of a matrix (m, n), the parameter's gradient or step, that lies in its subspace."""
        return project_right(matrix, v_k)


def random_mask(shape: torch.Size, count: int, generator: Generator) -> Tensor:
    """A bool mask with exactly `count` entries, every set of so many equally likely.

    shape: any; count: from 0 to the number of entries. Returns that shape.
    """
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[torch.randperm(mask.numel(), generator=generator)[:count]] = True
    return mask


class SubnetworkConstraint(Confinement):
    """Confines named parameters to the entries of their mask: W ← W_before + M ∘ (W − W_before).

    limits: parameter name to M, bool, of its shape. What the optimizer applies outside M, its decay included,
    is undone to the bit; inside, the step is the one that free training would take from there, as AdamW and
    SGD treat each entry by itself and the gradient is clipped by its whole norm. Other parameters
    (embeddings, norms) train on, as in projected training.
    """

    def _confine(self, parameter: Tensor, before: Tensor, limit: Tensor) -> float:
        inside = (parameter - before).square()[limit].sum()
        parameter.copy_(torch.where(limit, parameter, before))
        return float(inside)
