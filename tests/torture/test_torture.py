"""The reliability campaign in its small size: what a file, a kill or a full disk may do to a comparison."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_try_of_the_small_campaign_has_a_bad_end():
    command = [sys.executable, str(Path(__file__).with_name("command.py")), "--size", "small"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
    assert "bad" in ended.stdout
