"""Trajectories and any safetensors checkpoint, one matrix at a time; nothing is ever unpickled."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json, whole_file
from paper_lib.ground.matrices import MODULES, Matrix, canonical_name, layer_and_module, reading_order


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A finished run on disk: the snapshots W_0, …, W_T of one training, and the configuration behind it."""

    directory: Path
    steps: tuple[int, ...]
    config: dict[str, Any]
    fingerprint: str

    def path(self, step: int) -> Path:
        """The file of the snapshot after `step` optimizer steps."""
        return step_path(self.directory, step)


def step_path(directory: str | Path, step: int) -> Path:
    """Where a run directory keeps the snapshot after `step` optimizer steps."""
    return Path(directory) / f"step_{step:06d}.safetensors"


def open_trajectory(directory: str | Path) -> Trajectory:
    """Open a finished run directory: `run.json` and one `step_*.safetensors` for each of its steps.

    Only headers are read. Raises CompanionError where it is unfinished or a file is missing or truncated.
    """
    directory = Path(directory)
    marker = directory / "run.json"
    again = "train this run again (notebook 01_train, or `python -m paper_lib train`)"
    afresh = f"delete the folder {directory}, then {again}"
    if (run := read_json(marker, afresh)).get("finished") is not True:
        raise CompanionError(f"{marker} does not say that the run has finished: {again}")
    try:
        steps, config = tuple(sorted(int(step) for step in run["steps"])), dict(run["config"])
        fingerprint = str(run["fingerprint"])
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise CompanionError(f"{marker} is damaged ({error!r}): {afresh}") from error
    if steps[:1] != (0,) or len(steps) < 2:
        raise CompanionError(f"{marker} lists {list(steps)}, not W_0 and a later step: {afresh}")
    for step in steps:
        with opened(step_path(directory, step), afresh):
            pass
    return Trajectory(directory=directory, steps=steps, config=config, fingerprint=fingerprint)


def projection_matrices(path: str | Path) -> list[Matrix]:
    """The projection matrices of a dense decoder's checkpoint in layer order, then q … down.

    Only the header is read. A layer has at most one matrix of each module here: experts are `sources`'
    matter. Raises CompanionError where the file is missing or truncated or holds none.
    """
    matrices = []
    with opened(path) as file:
        stored_names = file.keys()
        for name in stored_names:
            layer, module = layer_and_module(canonical_name(name))
            if module in MODULES and "expert" not in name:
                stored = file.get_slice(name)
                shape, dtype = tuple(stored.get_shape()), stored.get_dtype()
                matrices.append(Matrix(layer=layer, module=module, name=name, shape=shape, dtype=dtype))
    if not matrices:
        wanted = "model.layers.0.self_attn.q_proj.weight"
        raise CompanionError(f"{path} holds no projection matrix, none of its tensors is named like {wanted}")
    return sorted(matrices, key=reading_order)


def pictured_matrix(matrices: Sequence[Matrix]) -> Matrix:
    """The one whose entries are shown: the query projection of the middle layer, or what comes closest."""
    queries = [matrix for matrix in matrices if matrix.module == "q"] or matrices
    return queries[len(queries) // 2]


def read_matrix(path: str | Path, name: str) -> Tensor:
    """One tensor in its stored dtype, mapped from the file: only the pages that are touched are read.

    Raises CompanionError where the file is missing or truncated or holds no tensor of that name.
    """
    with opened(path) as file:
        names = file.keys()
        if name not in names:
            raise CompanionError(f"{path} holds no tensor named {name!r}")
        return file.get_tensor(name)


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, in its stored dtype. Raises as `read_matrix` does."""
    with opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


def save_checkpoint(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors (any device, any strides) to a safetensors file that appears whole or not at all.

    Tensors that share memory, as tied embeddings do, are stored once under each of their names.
    """
    stored: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage().data_ptr()
        stored[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    with whole_file(path) as part:
        try:
            save_file(stored, part, metadata={"format": "pt"})
        except SafetensorError as error:
            reason = str(error).splitlines()[0]
            raise CompanionError(f"{path} could not be written ({reason}): make room") from error


@contextmanager
def opened(path: str | Path, remedy: str = "make it again") -> Iterator[Any]:
    """A safetensors file whose length agrees with its header, or a CompanionError that says what to do."""
    try:
        file = safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise CompanionError(f"{path} does not exist: {remedy}") from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CompanionError(f"{path} is truncated or not a safetensors file ({reason}): {remedy}") from error
    with file as opened:
        yield opened
