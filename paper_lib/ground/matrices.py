"""What a weight matrix is called, wherever it is stored: one name, one layer and one module for each."""

import re
from dataclasses import dataclass

from torch import Tensor

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
OUTSIDE = ("embed", "lm_head")  # of which "all" measures nothing: rows of tokens that may never have occurred
_RANKS = {module: rank for rank, module in enumerate((*MODULES, "router", *OUTSIDE))}

# Wrappers put these in front of every name; a model of text and images has its decoder in a part of its own.
_WRAPPERS = re.compile(r"^(?:base_model\.model\.|module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
_TEXT_PART = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|model\.text_model\.)")
# A model with a head keeps its body under such a name, the body saved by itself does without.
_BODY = re.compile(r"^(?:transformer|gpt_neox|bert|roberta|electra|distilbert|backbone)\.")
_INNER = re.compile(r"^(?:layers\.\d+|embed_tokens|norm)\.")
_MIXTRAL = re.compile(r"\.experts\.(\d+)\.w([123])\.")
_MIXTRAL_NAMES = {"1": "gate_proj", "2": "down_proj", "3": "up_proj"}

_LAYER = re.compile(r"^(?:model\.|encoder\.|decoder\.)*(?:layers?|h|blocks?)\.(\d+)\.(.+)$")
_ROUTER = re.compile(r"^mlp\.(?:gate|router|shared_expert_gate)\.weight$")
_EMBED = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_positions|embed_in|wte|wpe|shared|relative_attention_bias|\w*embeddings?)"
    r"\.weight$"
)
_LM_HEAD = re.compile(r"^(?:lm_head|embed_out)\.weight$")
# What families call the seven projections, after the layer's number; experts and shared experts lie deeper.
_PROJECTIONS = tuple(
    (re.compile(rf"^{pattern}\.weight$"), modules)
    for pattern, modules in (
        (r"(?:self_attn|attn|attention|self_attention)\.([qkvo])(?:_proj)?", {}),
        (r"mlp\.(?:[\w.]+\.)?(gate|up|down)_proj", {}),
        (r"attention\.self\.(query|key|value)", {"query": "q", "key": "k", "value": "v"}),
        (r"layer\.\d+\.SelfAttention\.([qkvo])", {}),
        (
            r"(?:attention\.output\.dense|(?:self_)?attention\.dense|attn\.c_proj|(?:self_)?attn\.out_proj)",
            "o",
        ),
        (r"(?:intermediate\.dense|mlp\.c_fc|mlp\.dense_h_to_4h|(?:mlp\.)?fc1|ffn\.up_proj)", "up"),
        (r"(?:output\.dense|mlp\.c_proj|mlp\.dense_4h_to_h|(?:mlp\.)?fc2|ffn\.down_proj)", "down"),
        (r"layer\.\d+\.DenseReluDense\.(wi|wo)", {"wi": "up", "wo": "down"}),
        (r"layer\.\d+\.DenseReluDense\.(wi_[01])", {"wi_0": "gate", "wi_1": "up"}),
    )
)
_PLAIN = re.compile(r"^\w[\w.-]{0,60}$")  # what may become a file's name
_SHORT = re.compile(r"^(?:self_attn\.|mlp\.)|(?:_proj(?:_with_mqa)?)?(?:\.weight)?$")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A weight matrix of a checkpoint.

    layer: from 0; −1 outside the layers. module: one of `MODULES`, "router", "embed" or "lm_head"; else what
    the checkpoint calls it, such as "kv_b" or "mixer.in", and "other" outside the layers. name: canonical,
    unique in a checkpoint, the same in every checkpoint of a model. dtype: as stored. The experts of
    one layer share layer and module and differ in name.
    """

    layer: int
    module: str
    name: str
    shape: tuple[int, int]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A matrix within a stored tensor: of one expert where the tensor is a stack (E, m, n), transposed where
    it is stored as (in, out), and of its rows some or all.

    rows: first and last + 1. heads: the rows are those of each of so many equal blocks (q, k, v of one head
    under each other), None where the matrix is one block.
    """

    name: str
    expert: int | None = None
    rows: tuple[int, int] | None = None
    heads: int | None = None
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The matrix (out, in) in the tensor as it is stored."""
        matrix = tensor if self.expert is None else tensor[self.expert]
        return self.cut(matrix.T if self.transposed else matrix)

    def cut(self, matrix: Tensor) -> Tensor:
        """Its rows of the whole matrix (out, n)."""
        if self.rows is None:
            return matrix
        if self.heads is None:
            return matrix[slice(*self.rows)]
        blocks = matrix.unflatten(0, (self.heads, -1))  # (heads, rows a head, n)
        return blocks[:, slice(*self.rows)].flatten(0, 1)


def canonical_name(name: str) -> str:
    """The name without what wrappers put around it, as a plain causal model of the family would store it.

    "base_model.model.model.layers.0…", "model.language_model.layers.0…" and "layers.0…" are all
    "model.layers.0…", "transformer.h.0…" is "h.0…"; Mixtral's block_sparse_moe.experts.0.w1 is
    mlp.experts.0.gate_proj.
    """
    name = _TEXT_PART.sub("model.", _WRAPPERS.sub("", name)).removeprefix("language_model.")
    name = _BODY.sub("", name)
    if _INNER.match(name):
        name = f"model.{name}"
    name = name.replace(".block_sparse_moe.", ".mlp.")
    return _MIXTRAL.sub(lambda found: f".experts.{found[1]}.{_MIXTRAL_NAMES[found[2]]}.", name)


def layer_and_module(name: str) -> tuple[int, str]:
    """Layer (−1 outside the layers) and module of a canonical name; a module without a place of its own is
    called as the checkpoint calls it."""
    if _EMBED.search(name):
        return -1, "embed"
    if not (layer := _LAYER.match(name)):
        return -1, "lm_head" if _LM_HEAD.match(name) else "other"
    number, rest = min(int(layer[1][:10]), 10**9), layer[2]
    if _ROUTER.match(rest):
        return number, "router"
    for pattern, modules in _PROJECTIONS:
        if match := pattern.match(rest):
            return number, modules if isinstance(modules, str) else modules.get(match[1], match[1])
    short = _SHORT.sub("", rest)
    return number, short if _PLAIN.match(short) else "other"


def matrix_of(name: str, shape: tuple[int, int], dtype: str) -> Matrix:
    """The matrix of a canonical name, which tells its layer and module."""
    layer, module = layer_and_module(name)
    return Matrix(layer=layer, module=module, name=name, shape=shape, dtype=dtype)


def reading_order(matrix: Matrix) -> tuple[int, int, list[tuple[int, str]]]:
    """Sort key: the layer, then q, k, v, o, gate, up, down, then the name with its numbers as numbers."""
    words = enumerate(re.split(r"(\d{1,18})", matrix.name))
    numbered = [(int(word), "") if place % 2 else (0, word) for place, word in words]
    return matrix.layer, _RANKS.get(matrix.module, len(_RANKS)), numbered
