"""Time our code against others': `make bench`, or `python tests/bench/command.py train`."""

import argparse
import sys

import diagnose
import steps

from paper_lib.__main__ import main
from paper_lib.commands import add_command, names, positive


def bench_parser() -> argparse.ArgumentParser:
    """One command a bench: training steps and diagnostics."""
    parser = argparse.ArgumentParser(prog="bench", description="Time our code against others'")
    targets = parser.add_subparsers(metavar="what", required=True)
    train = add_command(
        targets,
        *("train", _train, "Time our training steps against TRL's", "bench train --profile laptop"),
    )
    train.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3")
    train.add_argument("--steps", type=positive, default=5, metavar="N", help="a round (default: 5)")
    diagnostics = add_command(
        targets,
        *("diagnose", _diagnose, "Time the diagnostics against LAPACK", "bench diagnose --parts layer"),
        description="Time the diagnostics against LAPACK's SVDs, and tell how far apart they are.",
        of_study=False,
    )
    diagnostics.add_argument(
        "--parts", type=names, metavar="NAMES", help="of layer, smollm2, growth (default: all)"
    )
    for target in (train, diagnostics):
        target.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
        target.add_argument("--out", metavar="FILE", help="write the table and its settings there as JSON")
    return parser


def _train(options: argparse.Namespace) -> None:
    steps.bench_train(
        options.profile,
        data_dir=options.data_dir,
        rounds=options.rounds,
        steps=options.steps,
        threads=options.threads,
        out=options.out,
    )


def _diagnose(options: argparse.Namespace) -> None:
    diagnose.bench_diagnose(parts=options.parts or diagnose.PARTS, threads=options.threads, out=options.out)


if __name__ == "__main__":
    sys.exit(main(parser=bench_parser()))
