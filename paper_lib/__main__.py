"""The command line: python -m paper_lib, with a command such as figures or compare."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from paper_lib import __version__
from paper_lib.arguments import count, counts, names, parameter, positive
from paper_lib.compare_command import add_compare
from paper_lib.errors import CompanionError

# Commands import their work when they run: --help must not wait for torch.


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line, as every other error here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _figures(options: argparse.Namespace) -> None:
    from paper_lib.execute import run_notebooks

    run_notebooks(
        options.profile,
        seed=options.seed,
        data_dir=options.data_dir,
        figures_dir=options.figures_dir,
        notebooks=options.only,
        force=options.force,
        train=options.train,
        workers=options.workers,
        parameters=dict(options.parameter),
    )
    print(f"figures in {options.figures_dir}/{options.profile}/")


def _train(options: argparse.Namespace) -> None:
    from paper_lib.study import train_study

    train_study(
        options.profile,
        data_dir=options.data_dir,
        runs=options.runs,
        seeds=options.seeds,
        workers=options.workers,
        force=options.force,
    )


def _extract(options: argparse.Namespace) -> None:
    from paper_lib.extract import extract_study

    extract_study(options.profile, data_dir=options.data_dir, workers=options.workers, force=options.force)


def _export(options: argparse.Namespace) -> None:
    from paper_lib.export import export_run

    export_run(
        options.profile,
        options.run,
        data_dir=options.data_dir,
        seed=options.seed,
        step=options.step,
        dtype=options.dtype,
        destination=options.out,
    )
    print(f"model in {options.out}")


def _forget(options: argparse.Namespace) -> None:
    from paper_lib.joined import forget

    forget(options.profile, data_dir=options.data_dir, runs=options.runs, seeds=options.seeds)


def _pretrain(options: argparse.Namespace) -> None:
    from paper_lib.pretrain import build_pair

    build_pair(options.profile, data_dir=options.data_dir, workers=options.workers, force=options.force)


def _student(options: argparse.Namespace) -> None:
    from paper_lib.student import write_student_edition

    written = write_student_edition(options.out)
    print(f"{len(written)} files in {options.out}: start with its README.md")


def _bench_train(options: argparse.Namespace) -> None:
    from paper_lib.bench import bench_train

    bench_train(
        options.profile,
        data_dir=options.data_dir,
        rounds=options.rounds,
        steps=options.steps,
        threads=options.threads,
        out=options.out,
    )


def _bench_diagnose(options: argparse.Namespace) -> None:
    from paper_lib.bench_diagnose import PARTS, bench_diagnose

    bench_diagnose(parts=options.parts or PARTS, threads=options.threads, out=options.out)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m paper_lib", description="Train, measure and redraw the study.")
    parser.add_argument("--version", action="version", version=f"paper_lib {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(
        name: str, work: Any, summary: str, example: str, *, within: Any = commands, of_study: bool = True
    ) -> _Parser:
        added: _Parser = within.add_parser(
            name,
            help=summary,
            description=f"{summary}.",
            epilog=f"example:\n  python -m paper_lib {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(work=work)
        if of_study:
            added.add_argument(
                "--profile", default="laptop", metavar="NAME", help="which study (default: laptop)"
            )
            added.add_argument(
                "--data-dir", default="data", metavar="DIR", help="runs and tables (default: data)"
            )
        return added

    def add_force(to: _Parser) -> None:
        to.add_argument("--force", action="store_true", help="recompute what is already there")

    def add_workers(to: _Parser) -> None:
        to.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")

    figures = command(
        "figures", _figures, "Run the notebooks: train, measure, draw", "figures --profile smoke --only 03,04"
    )
    figures.add_argument("--figures-dir", default="figures", metavar="DIR", help="default: figures")
    figures.add_argument("--only", type=names, metavar="03,04", help="these notebooks, by number or name")
    figures.add_argument("--seed", type=count, default=0, metavar="N", help="default: 0")
    figures.add_argument(
        *("-p", "--parameter"),
        type=parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of every notebook chosen; may be repeated",
    )
    figures.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        help="train planned runs that are not measured yet, or draw without them (default: train, but for a "
        "profile whose tables are committed, as those of reference are)",
    )
    add_workers(figures)
    add_force(figures)

    def add_selection(to: _Parser) -> None:
        to.add_argument("--runs", type=names, metavar="NAMES", help="default: every run of the profile")
        to.add_argument("--seeds", type=counts, metavar="0,1", help="default: the seeds of the profile")

    train = command(
        *("train", _train, "Train the runs that are neither finished nor measured"),
        "train --profile smoke --runs opd,rlvr --seeds 0",
    )
    add_selection(train)
    add_workers(train)
    add_force(train)

    extract = command(
        *("extract", _extract, "Measure the trained runs, and keep the rows of those that are measured"),
        "extract --profile smoke --workers 2",
    )
    add_workers(extract)
    add_force(extract)

    export = command(
        *("export", _export, "Write a trained student as a Hugging Face model"),
        "export --profile laptop --run sft --seed 0 --out my_model",
    )
    export.add_argument("--run", required=True, metavar="NAME", help="a trained run of the profile")
    export.add_argument("--seed", type=count, default=0, metavar="N", help="default: 0")
    export.add_argument("--step", type=count, metavar="N", help="a snapshot (default: the last)")
    export.add_argument("--dtype", default="bfloat16", help="bfloat16 (default) or float32, as trained")
    export.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")

    forgotten = command(
        *("forget", _forget, "Remove measured rows, so that train and extract make them again"),
        "forget --profile smoke --runs opd --seeds 1",
    )
    add_selection(forgotten)

    pretrain = command(
        "pretrain", _pretrain, "Build the student and the teacher", "pretrain --profile laptop"
    )
    add_workers(pretrain)
    add_force(pretrain)

    add_compare(commands)

    student = command(
        *("student", _student, "Write the notebooks without their solutions", "student --out build/student"),
        of_study=False,
    )
    student.add_argument("--out", default="build/student", metavar="DIR", help="default: build/student")

    bench = commands.add_parser("bench", help="Time our code against others'")
    targets = bench.add_subparsers(metavar="what", required=True)
    bench_train = command(
        *("train", _bench_train, "Time our training steps against TRL's", "bench train --profile laptop"),
        within=targets,
    )
    bench_train.add_argument("--rounds", type=positive, default=3, metavar="N", help="default: 3")
    bench_train.add_argument("--steps", type=positive, default=5, metavar="N", help="a round (default: 5)")
    bench_diagnose = command(
        *("diagnose", _bench_diagnose, "Time the diagnostics against LAPACK's SVDs"),
        "bench diagnose --parts layer",
        within=targets,
        of_study=False,
    )
    bench_diagnose.add_argument(
        "--parts", type=names, metavar="NAMES", help="of layer, smollm2, growth (default: all)"
    )
    for target in (bench_train, bench_diagnose):
        target.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
        target.add_argument("--out", metavar="FILE", help="write the table and its settings there as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 where a part of the work failed, 2 for an error told in
    one line, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        status = options.work(options)
    except CompanionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
