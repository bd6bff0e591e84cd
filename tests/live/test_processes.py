"""Two processes: under DDP the first one measures, under FSDP a sharded matrix is gathered by both."""

import pytest
import torch
from ranks import WORLD, on_two_ranks
from safetensors.torch import load_file
from tiny import SHAPE
from torch import nn
from transformers import Trainer, TrainingArguments

from paper_lib.ground.errors import CompanionError
from paper_lib.live import GeometryCallback, SubspaceProjection, Watch
from paper_lib.live.watch import inside
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


def _train(rank, results):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo")
    plain, sharded = (build_model(SHAPE, character_tokenizer(), seed=0) for _ in range(2))
    fully_shard(sharded, mesh=init_device_mesh("cpu", (WORLD,)))
    measured = [_walk(nn.parallel.DistributedDataParallel(plain)), _walk(sharded)]
    try:
        SubspaceProjection(2).attach(sharded, torch.optim.AdamW(sharded.parameters()), steps=10)
    except CompanionError as error:
        measured.append(str(error))
    torch.save(measured, results / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    on_two_ranks(_train, tmp_path)
    one = _walk(build_model(SHAPE, character_tokenizer(), seed=0))
    expected = {name: pytest.approx(value, rel=1e-3, abs=1e-6) for name, value in one.items()}
    for rank in range(WORLD):
        *measured, refusal = torch.load(tmp_path / f"{rank}.pt")
        assert measured == [expected, expected]
        assert "is sharded over processes" in refusal


def _fit(folder, batch, **options):
    """A run of four steps, watched and after two confined; returns its trainer and both callbacks."""
    row = {"input_ids": torch.arange(2, 10), "labels": torch.arange(2, 10)}
    settings = {"max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1, "report_to": [], "use_cpu": True}
    settings |= {"disable_tqdm": True, "seed": 0, "save_steps": 2}
    args = TrainingArguments(output_dir=str(folder), per_device_train_batch_size=batch, **settings | options)
    model = build_model(SHAPE, character_tokenizer(), seed=0)
    trainer = Trainer(model=model, args=args, train_dataset=[row] * 32)
    watch = GeometryCallback(every=1, spectra_every=2, matrices=3, K=2).add_to(trainer)
    projection = SubspaceProjection(2, after=0.5).add_to(trainer)
    trainer.train()
    return trainer, watch, projection


def _fit_in_parallel(rank, results):
    trainer, watch, projection = _fit(results / "run", batch=2, ddp_backend="gloo")
    weights = {name: weight.detach() for name, weight in trainer.model.named_parameters()}
    steps = sorted({row["step"] for row in watch.watch.rows})
    torch.save((weights, steps, projection.bases, trainer.state.log_history), results / f"{rank}.pt")


@pytest.mark.slow
def test_in_a_trainer_on_two_processes_the_first_measures_and_both_confine_what_one_would(tmp_path):
    on_two_ranks(_fit_in_parallel, tmp_path)
    (first, steps, bases, log), (second, others, _, _) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)
    )
    assert (steps, others) == ([1, 2, 3, 4], [])
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone, _, _ = _fit(tmp_path / "alone", batch=4)
    logged, expected = (
        {row["step"]: row["geometry/stable_rank"] for row in rows if "geometry/stable_rank" in row}
        for rows in (log, alone.state.log_history)
    )
    assert logged == {step: pytest.approx(value, rel=1e-3) for step, value in expected.items()}
    branch = load_file(tmp_path / "run" / "checkpoint-2" / "model.safetensors")
    for key, v_k in bases.items():
        moved = (first[key.removeprefix("right.")] - branch[key.removeprefix("right.")]).double()
        assert 1 - inside(moved, v_k) < 1e-6
