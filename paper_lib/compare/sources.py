"""Any checkpoint as a source of matrices, whoever saved it: one file, a sharded folder, a run, an adapter."""

import os
import re
from pathlib import Path
from typing import Any

import torch

from paper_lib.compare import adapters
from paper_lib.compare.adapters import PICKLED, adapted_source
from paper_lib.compare.shards import INDEX, Source, indexed_files, sharded_source
from paper_lib.ground.errors import CompanionError
from paper_lib.training.checkpoints import Trajectory, open_trajectory

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CHECKPOINT = re.compile(r"^checkpoint-(\d{1,9})$")
_ANY_MODEL = re.compile(r"^(?:(?:adapter_)?model|(?:model_)?weights)(?:\.safetensors)?$")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(?:@[\w./-]+)?$")
# What trainers leave instead of safetensors, by a file of it, and the tool that converts it.
_OTHER_FORMATS = {
    "**/*zero_pp_rank_*": ("DeepSpeed ZeRO", "run the folder's zero_to_fp32.py with --safe_serialization"),
    "**/*.distcp": ("a distributed checkpoint (FSDP)", "run accelerate merge-weights on its folder"),
    "**/mp_rank_*/model_optim_rng.pt": (
        "Megatron",
        "convert it with Megatron Bridge, or with the trainer's own converter to Hugging Face",
    ),
}


def labels(*paths: str | Path) -> list[str]:
    """What tells paths apart: where they differ last, but for a name that any model's file or folder has."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    while len(set(parts)) == len(parts) > len({names[-1] for names in parts}):
        parts = [names[:-1] for names in parts]
    own = [next((name for name in names[:0:-1] if not _ANY_MODEL.match(name)), "") for names in parts]
    return own if all(own) and len(set(own)) == len(own) else [names[-1] for names in parts]


def open_source(
    where: str | Path, *, hub: bool = False, base: Source | None = None, label: str = ""
) -> Source:
    """Open a checkpoint for reading, from headers alone; nothing is ever unpickled.

    where: a safetensors file; a folder with model.safetensors or with an index and shards; a run of ours,
    whose last step it is; a LoRA adapter of peft's, merged into `base`; or with hub=True, where no such path
    exists, the id of a model on the Hub (org/name, or org/name@revision). label: in place of the path's last
    name. Raises CompanionError where it is none of these, or broken.
    """
    path = Path(os.path.abspath(where))  # workers may run elsewhere
    if not path.exists():
        if hub and _HUB_ID.match(str(where)):
            return _open_folder(_downloaded(str(where)), str(where), base)
        hint = "; to fetch it from the Hub, allow that (hub=True)" if _HUB_ID.match(str(where)) else ""
        raise CompanionError(f"{where} does not exist: check the path{hint}")
    if path.is_dir():
        return _open_folder(path, label or path.name, base)
    if path.suffix in _PICKLES:
        raise CompanionError(f"{path} is {PICKLED.format('transformers')}")
    if not path.is_file():
        raise CompanionError(f"{path} is neither a file nor a folder: name a checkpoint")
    return sharded_source([path], path.parent, label or path.name, {})


def trajectory_sources(
    where: str | Path, *, base: Source | None = None
) -> tuple[list[tuple[int, Source]], dict[str, str]]:
    """(optimizer step, source) in step order: the snapshots of a run of ours, or checkpoint-N folders; and by
    name, why a checkpoint-N folder is passed over: it holds no weights, or not all.

    base: for adapters. Raises CompanionError where the folder holds neither, or nothing that can be read.
    """
    path = Path(os.path.abspath(where))
    if (path / "run.json").is_file():
        trajectory = open_trajectory(path)
        return [(step, _snapshot(trajectory, step)) for step in trajectory.steps], {}
    steps = _checkpoints(path)
    if not steps:
        raise CompanionError(f"{path} is no trajectory: it has neither a run.json nor checkpoint-N folders")
    sources, unfinished = [], {}
    for step in sorted(steps):
        try:
            sources.append((step, _open_folder(steps[step], steps[step].name, base)))
        except CompanionError as error:
            unfinished[steps[step].name] = str(error)
    if not sources:
        raise CompanionError(f"{path} holds no finished checkpoint: {next(iter(unfinished.values()))}")
    return sources, unfinished


def _open_folder(folder: Path, label: str, base: Source | None) -> Source:
    """The checkpoint in a folder, looked for as transformers does, with ours and peft's first."""
    if (folder / "run.json").is_file():
        trajectory = open_trajectory(folder)
        return _snapshot(trajectory, trajectory.steps[-1])
    if (folder / adapters.CONFIG).is_file():
        return adapted_source(folder, label, base)
    single = folder / "model.safetensors"
    if (folder / INDEX).is_file():
        weight_map = indexed_files(folder)
        shards = sharded_source(sorted(set(weight_map.values())), folder, label, weight_map)
        if single.is_file() and single not in weight_map.values():
            _require_same(shards, sharded_source([single], folder, label, {}), folder)
        return shards
    files = [single] if single.is_file() else sorted(p for p in folder.glob("*.safetensors") if p.is_file())
    if len(files) == 1:
        return sharded_source(files, folder, label, {})
    raise CompanionError(_nothing_to_open(folder, [path.name for path in files]))


def _require_same(shards: Source, single: Source, folder: Path) -> None:
    """A folder with two sets of weights is read only where both hold the same: loaders take either."""
    names = (
        sorted(shards.entries.keys() ^ single.entries.keys())
        or [name for name in shards.entries if not torch.equal(shards.read(name), single.read(name))][:1]
    )
    if names:
        raise CompanionError(
            f"{folder} holds two sets of weights, model.safetensors and the shards of {INDEX}, which differ "
            f"({names[0]}): remove the one that is stale, or name {folder / 'model.safetensors'} itself"
        )


def _nothing_to_open(folder: Path, found: list[str]) -> str:
    if found:
        return f"{folder} holds {', '.join(found)} and no {INDEX}: name one file, or restore the index"
    if steps := _checkpoints(folder):
        return f"{folder} holds checkpoints but is none: name one, such as {steps[max(steps)]}"
    for pattern, (what, remedy) in _OTHER_FORMATS.items():
        if shard := next(folder.glob(pattern), None):
            return f"{shard} is a shard of {what}, which is not read: {remedy}"
    names = sorted(path.name for path in folder.iterdir())
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        return f"{folder / pickles[0]} is {PICKLED.format('transformers')}"
    return f"{folder} " + ("holds no safetensors file" if names else "is empty") + ": name a checkpoint"


def _checkpoints(folder: Path) -> dict[int, Path]:
    found = [(_CHECKPOINT.match(path.name), path) for path in folder.glob("checkpoint-*") if path.is_dir()]
    return {int(match[1]): path for match, path in found if match}


def _snapshot(trajectory: Trajectory, step: int) -> Source:
    folder = trajectory.directory
    label = f"{folder.parent.name}/{folder.name} step {step}"
    return sharded_source([trajectory.path(step)], folder, label, {})


def _downloaded(hub_id: str) -> Path:
    """The Hub's snapshot of a model's safetensors and JSON files, from its cache where it is there."""
    from huggingface_hub import snapshot_download

    name, _, revision = hub_id.partition("@")
    try:
        wanted: dict[str, Any] = {"allow_patterns": ["*.safetensors", "*.json"], "ignore_patterns": ["*/*"]}
        return Path(snapshot_download(name, revision=revision or None, **wanted))
    except Exception as error:  # the client's own, its transport's, and the file system's
        why = str(error).strip().split("\n")[0]
        raise CompanionError(
            f"cannot fetch {hub_id} from the Hub ({type(error).__name__}: {why}): check the name, that you "
            "may read it, and the connection"
        ) from error
