"""LoRA adapters in peft's format: the matrices of their base, with s·B·A merged in, as peft merges them."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paper_lib.compare.shards import FETCH, FLOATS, Entry, Source, Stored, file_header, files_fingerprint
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json
from paper_lib.ground.matrices import Piece, canonical_name, matrix_of

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PICKLED = (
    "a pickle, which can run any code when it is loaded, so it is never read: load it with {} where you "
    "trust it, and save_pretrained writes safetensors"
)
_FACTOR = re.compile(  # A and B of a linear layer only with `.weight` at the end
    r"^(.+)\.lora_(embedding_)?(A|B|magnitude_vector)((\.[^.]+)?\.weight|(?<!lora_[AB])(\.(?!bias$)[^.]+)?)$"
)
_TOKENS = re.compile(r"^(.+)\.token_adapter\.trainable_tokens_delta$")
_REMEDY = "merge it with peft's merge_and_unload, save the merged model and name that folder"

# Settings that say where an adapter came from or how it was trained, and those that are read. Any other one
# that is set changes what the adapter computes, now or in a later peft, and is refused by name.
_HARMLESS = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "rank_pattern", "alpha_pattern"),
    *("init_lora_weights", "bias", "lora_bias", "megatron_core", "qalora_group_size", "eva_config"),
    *("loftq_config", "corda_config", "lora_ga_config", "modules_to_save", "use_dora", "target_parameters"),
    *("trainable_token_indices", "ensure_weight_tying"),
}
# Other initialisations take a part out of the base's weights, and their B·A is relative to what is left.
_KEEPS_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
_LONGEST_PATTERN = 200  # characters; a longer one, or a repeated group, may take forever to match


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """W + s·B·A of one module: A (r, n) and B (m, r) as stored, s the scaling; of an embedding (n, m) the
    transpose. magnitude: DoRA's, which each row of the sum gets as its norm. expert: (e, E, rows) where the
    factors A (E r, n) and B (m, r E) are of E experts, and the matrix is some rows of the e-th product."""

    a: Stored
    b: Stored
    scaling: float
    magnitude: Stored | None = None
    embedding: bool = False
    expert: tuple[int, int, slice] | None = None

    def shape(self, base: tuple[int, int]) -> tuple[int, int]:
        """The shape (out, in) of the whole weight that it fits; `base` where it fits any."""
        if self.expert is not None:  # which is cut to fit
            return base
        m, n = self.b.shape[0], self.a.shape[1]
        return (n, m) if self.embedding else (m, n)

    def __call__(self, weight: Tensor, piece: Piece) -> Tensor:
        """W + s·B·A; with a magnitude m, m (W + s·B·A) / ‖W + s·B·A‖ row by row (Liu et al. 2024)."""
        a, b = (_wide(factor) for factor in (self.a, self.b))
        if self.expert is not None:
            number, experts, rows = self.expert
            a = a.unflatten(0, (experts, -1))[number]  # (r, n)
            b = b[rows].unflatten(1, (-1, experts))[..., number]  # (rows, r)
        dtype = torch.promote_types(a.dtype, b.dtype)
        delta = (b.to(dtype) @ a.to(dtype)) * self.scaling
        whole = delta.T if self.embedding else delta
        changed = weight + (whole if self.expert is not None else piece.cut(whole))
        if self.magnitude is None:
            return changed
        norms = torch.linalg.vector_norm(changed, dim=1, keepdim=True)
        return piece.cut(_wide(self.magnitude)[:, None]) / norms * changed


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A module that was trained and saved whole (modules_to_save)."""

    stored: Stored

    def shape(self, base: tuple[int, int]) -> tuple[int, int]:
        return self.stored.shape[0], self.stored.shape[1]

    def __call__(self, weight: Tensor, piece: Piece) -> Tensor:
        return piece.cut(self.stored.read())


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Rows of an embedding that were trained by themselves (trainable_token_indices)."""

    rows: Stored
    indices: tuple[int, ...]

    def shape(self, base: tuple[int, int]) -> tuple[int, int]:
        last = max(self.indices, default=0)
        fits = last < base[0] and self.rows.shape == (len(self.indices), base[1])
        return base if fits else (last + 1, self.rows.shape[1])

    def __call__(self, weight: Tensor, piece: Piece) -> Tensor:
        rows = _wide(self.rows)
        wide = weight.to(torch.promote_types(weight.dtype, rows.dtype), copy=True)
        return wide.index_copy_(0, torch.tensor(self.indices), rows.to(wide.dtype))


Change = LowRank | Replaced | Tokens
NO_BASE = "no base"


def no_base(folder: Path) -> Source:
    """Zeros in place of the base of the adapter in a folder, at the modules that it changes by A and B alone,
    so that what is merged is the update. Raises CompanionError where it is no adapter, or changes no such."""
    path = folder / WEIGHTS
    base = Source(label=NO_BASE, fingerprint=NO_BASE, entries={}, tied={}, left_out={})
    if not path.is_file() or not (folder / CONFIG).is_file():
        raise CompanionError(f"{folder} is no LoRA adapter in safetensors: name a base and its fine-tune")
    for name, change in _read_changes(path, file_header(path), _checked_config(folder / CONFIG), base):
        if isinstance(change, LowRank) and change.magnitude is None:
            matrix = matrix_of(name, change.shape((0, 0)), "float32")
            base.entries[name] = Entry(matrix=matrix, file=Path(NO_BASE), stored=None, piece=Piece(name=name))
        else:
            base.left_out[name] = "changed by more than A and B, which needs the base"
    if not base.entries:
        raise CompanionError(f"{path} holds nothing that can be told without its base: name that too")
    return base


def adapted_source(folder: Path, label: str, base: Source | None) -> Source:
    """`base` with the adapter in `folder` merged in, matrix by matrix as each is read.

    Raises CompanionError where there is no base, where base and adapter do not fit each other, and for a
    setting that changes more than this module can read, naming it.
    """
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLE).is_file():
        raise CompanionError(f"{folder / PICKLE} is {PICKLED.format('peft')}")
    if base is None:
        named = read_json(folder / CONFIG, FETCH).get("base_model_name_or_path")
        wanted = f"name the base it was trained on too ({named}), or it alone"
        raise CompanionError(f"{folder} is a LoRA adapter: {wanted}")
    config = _checked_config(folder / CONFIG)
    tensors = file_header(path)
    changes: dict[str, tuple[Change, ...]] = {}  # by the name of a stored weight, or of an expert's matrix
    for name, change in _read_changes(path, tensors, config, base):
        if base.fingerprint != NO_BASE or name in base.entries:
            changes[name] = (*changes.get(name, ()), change)
    if not changes:
        raise CompanionError(f"{path} holds no LoRA factors: save the adapter again")
    for module in config.get("modules_to_save") or ():
        if not any(f".{module}." in stored.name for stored in tensors):
            raise CompanionError(f"{path} lacks {module}, which modules_to_save names: save it again")
    _require_fit(path, changes, base)
    own = {name: entry for name, entry in base.tied.items() if name in changes}  # a head of its own now

    def merged(name: str, entry: Entry) -> Entry:
        made = changes.get(name) or changes.get(entry.whole)
        return replace(entry, changes=made, file=path) if made else entry

    return Source(
        label=label,
        fingerprint=files_fingerprint([path], config, base.fingerprint),
        entries={name: merged(name, entry) for name, entry in (base.entries | own).items()},
        tied={name: merged(name, entry) for name, entry in base.tied.items() if name not in own},
        left_out={name: why for name, why in base.left_out.items() if name not in changes},
    )


def _checked_config(path: Path) -> dict[str, Any]:
    config = read_json(path, FETCH)
    if (kind := config.get("peft_type")) != "LORA":
        raise CompanionError(f"{path} says peft_type {kind!r}, only LORA can be read: {_REMEDY}")
    unknown = [f"{name} {config[name]!r}" for name in sorted(set(config) - _HARMLESS) if config[name]]
    start = config.get("init_lora_weights", True)
    if start not in _KEEPS_THE_BASE:
        unknown.append(f"init_lora_weights {start!r}")
    if unknown:
        raise CompanionError(f"{path} sets {', '.join(unknown)}, which is more than plain LoRA: {_REMEDY}")
    return config


def _read_changes(
    path: Path, tensors: Sequence[Stored], config: dict[str, Any], base: Source
) -> Iterator[tuple[str, Change]]:
    """Every change in an adapter's file, with the canonical name of the weight that it changes."""
    factors: dict[str, dict[str, Stored]] = defaultdict(dict)
    names: dict[str, str] = {}  # of the modules, as the adapter has them
    for stored in tensors:
        if match := _TOKENS.match(stored.name):
            indices = _indices(config.get("trainable_token_indices"), match[1], path)
            yield canonical_name(f"{match[1]}.weight"), Tokens(rows=stored, indices=indices)
        elif (match := _FACTOR.match(stored.name)) and stored.dtype in FLOATS:
            module = canonical_name(f"{match[1]}.weight")
            kind = f"{match[2] or ''}{match[3]}"
            if kind in factors[module]:
                raise CompanionError(f"{path} holds two adapters of {module}: save the one you mean alone")
            factors[module][kind] = stored
            names[module] = match[1].removeprefix("base_model.model.")
        elif len(stored.shape) == 2 and stored.dtype in FLOATS and ".lora_" not in stored.name:
            yield canonical_name(stored.name), Replaced(stored=stored)
        elif len(stored.shape) != 1 or stored.dtype not in FLOATS:
            raise CompanionError(f"{path} holds {stored.name}, which is no LoRA factor: {_REMEDY}")
    for module, kinds in factors.items():
        embedding = "embedding_A" in kinds or "embedding_B" in kinds
        a, b = (kinds.get("embedding_" * embedding + factor) for factor in "AB")
        magnitude = kinds.get("magnitude_vector")
        if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2:
            raise CompanionError(f"{path} holds half an adapter of {module}: A and B are needed")
        if embedding and magnitude is not None:
            raise CompanionError(f"{path} holds DoRA of the embedding {module}, which is not read: {_REMEDY}")
        if magnitude is None and config.get("use_dora"):
            raise CompanionError(f"{path} lacks the magnitudes of {module} that use_dora asks: save it again")
        rank, scaling = _scaling(names[module], config, path.parent / CONFIG)
        low_rank = LowRank(a=a, b=b, scaling=scaling, magnitude=magnitude, embedding=embedding)
        if a.shape[0] == b.shape[1] == rank:
            yield module, low_rank
        elif config.get("target_parameters") and a.shape[0] == b.shape[1] and a.shape[0] % rank == 0:
            yield from _of_experts(module, low_rank, a.shape[0] // rank, base, path)
        else:
            sizes = f"A {a.shape} and B {b.shape}"
            raise CompanionError(f"{path}: {module} has {sizes}, but {CONFIG} says r = {rank}")


def _scaling(module: str, config: dict[str, Any], path: Path) -> tuple[int, float]:
    """r and s of a module: s = α/r, or α/√r with rank-stabilised LoRA; r and α may be its own."""
    try:
        rank = _of_module(config.get("rank_pattern"), module, config["r"])
        alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
        return rank, float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise CompanionError(f"{path} has no usable r and lora_alpha ({error!r}): save it again") from error
    except re.error as error:
        raise CompanionError(f"{path} has a pattern that is no regular expression: {error}") from error


def _indices(setting: Any, module: str, path: Path) -> tuple[int, ...]:
    """The rows of an embedding that were trained: one list, or a list a module."""
    of_modules = setting if isinstance(setting, dict) else {"": setting}
    rows = next((rows for key, rows in of_modules.items() if module.endswith(key)), None)
    if not isinstance(rows, list) or not all(isinstance(row, int) and row >= 0 for row in rows):
        raise CompanionError(f"{path} has tokens of {module}, and {CONFIG} does not say which: {_REMEDY}")
    return tuple(rows)


def _of_experts(
    module: str, low_rank: LowRank, experts: int, base: Source, path: Path
) -> Iterator[tuple[str, LowRank]]:
    """The factors of a stack of experts (target_parameters), by the matrices of each expert that they change:
    gate over up where B has twice gate's rows, else down."""
    prefix = module.removesuffix(".weight").removesuffix(".base_layer")
    for expert in range(experts):
        gate, up, down = (f"{prefix}.{expert}.{part}_proj.weight" for part in ("gate", "up", "down"))
        if gate not in base.entries or down not in base.entries:
            raise CompanionError(f"{path} changes {prefix}, and {base.label} has no such experts: {_REMEDY}")
        half, n = base.entries[gate].matrix.shape
        if low_rank.shape(base.entries[down].matrix.shape) == (2 * half, n):
            parts = {gate: slice(0, half), up: slice(half, 2 * half)}
        else:
            parts = {down: slice(None)}
        for name, rows in parts.items():
            yield name, replace(low_rank, expert=(expert, experts, rows))


def _of_module(pattern: dict[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends in, as peft matches them."""
    for key, value in (pattern or {}).items():
        if len(key) > _LONGEST_PATTERN or re.search(r"\)[*+{]", key) or len(re.findall(r"[*+{]", key)) > 4:
            raise ValueError(f"the pattern {key[:40]!r} may take forever to match")
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def _require_fit(path: Path, changes: Mapping[str, tuple[Change, ...]], base: Source) -> None:
    """Every changed weight is in the base, with the same shape."""
    shapes = dict[str, tuple[int, int]]()
    for name, entry in (base.entries | base.tied).items():
        m, n = entry.matrix.shape
        whole = name if name in base.tied else entry.whole
        shapes[whole] = (shapes.get(whole, (0, n))[0] + m, n)
        shapes.setdefault(name, (0, n))  # a piece is no weight of its own, unless it is an expert's
    for name, of_weight in changes.items():
        if name not in shapes:
            reason = base.left_out.get(name)
            lacks = f"where it is {reason}" if reason else "which lacks it"
            raise CompanionError(f"{path} changes {name} of {base.label}, {lacks}: name its own base")
        rows, columns = shapes[name]
        for m, n in (change.shape((rows, columns)) for change in of_weight):
            if (m, n) != (rows, columns):
                has = f"{m} × {n}, but the base {base.label} has {rows} × {columns}"
                raise CompanionError(f"{path} changes {name} of {has}: name the base it was trained on")


def _wide(factor: Stored) -> Tensor:
    """A factor in float32 at least, in which peft multiplies those of 16 bits."""
    tensor = factor.read()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
