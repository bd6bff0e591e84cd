"""An update while it forms: some of a model's matrices beside their own start, in any training loop."""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from paper_lib import __version__
from paper_lib.geometry import sparsity, spectra, subspaces
from paper_lib.geometry.decompositions import update_spectrum
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_json
from paper_lib.ground.matrices import MODULES, Matrix, canonical_name, layer_and_module, reading_order
from paper_lib.ground.tables import TABLES, Row, write_table
from paper_lib.study.config import DiagnosticsConfig, fingerprint

EVENNESS = 0.1  # share of the entries whose energy is measured
LOCKED, LOCKED_FOR = 0.9, 2  # Sim_K to the measurement before, and how often in a row: the channel has locked
LEFT = 0.5  # of the update's share inside the channel: a new stretch that has less leaves it


@dataclass(kw_only=True)
class Watched:
    """A matrix, how to read it now, and what is remembered of it: W_0 and W_s, as stored, on the CPU, and the
    V_K (n, K) of the last measured update and of the channel. merged: W has no place of its own (LoRA)."""

    matrix: Matrix
    read: Callable[[], Tensor]
    merged: bool = False
    start: Tensor | None = None
    before: Tensor | None = None
    span: Tensor | None = None
    channel: Tensor | None = None


@dataclass
class Watch:
    """Measures ΔW_t = W_t − W_0 of some matrices of a model: call `step` after each optimizer step, or
    `follow` an optimizer once, and `measure` when it is time.

    matrices: how many, spread over layers and modules; or canonical names, patterns of them among them; or
    "all". K: of Sim_K and of the channel. Memory: W_0 and the last measured weights of these matrices as they
    are stored, and two of them in float64. Of a LoRA model ΔW = s B A is measured, of its factors.
    Raises CompanionError for a model that is quantised, not on a device, or without such matrices, and for a
    K above a matrix's shorter side.
    """

    model: nn.Module
    matrices: int | str | Sequence[str] = 8
    K: int = 16
    run: str = "run"
    precision: str = ""  # of the weights and of what the optimizer steps, which decides what an update shows
    rates: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watched = _chosen(projections(self.model), self.matrices)
        for each in self.watched:
            if min(each.matrix.shape) < self.K:
                shape = "{} × {}".format(*each.matrix.shape)
                raise CompanionError(f"K = {self.K} exceeds the shorter side of {each.matrix.name}, {shape}")
        self.said: set[str] = set()
        self.near = 0  # measurements in a row whose Sim_K to the one before is LOCKED
        for each in self.watched:
            each.start = each.read().clone()

    @property
    def steps(self) -> int:
        """Optimizer steps so far; a step that was skipped is none."""
        return len(self.rates)

    @property
    def sharded(self) -> bool:
        """Whether weights are spread over processes, all of which then have to measure together."""
        return any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters())

    def step(self, learning_rate: float) -> None:
        """An optimizer step was taken at this rate."""
        self.rates.append(learning_rate)

    def follow(self, optimizer: torch.optim.Optimizer) -> Any:
        """Count the steps of an optimizer, the inner one where it is wrapped; returns the hook's handle."""
        self.precision = precision(self.model, optimizer)
        return optimizer.register_step_post_hook(lambda *_: self.step(optimizer.param_groups[0]["lr"]))

    def measure(self, *, spectra_too: bool = True) -> dict[str, float]:
        """Rows of every matrix at this step, and their means by metric; `null_…` is what chance gives.

        spectra_too: stable rank, Sim_K and the channel as well, a second clock. Warns once where the channel
        locks (Sim_K to the measurement before is above 0.9 twice in a row; it is then remembered, unless one
        was), and whenever less than half as much of a new stretch lies inside it as of the whole update.
        Raises CompanionError before the first step, and for weights that are not finite.
        """
        if not self.steps:
            raise CompanionError("no optimizer step was counted: follow the optimizer, or call step")
        found = []
        for each in self.watched:
            rows = self._measured(each, spectra_too)
            keys = {"profile": "live", "run": self.run, "seed": 0}
            keys |= {"layer": each.matrix.layer, "module": each.matrix.module, "matrix": each.matrix.name}
            found += [keys | row._asdict() for row in rows]
        self.rows += found
        frame = pd.DataFrame(found)
        means = {str(name): float(mean) for name, mean in frame.groupby("metric")["value"].mean().items()}
        if spectra_too:
            self._tell(means)
        return {name: mean for name, mean in means.items() if name != "parameters"}

    def lock(self) -> None:
        """Remember the present V_K of every matrix as the channel."""
        for each in self.watched:
            each.channel = each.span

    def _measured(self, each: Watched, spectra_too: bool) -> list[Row]:
        w_0, w_t, step = each.start, each.read(), self.steps
        assert w_0 is not None
        if not bool(torch.isfinite(w_t).all()):
            raise CompanionError(f"{each.matrix.name} has values that are not finite after step {step}")
        delta_w = w_t.double() - w_0.double()
        norm = spectra.frobenius_norm(delta_w)
        rows = [Row(step, "parameters", w_t.numel()), Row(step, "frobenius_norm", norm.item())]
        if not each.merged:
            rows.append(Row(step, "relative_norm", spectra.relative_norm(delta_w, w_0).item()))
            rows.append(Row(step, "update_sparsity", sparsity.update_sparsity(w_0, w_t).item()))
            rows.append(Row(step, "null_update_sparsity", unchanged_by_chance(w_0, norm)))
        rows.append(Row(step, "drift_ratio", spectra.drift_ratio(delta_w, self.rates).item()))
        energy = sparsity.top_coordinate_energy(delta_w, EVENNESS).item()
        rows.append(Row(step, "coordinate_energy", energy, EVENNESS))
        return rows + (self._directions(each, delta_w, norm, w_t) if spectra_too else [])

    def _directions(self, each: Watched, delta_w: Tensor, norm: Tensor, w_t: Tensor) -> list[Row]:
        step, K, n = self.steps, self.K, delta_w.shape[1]
        update = update_spectrum(delta_w, K)
        span = update.v[:, :K] if update.sigma[K - 1] > 0 else None  # (n, K)
        rank = spectra.stable_rank(delta_w, sigma=update.sigma, norm=norm).item()
        gaussian = delta_w.numel() / sum(math.sqrt(side) for side in delta_w.shape) ** 2
        rows = [Row(step, "stable_rank", rank), Row(step, "null_stable_rank", gaussian)]
        rows.append(Row(step, "null_alignment", subspaces.chance_alignment(K, n), K))
        for name, other in (("alignment_to_last", each.span), ("channel_alignment", each.channel)):
            if span is not None and other is not None:
                rows.append(Row(step, name, subspaces.subspace_alignment(span, other).item(), K))
        if each.channel is not None:
            stretch = w_t.double() - (each.start if each.before is None else each.before).double()  # type: ignore[union-attr]
            rows.append(Row(step, "channel_share", inside(delta_w, each.channel), K))
            rows.append(Row(step, "channel_share_of_stretch", inside(stretch, each.channel), K))
        each.span, each.before = span, w_t.clone()
        return rows

    def _tell(self, means: Mapping[str, float]) -> None:
        self.near = self.near + 1 if means.get("alignment_to_last", 0.0) > LOCKED else 0
        if self.near == LOCKED_FOR and "locked" not in self.said:
            self.said.add("locked")
            if all(each.channel is None for each in self.watched):
                self.lock()
            words = f"the channel has locked, Sim_{self.K} is above {LOCKED}"
            warnings.warn(f"step {self.steps}: {words}", stacklevel=3)
        share, whole = (means.get(name) for name in ("channel_share_of_stretch", "channel_share"))
        if share is not None and whole is not None and share < LEFT * whole:
            words = f"{100 * share:.2g} % of the new stretch lies inside, {100 * whole:.2g} % of the update"
            warnings.warn(f"step {self.steps}: the update leaves its channel: {words}", stacklevel=3)

    # --- What is left behind: the tables that a comparison leaves, and what a resumed run takes up.

    def save(self, folder: str | Path, *, base: str = "its start") -> Path:
        """Write what was measured as a comparison leaves its tables: `read_comparison` reads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(self.rows).rename(columns={"matrix": "name"})
        same = table.groupby(["layer", "module"])["name"].transform("nunique") > 1
        table.loc[same, "module"] = table.loc[same, "name"]
        config = DiagnosticsConfig(K=self.K, model_probes=None)
        account = {
            **{"version": __version__, "base": base, "finetuned": self.run, "precision": self.precision},
            "steps": [0, *sorted(int(step) for step in table["step"].unique())],
            "width": max(max(each.matrix.shape) for each in self.watched),
            "sizes": asdict(config) | {"null_runs": None},
            "measured": [asdict(each.matrix) for each in self.watched],
            **{"left_out": {}, "failed": {}},
        }
        columns = TABLES["matrices"]
        print_of = fingerprint(self.run, self.K, account["steps"], account["measured"])
        write_table(table[list(columns)], folder / "matrices.parquet", columns=columns, fingerprint=print_of)
        write_json(folder / "pairing.json", account)
        return folder

    def state(self) -> dict[str, Tensor]:
        """W_0, W_s and both V_K of every matrix, the rates and the rows, as tensors for safetensors."""
        flat = {"rates": torch.tensor(self.rates, dtype=torch.float64)}
        for each in self.watched:
            parts = {name: getattr(each, name) for name in ("start", "before", "span", "channel")}
            flat |= {f"{key}.{each.matrix.name}": t.contiguous() for key, t in parts.items() if t is not None}
        return flat

    def load_state(self, flat: Mapping[str, Tensor], rows: Sequence[dict[str, Any]] = ()) -> None:
        """Take up what `state` gave. Raises CompanionError where it is of other matrices."""
        for each in self.watched:
            name, shape = each.matrix.name, each.matrix.shape
            start = flat.get(f"start.{name}")
            if start is None or tuple(start.shape) != shape:
                raise CompanionError(f"the saved W_0 lacks {name}, {shape[0]} × {shape[1]}: another model's")
            for part in ("start", "before", "span", "channel"):
                setattr(each, part, flat.get(f"{part}.{name}"))
        self.rates, self.rows = flat["rates"].tolist(), list(rows)


def inside(delta_w: Tensor, v_k: Tensor) -> float:
    """‖ΔW V_K‖_F² / ‖ΔW‖_F² of an update (m, n): its share in the span of V_K (n, K), by chance K/n."""
    return ((delta_w @ v_k.double()).square().sum() / delta_w.square().sum()).item()


def unchanged_by_chance(w_0: Tensor, norm: Tensor) -> float:
    """The share of entries that a Gaussian update of this norm leaves at bf16, expected (Gate III, App. D).

    The mean over entries of P(−h < o + N(0, σ²) < h): h = ½ ULP, o from the nearest bf16 number to W_0,
    σ = ‖ΔW‖_F / √(mn). w_0: (m, n), as stored.
    """
    width = norm * math.sqrt(2 / w_0.numel())  # σ √2
    if not width > 0:
        return 1.0
    half, off = sparsity.half_ulp(w_0).double(), w_0.double() - w_0.bfloat16().double()
    return (torch.erf((half - off) / width) + torch.erf((half + off) / width)).mean().item() / 2


def precision(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """In which precision the weights are trained, which decides what an update can show (Gate III)."""
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    masters = {id(parameter) for parameter in stepped} - {id(parameter) for parameter in own}
    dtypes = ({str(p.dtype).removeprefix("torch.") for p in each} for each in (own, stepped))
    held, kept = (" and ".join(sorted(each)) for each in dtypes)
    return f"weights in {held}, " + (f"masters in {kept}" if masters else "no masters beside them")


# --- Which matrices a model has, and how each is read.


def projections(model: nn.Module) -> list[Watched]:
    """The projection matrices of the layers, and of a LoRA model those that it adapts, in reading order."""
    found = _adapted(model) or [m for named in model.named_parameters() for m in _plain(*named)]
    if not found:
        lacks = f"no weight that is named like a projection of a layer ({', '.join(MODULES)})"
        raise CompanionError(f"{type(model).__name__} has {lacks}: nothing to watch")
    return sorted(found, key=lambda each: reading_order(each.matrix))


def _plain(name: str, parameter: Tensor) -> list[Watched]:
    canonical = canonical_name(name)
    layer, module = layer_and_module(canonical)
    if module not in MODULES or layer < 0 or not name.endswith(".weight"):
        return []
    if not parameter.is_floating_point():
        raise CompanionError(f"{name} is {parameter.dtype}: a quantised base does not move; load it in bf16")
    if parameter.is_meta:
        raise CompanionError(f"{name} is offloaded and has no values here: keep the model on its device")
    if parameter.dim() != 2:
        raise CompanionError(f"{name} is flattened to {tuple(parameter.shape)} by FSDP 1: use FSDP 2")
    shape = (int(parameter.shape[0]), int(parameter.shape[1]))
    dtype = str(parameter.dtype).removeprefix("torch.")
    matrix = Matrix(layer=layer, module=module, name=canonical, shape=shape, dtype=dtype)
    return [Watched(matrix=matrix, read=lambda: whole(parameter))]


def whole(parameter: Tensor) -> Tensor:
    """A parameter's values on the CPU, as stored; where it is sharded all processes call this."""
    values = parameter.detach()
    return (values.full_tensor() if hasattr(values, "full_tensor") else values).cpu()


def _adapted(model: nn.Module) -> list[Watched]:
    """The update s B A of every projection that a LoRA adapts (Hu et al. 2021), of its active adapters."""
    found = []
    for name, module in model.named_modules():
        if not (hasattr(module, "lora_A") and hasattr(module, "get_delta_weight")):
            continue
        canonical = canonical_name(f"{name}.weight")
        layer, kind = layer_and_module(canonical)
        if kind in MODULES and layer >= 0:
            shape = (int(module.out_features), int(module.in_features))
            matrix = Matrix(layer=layer, module=kind, name=canonical, shape=shape, dtype="float32")
            found.append(Watched(matrix=matrix, read=partial(_low_rank, module), merged=True))
    return found


def _low_rank(module: Any) -> Tensor:
    parts = [module.get_delta_weight(name) for name in module.active_adapters if name in module.lora_A]
    return torch.stack([part.detach().double().cpu() for part in parts]).sum(0)  # (m, n)


def _chosen(known: list[Watched], asked: int | str | Sequence[str]) -> list[Watched]:
    """So many of them, evenly spread, or those that are named."""
    if asked == "all":
        return known
    if isinstance(asked, int):
        if asked < 1:
            raise CompanionError(f"matrices is {asked}, expected at least 1, names, or 'all'")
        count = min(asked, len(known))
        places = [round((at + 0.5) * len(known) / count - 0.5) for at in range(count)]
        return [known[place] for place in dict.fromkeys(places)]
    names = [asked] if isinstance(asked, str) else list(asked)
    chosen = [each for each in known if any(re.search(name, each.matrix.name) for name in names)]
    if not chosen:
        raise CompanionError(f"no matrix is named like {', '.join(names)}; one is {known[0].matrix.name}")
    return chosen
