"""Commands killed at random moments, or run side by side, and the same bytes in the end."""

import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from forks import NOTEBOOK, STUDY, Child, digests
from mutants import healthy
from tiny import save_models

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


def compare_trials(root: Path) -> tuple[Trial, Trial]:
    """`compare` with nulls, and the same with its report, which takes the longest."""
    healthy(root / "healthy")
    shutil.copytree(root / "healthy" / "plain", root / "compare")
    words = ("compare", "WORK/base", "WORK/tuned", "--nulls", "--out", "WORK/out", "--workers", "1")
    told = Trial(name="report", start=root / "compare", arguments=words, files=COMPARED)
    return replace(told, name="compare", arguments=(*words, "--no-report")), told


def study_trials(root: Path) -> tuple[Trial, Trial, Trial]:
    """train, extract and figures of the tiny study, each on a folder with all that it starts from."""
    save_models(root / "train" / "data" / STUDY.models)
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


def run_kills(numbers: Mapping[Trial, int], root: Path, seed: int, told: Told) -> None:
    """Kill each trial so many times, on one folder after another, in turns; a kill is right where nothing
    outlives it and its folder ends in the bytes of a call that nobody disturbed."""
    randoms = {trial: random.Random(f"{seed} {trial.name}") for trial in numbers}
    killed, ends = dict.fromkeys(numbers, 0), {}
    while to_kill := [trial for trial in numbers if killed[trial] < numbers[trial]]:
        for trial in to_kill:
            label, work = f"kill {trial.name}", root / f"{trial.name} work"
            shutil.rmtree(work, ignore_errors=True)
            if trial not in ends:
                began = time.monotonic()
                ends[trial] = (finish(trial, work), time.monotonic() - began)
                shutil.rmtree(work)
            shutil.copytree(trial.start, work)
            many = min(PARTS, numbers[trial] - killed[trial])
            of_folder, verdict = _killed(trial, work, many, *ends[trial], randoms[trial])
            for index in range(killed[trial], killed[trial] + of_folder):
                told(label, index, verdict)
            killed[trial] += of_folder
            if verdict != "right":
                shutil.copytree(work, root / "bad" / f"{label} {killed[trial]}", dirs_exist_ok=True)


def _killed(
    trial: Trial, work: Path, many: int, wanted: dict[str, str], seconds: float, r: random.Random
) -> tuple[int, str]:
    """How often the command was killed in this folder, and the verdict after a call that ends."""
    kills, verdict = 0, ""
    while kills < many:
        child = Child(trial.command(work))
        if child.wait(r.uniform(0, 0.9 * seconds)).status is not None:  # it was quicker than the kill
            break
        verdict = verdict or child.kill()
        kills += 1
    ended = Child(trial.command(work)).wait()
    found = digests(work, *trial.files)
    if ended.status != 0 or "Traceback" in ended.words:
        verdict = f"the next call ended with {ended.status}: {ended.words[-300:]!r}"
    elif found != wanted:
        others = sorted(f for f in wanted | found if found.get(f) != wanted.get(f))
        verdict = f"other bytes in {others[:3]}"
    return kills, verdict or "right"


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
