"""Checkpoints, adapters, indexes and configurations with one thing wrong, and what `compare` may answer.

An answer is right where every norm is that of an independent reader of the formats, or where the call is
refused in one line. The mutants of a seed are the same every time.
"""

import json
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from calls import Caller, Outcome
from safetensors.torch import save_file

QUERY = "model.layers.{}.self_attn.q_proj.weight"
UP = "model.layers.{}.mlp.up_proj.weight"
FUSED = "model.layers.{}.self_attn.qkv_proj.weight"
PREFIX = "base_model.model."
CONFIG = {"model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16}
ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "up_proj"],
    "rank_pattern": {"up_proj": 4},
    "alpha_pattern": {"up_proj": 2},
    "use_rslora": False,
    "fan_in_fan_out": False,
    "bias": "none",
    "base_model_name_or_path": "org/base",
}

# --- An independent reader.

_WIDTHS = {"F64": ("<f8", 8), "F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2)}


def read_tensors(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Name to dtype and float64 values of a safetensors file's floating-point tensors, by its bytes alone."""
    blob = path.read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    header, data = json.loads(blob[8 : 8 + size]), blob[8 + size :]
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _WIDTHS:
            continue
        kind, width = _WIDTHS[entry["dtype"]]
        begin, end = entry["data_offsets"]
        count = int(np.prod(entry["shape"], dtype=object))
        if end - begin != count * width or end > len(data):
            raise ValueError(f"{name} does not lie in its file")
        values = np.frombuffer(data[begin:end], kind)
        if entry["dtype"] == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        with np.errstate(invalid="ignore"):
            found[name] = (entry["dtype"], values.astype(float).reshape(entry["shape"]))
    return found


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    wanted = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F16": torch.float16}[dtype]
    return torch.from_numpy(values).to(wanted).double().numpy()


def merged(base: Path, adapter: Path) -> dict[str, tuple[str, np.ndarray]]:
    """The base with a plain LoRA merged in."""
    tensors = read_tensors(base / "model.safetensors")
    factors = read_tensors(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())

    def of(pattern: str, module: str, default: Any) -> Any:
        values = config.get(pattern) or {}
        return next((v for key, v in values.items() if re.match(rf"(.*\.)?({key})$", module)), default)

    for name, (dtype, weight) in list(tensors.items()):
        module = name.removesuffix(".weight")
        a, b = (factors.get(f"{PREFIX}{module}.lora_{factor}.weight") for factor in "AB")
        if a is None or b is None:
            continue
        rank, alpha = (
            of("rank_pattern", module, config["r"]),
            of("alpha_pattern", module, config["lora_alpha"]),
        )
        scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        tensors[name] = (dtype, _rounded(weight + scaling * (b[1] @ a[1]), dtype))
    return tensors


def _canonical(name: str) -> str:
    return re.sub(r"^(base_model\.model\.|module\.|_orig_mod\.|_fsdp_wrapped_module\.)+", "", name)


def judged_values(out: Path, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    """What is wrong with the tables in `out`; "" where nothing is.

    base, tuned: what `read_tensors` gives of both. A norm is right to 1e-6 (a LoRA's product is summed in
    another order), a sparsity to the last entry where both are stored in bf16.
    """
    account = json.loads((out / "pairing.json").read_text())
    table = pd.read_parquet(out / "matrices.parquet")
    ours, theirs = ({_canonical(name): value for name, value in each.items()} for each in (base, tuned))
    told = {name for names in account["left_out"].values() for name in names} | set(account["failed"])
    for matrix in account["measured"]:
        name = matrix["name"]
        told.add(name)
        rows = table[(table["layer"] == matrix["layer"]) & (table["module"] == matrix["module"])]
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        if name not in ours or name not in theirs:
            return f"{name} was measured, and a file has none"
        (kind, w_0), (other, w_t) = ours[name], theirs[name]
        with np.errstate(over="ignore", invalid="ignore"):
            norm = np.linalg.norm(w_t - w_0)
            same = np.mean(w_t == w_0)
        if not abs(values["frobenius_norm"] - norm) <= 1e-6 * norm:
            return f"{name} has the norm {norm}, told as {values['frobenius_norm']}"
        if kind == other == "BF16" and abs(values["update_sparsity"] - same) > 1e-12:
            return f"{name} has the sparsity {same}, told as {values['update_sparsity']}"
    if lost := [name for name in ours if name in theirs and ours[name][1].ndim == 2 and name not in told]:
        return f"{lost[0]} was neither measured nor left out in words"
    return ""


# --- What may be wrong with a file.

Random = random.Random
NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"), [], {}, [[]]),
    *("", " ", "../outside/model.safetensors", "/etc/passwd", "..", "a\0b", "a\nb", "\x1b[31mred\x1b[0m"),
    *(
        "<img src=x onerror=alert(1)>",
        "x" * 100_000,
        "9" * 5000,
        "C:\\x",
        "~",
        "file:///etc/passwd",
        "é\udcff",
    ),
    *(
        {"a": {"a": {"a": 1}}},
        ["q_proj"] * 1000,
        {"([a-z._0-9]*)*!": 4},
        {"(" * 5000: 1},
        {"a{99999999999}": 4},
    ),
    *({"(((a+)+)+)+$": 2}, {".*" * 60 + "x": 2}, {"": 3}, {".*": 1e-30}),
)


def nasty_json(text: str, r: Random) -> bytes:
    """JSON with one value, key or byte that should not be there."""
    way = r.randrange(10)
    if way == 0:
        return nasty_bytes(text.encode(), r)
    if way == 1:
        depth = r.choice([900, 3000, 100_000])
        return r.choice(["[" * depth, '{"a":' * depth, "[" * depth + "]" * depth, "", "null", "[]"]).encode()
    value = json.loads(text)
    spots = list(_spots(value))
    holder, key = r.choice(spots)
    if way == 2 and isinstance(holder, dict):
        del holder[key]
    elif way == 3 and isinstance(holder, dict):
        holder[str(r.choice([n for n in NASTY if isinstance(n, str)]))] = holder.pop(key)
    elif way == 4 and isinstance(holder, dict):  # twice
        again = json.dumps({key: r.choice(NASTY[:12])}, ensure_ascii=True)[1:-1]
        return (json.dumps(value, ensure_ascii=True)[:-1] + f", {again}}}").encode()
    else:
        holder[key] = r.choice(NASTY)
    return json.dumps(value, ensure_ascii=True).encode()


def _spots(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _spots(inner)


def nasty_bytes(blob: bytes, r: Random) -> bytes:
    """Bytes with one flipped, cut, repeated, put in or spliced."""
    data, where = bytearray(blob), r.randrange(max(1, len(blob)))
    way = r.randrange(6)
    if way == 0:
        data[where] ^= 1 << r.randrange(8)
    elif way == 1:
        del data[where:]
    elif way == 2:
        data[where:where] = r.randbytes(r.randrange(1, 64))
    elif way == 3:
        data += r.randbytes(r.randrange(1, 5000))
    elif way == 4:
        other = r.randrange(len(blob))
        data[where : where + 64] = blob[other : other + 64]
    else:
        data[where : where + 8] = r.choice(
            [b"\0" * 8, b"\xff" * 8, b"\x7f\x80" * 4, struct.pack("<d", 1e300)]
        )
    return bytes(data)


def nasty_tensors(blob: bytes, r: Random) -> bytes:
    """A safetensors file with something wrong, in its header as often as in its values."""
    (size,) = struct.unpack("<Q", blob[:8])
    header, data = blob[8 : 8 + size], blob[8 + size :]
    way = r.randrange(5)
    if way == 0:
        return nasty_bytes(blob, r)
    if way == 1:
        return struct.pack("<Q", size) + header + nasty_bytes(data, r)
    if way == 2:
        length = r.choice([0, 1, size - 1, size + 1, size + 8, 2**32, 2**63, 2**64 - 1])
        return struct.pack("<Q", length) + header + data
    if way == 3:
        entries = json.loads(header)
        name = r.choice([key for key in entries if key != "__metadata__"])
        entry = entries[name]
        if r.random() < 0.4:
            entry["dtype"] = r.choice(["F16", "BF16", "F32", "F64", "I32", "U8", "F8_E4M3", "BOOL", "X9", ""])
        elif r.random() < 0.5:
            entry["shape"] = r.choice(
                [entry["shape"][::-1], [*entry["shape"], 1], [], [0], [-1, 4], [2**62, 4]]
            )
        else:
            spot = r.randrange(2)
            entry["data_offsets"][spot] = r.choice([0, 1, 2**63, 2**64, -1, entry["data_offsets"][spot] + 2])
        header = json.dumps(entries).encode()
    else:
        header = nasty_json(header.decode(), r)
    return struct.pack("<Q", len(header)) + header + data


# --- The healthy folders, and the mutants.

Tensors = dict[str, torch.Tensor]


def _weights(dtype: torch.dtype, *, fused: bool = False) -> tuple[Tensors, Tensors]:
    g = torch.Generator().manual_seed(0)
    shapes = {UP: (24, 16), (FUSED if fused else QUERY): (32, 16)}
    base = {
        name.format(layer): torch.randn(shape, generator=g).to(dtype)
        for layer in range(2)
        for name, shape in shapes.items()
    }
    base["model.norm.weight"] = torch.ones(16, dtype=dtype)
    tuned = {n: (w + 0.01 * torch.randn(w.shape, generator=g)).to(dtype) for n, w in base.items()}
    return base, tuned


def _save(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def healthy(root: Path) -> None:
    """root/<kind>/base and tuned, of every kind, and a checkpoint beside them that nobody may read."""
    dtypes = {
        "plain": torch.bfloat16,
        "wide": torch.float32,
        "sharded": torch.bfloat16,
        "adapter": torch.float32,
    }
    for kind, dtype in dtypes.items():
        base, tuned = _weights(dtype)
        _save(root / kind / "base", base, CONFIG)
        folder = root / kind / "tuned"
        if kind == "adapter" and folder.name == "tuned":
            folder.mkdir()
            g, factors = torch.Generator().manual_seed(1), {}
            for name, rank in ((QUERY, 2), (UP, 4)):
                for layer in range(2):
                    module = PREFIX + name.format(layer).removesuffix(".weight")
                    m, n = base[name.format(layer)].shape
                    factors[f"{module}.lora_A.weight"] = torch.randn(rank, n, generator=g)
                    factors[f"{module}.lora_B.weight"] = torch.randn(m, rank, generator=g)
            save_file(factors, folder / "adapter_model.safetensors")
            (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
        elif kind == "sharded":
            folder.mkdir()
            weight_map = {}
            for number, names in enumerate((list(tuned)[::2], list(tuned)[1::2]), start=1):
                shard = f"model-{number:05d}-of-00002.safetensors"
                save_file({name: tuned[name] for name in names}, folder / shard, metadata={"format": "pt"})
                weight_map |= dict.fromkeys(names, shard)
            index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        else:
            _save(folder, tuned, CONFIG)
    base, tuned = _weights(torch.bfloat16, fused=True)
    for name, tensors in (("base", base), ("tuned", tuned)):
        _save(root / "fused" / name, tensors, CONFIG | {"model_type": "phi3"})
    base, tuned = _weights(torch.bfloat16)
    _save(root / "steps" / "base", base, CONFIG)
    run = root / "steps" / "tuned"
    run.mkdir()
    for step, tensors in ((0, base), (1, tuned), (2, {n: w * 1.01 for n, w in tuned.items()})):
        save_file(tensors, run / f"step_{step:06d}.safetensors", metadata={"format": "pt"})
    about = {"steps": [0, 1, 2], "config": {"name": "opd"}, "fingerprint": "x", "finished": True}
    (run / "run.json").write_text(json.dumps(about))
    _save(root / "outside", {n: w * 3 for n, w in tuned.items()}, CONFIG)


Mutate = Callable[[bytes, Random], bytes]


def _json(blob: bytes, r: Random) -> bytes:
    return nasty_json(blob.decode(), r)


# Class, healthy folder, mutated file below it, how, and its share of the mutants.
CLASSES: tuple[tuple[str, str, str, Mutate, int], ...] = (
    ("checkpoint, bf16", "plain", "tuned/model.safetensors", nasty_tensors, 5),
    ("checkpoint, float32", "wide", "tuned/model.safetensors", nasty_tensors, 3),
    ("base", "plain", "base/model.safetensors", nasty_tensors, 1),
    ("shard", "sharded", "tuned/model-00001-of-00002.safetensors", nasty_tensors, 2),
    ("index", "sharded", "tuned/model.safetensors.index.json", _json, 4),
    ("adapter", "adapter", "tuned/adapter_model.safetensors", nasty_tensors, 4),
    ("adapter's config", "adapter", "tuned/adapter_config.json", _json, 5),
    ("config.json", "plain", "tuned/config.json", _json, 1),
    ("config.json, fused", "fused", "tuned/config.json", _json, 2),
    ("run.json", "steps", "tuned/run.json", _json, 2),
    ("snapshot", "steps", "tuned/step_000002.safetensors", nasty_tensors, 1),
)


def _expected(kind: str, folder: Path) -> dict[str, Any]:
    """What an independent reader takes out of a folder."""
    if kind == "adapter" and folder.name == "tuned":
        return merged(folder.parent / "base", folder)
    if kind == "steps" and folder.name == "tuned":
        steps = json.loads((folder / "run.json").read_text())["steps"]
        return read_tensors(folder / f"step_{max(int(step) for step in steps):06d}.safetensors")
    files = sorted(folder.glob("*.safetensors"))
    return {name: value for file in files for name, value in read_tensors(file).items()}


def judged(kind: str, work: Path, outcome: Outcome) -> str:
    """ "right", "refused", or what is wrong with the answer to one mutant."""
    if outcome.trouble:
        return outcome.trouble
    elsewhere = [path for path in outcome.opened if "/outside/" in path or path == "/etc/passwd"]
    if elsewhere:
        return f"read {elsewhere[0]}"
    if outcome.status == 2:
        return "refused" if outcome.refused else f"{len(outcome.said)} lines: {outcome.said[:2]}"
    if outcome.status not in (0, 1) or (outcome.status == 1) != bool(outcome.said):
        return f"exit {outcome.status} and {len(outcome.said)} lines"
    try:
        base, tuned = (_expected(kind, work / name) for name in ("base", "tuned"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
        return f"measured what an independent reader cannot read ({error!r:.100})"
    if kind == "fused":
        return _judged_fused(work / "out", base, tuned) or "right"
    return judged_values(work / "out", base, tuned) or "right"


def _judged_fused(out: Path, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    """However a configuration cuts q, k and v out of one tensor, their squares add up to its own; where the
    two folders cut it unlike, it is left out by name."""
    left_out = json.loads((out / "pairing.json").read_text())["left_out"]
    told = {name for names in left_out.values() for name in names}
    table = pd.read_parquet(out / "matrices.parquet").query("metric == 'frobenius_norm'")
    for layer in range(2):
        for name, modules in ((FUSED, ("q", "k", "v", "qkv")), (UP, ("up",))):
            rows = table[(table["layer"] == layer) & table["module"].isin(modules)]
            norm = np.linalg.norm(tuned[name.format(layer)][1] - base[name.format(layer)][1])
            if name.format(layer) in told and rows.empty:
                continue
            if abs(rows["value"].pow(2).sum() ** 0.5 - norm) > 1e-9 * norm:
                return f"layer {layer} {modules[0]}: the parts of a fused matrix do not add up"
    return ""


def run_mutants(root: Path, number: int, seed: int, told: Callable[[str, int, str], None]) -> None:
    """Compare `number` mutants; `told` gets the class, the number of each and what `judged` says."""
    healthy(root / "healthy")
    total = sum(share for *_, share in CLASSES)
    with Caller() as caller:
        for label, kind, file, mutate, share in CLASSES:
            for index in range(max(1, round(number * share / total))):
                r = random.Random(f"{seed} {label} {index}")
                work = root / "work"
                shutil.rmtree(work, ignore_errors=True)
                shutil.copytree(root / "healthy" / kind, work)
                (work / file).write_bytes(mutate((work / file).read_bytes(), r))
                verdict = judged(kind, work, caller.call(call_of(work)))
                if verdict not in ("right", "refused"):
                    shutil.copytree(
                        work, root / "bad" / f"{label.replace('/', '_')} {index}", dirs_exist_ok=True
                    )
                told(label, index, verdict)


def call_of(work: Path) -> list[str]:
    """The comparison of one mutant."""
    return ["compare", str(work / "base"), str(work / "tuned"), "--out", str(work / "out"), "--no-report"]
