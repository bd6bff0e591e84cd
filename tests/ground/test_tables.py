"""Tables: one schema, the same bytes for the same rows, whole files or none."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from patience import PATIENCE

from paper_lib import __version__
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import read_json, whole_file, write_json
from paper_lib.ground.tables import (
    TABLES,
    read_table,
    table_metadata,
    table_parts,
    write_table,
)


def result_rows(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    layer, module = np.divmod(np.arange(count), 7)
    return pd.DataFrame(
        {
            "profile": "smoke",
            "run": "opd",
            "seed": 0,
            "step": 12,
            "layer": layer,
            "module": np.array(["q", "k", "v", "o", "gate", "up", "down"])[module],
            "metric": "stable_rank",
            "k": np.nan,
            "value": rng.normal(size=count),
        }
    )


def test_rows_come_back_as_they_went_in(tmp_path):
    frame = result_rows()
    write_table(frame, tmp_path / "matrices.parquet", columns=TABLES["matrices"], fingerprint="0" * 16)
    back = read_table(tmp_path / "matrices.parquet")
    keys = ["layer", "module"]
    pd.testing.assert_frame_equal(
        back.sort_values(keys, ignore_index=True),
        frame.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )
    assert list(back.columns) == list(TABLES["matrices"])


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    frame = pd.concat([result_rows(), result_rows().assign(k=0.5), result_rows().assign(k=0.3)])
    shuffled = frame.sample(frac=1, random_state=1)[list(reversed(TABLES["matrices"]))]
    for name, rows in (("a.parquet", frame), ("b.parquet", shuffled)):
        write_table(rows, tmp_path / name, columns=TABLES["matrices"], fingerprint="f" * 16, seed=3)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_metadata_says_what_made_the_table(tmp_path):
    write_table(
        result_rows(), tmp_path / "matrices.parquet", columns=TABLES["matrices"], fingerprint="ab" * 8, seed=7
    )
    about = table_metadata(tmp_path / "matrices.parquet")
    assert about["version"] == __version__
    assert about["fingerprint"] == "ab" * 8
    assert about["seed"] == 7
    assert {"python", "torch", "transformers", "numpy", "scikit-learn"} <= set(about["libraries"])


def test_every_table_of_the_schema_can_be_written_empty_and_read(tmp_path):
    for name, columns in TABLES.items():
        write_table(
            pd.DataFrame(columns=list(columns)),
            tmp_path / f"{name}.parquet",
            columns=columns,
            fingerprint="0" * 16,
        )
        assert tuple(read_table(tmp_path / f"{name}.parquet").columns) == columns


def test_masks_keep_booleans(tmp_path):
    rows = pd.DataFrame(
        {
            "profile": "smoke",
            "run": "sft",
            "seed": 0,
            "layer": 1,
            "module": "up",
            "row": [0, 0],
            "column": [0, 1],
        }
    ).assign(update=[True, False], principal=False, low_magnitude=True)
    write_table(rows, tmp_path / "masks.parquet", columns=TABLES["masks"], fingerprint="0" * 16)
    assert read_table(tmp_path / "masks.parquet")["update"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="k"), r"expected \[.*'k', 'value'\]"),
        (lambda f: f.assign(extra=1), r"are .*'extra'\], expected"),
        (lambda f: f.assign(module=None), "'module' has 40 empty"),
        (lambda f: f.assign(step=0.5), "step"),
        (lambda f: pd.concat([f, f.head(2)]), "2 rows repeat"),
    ],
)
def test_a_table_off_the_schema_is_refused_and_nothing_is_written(tmp_path, spoil, message):
    with pytest.raises(ValueError, match=message):
        write_table(
            spoil(result_rows()), tmp_path / "t.parquet", columns=TABLES["matrices"], fingerprint="0" * 16
        )
    assert list(tmp_path.iterdir()) == []


def test_null_tables_tell_their_nulls_apart(tmp_path):
    rows = pd.concat([result_rows().assign(null="permuted"), result_rows().assign(null="same_norm_gaussian")])
    write_table(rows, tmp_path / "nulls.parquet", columns=TABLES["nulls"], fingerprint="0" * 16)
    assert len(read_table(tmp_path / "nulls.parquet")) == 80


def test_a_missing_table_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(CompanionError, match=r"make figures PROFILE=laptop.*01_train and 02_extract"):
        read_table(tmp_path / "laptop" / "matrices.parquet")


@pytest.mark.parametrize("keep", [0, 3, 100, -5])
def test_a_truncated_or_foreign_file_is_one_clear_line(tmp_path, keep):
    path = tmp_path / "matrices.parquet"
    write_table(result_rows(), path, columns=TABLES["matrices"], fingerprint="0" * 16)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_table, table_metadata):
        with pytest.raises(CompanionError, match=r"not a readable parquet file") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_parquet_file_without_our_metadata_is_refused(tmp_path):
    result_rows().to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(CompanionError, match="was not written by this project"):
        table_metadata(tmp_path / "foreign.parquet")


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    frame = pd.DataFrame(
        {"profile": "p", "run": "opd", "seed": 0, "step": range(400), "metric": "accuracy"}
    ).assign(value=np.random.default_rng(0).normal(size=400))
    path = tmp_path / "curves.parquet"
    write_table(frame, path, columns=TABLES["curves"], fingerprint="f", seed=3, parts={"opd": [0, 1]})
    whole, rows = path.read_bytes(), read_table(path)
    about = table_metadata(path), table_parts(path)
    draw, detected = np.random.default_rng(1), 0
    for place in draw.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            pd.testing.assert_frame_equal(read_table(path), rows)
            assert (table_metadata(path), table_parts(path)) == about
        except CompanionError:
            detected += 1
    assert detected > 100


@pytest.mark.parametrize("table", ["masks", "journeys", "curvature"])
def test_every_flipped_bit_of_a_committed_table_of_an_earlier_version_is_found(table, tmp_path):
    committed = Path(__file__).parents[2] / "data" / "results" / "reference"
    path = Path(shutil.copy(committed / f"{table}.parquet", tmp_path))
    if b"digest" in (pq.read_schema(path).metadata or {}):
        pytest.skip("written with page checksums")
    shutil.copy(committed / "README.md", tmp_path)
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    assert len(read_table(path)) > 0
    for at in draw.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CompanionError, match=f"{table}.parquet is not a readable parquet file"):
            read_table(path)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    write_json(tmp_path / "run.json", {"finished": True})

    def interrupted(part):
        part.write_text("half of i")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "run.json") as part:
        interrupted(part)
    assert json.loads((tmp_path / "run.json").read_text()) == {"finished": True}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_write_that_fails_names_its_file(tmp_path):
    with pytest.raises(OSError, match="No space") as full, whole_file(tmp_path / "run.json"):
        raise OSError(28, "No space left on device")  # as a write to an open file says it
    assert full.value.filename == str(tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    script = (
        "import sys, time; from paper_lib.ground.files import whole_file\n"
        "with whole_file(sys.argv[1]) as part:\n"
        f"    part.write_text('half'); print('writing', flush=True); time.sleep({PATIENCE})\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "table.parquet")], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert not (tmp_path / "table.parquet").exists()
    assert all(path.suffix == ".part" for path in tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[", "[1]", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_json_that_is_damaged_or_no_object_is_one_line(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CompanionError, match=r"run\.json .*: train again") as caught:
        read_json(path, "train again")
    assert "\n" not in str(caught.value)


def test_a_pipe_in_the_place_of_a_json_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CompanionError, match=r"config\.json .*a pipe.*: train again"):
        read_json(tmp_path / "config.json", "train again")


def test_json_comes_back_as_it_was_written(tmp_path):
    row = {"step": 1, "value": 0.5}
    write_json(tmp_path / "row.json", row)
    assert read_json(tmp_path / "row.json", "") == row
    assert read_json(tmp_path / "none.json", "") == {}


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
