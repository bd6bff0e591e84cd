"""The command line of `bench`."""

import argparse
from typing import Any

from paper_lib.arguments import names, positive
from paper_lib.parsing import add_command


def add_bench(commands: Any) -> None:
    """Add the command to an `argparse` group of commands."""
    bench = commands.add_parser("bench", help="Time our code against others'")
    targets = bench.add_subparsers(metavar="what", required=True)
    train = add_command(
        targets,
        *("train", _train, "Time our training steps against TRL's", "bench train --profile laptop"),
    )
    train.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3")
    train.add_argument("--steps", type=positive, default=5, metavar="N", help="a round (default: 5)")
    diagnose = add_command(
        targets,
        *("diagnose", _diagnose, "Time the diagnostics against LAPACK", "bench diagnose --parts layer"),
        description="Time the diagnostics against LAPACK's SVDs, and tell how far apart they are.",
        of_study=False,
    )
    diagnose.add_argument(
        "--parts", type=names, metavar="NAMES", help="of layer, smollm2, growth (default: all)"
    )
    for target in (train, diagnose):
        target.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
        target.add_argument("--out", metavar="FILE", help="write the table and its settings there as JSON")


def _train(options: argparse.Namespace) -> None:
    from paper_lib.bench import bench_train

    bench_train(
        options.profile,
        data_dir=options.data_dir,
        rounds=options.rounds,
        steps=options.steps,
        threads=options.threads,
        out=options.out,
    )


def _diagnose(options: argparse.Namespace) -> None:
    from paper_lib.bench_diagnose import PARTS, bench_diagnose

    bench_diagnose(parts=options.parts or PARTS, threads=options.threads, out=options.out)
