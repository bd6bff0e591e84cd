"""Time our code against others': `make bench`, or `python tests/bench/command.py train`."""

import sys

import diagnose
import steps
import watching

from paper_lib.__main__ import main
from paper_lib.commands import DATA, NAMES, POSITIVE, PROFILE, Command, Parser, option, parser_of

THREADS = option("--threads", "default: one a core", POSITIVE)
OUT = option("--out", "write the tables and their settings there as JSON", metavar="FILE")

BENCHES = (
    Command(
        name="all",
        work="command.bench_all",
        summary="Time all, one after the other",
        options=(PROFILE, DATA, THREADS),
        examples="all --profile smoke",
    ),
    Command(
        name="train",
        work="steps.bench_train",
        summary="Time our training steps against TRL's",
        options=(
            *(PROFILE, DATA),
            option("--rounds", "default: 3", POSITIVE, default=3),
            option("--steps", "a round (default: 5)", POSITIVE, default=5),
            option("--prompts", "a step, of 8 completions (default: 32)", POSITIVE, default=32),
            option("--objectives", "of opd, rlvr (default: both)", NAMES),
            *(THREADS, OUT),
        ),
        examples="train --profile laptop",
    ),
    Command(
        name="diagnose",
        work="diagnose.bench_diagnose",
        summary="Time the diagnostics against LAPACK's SVDs, and tell how far apart they are",
        options=(
            option("--parts", "of layer, smollm2, growth (default: all that can be measured here)", NAMES),
            *(THREADS, OUT),
        ),
        examples="diagnose --parts layer",
    ),
    Command(
        name="watch",
        work="watching.bench_watch",
        summary="Time what a watch adds to a training run",
        options=(
            *(PROFILE, DATA),
            option("--models", "of shipped, smollm2 (default: all that are installed)", NAMES),
            option("--steps", "measured a kind (default: 4)", POSITIVE, default=4),
            *(THREADS, OUT),
        ),
        examples="watch --profile laptop",
    ),
)


def bench_parser() -> Parser:
    """One command a bench, and one for all."""
    return parser_of("python tests/bench/command.py", "Time our code against others'.", BENCHES)


def bench_all(profile_name: str, *, data_dir: str, threads: int | None) -> None:
    """All benches at their default sizes."""
    steps.bench_train(profile_name, data_dir=data_dir, threads=threads)
    diagnose.bench_diagnose(threads=threads)
    watching.bench_watch(profile_name, data_dir=data_dir, threads=threads)


if __name__ == "__main__":
    sys.exit(main(parser=bench_parser()))
