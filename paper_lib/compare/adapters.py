"""LoRA adapters in peft's format: the matrices of their base, with s·B·A merged in."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paper_lib.compare.fused import Piece
from paper_lib.compare.shards import FETCH, FLOATS, Stored, file_header, files_fingerprint
from paper_lib.errors import CompanionError
from paper_lib.files import read_json
from paper_lib.matrices import Matrix, Source, canonical_name

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"^(.+)\.lora_(A|B)(?:\.[^.]+)?\.weight$")
_REMEDY = "merge it with peft's merge_and_unload, save the merged model and name that folder"

# Settings that say where an adapter came from or how it was trained. Any other one that is set changes what
# the adapter computes, now or in a later peft, and is refused by name.
_HARMLESS = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("init_lora_weights", "bias", "megatron_core", "qalora_group_size", "eva_config", "loftq_config"),
    *("corda_config", "lora_ga_config"),
}
# Other initialisations take a part out of the base's weights, and their B·A is relative to what is left.
_KEEPS_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """s·B·A of one module: A (r, n) and B (m, r) as stored, s the scaling; transposed for weights (n, m)."""

    a: Stored
    b: Stored
    scaling: float
    transposed: bool

    def delta_w(self) -> Tensor:
        """s·B·A (m, n), computed as peft's merge does: 16-bit factors in float32."""
        a, b = (_at_least_float32(factor.read(Piece(name=factor.name))) for factor in (self.a, self.b))
        product = b @ a
        return (product.T if self.transposed else product) * self.scaling

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it is added to."""
        m, n = self.b.shape[0], self.a.shape[1]
        return (n, m) if self.transposed else (m, n)


@dataclass(frozen=True, kw_only=True)
class AdaptedSource(Source):
    """A base with a LoRA adapter merged in, matrix by matrix as each is read."""

    label: str
    fingerprint: str
    base: Source
    updates: dict[str, LowRank]

    def matrices(self) -> list[Matrix]:
        """The base's matrices: the adapter changes values alone."""
        return self.base.matrices()

    def skipped(self) -> dict[str, str]:
        """What the base leaves out."""
        return self.base.skipped()

    def read(self, name: str) -> Tensor:
        """W + s·B·A rounded once to the base's dtype, as peft's merge does; W where no adapter is."""
        weight = self.base.read(name)
        whole, rows = self.base.fused(name)
        if whole not in self.updates:
            return weight
        return (weight + self.updates[whole].delta_w()[rows]).to(weight.dtype)

    def file(self, name: str) -> Path:
        """The base's file; the adapter's own where it changes the matrix."""
        factors = self.updates.get(self.base.fused(name)[0])
        return self.base.file(name) if factors is None else factors.a.path

    def fused(self, name: str) -> tuple[str, slice]:
        """As in the base."""
        return self.base.fused(name)


def adapted_source(folder: Path, label: str, base: Source | None) -> AdaptedSource:
    """The adapter in `folder` on top of `base`.

    Raises CompanionError where there is no base, where base and adapter do not fit each other, and for what
    is more than plain LoRA on whole modules (DoRA, trained biases, modules_to_save, …), naming it.
    """
    if base is None:
        named = read_json(folder / CONFIG, FETCH).get("base_model_name_or_path")
        raise CompanionError(f"{folder} is a LoRA adapter: name the base it was trained on too ({named})")
    config = _checked_config(folder / CONFIG)
    path = folder / WEIGHTS
    factors: dict[str, dict[str, Stored]] = {}
    for stored in file_header(path):
        match = _FACTOR.match(stored.name)
        if match is None or len(stored.shape) != 2 or stored.dtype not in FLOATS:
            raise CompanionError(f"{path} holds {stored.name}, which is no LoRA factor: {_REMEDY}")
        factors.setdefault(match[1], {})[match[2]] = stored
    if not factors:
        raise CompanionError(f"{path} holds no LoRA factors: save the adapter again")
    updates = {}
    for module, pair in factors.items():
        if len(pair) < 2:
            raise CompanionError(f"{path} holds half an adapter of {module}: A and B are needed")
        low_rank = _low_rank(module, pair["A"], pair["B"], config, folder / CONFIG)
        updates[canonical_name(f"{module}.weight")] = low_rank
    _require_fit(path, updates, base)
    return AdaptedSource(
        label=label,
        fingerprint=files_fingerprint([path], config, base.fingerprint),
        base=base,
        updates=updates,
    )


def _checked_config(path: Path) -> dict[str, Any]:
    config = read_json(path, FETCH)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CompanionError(f"{path} says peft_type {kind!r}, only LORA can be read: {_REMEDY}")
    unknown = [f"{name} {config[name]!r}" for name in sorted(set(config) - _HARMLESS) if config[name]]
    if config.get("bias", "none") != "none":
        unknown.append(f"bias {config['bias']!r}")
    start = config.get("init_lora_weights", True)
    if start not in _KEEPS_THE_BASE:
        unknown.append(f"init_lora_weights {start!r}")
    if unknown:
        raise CompanionError(f"{path} sets {', '.join(unknown)}, which is more than plain LoRA: {_REMEDY}")
    return config


def _low_rank(module: str, a: Stored, b: Stored, config: dict[str, Any], path: Path) -> LowRank:
    """s = α/r, or α/√r with rank-stabilised LoRA; r and α may differ from module to module."""
    try:
        name = module.removeprefix("base_model.model.")
        rank = _of_module(config.get("rank_pattern"), name, config["r"])
        alpha = _of_module(config.get("alpha_pattern"), name, config["lora_alpha"])
        scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError, re.error) as error:
        raise CompanionError(f"{path} has no usable r and lora_alpha ({error!r}): save it again") from error
    if not a.shape[0] == b.shape[1] == rank:
        raise CompanionError(
            f"{a.path}: {module} has A {a.shape} and B {b.shape}, but {path.name} says r = {rank}"
        )
    return LowRank(a=a, b=b, scaling=scaling, transposed=bool(config.get("fan_in_fan_out")))


def _of_module(pattern: dict[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends in, as peft matches them."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def _require_fit(path: Path, updates: dict[str, LowRank], base: Source) -> None:
    """Every adapted weight is in the base, with the same shape."""
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for matrix in base.matrices():
        whole, _ = base.fused(matrix.name)
        rows[whole] = rows.get(whole, 0) + matrix.shape[0]
        columns[whole] = matrix.shape[1]
    for name, low_rank in updates.items():
        if name not in rows:
            reason = base.skipped().get(name)
            lacks = f"where it is {reason}" if reason else "which lacks it"
            raise CompanionError(f"{path} changes {name} of {base.label}, {lacks}: name its own base")
        if low_rank.shape != (rows[name], columns[name]):
            m, n = low_rank.shape
            raise CompanionError(
                f"{path} changes {name} of {m} × {n}, but the base {base.label} has "
                f"{rows[name]} × {columns[name]}: name the base it was trained on"
            )


def _at_least_float32(factor: Tensor) -> Tensor:
    return factor.float() if factor.dtype in (torch.bfloat16, torch.float16) else factor
