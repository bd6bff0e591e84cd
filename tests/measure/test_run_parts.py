"""Journeys: a few weights of one matrix at every snapshot, as they were trained and as bf16 shows them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from planted import PROFILE, STEPS, extracted_study, table

from paper_lib.geometry.sparsity import half_ulp
from paper_lib.ground.tables import TABLES
from paper_lib.measure.extract import write_joined
from paper_lib.measure.run_parts import followed_entries, journey
from paper_lib.training.checkpoints import load_checkpoint, step_path
from paper_lib.training.manifest import FOLLOWED, JOURNEY, read_manifest

NAME = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with extracted_study(tmp_path_factory.mktemp("data")) as data_dir:
        yield data_dir


def test_the_entries_are_those_at_the_quantiles_of_the_update_over_half_a_step() -> None:
    w_0 = torch.tensor([[1.0, 4.0, 0.25], [-2.0, 0.5, 8.0]])
    reach = torch.tensor([[5.0, 1.0, 3.0], [4.0, 2.0, 0.5]])
    w_t = w_0 + reach * half_ulp(w_0)
    assert followed_entries(w_0, w_t, (0, 0.5, 1)) == [(1, 2), (1, 1), (0, 0)]
    assert followed_entries(w_0, w_0, (0.0, 1.0)) == [(0, 0), (1, 2)]


def test_half_a_step_is_where_the_stored_value_moves() -> None:
    w_0 = torch.ones(1, 1)
    step = half_ulp(w_0).float()
    path = [w_0, w_0 + 0.99 * step, w_0 + 1.01 * step]
    frame = journey(path, [0, 1, 2], {0.5: (0, 0)})
    assert frame["stored"].tolist() == [1.0, 1.0, 1.0 + 2 * step.item()]
    assert frame["value"].tolist() == [float(w) for w in path]


def test_the_table_follows_the_same_entries_through_every_run_that_is_compared(extracted: Path) -> None:
    rows = table(extracted, "journeys", "seed == 0")
    assert set(rows["run"]) == {"sft", "sft_matched", "opd", "rlvr"}
    assert set(zip(rows["layer"], rows["module"], strict=True)) == {(1, "q")}
    assert rows.groupby("k")[["row", "column"]].nunique().eq(1).all(axis=None)
    assert sorted(set(rows["k"])) == list(FOLLOWED)
    for (run, step), group in rows.groupby(["run", "step"]):
        directory = extracted / "runs" / PROFILE.name / str(run) / "seed_0"
        weight = load_checkpoint(step_path(directory, int(step)))[NAME].float()
        values = weight[group["row"].tolist(), group["column"].tolist()]
        assert group["value"].tolist() == values.tolist()
        assert group["stored"].tolist() == values.bfloat16().tolist()
    assert set(rows.loc[rows["run"] == "opd", "step"]) == set(STEPS)


def test_a_journey_changes_no_other_table(extracted: Path, tmp_path: Path) -> None:
    results = tmp_path / "planted"
    shutil.copytree(extracted / "results" / "planted", results)
    before = {name: (results / f"{name}.parquet").read_bytes() for name in TABLES}
    manifest = read_manifest(results)
    kept = {key: part for key, part in manifest.parts.items() if key[0] != JOURNEY}
    assert len(kept) == len(manifest.parts) - 1
    write_joined(results, kept, manifest.models)
    changed = {name for name in TABLES if (results / f"{name}.parquet").read_bytes() != before[name]}
    assert changed == {"journeys"}
