"""What one stored tensor holds: one matrix, several under each other (q over k over v), or many experts."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

from paper_lib.ground.matrices import Piece

# Families whose attention stores q, k, v and whose MLP stores gate, up as row blocks in this order. Others
# use the same names for other orders (CodeGen, ESM), so only a family whose modelling code is known is split.
_QKV = ("phi3", "phi4_multimodal", "gpt2", "mpt")
# q of the heads that share a k and a v, this k and this v under each other.
_QKV_A_HEAD = ("gpt_neox", "bloom", "falcon", "gpt_bigcode")
_GATE_UP = ("phi3", "phi4_multimodal", "glm", "glm4", "glm4v")
_INTERLEAVED = ("gpt_oss",)  # gate and up take turns, row by row
_CONV1D = ("gpt2", "openai-gpt", "imagegpt")  # a weight is stored as (in, out)
_CONV1D_NAMES = re.compile(r"\.(?:attn|crossattention|mlp)\.(?:c_attn|q_attn|c_proj|c_fc)\.weight$")

_FUSED = re.compile(
    r"^(.+\.\d+\.(?:self_attn|self_attention|attention|attn|mlp)\.)"
    r"(qkv_proj|gate_up_proj|query_key_value|Wqkv|c_attn)\.weight$"
)
_STACK = re.compile(r"^(.+\.experts\.)(gate_up|gate|up|down)_proj(?:\.weight)?$")


def pieces(name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> list[Piece]:
    """The matrices in the tensor `name`; one piece of its own name where how to cut it is not sure.

    shapes: canonical name to shape, of the whole checkpoint. config: of config.json, empty where there is
    none. A stack of unknown layout comes expert by expert, and is not cut further. Returns nothing where the
    tensor is no matrix and no known stack.
    """
    shape, family = shapes[name], str(config.get("model_type", "")).removesuffix("_text")
    if len(shape) == 2:
        transposed = family in _CONV1D and bool(_CONV1D_NAMES.search(name))
        cut = _blocks(name, shape[1] if transposed else shape[0], family, text_config(config))
        return [replace(piece, transposed=transposed) for piece in cut or [Piece(name=name)]]
    return _experts(name, shapes, config) if len(shape) == 3 else []


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decoder's part of a config.json, which a model of text and images keeps in a part of its own."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _blocks(name: str, rows: int, family: str, config: Mapping[str, Any]) -> list[Piece]:
    """The blocks of a fused matrix of so many rows; none where it is not fused, or not surely so."""
    if not (fused := _FUSED.match(name)):
        return []
    if fused[2] == "gate_up_proj":
        half = rows // 2
        return _under_each_other(fused[1], {"gate": half, "up": half} if family in _GATE_UP else {}, rows)
    if not (heads := _head_rows(config)):
        return []
    queries, keys, width = heads
    if family in _QKV:
        return _under_each_other(fused[1], {"q": queries, "k": keys, "v": keys}, rows)
    if family not in _QKV_A_HEAD or rows != queries + 2 * keys or not width or not (groups := keys // width):
        return []
    a_head = {"q": queries // groups, "k": width, "v": width}
    return [replace(piece, heads=groups) for piece in _under_each_other(fused[1], a_head, rows // groups)]


def _under_each_other(prefix: str, modules: Mapping[str, int], rows: int) -> list[Piece]:
    """A piece a module, by its number of rows; none unless they are all of the rows."""
    if sum(modules.values()) != rows or min(modules.values(), default=0) <= 0:
        return []
    ends = zip(modules.items(), accumulate(modules.values()), strict=True)
    return [Piece(name=f"{prefix}{name}_proj.weight", rows=(end - size, end)) for (name, size), end in ends]


def _head_rows(config: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Rows of q, of k or v alike, and of one head; None where the configuration does not say."""
    heads = next((config[key] for key in ("num_attention_heads", "n_head", "n_heads") if key in config), None)
    hidden = next((config[key] for key in ("hidden_size", "n_embd", "d_model") if key in config), None)
    width = config.get("head_dim")
    if not isinstance(heads, int) or heads <= 0:
        return None
    if width is None and isinstance(hidden, int):
        width = hidden // heads
    family, kv_heads = config.get("model_type"), config.get("num_key_value_heads") or heads
    if family == "mpt":
        kv_heads = (config.get("attn_config") or {}).get("kv_n_heads") or heads
    elif family == "falcon" and config.get("new_decoder_architecture"):
        kv_heads = config.get("num_kv_heads") or heads
    elif family in ("falcon", "gpt_bigcode"):
        kv_heads = 1 if config.get("multi_query", True) else heads
    if isinstance(kv_heads, int) and isinstance(width, int):
        return heads * width, kv_heads * width, width
    return None


def _experts(name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> list[Piece]:
    """Every expert's matrices, named as a checkpoint with one tensor an expert names them: gate and up cut
    where down's shape (E, H, I) shows that gate_up is (E, 2 I, H); the other way round it stays whole."""
    if not (stack := _STACK.match(name)):
        return []
    (prefix, module), shape = stack.groups(), shapes[name]
    down, gate_up = (
        shapes.get(f"{prefix}{stack}_proj", shapes.get(f"{prefix}{stack}_proj.weight", ()))
        for stack in ("down", "gate_up")
    )
    upright = len(down) == 3 and config.get("model_type") not in _INTERLEAVED
    experts = range(shape[0])
    if not upright or gate_up not in ((), (down[0], 2 * down[2], down[1])):
        return [Piece(name=f"{prefix}{expert}.{module}_stack", expert=expert) for expert in experts]
    half = shape[1] // 2
    parts = {"gate": (0, half), "up": (half, 2 * half)} if module == "gate_up" else {module: None}
    return [
        Piece(name=f"{prefix}{expert}.{part}_proj.weight", expert=expert, rows=rows)
        for expert in experts
        for part, rows in parts.items()
    ]
