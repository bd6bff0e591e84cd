"""A checkpoint in safetensors files: which file holds which tensor, read from headers and checked."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import Tensor

from paper_lib.compare.fused import pieces, text_config
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json, sha256
from paper_lib.ground.matrices import Matrix, Piece, canonical_name, matrix_of, reading_order
from paper_lib.training.checkpoints import opened

INDEX = "model.safetensors.index.json"
FETCH = "download it again or save it again"
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
FLOAT8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_SCALES = ("weight_scale_inv", "weight_scale")  # of a float8 weight
DEQUANTISE = "load it with transformers, call its dequantize() and save_pretrained, and name that folder"
_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = tuple(
    f"{name}.weight"
    for name in ("model.embed_tokens", "wte", "embed_in", "word_embeddings", "embeddings", "shared")
)
_WORDS = {"I": "int", "U": "uint", "F": "float"}
QUANTISED = "quantised"
_PACKED = ("qweight", "absmax", "quant_map", "SCB", "weight_scale", "scales")  # beside packed weights
_SAMPLES, _PAGE = 64, 4096
_WHOLE = 256 * 2**20  # bytes of a file that are read whole to tell it from others


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor as its file's header describes it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: "Stored | None" = None  # of a float8 weight, by which what is stored is multiplied

    def read(self, piece: Piece | None = None) -> Tensor:
        """One matrix of the tensor (m, n), or all of it; the file is mapped, so other experts' pages are not
        read. A float8 weight comes times its scale, in float32."""
        with opened(self.path, FETCH) as file:
            names = file.keys()
            if self.name not in names:
                raise CompanionError(f"{self.path} holds no tensor {self.name!r} any more: open it again")
            tensor = file.get_tensor(self.name)
        if self.scale is not None:
            tensor = _scaled(tensor, self.scale.read())
        return tensor if piece is None else piece.of(tensor).contiguous()


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """A float8 weight (…, m, n) in float32: a scale for all of it, for each row (m, 1), or for each block of
    equal sides, the last of which may be cut off."""
    scale = scale.float()
    if scale.ndim < 2 or scale.shape[-1] == 1 == scale.shape[-2] or scale.shape[-2:] == (weight.shape[-2], 1):
        return weight.float() * (scale.reshape(-1, 1) if scale.numel() == weight.shape[-2] else scale)
    sides = [-(-side // blocks) for side, blocks in zip(weight.shape[-2:], scale.shape[-2:], strict=True)]
    # Blocks are of 128 or another power of two: the smallest one that gives as many of them.
    sides = [1 << (side - 1).bit_length() for side in sides]
    spread = scale.repeat_interleave(sides[0], -2).repeat_interleave(sides[1], -1)
    return weight.float() * spread[..., : weight.shape[-2], : weight.shape[-1]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One matrix of a checkpoint, cut from a stored tensor, in `file`; without one it is zeros, in place of a
    base that nobody has. changes: what an adapter does to it, in turn: from the matrix as it is and its piece
    of the stored weight to the matrix as it becomes, in a dtype at least as wide."""

    matrix: Matrix
    file: Path
    stored: Stored | None
    piece: Piece
    changes: tuple[Callable[[Tensor, Piece], Tensor], ...] = ()

    @property
    def whole(self) -> str:
        """The canonical name of the stored weight."""
        return canonical_name(self.stored.name) if self.stored else self.matrix.name

    def read(self) -> Tensor:
        """The matrix (m, n), with every change and then rounded once to the dtype stored, as peft merges."""
        weight = self.stored.read(self.piece) if self.stored else torch.zeros(self.matrix.shape)
        changed = weight
        for change in self.changes:
            changed = change(changed, self.piece)
        return changed.to(weight.dtype)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint to read matrices from. It can be pickled and keeps no file open.

    label: short, for reports. fingerprint: changes when the files do. By canonical name: entries, its
    matrices; tied, output heads that are not stored, or stored twice, since they are the embedding; left_out,
    why every other tensor is no matrix; flat, norms and biases.
    """

    label: str
    fingerprint: str
    entries: dict[str, Entry]
    tied: dict[str, Entry]
    left_out: dict[str, str]
    flat: dict[str, Stored] = field(default_factory=dict)

    def matrices(self) -> list[Matrix]:
        """Its matrices in layer order, then q … down; those outside the layers come first."""
        return sorted((entry.matrix for entry in self.entries.values()), key=reading_order)

    def read(self, name: str) -> Tensor:
        """One matrix by its canonical name, tied ones too, (m, n), dtype as stored; no other tensor's pages
        are read. Raises CompanionError where there is no such matrix, or where its file has gone."""
        if (entry := self.entries.get(name) or self.tied.get(name)) is None:
            reason = f": it is {self.left_out[name]}" if name in self.left_out else ""
            raise CompanionError(f"{self.label} has no matrix {name!r}{reason}")
        return entry.read()

    def file(self, name: str) -> Path:
        """Where the matrix is stored, for messages; the adapter's file where that changes it."""
        return (self.entries | self.tied)[name].file

    def vectors(self) -> dict[str, Tensor]:
        """Norms and biases by canonical name, as far as this source has any of its own."""
        return {name: stored.read() for name, stored in self.flat.items()}


def sharded_source(files: list[Path], folder: Path, label: str, weight_map: dict[str, Path]) -> Source:
    """The source of these files, with `folder`'s config.json. weight_map: tensor to file, as an index has it.

    Raises CompanionError where a file is broken, two hold one tensor, or nothing is left to compare.
    """
    config = read_json(folder / "config.json", FETCH)
    tensors: dict[str, Stored] = {}
    for path in files:
        for stored in file_header(path):
            if (other := tensors.get(stored.name)) is not None:
                both = f"{other.path} and {path} both hold {stored.name}"
                raise CompanionError(f"{both}: save the checkpoint again, or keep one")
            tensors[stored.name] = stored
    for name, path in weight_map.items():
        if name not in tensors or tensors[name].path != path:
            raise CompanionError(f"{path} lacks {name}, which {folder / INDEX} places there: {FETCH}")
    where = files[0] if len(files) == 1 else folder
    entries, left_out = _sorted_out(tensors, config, where)
    if not entries:
        first = next((f"{name} is {reason}" for name, reason in left_out.items()), "it is empty")
        remedy = DEQUANTISE if QUANTISED in first else "name a checkpoint of a model"
        raise CompanionError(f"{where} holds no floating-point matrix to compare ({first}): {remedy}")
    return Source(
        label=label,
        fingerprint=files_fingerprint(files, config),
        entries=entries,
        left_out=left_out,
        tied=_tied(entries, left_out, config),
        flat={
            canonical_name(name): stored
            for name, stored in tensors.items()
            if len(stored.shape) == 1 and stored.dtype in FLOATS
        },
    )


def indexed_files(folder: Path) -> dict[str, Path]:
    """Tensor to shard, as the folder's index has it. Raises CompanionError where it cannot be trusted."""
    index = folder / INDEX
    weight_map = read_json(index, FETCH).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CompanionError(f"{index} has no weight_map: {FETCH}")
    for name, shard in weight_map.items():
        # Names are judged, not where a link leads: the Hub's cache links its files to another folder.
        parts = PureWindowsPath(shard if isinstance(shard, str) else "")
        if not parts.name or parts.anchor or ".." in parts.parts or "\0" in shard:
            raise CompanionError(f"{index} places {name} in {shard!r}, outside its folder: do not use it")
        if not (folder / shard).is_file():
            raise CompanionError(f"{folder / shard} does not exist, but {index} places {name} there: {FETCH}")
    return {name: folder / shard for name, shard in weight_map.items()}


def files_fingerprint(files: list[Path], *parts: Any) -> str:
    """16 hexadecimal digits of the files' names and content, and of JSON-able parts.

    Of a file above 256 MB: its size, time and 64 pages; these tell copies apart whose times were reset. A
    link counts as the file it leads to.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for path in files:
        status = path.stat()
        digest.update(f"{path.name} {path.resolve().name} {status.st_size}\n".encode())
        if status.st_size <= _WHOLE:
            digest.update(sha256(path).encode())
            continue
        digest.update(f"{status.st_mtime_ns}\n".encode())
        with open(path, "rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, status.st_size - _PAGE) * sample // (_SAMPLES - 1), os.SEEK_SET)
                digest.update(file.read(_PAGE))
    return digest.hexdigest()[:16]


def file_header(path: Path) -> list[Stored]:
    """Every tensor of a safetensors file. Raises CompanionError where the file is missing or truncated."""
    with opened(path, FETCH) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    return [
        Stored(path=path, name=name, shape=tuple(part.get_shape()), dtype=part.get_dtype())
        for name, part in slices.items()
    ]


def _sorted_out(
    tensors: dict[str, Stored], config: dict[str, Any], where: Path
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Matrices by canonical name, and why the other tensors are none."""
    uses = Counter(canonical_name(name) for name in tensors)
    named = {canonical_name(n) if uses[canonical_name(n)] == 1 else n: s for n, s in tensors.items()}
    shapes = {name: stored.shape for name, stored in named.items()}
    method = (config.get("quantization_config") or {}).get("quant_method")
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    for name, stored in named.items():
        if reason := _reason(name, stored, named, method):
            left_out[name] = reason
            continue
        if stored.dtype in FLOAT8:
            beside = [named.get(f"{name.removesuffix('weight')}{scale}") for scale in _SCALES]
            stored = replace(stored, scale=next((scale for scale in beside if scale), None))
        cut = pieces(name, shapes, config)
        if not cut:
            left_out[name] = f"a stack of {len(stored.shape)} dimensions, of unknown layout"
        for piece in cut:
            m, n = stored.shape[:-3:-1] if piece.transposed else stored.shape[-2:]
            m = (piece.rows[1] - piece.rows[0]) * (piece.heads or 1) if piece.rows else m
            matrix = matrix_of(piece.name, (m, n), (FLOATS | FLOAT8)[stored.dtype])
            if piece.name in entries:
                raise CompanionError(f"{where} holds {piece.name} twice, by itself and in {name}: keep one")
            entries[piece.name] = Entry(matrix=matrix, file=stored.path, stored=stored, piece=piece)
    return entries, left_out


def _reason(name: str, stored: Stored, named: dict[str, Stored], method: str | None) -> str | None:
    """Why a tensor is no matrix to compare; None where it may be one. method: of quantisation."""
    stem, _, last = name.rpartition(".")
    if stored.dtype not in FLOATS | FLOAT8:
        word = _WORDS.get(stored.dtype[0], stored.dtype[0].lower()) + stored.dtype[1:].lower()
        beside = any(f"{stem}.{each}" in named for each in _PACKED)
        packed = beside or last in ("weight", "qweight", "weight_packed")
        return f"{word}, {QUANTISED}{f' by {method}' if method else ''}" if packed else f"{word}, no weight"
    if len(stored.shape) < 2:
        return "a vector" if stored.shape else "a scalar"
    if 0 in stored.shape:
        return "empty"
    weight = named.get(f"{stem}.weight")
    if last != "weight" and (f"{stem}.qweight" in named or (weight and weight.dtype not in FLOATS)):
        return "the scale of a quantised weight"
    return None


def _tied(entries: dict[str, Entry], left_out: dict[str, str], config: dict[str, Any]) -> dict[str, Entry]:
    """The output head as the embedding that it is: stored with the same values, or not stored though the
    configuration does not untie them. A stored head with values of its own counts, whatever that says."""
    head = next((name for name in _HEADS if name in entries), _HEADS[0])
    embedding = next((name for name in _EMBEDDINGS if name in entries), None)
    if embedding is None:
        return {}
    of = entries[embedding]
    if head in entries:
        if entries[head].matrix.dtype != of.matrix.dtype or not torch.equal(entries[head].read(), of.read()):
            return {}
        del entries[head]
        left_out[head] = f"tied to {embedding}"
    elif text_config(config).get("tie_word_embeddings", config.get("tie_word_embeddings", True)) is False:
        return {}
    return {head: replace(of, matrix=replace(of.matrix, module="lm_head", name=head))}
