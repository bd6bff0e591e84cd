"""Functions on two ranks: processes that are forked from one which has imported what all of them need."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch

WORLD = 2
multiprocessing.set_forkserver_preload(["torch.optim", "transformers.trainer", "trl.trainer.grpo_trainer"])


def on_two_ranks(function: Callable[..., None], *arguments: Any) -> None:
    """function(rank, *arguments) on each rank, with what a launcher sets in its environment, to their end."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _on_rank, (port, function, arguments), nprocs=WORLD, start_method="forkserver"
    )


def _on_rank(rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    function(rank, *arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
