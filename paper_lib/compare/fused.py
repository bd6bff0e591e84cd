"""What one stored tensor holds: one matrix, several under each other (q over k over v), or many experts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Families whose attention stores q, k, v and whose MLP stores gate, up as row blocks in this order. Others
# use the same names for other orders (CodeGen, ESM), so only a family whose modelling code is known is split.
_QKV = ("phi3", "phi4_multimodal")
_GATE_UP = (*_QKV, "glm", "glm4", "glm4v")
_INTERLEAVED = ("gpt_oss",)  # gate and up take turns, row by row

_FUSED = re.compile(r"^(model\.layers\.\d+\.(?:self_attn|mlp)\.)(qkv|gate_up)_proj\.weight$")
_STACK = re.compile(r"^(.+\.experts\.)(gate_up|gate|up|down)_proj(?:\.weight)?$")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A matrix within a stored tensor: of one expert where the tensor is a stack, some rows or all."""

    name: str
    expert: int | None = None
    rows: tuple[int, int] | None = None


def pieces(name: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> list[Piece]:
    """The matrices in the tensor `name`; one piece of its own name where how to cut it is not sure.

    shapes: canonical name to shape, of the whole checkpoint. config: of config.json, empty where there is
    none. A stack of unknown layout comes expert by expert, and is not cut further. Returns nothing where the
    tensor is no matrix and no known stack.
    """
    shape = shapes[name]
    if len(shape) == 2:
        blocks = _blocks(name, shape[0], config)
        return [Piece(name=block, rows=rows) for block, rows in blocks.items()] or [Piece(name=name)]
    if len(shape) == 3 and (match := _STACK.match(name)):
        return _experts(match[1], match[2], shape, shapes, config)
    return []


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The decoder's part of a config.json, which a model of text and images keeps in a part of its own."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _blocks(name: str, rows: int, config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Name to rows, of the blocks of a fused matrix; empty where it is not fused, or not surely so."""
    match, family = _FUSED.match(name), str(config.get("model_type", "")).removesuffix("_text")
    if match is None:
        return {}
    if match[2] == "qkv" and family in _QKV:
        heads = _head_rows(text_config(config))
        modules = {} if heads is None else {"q": heads[0], "k": heads[1], "v": heads[1]}
    else:
        half = rows // 2
        modules = {"gate": half, "up": half} if match[2] == "gate_up" and family in _GATE_UP else {}
    if sum(modules.values()) != rows:
        return {}
    blocks, start = {}, 0
    for module, size in modules.items():
        blocks[f"{match[1]}{module}_proj.weight"] = (start, start + size)
        start += size
    return blocks


def _head_rows(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows of q, and of k or v alike; None where the configuration does not say."""
    heads = config.get("num_attention_heads")
    kv_heads = config.get("num_key_value_heads") or heads
    width, hidden = config.get("head_dim"), config.get("hidden_size")
    if width is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        width = hidden // heads
    if isinstance(heads, int) and isinstance(kv_heads, int) and isinstance(width, int):
        return heads * width, kv_heads * width
    return None


def _experts(
    prefix: str,
    module: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any],
) -> list[Piece]:
    """Every expert's matrices, named as a checkpoint with one tensor an expert names them.

    Gate and up are cut where down's shape (E, H, I) shows that gate_up is (E, 2 I, H); a stack the other way
    round stays whole under its own name.
    """
    down = shapes.get(f"{prefix}down_proj", shapes.get(f"{prefix}down_proj.weight", ()))
    upright = len(down) == 3 and str(config.get("model_type", "")) not in _INTERLEAVED
    if upright and module == "gate_up":
        upright = shape == (down[0], 2 * down[2], down[1])
    elif upright:
        gate_up = shapes.get(f"{prefix}gate_up_proj", shapes.get(f"{prefix}gate_up_proj.weight", ()))
        upright = not gate_up or gate_up == (down[0], 2 * down[2], down[1])
    experts = range(shape[0])
    if not upright:
        return [Piece(name=f"{prefix}{expert}.{module}_stack", expert=expert) for expert in experts]
    if module != "gate_up":
        return [Piece(name=f"{prefix}{expert}.{module}_proj.weight", expert=expert) for expert in experts]
    half = shape[1] // 2
    return [
        Piece(name=f"{prefix}{expert}.{part}_proj.weight", expert=expert, rows=rows)
        for expert in experts
        for part, rows in (("gate", (0, half)), ("up", (half, 2 * half)))
    ]
