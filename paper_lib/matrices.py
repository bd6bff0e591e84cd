"""What a weight matrix is called, wherever it is stored: one name, one layer and one module for each."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
_RANKS = {module: rank for rank, module in enumerate((*MODULES, "router", "embed", "lm_head", "other"))}

# Wrappers put these in front of every name; a model of text and images has its decoder in a part of its own.
_WRAPPERS = re.compile(r"^(?:base_model\.model\.|module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
_TEXT_PART = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|model\.text_model\.)")
_INNER = re.compile(r"^(?:layers\.\d+|embed_tokens|norm)\.")
_MIXTRAL = re.compile(r"\.experts\.(\d+)\.w([123])\.")
_MIXTRAL_NAMES = {"1": "gate_proj", "2": "down_proj", "3": "up_proj"}

_OUTER = r"^(?:model\.|decoder\.|transformer\.|gpt_neox\.)*"
_LAYER = re.compile(_OUTER + r"(?:layers|h|blocks)\.(\d+)\.(.+)$")
_PROJECTION = re.compile(r"^(?:self_attn\.([qkvo])|mlp\.(?:[\w.]+\.)?(gate|up|down))_proj\.weight$")
_ROUTER = re.compile(r"^mlp\.(?:gate|router|shared_expert_gate)\.weight$")
_EMBED = re.compile(_OUTER + r"(?:embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_LM_HEAD = re.compile(r"^(?:lm_head|embed_out)\.weight$")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A weight matrix of a checkpoint.

    layer: from 0; −1 outside the decoder layers. module: one of `MODULES`, "router", "embed", "lm_head" or
    "other". name: canonical, unique in a checkpoint, the same in every checkpoint of a model. dtype: as
    stored. The experts of one layer share layer and module and differ in name.
    """

    layer: int
    module: str
    name: str
    shape: tuple[int, int]
    dtype: str


class Source(ABC):
    """A checkpoint to read matrices from. It can be pickled and keeps no file open.

    label: short, for reports. fingerprint: changes when the files do.
    """

    label: str
    fingerprint: str

    @abstractmethod
    def matrices(self) -> list[Matrix]:
        """Its matrices in layer order, then q … down; those outside the layers come first."""

    @abstractmethod
    def skipped(self) -> dict[str, str]:
        """Canonical name to reason, of every other tensor."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One matrix by its canonical name, (m, n), dtype as stored; no other tensor's pages are read.

        Raises CompanionError where there is no such matrix, or where its file has gone.
        """

    @abstractmethod
    def file(self, name: str) -> Path:
        """Where the matrix is stored, for messages."""

    @abstractmethod
    def fused(self, name: str) -> tuple[str, slice]:
        """The module's own weight that a matrix is cut from, and its rows there; itself where it is whole."""


def canonical_name(name: str) -> str:
    """The name without what wrappers put around it, as a plain causal model of the family would store it.

    "base_model.model.model.layers.0…", "model.language_model.layers.0…" and "layers.0…" are all
    "model.layers.0…"; Mixtral's block_sparse_moe.experts.0.w1 is mlp.experts.0.gate_proj.
    """
    name = _TEXT_PART.sub("model.", _WRAPPERS.sub("", name)).removeprefix("language_model.")
    if _INNER.match(name):
        name = f"model.{name}"
    name = name.replace(".block_sparse_moe.", ".mlp.")
    return _MIXTRAL.sub(lambda found: f".experts.{found[1]}.{_MIXTRAL_NAMES[found[2]]}.", name)


def layer_and_module(name: str) -> tuple[int, str]:
    """Layer (−1 outside the decoder layers) and module of a canonical name."""
    if found := _LAYER.match(name):
        if projection := _PROJECTION.match(found[2]):
            return int(found[1]), projection[1] or projection[2]
        return int(found[1]), "router" if _ROUTER.match(found[2]) else "other"
    if _EMBED.match(name):
        return -1, "embed"
    return -1, "lm_head" if _LM_HEAD.match(name) else "other"


def reading_order(layer: int, module: str, name: str) -> tuple[int, int, list[tuple[int, str]]]:
    """Sort key: the layer, then q, k, v, o, gate, up, down, then the name with its numbers as numbers."""
    words = re.split(r"(\d+)", name)
    return layer, _RANKS[module], [(int(w), "") if i % 2 else (0, w) for i, w in enumerate(words)]
