"""Two processes: under DDP the first one measures, under FSDP a sharded matrix is gathered by both."""

import pytest
import torch
from tiny import SHAPE
from torch import nn

from paper_lib.live import Watch
from paper_lib.study.tasks import character_tokenizer
from paper_lib.training.models import build_model

STEPS = 2


def _walk(model):
    watch = Watch(model, matrices=4, K=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    watch.follow(optimizer)
    ids = torch.arange(2, 10).repeat(2, 1)
    for _ in range(STEPS):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return watch.measure()


def _train(rank, world, results):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    meeting = (results / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    plain, sharded = (build_model(SHAPE, character_tokenizer(), seed=0) for _ in range(2))
    fully_shard(sharded, mesh=init_device_mesh("cpu", (world,)))
    measured = [_walk(nn.parallel.DistributedDataParallel(plain)), _walk(sharded)]
    torch.save(measured, results / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_measure_what_one_does(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    torch.multiprocessing.spawn(_train, (2, tmp_path), nprocs=2)
    one = _walk(build_model(SHAPE, character_tokenizer(), seed=0))
    expected = {name: pytest.approx(value, rel=1e-3, abs=1e-6) for name, value in one.items()}
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [[expected, expected]] * 2
