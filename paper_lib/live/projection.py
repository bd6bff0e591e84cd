"""Training confined to the channel of its own early update, under any torch optimizer (§4.2)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from paper_lib.geometry.spectra import energy_rank
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.matrices import canonical_name
from paper_lib.live.callbacks import Attached
from paper_lib.live.watch import projections, whole
from paper_lib.training.confinement import SubspaceConstraint

FILE = "subspace.safetensors"  # in a checkpoint's folder
Bases = Mapping[str, Tensor]  # by the name of a parameter


class ChannelConstraint(SubspaceConstraint):
    """A `SubspaceConstraint` to V_K (n, K) from the right, to U_K (m, K) from the left, or to both."""

    def __init__(self, model: nn.Module, right: Bases, left: Bases, *how: Any) -> None:
        super().__init__(model, right or left, *how)
        parameters = dict(model.named_parameters())
        self._right = bool(right)
        self._left = {id(parameters[name]): u_k.to(parameters[name]) for name, u_k in left.items()}

    def _inside(self, parameter: Tensor, matrix: Tensor, v_k: Tensor) -> Tensor:
        if self._right:
            matrix = super()._inside(parameter, matrix, v_k)
        u_k = self._left.get(id(parameter))
        return matrix if u_k is None else u_k @ (u_k.T @ matrix)


class SubspaceProjection(Attached):
    """Confines a model's projection matrices, after a share of the run, to the channel of the update so far.

    K: directions of each matrix; energy: instead, as few as hold this share of ‖ΔW‖². after: the share of the
    run after which V_K is taken from the run itself; channel: a file of `save` instead, which confines from
    the first step. constrain, side: what is projected, and from which side. others: embeddings, norms, head
    and all else train on "free" or stay "frozen" from then on. `share_inside` is the share of the last
    proposed step inside the subspace.

    A callback of a trainer; in a loop of your own `attach` it to the optimizer. A trainer clips before the
    projection: the norm of the gradient that it logs is the unprojected one. The channel lies in each
    checkpoint, and a run that resumes without it ends with one line.
    """

    def __init__(
        self,
        K: int | None = None,
        *,
        energy: float | None = None,
        after: float = 0.2,
        channel: str | Path | None = None,
        constrain: Literal["gradient", "update", "both"] = "update",
        side: Literal["right", "left", "both"] = "right",
        others: Literal["free", "frozen"] = "free",
    ) -> None:
        if channel is None and (
            (K is None) == (energy is None) or (K or 1) < 1 or not 0 < (energy or 0.5) < 1
        ):
            raise CompanionError(f"K is {K} and energy {energy}: give one, K from 1 on or a share in (0, 1)")
        if constrain not in ("gradient", "update", "both") or side not in ("right", "left", "both"):
            raise CompanionError(f"constrain is {constrain!r} and side {side!r}: see the documentation")
        if not 0 < after < 1:
            raise CompanionError(f"after is {after}, expected a share of the run in (0, 1)")
        self.K, self.energy, self.after, self.side, self.others = K, energy, after, side, others
        self.constrain, self.taken, self.at = constrain, 0, 0  # at: the step after which the channel is taken
        self.bases: dict[str, Tensor] = {} if channel is None else _channel(Path(channel))
        self.start: dict[str, Tensor] = {}
        self.constraint: ChannelConstraint | None = None

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """Confine a run of so many steps of a model under an optimizer, the inner one where it is wrapped.

        Raises CompanionError for a model that is quantised, offloaded, sharded, or without projections, and
        for a K above a matrix's shorter side.
        """
        self.model, parameters = model, dict(model.named_parameters())
        self.at = max(1, round(self.after * steps))
        names = {canonical_name(name): name for name in parameters}
        known = [names[each.matrix.name] for each in projections(model) if each.matrix.name in names]
        self.names = [name for name in known if parameters[name].requires_grad]
        if not self.names:
            raise CompanionError("the optimizer sees A and B of an adapter: their projection is not B A's")
        for name in self.names:
            if self.K is not None and min(parameters[name].shape) < self.K:
                raise CompanionError(f"K = {self.K} exceeds the shorter side of {name}")
            if hasattr(parameters[name], "full_tensor"):
                raise CompanionError(f"{name} is sharded over processes, a step is projected whole: use DDP")
        if self.bases:
            self._confine()
        elif not self.start:
            self.start = {name: whole(parameters[name]).clone() for name in self.names}
        optimizer.register_step_pre_hook(lambda *_: self._before())
        optimizer.register_step_post_hook(lambda *_: self._after())

    @property
    def share_inside(self) -> float:
        """Of ‖Δ‖² of the last proposed step, what lies inside; NaN before the channel is taken."""
        return math.nan if self.constraint is None else self.constraint.share_inside

    def _before(self) -> None:
        if self.constraint is not None:
            self.constraint.on_gradient()

    def _after(self) -> None:
        self.taken += 1
        if self.constraint is not None:
            self.constraint.on_update()
        elif self.taken == self.at:
            self._take()
            self._confine()

    def _take(self) -> None:
        """V_K and U_K of what each matrix has moved since the start."""
        parameters = dict(self.model.named_parameters())
        for name in self.names:
            delta_w = whole(parameters[name]).double() - self.start[name].double()
            if not delta_w.isfinite().all():
                raise CompanionError(f"{name} has values that are not finite after {self.taken} steps")
            if not delta_w.any():
                raise CompanionError(f"{name} has not moved after {self.taken} steps: it has no channel yet")
            u, sigma, vh = torch.linalg.svd(delta_w, full_matrices=False)
            K = self.K or energy_rank(sigma, self.energy or 1.0)
            if self.side != "left":
                self.bases[f"right.{name}"] = vh[:K].T.contiguous()  # (n, K)
            if self.side != "right":
                self.bases[f"left.{name}"] = u[:, :K].contiguous()  # (m, K)
        self.start = {}

    def _confine(self) -> None:
        parameters = dict(self.model.named_parameters())
        sides: dict[str, dict[str, Tensor]] = {"right": {}, "left": {}}
        for key, basis in self.bases.items():
            side, _, name = key.partition(".")
            shape = tuple(parameters[name].shape) if name in parameters else None
            if shape is None or shape[side == "right"] != basis.shape[0]:
                theirs = f"the channel of {name}, {tuple(basis.shape)}"
                raise CompanionError(f"{theirs}, is another model's: here it is {shape}")
            sides[side][name] = basis
        if lacking := [name for name in self.names if name not in sides["right"] | sides["left"]]:
            raise CompanionError(f"the channel lacks {lacking[0]}, which would train on freely")
        others = tuple(name for name in parameters if name not in self.names)
        frozen = others if self.others == "frozen" else ()
        self.constraint = ChannelConstraint(self.model, sides["right"], sides["left"], self.constrain, frozen)

    def save(self, folder: str | Path) -> Path:
        """Write the channel, or W_0 where it is not taken yet, into a checkpoint's folder."""
        path = Path(folder) / FILE
        taken = {"taken": torch.tensor(self.taken)}
        save_file(taken | self.bases | {f"start.{name}": w for name, w in self.start.items()}, path)
        return path

    def load(self, folder: str | Path) -> None:
        """Take up what `save` wrote, before `attach`. Raises CompanionError where there is no such file."""
        flat = _read(Path(folder) / FILE)
        self.taken = int(flat.pop("taken"))
        self.start = {key.removeprefix("start."): w for key, w in flat.items() if key.startswith("start.")}
        self.bases = {key: v for key, v in flat.items() if not key.startswith("start.")}

    # --- In a trainer.

    def begin(self, model: Any, optimizer: Any, args: Any, state: Any, folder: Path | None) -> None:
        """Attach to what a trainer trains, with the channel of the checkpoint that it resumes from."""
        if folder is not None:
            self.load(folder)
        self.attach(model, optimizer, state.max_steps)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write the channel beside the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            self.save(folder)


def _channel(path: Path) -> dict[str, Tensor]:
    """V_K and U_K in a file of `save`. Raises CompanionError where it was written before they were taken."""
    bases = {key: v for key, v in _read(path).items() if key.startswith(("right.", "left."))}
    if not bases:
        raise CompanionError(f"{path} was saved before its channel was taken: name a later checkpoint's")
    return bases


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CompanionError(f"{path} does not exist: a resumed run needs its checkpoint's channel")
    return dict(load_file(path))
