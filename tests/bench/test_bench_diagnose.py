"""The bench of the diagnostics: every number is there, and the two ways it times give the same values."""

import json
import sys
from pathlib import Path

import diagnose
import pandas as pd
import pytest
import torch
from command import bench_parser
from diagnose import bench_diagnose, planted_pair

from paper_lib.__main__ import main
from paper_lib.geometry.spectra import relative_norm
from paper_lib.ground.errors import CompanionError

SHAPE = (70, 90)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    out = tmp_path_factory.mktemp("bench") / "diagnose.json"
    found = bench_diagnose(parts=("layer",), shapes=(SHAPE,), threads=1, out=out, report=lambda line: None)
    written = json.loads(out.read_text())["tables"]
    assert {name: len(rows) for name, rows in written.items()} == {n: len(t) for n, t in found.items()}
    return found


@pytest.mark.slow
def test_both_ways_give_the_same_values(tables: dict[str, pd.DataFrame]) -> None:
    distances = tables["accuracy"].iloc[0].drop("shape")
    assert (distances[[name for name in distances.index if not name.endswith("bound")]] < 1e-9).all()


def test_a_planted_pair_is_bf16_and_its_update_a_thousandth() -> None:
    w_0, w_t = planted_pair(300, 200)
    assert w_0.dtype == w_t.dtype == torch.bfloat16
    assert float(relative_norm(w_t.double() - w_0.double(), w_0.double())) == pytest.approx(1e-3, rel=0.2)
    assert all(torch.equal(a, b) for a, b in zip(planted_pair(300, 200), (w_0, w_t), strict=True))


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(CompanionError, match="no part 'speed'; there are layer, smollm2, growth"):
        bench_diagnose(parts=("speed",))
    assert main(["diagnose", "--parts", "speed"], bench_parser()) == 2
    assert capsys.readouterr().err.startswith("error: bench diagnose: no part 'speed'")


def test_a_package_that_is_missing_is_told_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(diagnose, "_bench_layer", lambda *_: pytest.fail("it measures"))
    monkeypatch.setattr(diagnose, "_bench_growth", lambda report: pd.DataFrame())
    assert main(["diagnose", "--parts", "layer,smollm2"], bench_parser()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(diagnose, "_bench_layer", lambda *_: {})
    said = []
    assert list(bench_diagnose(report=said.append)) == ["growth"]
    assert "pip install" in said[0]
