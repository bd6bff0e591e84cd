"""The reliability campaign: `make torture`, or `python tests/torture/command.py --size full --seed 1`.

Deterministic by seed, but for the moment at which a kill falls.
"""

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["ACCELERATE_USE_CPU"] = "true"  # bits are compared
sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]

SIZES = {  # how many of each at most; the small size leaves out the study, which has to be trained first
    "small": {
        "mutants": 40,
        "calls": 25,
        "kills": {"compare": 4},
        "together": (2,),
        "disks": 1,
        "damaged": 1,
        "flips": 60,
        "names": 1,
    },
    "full": {
        "mutants": 1500,
        "calls": 1000,
        "kills": {"train": 60, "extract": 30, "compare": 90, "report": 10, "figures": 10},
        "together": (2, 4),
        "disks": 4,
        "damaged": 6,
        "flips": 500,
        "names": 12,
    },
}
DAMAGES = (  # whose file, which, and how
    ("extract", "data/results/tiny/*.parquet", "cut"),
    ("extract", "data/results/tiny/parts/*/*/*.parquet", "cut"),
    ("extract", "data/runs/tiny/*/*/run.json", "json"),
    ("extract", "data/runs/tiny/*/*/step_*.safetensors", "bytes"),
    ("train", "data/runs/tiny/*/*/run.json", "json"),
    ("train", "data/runs/tiny/*/*/step_*.safetensors", "cut"),
    ("train", "data/runs/tiny/*/*/curve.parquet", "cut"),
    ("compare", "out/parts/*.parquet", "bytes"),
    ("compare", "out/matrices.parquet", "cut"),
    ("compare", "out/pairing.json", "json"),
)
PARTS = ("mutants", "calls", "names", "flips", "faults", "together", "kills")
EVERY = 20  # seconds from one line of progress to the next


def campaign(size: str, seed: int, parts: list[str], root: Path) -> int:
    """Run the parts; returns how many tries had a bad end. What went wrong is kept below root/bad."""
    from faults import (
        run_damaged,
        run_flips,
        run_full_disks,
        run_names,
        run_odd_calls,
        run_read_only,
        run_stale_locks,
    )
    from forks import known_profile
    from kills import compare_trials, finish, run_kills, run_together, study_trials
    from mutants import run_mutants

    counts: dict[str, Counter[str]] = {}
    began, many, spoke = time.monotonic(), SIZES[size], 0.0

    def told(label: str, index: int, verdict: str) -> None:
        kind = verdict if verdict in ("right", "refused") else "bad"
        nonlocal spoke
        counts.setdefault(label, Counter())[kind] += 1
        if kind == "bad":
            print(f"{label} {index}: {verdict}", flush=True)
        if time.monotonic() - spoke > EVERY:
            spoke = time.monotonic()
            print(f"[{spoke - began:.0f} s] {label}: {dict(counts[label])}", flush=True)

    if "mutants" in parts:
        run_mutants(root / "mutants", many["mutants"], seed, told)
    if set(parts) - {"mutants"}:
        known_profile()
        compared, reported = compare_trials(root)
        tried = [compared, *study_trials(root), reported] if size == "full" else [compared]
        if "calls" in parts:
            run_odd_calls(tried[0], root, many["calls"], seed, told)
        if "names" in parts:
            run_names(root, many["names"], seed, told)
        if "flips" in parts:
            finish(tried[0], root / "flips")
            run_flips(root / "flips" / "out" / "matrices.parquet", root, many["flips"], seed, told)
        commands = [trial for trial in tried if trial.name in ("compare", "train", "extract")]
        if "faults" in parts:
            for trial in commands:
                run_full_disks(trial, root, many["disks"], seed, told)
                run_stale_locks(trial, root, told)
                run_read_only(trial, root, told)
                for name, file, way in DAMAGES:
                    if name == trial.name:
                        run_damaged(trial, file, way, root, many["damaged"], seed, told)
        if "together" in parts:
            for calls in many["together"]:
                for trial in commands:
                    run_together(trial, root, calls, told)
        if "kills" in parts:
            run_kills({trial: many["kills"][trial.name] for trial in tried}, root, seed, told)
    print(f"\n{'':36}{'tries':>7}{'right':>7}{'refused':>9}{'bad':>5}")
    whole: Counter[str] = Counter()
    for label, of_label in [*counts.items(), ("all", whole)]:
        whole += of_label if label != "all" else Counter()
        print(
            f"{label:36}{of_label.total():7}{of_label['right']:7}{of_label['refused']:9}{of_label['bad']:5}"
        )
    print(f"{size}, seed {seed}, {time.monotonic() - began:.0f} s; bad ones are kept in {root / 'bad'}")
    return whole["bad"]


def main() -> int:
    """1 where a try had a bad end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"of {', '.join(PARTS)}", default=",".join(PARTS))
    options = parser.parse_args()
    root = Path(mkdtemp(prefix="torture-"))
    bad = campaign(options.size, options.seed, options.only.split(","), root)
    if not bad:
        shutil.rmtree(root)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
