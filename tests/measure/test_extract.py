"""The tables do not depend on who computes them, in how many goes, and damaged input is told in one line."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from planted import DIAGNOSTICS, PROFILE, RUNS, extracted_study, table

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import TABLES, read_table, table_metadata
from paper_lib.measure import extract
from paper_lib.measure.extract import extract_study
from paper_lib.measure.run_parts import RunPart
from paper_lib.training.checkpoints import load_checkpoint, save_checkpoint, step_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with extracted_study(tmp_path_factory.mktemp("data")) as data_dir:
        yield data_dir


@pytest.fixture
def study(extracted: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(extracted, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the runs that are measured."""
    labels: list[str] = []
    measure = RunPart.measure
    monkeypatch.setattr(RunPart, "measure", lambda part: (labels.append(part.label), measure(part))[1])
    return labels


def tables(data_dir: Path) -> dict[str, bytes]:
    return {table: (data_dir / "results" / "planted" / f"{table}.parquet").read_bytes() for table in TABLES}


def test_every_table_is_there_with_its_provenance(extracted: Path) -> None:
    for name, columns in TABLES.items():
        path = extracted / "results" / "planted" / f"{name}.parquet"
        assert tuple(read_table(path).columns) == columns
        assert table_metadata(path)["version"]
    assert len(table(extracted, "curves", "metric == 'loss'")) == 4
    assert (extracted / "results" / "planted" / "parts" / ".gitignore").read_text() == "*\n"


def test_two_workers_and_one_write_the_same_bytes(study: Path) -> None:
    before, part = (
        tables(study),
        study / "results" / "planted" / "parts" / "opd" / "seed_0" / "matrices.parquet",
    )
    written = part.stat().st_mtime_ns
    extract_study("planted", data_dir=study, workers=2, force=True)
    assert part.stat().st_mtime_ns > written
    assert tables(study) == before


def test_only_what_is_missing_or_stale_is_computed(
    study: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tables(study)
    extract_study("planted", data_dir=study, workers=1)
    assert measured == []
    parts = study / "results" / "planted" / "parts"
    (parts / "opd" / "seed_0" / "nulls.parquet").unlink()
    cut = parts / "rlvr" / "seed_0" / "matrices.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    capsys.readouterr()
    extract_study("planted", data_dir=study, workers=1)
    assert measured == ["opd (seed 0)", "rlvr (seed 0)"]
    assert tables(study) == before
    printed = capsys.readouterr().out
    assert (
        "[extract] 2 of 6 planned runs are neither trained nor measured: opd (seed 1), opd_random (seed 0)"
        in printed
    )
    assert "[extract] 7 of 9 parts are up to date" in printed
    assert "[extract 1/2] opd (seed 0): " in printed

    coarser = replace(PROFILE, diagnostics=replace(DIAGNOSTICS, eta=0.1))
    monkeypatch.setattr(extract, "get_profile", lambda _: coarser)
    extract_study("planted", data_dir=study, workers=1)
    assert len(measured) == 2 + 4
    assert tables(study)["matrices"] != before["matrices"]


def test_an_interrupted_extraction_continues(
    study: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(study)
    shutil.rmtree(study / "results")
    measure = RunPart.measure

    def stop_in_rlvr(part: RunPart) -> object:
        if part.run.name == "rlvr":
            raise KeyboardInterrupt
        return measure(part)

    with monkeypatch.context() as patch:
        patch.setattr(RunPart, "measure", stop_in_rlvr)
        with pytest.raises(KeyboardInterrupt):
            extract_study("planted", data_dir=study, workers=1)
    measured.clear()
    extract_study("planted", data_dir=study, workers=1)
    assert measured == ["rlvr (seed 0)"]
    assert tables(study) == before


def test_of_some_runs_the_tables_hold_the_curve_alone(
    study: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "get_profile", lambda _: replace(PROFILE, curve_runs=("rlvr",)))
    extract_study("planted", data_dir=study, workers=1)
    assert measured == []
    assert table(study, "matrices", "run == 'rlvr'").empty
    assert len(table(study, "curves", "run == 'rlvr'"))
    joined = study / "results" / "planted" / "matrices.parquet"
    written = joined.stat().st_mtime_ns
    extract_study("planted", data_dir=study, workers=1)
    assert joined.stat().st_mtime_ns == written


def test_a_retrained_run_is_measured_again(study: Path, measured: list[str]) -> None:
    marker = study / "runs" / "planted" / "opd" / "seed_0" / "run.json"
    marker.write_text(marker.read_text().replace("opd0", "opd0-again"))
    extract_study("planted", data_dir=study, workers=1)
    assert measured == ["opd (seed 0)"]


def test_a_run_of_other_settings_is_refused(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faster = replace(PROFILE, runs=(*RUNS[:2], replace(RUNS[2], learning_rate=1e-2), *RUNS[3:]))
    monkeypatch.setattr(extract, "get_profile", lambda _: faster)
    with pytest.raises(
        CompanionError, match=r"opd/seed_0 was trained with learning_rate = 0\.0001, .* has 0\.01"
    ):
        extract_study("planted", data_dir=study, workers=1)


def test_runs_from_other_weights_share_no_pca(study: Path) -> None:
    directory = study / "runs" / "planted" / "rlvr" / "seed_0"
    weights = load_checkpoint(step_path(directory, 0))
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"] + 1
    save_checkpoint(weights, step_path(directory, 0))
    shutil.rmtree(study / "results" / "planted" / "parts" / "joint")
    extract_study("planted", data_dir=study, workers=1)
    assert not table(study, "trajectories", "metric == 'pca_coordinate'").empty
    assert table(study, "trajectories", "metric == 'joint_pca_coordinate'").empty


def test_a_damaged_snapshot_is_named(study: Path) -> None:
    path = step_path(study / "runs" / "planted" / "opd" / "seed_0", 8)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CompanionError, match=r"opd/seed_0/step_000008\.safetensors is truncated"):
        extract_study("planted", data_dir=study, workers=1)


def test_a_diverged_run_is_named(study: Path) -> None:
    path = step_path(study / "runs" / "planted" / "opd" / "seed_0", 8)
    weights = {name: tensor.clone() for name, tensor in load_checkpoint(path).items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = math.nan
    save_checkpoint(weights, path)
    rlvr = study / "results" / "planted" / "parts" / "rlvr" / "seed_0" / "matrices.parquet"
    before = rlvr.stat().st_mtime_ns
    told = (
        r"^opd \(seed 0\): .*step_000008\.safetensors: model\.layers\.1\.mlp\.up_proj.*not finite.*measured"
    )
    with pytest.raises(CompanionError, match=told) as error:
        extract_study("planted", data_dir=study, workers=1, force=True)
    assert "\n" not in str(error.value)
    assert rlvr.stat().st_mtime_ns > before


def test_a_damaged_curve_names_the_folder_to_delete(study: Path) -> None:
    (study / "runs" / "planted" / "opd" / "seed_0" / "curve.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        CompanionError, match=r"curve\.parquet is missing or damaged: delete the folder .*seed_0"
    ):
        extract_study("planted", data_dir=study, workers=1)


@pytest.mark.parametrize("name", ["K", "principal_rank", "hill_k", "energy_k"])
def test_a_size_above_the_dimension_is_one_clear_line(
    study: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(PROFILE, diagnostics=replace(DIAGNOSTICS, **{name: 9}))
    monkeypatch.setattr(extract, "get_profile", lambda _: large)
    with pytest.raises(CompanionError, match=rf"{name} = 9 is above the shorter side of .*k_proj.* most 8"):
        extract_study("planted", data_dir=study, workers=1)


def test_nothing_trained_says_what_to_run(tmp_path: Path, extracted: Path) -> None:
    with pytest.raises(
        CompanionError, match=r"no trained run in .*planted, and no rows .*: `python -m paper_lib train"
    ):
        extract_study("planted", data_dir=tmp_path)
