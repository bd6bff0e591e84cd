"""Notebooks 03 to 06 read committed tables: without torch every figure but those listed here is drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AFTER_A_PLANTED_CASE = {  # cells that name no torch, and use what a cell of a planted case made
    "03_sparsity": ["words = \"Points beyond a Gaussian's"],
    "04_pca": ["warm, rest = np.linspace(", "plt.subplots(1, 3, figsize=(7.2, 3.4)"],
    "05_locking": ["expected = 64 * 48", "other = u[:, :5] @ vh[2:7]", "V = spans[0]"],
    "06_controls": [],
}


@pytest.mark.slow
def test_only_planted_cases_and_exercises_need_torch(tmp_path):
    notebooks = [f"notebooks/{name}.py" for name in AFTER_A_PLANTED_CASE]
    done = subprocess.run(
        [sys.executable, "tests/support/without_torch.py", str(tmp_path), *notebooks],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    for name, (cells, failed) in json.loads(done.stdout).items():
        explained = ("torch", "check(", *AFTER_A_PLANTED_CASE[name])
        assert [each for each in failed if not any(word in each[0] for word in explained)] == []
        assert cells - len(failed) >= 0.75 * cells, failed
        assert len(list((tmp_path / name).rglob("fig*.png"))) >= 3
