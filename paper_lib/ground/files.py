"""Files and folders that appear whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paper_lib.ground.errors import CompanionError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the name `path`, else it is removed.

    The bytes reach the disk before the name does, so neither kill -9 nor a power cut shows half a file, and
    files published one after the other appear in that order. Parent folders are made. What a killed process
    leaves behind ends in `.part` and is read by nobody.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _flush_to_disk(part)
        os.replace(part, path)
        _flush_to_disk(path.parent)
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)  # a write to a full disk names none
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole_file`, for a folder with files in it, which takes the place of the folder that is there.

    A kill between the two renames leaves neither under the name; no other moment does.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for written in (*part.rglob("*"), part):
            _flush_to_disk(written)
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
        _flush_to_disk(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 with Unix line ends, whole or not at all."""
    write_bytes(path, text.encode())


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy the bytes of `source` to `path`, whole or not at all."""
    with whole_file(path) as part:
        shutil.copyfile(source, part)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all; NaN or infinity: ValueError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path, remedy: str) -> dict[str, Any]:
    """A JSON object from a file, {} where there is no file; CompanionError, with the remedy, for all else."""
    try:
        value = parsed_json(path, remedy)
    except FileNotFoundError:
        return {}
    if not isinstance(value, dict):
        raise CompanionError(f"{path} holds no JSON object: {remedy}")
    return value


def parsed_json(path: str | Path, remedy: str) -> Any:
    """What a JSON file holds; FileNotFoundError where there is none, CompanionError for all else."""
    try:
        if Path(path).is_fifo():
            raise OSError("a pipe, which may wait for ever")
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CompanionError(f"{path} cannot be read as JSON ({error}): {remedy}") from error


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
