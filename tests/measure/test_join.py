"""What is measured needs no run on disk: tables grow, shrink and are made again, always to the same bytes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from tiny import EARLY, OPD, RLVR, SFT, TINY

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.tables import START, TABLES, read_table, table_metadata, table_parts, write_table
from paper_lib.measure.extract import extract_study, forget, training_curves, write_joined
from paper_lib.measure.probes import policy_drift
from paper_lib.study import profiles
from paper_lib.study.config import Profile
from paper_lib.study.tasks import problems
from paper_lib.training import study
from paper_lib.training.checkpoints import open_trajectory
from paper_lib.training.manifest import JOINT, JOURNEY, read_manifest
from paper_lib.training.starts import Study, snapshot_model
from paper_lib.training.study import train_planned, train_study

pytestmark = pytest.mark.slow
TWO_SEEDS = replace(TINY, runs=(SFT, OPD, RLVR, EARLY), seeds=(0, 1))
RUNS = {(run.name, seed) for run, seed in TWO_SEEDS.planned()}
PAIR = "opd & rlvr"
COMPARISONS = {*((name, seed) for name in (JOINT, PAIR) for seed in (0, 1)), (JOURNEY, 0)}


@pytest.fixture(scope="module")
def reference(tiny_models, tmp_path_factory) -> Iterator[Path]:
    """Two seeds, trained and measured at once; read it, do not write to it."""
    data = tmp_path_factory.mktemp("measured")
    shutil.copytree(tiny_models, data / TINY.models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, TINY.name, TWO_SEEDS)
        train_study("tiny", data_dir=data, workers=1)
        extract_study("tiny", data_dir=data, workers=1)
        yield data


@pytest.fixture
def data(reference, tmp_path) -> Path:
    """What a fresh clone has of it: models and joined tables."""
    shutil.copytree(reference / "models", tmp_path / "models")
    shutil.copytree(reference / "results", tmp_path / "results", ignore=shutil.ignore_patterns("parts"))
    return tmp_path


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int]]:
    """The runs that are trained in this process while the test runs."""
    done: list[tuple[str, int]] = []

    def noted(study, run, seed, models):
        done.append((run.name, seed))
        train_planned(study, run, seed, models)

    monkeypatch.setattr(study, "train_planned", noted)
    return done


def plan(monkeypatch, profile: Profile) -> None:
    monkeypatch.setitem(profiles.PROFILES, TINY.name, profile)


def train(data: Path, **options) -> list[Path]:
    return train_study("tiny", data_dir=data, workers=1, **options)


def extract(data: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in extract_study("tiny", data_dir=data, workers=1)}


def tables(data: Path) -> dict[str, bytes]:
    return {table: (data / "results" / "tiny" / f"{table}.parquet").read_bytes() for table in TABLES}


def held(data: Path) -> set[tuple[str, int]]:
    return set(read_manifest(data / "results" / "tiny").parts)


def test_tables_say_of_every_part_what_it_was_computed_from(reference):
    manifest = read_manifest(reference / "results" / "tiny")
    assert set(manifest.parts) == RUNS | COMPARISONS
    having = {
        table: {key for key, part in manifest.parts.items() if table in part.tables} for table in TABLES
    }
    assert having["masks"] == {("opd", 0)}
    assert having["nulls"] == {("opd", 0), ("opd", 1), (JOINT, 0), (JOINT, 1)}
    assert manifest.models == Study(profile=TWO_SEEDS, data_dir=reference).models()


def test_without_any_run_the_tables_stay_as_they_are(data, reference, trained, capsys):
    times = [path.stat().st_mtime_ns for path in sorted((data / "results" / "tiny").glob("*.parquet"))]
    assert train(data) == []
    assert trained == []
    assert "[train] 8 of 8 runs are measured already" in capsys.readouterr().out
    assert extract(data) == tables(reference)
    assert [p.stat().st_mtime_ns for p in sorted((data / "results" / "tiny").glob("*.parquet"))] == times


def test_tables_grow_seed_by_seed_with_the_other_runs_gone(data, reference, trained, monkeypatch):
    plan(monkeypatch, replace(TWO_SEEDS, seeds=(0,)))
    shutil.rmtree(data / "results")
    train(data)
    extract(data)
    assert held(data) == {
        (name, 0) for name in ("sft", "opd", "rlvr", "opd_projected_early", JOINT, PAIR, JOURNEY)
    }
    shutil.rmtree(data / "runs")
    shutil.rmtree(data / "results" / "tiny" / "parts")
    trained.clear()
    plan(monkeypatch, TWO_SEEDS)
    train(data)
    assert {seed for _, seed in trained} == {1}
    assert extract(data) == tables(reference)


def test_a_forgotten_run_is_trained_and_measured_again_to_the_same_bytes(data, reference, trained, capsys):
    forget("tiny", data_dir=data, runs=["opd"], seeds=[1])
    assert "[forget] removed from" in (told := capsys.readouterr().out)
    assert ": opd (seed 1), opd & rlvr (seed 1), the comparison of seed 1; train and extract" in told
    assert held(data) == (RUNS | COMPARISONS) - {("opd", 1), (JOINT, 1), (PAIR, 1)}
    for table in set(TABLES) - {"masks"}:
        assert (
            read_table(data / "results" / "tiny" / f"{table}.parquet")
            .query("run == 'opd'")["seed"]
            .eq(0)
            .all()
        )
    train(data)
    # The comparison takes the weights of all three; the projected run is measured and stays.
    assert sorted(trained) == [("opd", 1), ("rlvr", 1), ("sft", 1)]
    assert extract(data) == tables(reference)


def test_what_is_forgotten_leaves_no_part_behind(reference, tmp_path):
    data = Path(shutil.copytree(reference, tmp_path / "data"))
    forget("tiny", data_dir=data, runs=["opd"], seeds=[1])
    parts = data / "results" / "tiny" / "parts"
    left = {path.parent.name for path in parts.glob("*/seed_1")}
    assert left == {"sft", "rlvr", "opd_projected_early"}
    assert (parts / "opd+rlvr" / "seed_0").is_dir()


def test_tables_carry_the_rules_that_were_settled_before_them(data):
    results, settled = data / "results" / "tiny", {"rules": ["headroom"], "fingerprint": "0" * 16}
    (results / "rules.json").write_text(json.dumps(settled))
    forget("tiny", data_dir=data, runs=["rlvr"], seeds=[1])
    assert all(table_parts(results / f"{table}.parquet")["rules"] == settled for table in TABLES)


def test_rows_that_were_forgotten_meanwhile_are_not_said_to_be_there(data):
    """As where extract read the tables, measured, and was overtaken by forget before it wrote."""
    results = data / "results" / "tiny"
    seen = read_manifest(results)
    forget("tiny", data_dir=data, runs=["rlvr"], seeds=[1])
    before = tables(data)
    with pytest.raises(CompanionError, match=r"no longer hold the rows of rlvr \(seed 1\), .*: run `python"):
        write_joined(results, seen.parts, seen.models)
    assert tables(data) == before
    assert ("rlvr", 1) not in held(data)


def test_tables_are_written_by_one_process_at_a_time(data, monkeypatch):
    def alone(frame, path, write=write_table, **options):
        with pytest.raises(Timeout):
            FileLock(data / "results" / ".tiny.lock").acquire(timeout=0)
        written.append(path.stem)
        write(frame, path, **options)

    written: list[str] = []
    monkeypatch.setattr("paper_lib.measure.extract.write_table", alone)
    forget("tiny", data_dir=data, runs=["rlvr"], seeds=[1])
    manifest = read_manifest(data / "results" / "tiny")
    write_joined(data / "results" / "tiny", manifest.parts, manifest.models)
    assert written == [*TABLES, *TABLES]


def test_a_run_that_is_measured_is_trained_for_what_starts_from_it(data, reference, trained):
    forget("tiny", data_dir=data, runs=["opd_projected_early"], seeds=[0])
    train(data)
    assert trained == [("sft", 0), ("opd", 0), ("opd_projected_early", 0)]
    assert extract(data) == tables(reference)


def test_force_trains_what_is_measured(data, trained):
    train(data, runs=["sft"], seeds=[1], force=True)
    assert trained == [("sft", 1)]


def test_a_comparison_whose_runs_are_partly_gone_is_left_out_and_comes_back(data, reference, capsys):
    forget("tiny", data_dir=data, runs=["opd"], seeds=[1])
    train(data, runs=["opd"], seeds=[1])
    extract(data)
    told = capsys.readouterr().out
    assert (
        "left out: opd & rlvr (seed 1), the comparison of seed 1; needed are the weights of rlvr (seed 1)"
        in told
    )
    assert "`python -m paper_lib train --profile tiny --seeds 1` trains them again" in told
    train(data, seeds=[1])
    assert extract(data) == tables(reference)


def test_rows_that_no_longer_match_are_dropped_and_named(data, monkeypatch, capsys):
    faster = replace(EARLY, learning_rate=2e-3)
    plan(monkeypatch, replace(TWO_SEEDS, runs=(SFT, OPD, faster)))
    extract(data)
    told = capsys.readouterr().out
    assert "2 of 6 planned runs are neither trained nor measured: opd_projected_early (seed 0 1)" in told
    assert "rows dropped, as the profile plans them no more or otherwise: rlvr (seed 0 1), opd_proj" in told
    assert held(data) == {("sft", 0), ("sft", 1), ("opd", 0), ("opd", 1)}
    assert set(read_table(data / "results" / "tiny" / "matrices.parquet")["run"]) == {"sft", "opd"}


def test_tables_are_left_alone_where_nothing_in_them_matches(data, reference, monkeypatch):
    plan(monkeypatch, replace(TWO_SEEDS, evaluation=replace(TINY.evaluation, samples=3)))
    with pytest.raises(CompanionError, match="no trained run in"):
        extract(data)
    assert tables(data) == tables(reference)


def test_a_stale_run_folder_does_not_hide_measured_rows(data, reference, monkeypatch):
    slower = replace(TWO_SEEDS, runs=tuple(replace(run, learning_rate=1e-4) for run in TWO_SEEDS.runs))
    plan(monkeypatch, slower)
    train(data, runs=["sft"], seeds=[0])
    plan(monkeypatch, TWO_SEEDS)
    assert extract(data) == tables(reference)


def test_a_run_of_other_models_is_refused(reference, tmp_path, monkeypatch):
    data = Path(shutil.copytree(reference, tmp_path / "data"))
    for path in (data / "results" / "tiny").glob("*.parquet"):
        path.unlink()
    plan(monkeypatch, replace(TWO_SEEDS, evaluation=replace(TINY.evaluation, samples=3)))
    with pytest.raises(CompanionError, match=r"sft/seed_0 was trained from other models .* train it again"):
        extract(data)


def test_missing_models_are_taken_for_those_that_the_tables_name(data, reference):
    shutil.rmtree(data / "models")
    assert extract(data) == tables(reference)


def test_rows_measured_with_other_versions_keep_them(data, monkeypatch):
    forget("tiny", data_dir=data, runs=["rlvr"], seeds=[1])
    train(data, seeds=[1])
    newer = {**table_metadata(data / "results" / "tiny" / "matrices.parquet")["libraries"], "torch": "99.0"}
    monkeypatch.setattr("paper_lib.ground.tables.library_versions", lambda: newer)
    extract(data)
    versions = table_metadata(data / "results" / "tiny" / "matrices.parquet")["libraries"]["torch"]
    assert versions.endswith(", 99.0")


def test_a_damaged_table_stops_before_its_rows_are_lost(data, reference):
    path = data / "results" / "tiny" / "nulls.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    for command in (extract, train):
        with pytest.raises(CompanionError, match=r"nulls\.parquet is not a readable parquet file"):
            command(data)
    assert tables(data)["matrices"] == tables(reference)["matrices"]


def test_committed_tables_are_completed_only_when_asked_for(data, trained, monkeypatch, capsys):
    plan(monkeypatch, replace(TWO_SEEDS, committed=True, seeds=(0, 1, 2)))
    assert train(data, train=None) == []
    told = capsys.readouterr().out
    assert (
        "[train] 4 of 12 planned runs are not measured yet; `python -m paper_lib figures --profile tiny"
        in told
    )
    assert trained == []
    train(data, train=True, runs=["sft"])
    assert trained == [("sft", 2)]


def test_the_drift_in_the_tables_is_that_of_the_policies(reference):
    rows = read_table(reference / "results" / "tiny" / "trajectories.parquet")
    kl = rows[rows["metric"].isin(["forward_kl", "reverse_kl"])]
    assert set(kl[kl["run"] == "opd"]["step"]) == {2, 4}
    assert set(kl[kl["run"] == "opd_projected_early"]["step"]) == {4}  # not among the runs that are followed
    assert (kl["value"] > 0).all()
    trajectory = open_trajectory(reference / "runs" / "tiny" / "rlvr" / "seed_1")
    start, tokenizer = snapshot_model(reference / TINY.models, trajectory, 0)
    now, _ = snapshot_model(reference / TINY.models, trajectory, 4)
    chosen = problems(RLVR.tasks[0], split="validation", number=2, seed="evaluation")
    found = policy_drift(
        *(start, now, tokenizer, [problem.prompt for problem in chosen]),
        samples=2,
        max_new_tokens=RLVR.max_new_tokens,
        seed=1,
    )
    told = rows.query("run == 'rlvr' and seed == 1 and step == 4").set_index("metric")["value"]
    for metric, value in found.items():
        assert told[metric] == value


def test_the_curvature_of_every_direction_is_in_the_tables(reference):
    rows = read_table(reference / "results" / "tiny" / "curvature.parquet")
    curvature = rows[rows["metric"] == "curvature"]
    names = ("gaussian", "off_principal", "principal", "principal_reconstruction")
    expected = {(START, name) for name in names}
    expected |= {(run, name) for run in ("opd", "rlvr") for name in ("update", "permuted_update")}
    for _, found in curvature.groupby("seed"):
        assert set(zip(found["run"], found["direction"], strict=True)) == expected
    assert (curvature["value"] > 0).all()
    several = set(rows[rows["metric"] == "curvature_se"]["direction"])
    assert several == {"gaussian", "off_principal", "principal", "permuted_update"}


def test_seeds_of_one_run_are_compared_and_a_pair_asks_for_both(reference, tmp_path, trained, monkeypatch):
    data = Path(shutil.copytree(reference, tmp_path / "data"))
    plan(monkeypatch, replace(TWO_SEEDS, diagnostics=replace(TINY.diagnostics, seed_runs=("sft",))))
    extract(data)
    rows = read_table(data / "results" / "tiny" / "pairs.parquet").query("run == other")
    assert set(zip(rows["run"], rows["seed"], rows["other_seed"], strict=True)) == {("sft", 0, 1)}
    assert ("sft & sft", 0) in held(data)
    forget("tiny", data_dir=data, runs=["sft"], seeds=[1])
    assert ("sft & sft", 0) not in held(data)
    shutil.rmtree(data / "runs")
    train(data, runs=["sft"])
    assert trained == [("sft", 0), ("sft", 1)]


def test_curves_are_the_same_from_tables_and_from_folders(data, reference):
    from_tables, files = training_curves(Study(profile=TWO_SEEDS, data_dir=data))
    assert files == [data / "results" / "tiny" / "curves.parquet"]
    (without := data / "alone").mkdir()
    shutil.copytree(reference / "models", without / "models")
    shutil.copytree(reference / "runs", without / "runs")
    alone, files = training_curves(Study(profile=TWO_SEEDS, data_dir=without))
    assert len(files) == 8
    assert alone.reset_index(drop=True).equals(from_tables.reset_index(drop=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say what to forget: --runs"),
        ({"runs": ["dpo"]}, "no run 'dpo' in profile tiny"),
        ({"seeds": [7]}, "plans no run with seed 7; it has 0, 1"),
    ],
)
def test_forgetting_needs_a_name_that_is_planned(data, reference, options, message):
    with pytest.raises(CompanionError, match=message):
        forget("tiny", data_dir=data, **options)
    assert tables(data) == tables(reference)
