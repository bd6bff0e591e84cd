"""A checkpoint in safetensors files: which file holds which tensor, read from headers and checked."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import Tensor

from paper_lib.compare.fused import Piece, pieces, text_config
from paper_lib.errors import CompanionError
from paper_lib.files import read_json, sha256
from paper_lib.matrices import Matrix, Source, canonical_name, layer_and_module, reading_order
from paper_lib.training.checkpoints import opened

INDEX = "model.safetensors.index.json"
FETCH = "download it again or save it again"
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_WORDS = {"I": "int", "U": "uint", "F": "float"}
_SAMPLES, _PAGE = 64, 4096
_WHOLE = 256 * 2**20  # bytes of a file that are read whole to tell it from others


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor as its file's header describes it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self, piece: Piece) -> Tensor:
        """One matrix of the tensor (m, n); pages outside of it are not read."""
        with opened(self.path, FETCH) as file:
            names = file.keys()
            if self.name not in names:
                raise CompanionError(f"{self.path} holds no tensor {self.name!r} any more: open it again")
            if piece.expert is None and piece.rows is None:
                return file.get_tensor(self.name)
            rows = slice(*piece.rows) if piece.rows is not None else slice(None)
            stored = file.get_slice(self.name)
            return stored[rows] if piece.expert is None else stored[piece.expert, rows]


@dataclass(frozen=True, kw_only=True)
class ShardedSource(Source):
    """The matrices of one or more safetensors files."""

    label: str
    fingerprint: str
    entries: dict[str, tuple[Matrix, Stored, Piece]]
    left_out: dict[str, str]

    def matrices(self) -> list[Matrix]:
        """Its matrices in layer order, then q … down."""
        matrices = [matrix for matrix, _, _ in self.entries.values()]
        return sorted(matrices, key=lambda matrix: reading_order(matrix.layer, matrix.module, matrix.name))

    def skipped(self) -> dict[str, str]:
        """Canonical name to reason, of every tensor that is no matrix to compare."""
        return dict(self.left_out)

    def read(self, name: str) -> Tensor:
        """One matrix (m, n), dtype as stored; only its own file is opened."""
        _, stored, piece = self._entry(name)
        return stored.read(piece)

    def file(self, name: str) -> Path:
        """The file that holds it."""
        return self._entry(name)[1].path

    def fused(self, name: str) -> tuple[str, slice]:
        """The stored weight that a matrix is cut from, and its rows there."""
        _, stored, piece = self._entry(name)
        whole = piece.expert is not None or piece.rows is None
        return (name, slice(None)) if whole else (canonical_name(stored.name), slice(*(piece.rows or ())))

    def _entry(self, name: str) -> tuple[Matrix, Stored, Piece]:
        if name not in self.entries:
            reason = self.left_out.get(name)
            raise CompanionError(
                f"{self.label} has no matrix {name!r}" + (f": it is {reason}" if reason else "")
            )
        return self.entries[name]


def sharded_source(files: list[Path], folder: Path, label: str, weight_map: dict[str, Path]) -> ShardedSource:
    """The source of these files, with `folder`'s config.json. weight_map: tensor to file, as an index has it.

    Raises CompanionError where a file is broken, two hold one tensor, or nothing is left to compare.
    """
    config = read_json(folder / "config.json", FETCH)
    tensors: dict[str, Stored] = {}
    for path in files:
        for stored in file_header(path):
            if (other := tensors.get(stored.name)) is not None:
                raise CompanionError(
                    f"{other.path} and {path} both hold {stored.name}: save the checkpoint again, or keep one"
                )
            tensors[stored.name] = stored
    for name, path in weight_map.items():
        if name not in tensors or tensors[name].path != path:
            raise CompanionError(f"{path} lacks {name}, which {folder / INDEX} places there: {FETCH}")
    where = files[0] if len(files) == 1 else folder
    entries, left_out = _sorted_out(tensors, config, where)
    if not entries:
        first = next((f"{name} is {reason}" for name, reason in left_out.items()), "it is empty")
        raise CompanionError(
            f"{where} holds no floating-point matrix to compare ({first}): name an unquantised checkpoint"
        )
    return ShardedSource(
        label=label, fingerprint=files_fingerprint(files, config), entries=entries, left_out=left_out
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
            raise CompanionError(
                f"{index} places {name} in {shard!r}, outside its folder: do not use this checkpoint"
            )
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
        names = file.keys()
        slices = {name: file.get_slice(name) for name in names}
        return [
            Stored(path=path, name=name, shape=tuple(part.get_shape()), dtype=part.get_dtype())
            for name, part in slices.items()
        ]


def _sorted_out(
    tensors: dict[str, Stored], config: dict[str, Any], where: Path
) -> tuple[dict[str, tuple[Matrix, Stored, Piece]], dict[str, str]]:
    """Matrices by canonical name, and why the other tensors are none."""
    uses = Counter(canonical_name(name) for name in tensors)
    named = {canonical_name(n) if uses[canonical_name(n)] == 1 else n: s for n, s in tensors.items()}
    shapes = {name: stored.shape for name, stored in named.items()}
    quantised = {name.rpartition(".")[0] for name, stored in named.items() if stored.dtype not in FLOATS}
    entries: dict[str, tuple[Matrix, Stored, Piece]] = {}
    left_out: dict[str, str] = {}
    for name, stored in named.items():
        if reason := _reason(name, stored, named, quantised, config):
            left_out[name] = reason
            continue
        contents = pieces(name, shapes, config)
        if not contents:
            left_out[name] = f"a stack of {len(stored.shape)} dimensions, of unknown layout"
        for piece in contents:
            layer, module = layer_and_module(piece.name)
            rows = piece.rows[1] - piece.rows[0] if piece.rows else stored.shape[-2]
            matrix = Matrix(
                layer=layer,
                module=module,
                name=piece.name,
                shape=(rows, stored.shape[-1]),
                dtype=FLOATS[stored.dtype],
            )
            if piece.name in entries:
                raise CompanionError(f"{where} holds {piece.name} twice, by itself and in {name}: keep one")
            entries[piece.name] = (matrix, stored, piece)
    return entries, left_out


def _reason(
    name: str, stored: Stored, named: dict[str, Stored], quantised: set[str], config: dict[str, Any]
) -> str | None:
    """Why a tensor is no matrix to compare; None where it may be one."""
    if stored.dtype not in FLOATS:
        word = stored.dtype.lower()
        if stored.dtype[0] in _WORDS:
            word = _WORDS[stored.dtype[0]] + word[1:]
        return f"{word}: quantised, or no weight"
    if len(stored.shape) < 2:
        return "a vector" if stored.shape else "a scalar"
    if 0 in stored.shape:
        return "empty"
    if name.rpartition(".")[0] in quantised and not name.endswith(".weight"):
        return "the scale of a quantised weight"
    embedding = "model.embed_tokens.weight"
    tied = config.get("tie_word_embeddings") or text_config(config).get("tie_word_embeddings")
    if tied is True and name == "lm_head.weight" and embedding in named:
        return f"tied to {embedding}"
    return None
