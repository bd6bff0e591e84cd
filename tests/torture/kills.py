"""Commands killed at random moments, or run side by side, and the same bytes in the end."""

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forks import NOTEBOOK, Child, digests
from mutants import healthy
from tiny import TINY, save_models

Told = Callable[[str, int, str], None]
TABLES = "data/results/tiny/*.parquet"
RUNS = ("data/runs/tiny/*/*/step_*.safetensors", "data/runs/tiny/*/*/curve.parquet")
COMPARED = ("out/*.parquet", "out/report.html", "out/figures/*")
PARTS = 4  # kills of one folder, before it is brought to its end


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A command on a folder, which is a copy of `start`, and the files that must be the same in the end."""

    name: str
    start: Path
    arguments: tuple[str, ...]
    files: tuple[str, ...]

    def command(self, work: Path) -> list[str]:
        """Its arguments for a folder."""
        return [word.replace("WORK", str(work)) for word in self.arguments]


def compare_trial(root: Path, *, report: bool) -> Trial:
    """`compare` with nulls, and with its report, which takes the longest."""
    healthy(root / "healthy")
    shutil.copytree(root / "healthy" / "plain", root / "compare")
    words = ("compare", "WORK/base", "WORK/tuned", "--nulls", "--out", "WORK/out", "--workers", "1")
    words += () if report else ("--no-report",)
    return Trial(name="compare", start=root / "compare", arguments=words, files=COMPARED)


def study_trials(root: Path) -> tuple[Trial, Trial, Trial]:
    """train, extract and figures of the tiny study, each on a folder with all that it starts from."""
    save_models(root / "train" / "data" / TINY.models)
    study = ("--profile", "tiny", "--data-dir", "WORK/data", "--workers", "1")
    train = Trial(name="train", start=root / "train", arguments=("train", *study), files=RUNS)
    finish(train, root / "extract")
    extract = Trial(name="extract", start=root / "extract", arguments=("extract", *study), files=(TABLES,))
    finish(extract, root / "figures")
    (root / "figures" / "notebooks").mkdir()
    (root / "figures" / "notebooks" / "01_torture.py").write_text(NOTEBOOK)
    words = ("draw", "WORK/notebooks", "WORK/data", "WORK/figures")
    figures = Trial(name="figures", start=root / "figures", arguments=words, files=("figures/*",))
    return train, extract, figures


def finish(trial: Trial, work: Path) -> dict[str, str]:
    """Run it on a new folder, undisturbed; returns the digests of its files."""
    shutil.copytree(trial.start, work)
    ended = Child(trial.command(work)).wait()
    if ended.status:
        raise RuntimeError(f"{trial.name} ended with {ended.status}: {ended.words[-2000:]}")
    return digests(work, *trial.files)


def run_kills(trial: Trial, root: Path, number: int, seed: int, told: Told) -> None:
    """Kill it `number` times, on one folder after another; a kill is right where nothing outlives it and its
    folder ends in the bytes of a call that nobody disturbed."""
    if not number:
        return
    r, label, work = random.Random(f"{seed} {trial.name}"), f"kill {trial.name}", root / f"{trial.name} work"
    began = time.monotonic()
    wanted = finish(trial, work)
    seconds, killed = time.monotonic() - began, 0
    while killed < number:
        shutil.rmtree(work)
        shutil.copytree(trial.start, work)
        of_folder, left = 0, ""
        while killed + of_folder < number and of_folder < PARTS:
            child = Child(trial.command(work))
            if child.wait(r.uniform(0, 0.9 * seconds)).status is not None:  # it was quicker than the kill
                break
            left = left or child.kill()
            of_folder += 1
        ended = Child(trial.command(work)).wait()
        found = digests(work, *trial.files)
        if ended.status != 0 or "Traceback" in ended.words:
            left = f"the next call ended with {ended.status}: {ended.words[-300:]!r}"
        elif found != wanted:
            left = f"other bytes in {sorted(f for f in wanted | found if found.get(f) != wanted.get(f))[:3]}"
        for index in range(killed, killed + of_folder):
            told(label, index, left or "right")
        killed += of_folder
        if left:
            shutil.copytree(work, root / "bad" / f"{label} {killed}", dirs_exist_ok=True)


def run_together(trial: Trial, root: Path, calls: int, told: Told) -> None:
    """The same call several times at once on one folder."""
    work, label = root / f"{trial.name} together", f"{calls} {trial.name} at once"
    wanted = finish(trial, work)
    shutil.rmtree(work)
    shutil.copytree(trial.start, work)
    children = [Child(trial.command(work)) for _ in range(calls)]
    ends = [child.wait() for child in children]
    bad = [ended for ended in ends if ended.status != 0 or "Traceback" in ended.words]
    found = digests(work, *trial.files)
    verdict = "right" if found == wanted else "other bytes, or files"
    told(label, 0, f"exit {bad[0].status}: {bad[0].words[-300:]!r}" if bad else verdict)
    shutil.rmtree(work)
