"""A study of small matrices whose updates are planted, so that tests know what its tables must hold."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from paper_lib.ground.tables import TABLES, read_table, write_table
from paper_lib.measure import extract
from paper_lib.measure.extract import extract_study
from paper_lib.study.config import DiagnosticsConfig, Profile
from paper_lib.study.run_config import RunConfig
from paper_lib.training.checkpoints import save_checkpoint, step_path

STEPS = (0, 4, 8, 10)
SHAPES = {"q": (16, 16), "k": (8, 16), "up": (24, 16), "down": (16, 24)}
DIAGNOSTICS = DiagnosticsConfig(principal_rank=3, angle_k=6, K=2, hill_k=4, energy_k=2, model_probes=None)
RUNS = tuple(
    RunConfig(
        name=name,
        objective=objective,
        start="base" if name == "sft" else "anchor",
        steps=10,
        snapshot_every=4,
        learning_rate=rate,
        schedule=schedule,
    )
    for name, objective, rate, schedule in (
        ("sft", "sft", 1e-3, "cosine"),
        ("sft_matched", "sft", 1e-4, "constant"),
        ("opd", "opd", 1e-4, "constant"),
        ("rlvr", "rlvr", 1e-4, "constant"),
        ("opd_random", "opd", 1e-4, "constant"),
    )
)
PROFILE = Profile(
    name="planted", models="none", runs=RUNS, main_runs=("opd",), main_seeds=(0, 1), diagnostics=DIAGNOSTICS
)


def weights_at_start(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {"model.embed_tokens.weight": torch.randn(10, 16, generator=generator)}
    for layer in range(2):
        for module, shape in SHAPES.items():
            block = "self_attn" if module in "qk" else "mlp"
            name = f"model.layers.{layer}.{block}.{module}_proj.weight"
            weights[name] = torch.randn(shape, generator=generator) / 4
    return weights


def planted(run: str, step: int, w_0: Tensor, generator: torch.Generator) -> Tensor:
    """sft: a dense random walk. opd: a straight line of rank 2. rlvr: every seventh entry. Others: 0."""
    progress = step / STEPS[-1]
    if run == "sft":
        walk = torch.randn((STEPS[-1], *w_0.shape), generator=generator)
        return 0.01 * walk[:step].sum(0)
    if run == "opd":
        u, v = (torch.linalg.qr(torch.randn(n, 2, generator=generator))[0] for n in w_0.shape)
        return 0.1 * progress * u @ v.T
    if run == "rlvr":
        sparse = torch.zeros(w_0.numel())
        sparse[::7] = 0.5 * progress * w_0.flatten()[::7]
        return sparse.view(w_0.shape)
    return torch.zeros_like(w_0)


def write_run(data_dir: Path, run: RunConfig, seed: int) -> Path:
    directory = data_dir / "runs" / PROFILE.name / run.name / f"seed_{seed}"
    start = weights_at_start(seed + (100 if run.name == "sft" else 0))
    for step in STEPS:
        changed = {
            name: w_0 + planted(run.name, step, w_0, torch.Generator().manual_seed(i))
            if "proj" in name
            else w_0
            for i, (name, w_0) in enumerate(start.items())
        }
        save_checkpoint(changed, step_path(directory, step))
    curve = pd.DataFrame([(PROFILE.name, run.name, seed, 10, "loss", 0.5)], columns=list(TABLES["curves"]))
    write_table(curve, directory / "curve.parquet", columns=TABLES["curves"], fingerprint="f", seed=seed)
    marker = {"fingerprint": f"{run.name}{seed}", "config": asdict(run), "steps": STEPS, "finished": True}
    (directory / "run.json").write_text(json.dumps(marker))
    return directory


@contextmanager
def extracted_study(data_dir: Path) -> Iterator[Path]:
    """The study in `data_dir`, trained but for opd_random and opd's second seed, and extracted."""
    for run in RUNS[:-1]:
        write_run(data_dir, run, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "get_profile", lambda _: PROFILE)
        extract_study("planted", data_dir=data_dir, workers=1)
        yield data_dir


def table(data_dir: Path, name: str, query: str) -> pd.DataFrame:
    return read_table(data_dir / "results" / "planted" / f"{name}.parquet").query(query)
