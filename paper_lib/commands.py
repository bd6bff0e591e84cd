"""The commands: what each is asked, and the work that it starts."""

import argparse

from paper_lib import __version__
from paper_lib.arguments import count, names, parameter
from paper_lib.bench_command import add_bench
from paper_lib.compare_command import add_compare
from paper_lib.parsing import Parser, add_command, add_force, add_selection, add_workers

# Commands import their work when they run: --help must not wait for torch.


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line; `work` of what it returns does the command, and may return a status."""
    parser = Parser(prog="python -m paper_lib", description="Train, measure and redraw the study.")
    parser.add_argument("--version", action="version", version=f"paper_lib {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    figures = add_command(
        commands,
        "figures",
        _figures,
        "Run the notebooks: train, measure, draw",
        "figures --profile smoke --only 03,04",
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

    train = add_command(
        commands,
        *("train", _train, "Train the runs that are neither finished nor measured"),
        "train --profile smoke --runs opd,rlvr --seeds 0",
    )
    add_selection(train)
    add_workers(train)
    add_force(train)

    extract = add_command(
        commands,
        *("extract", _extract, "Measure the trained runs, and keep the rows of those that are measured"),
        "extract --profile smoke --workers 2",
    )
    add_workers(extract)
    add_force(extract)

    export = add_command(
        commands,
        *("export", _export, "Write a trained student as a Hugging Face model"),
        "export --profile laptop --run sft --seed 0 --out my_model",
    )
    export.add_argument("--run", required=True, metavar="NAME", help="a trained run of the profile")
    export.add_argument("--seed", type=count, default=0, metavar="N", help="default: 0")
    export.add_argument("--step", type=count, metavar="N", help="a snapshot (default: the last)")
    export.add_argument("--dtype", default="bfloat16", help="bfloat16 (default) or float32, as trained")
    export.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")

    forgotten = add_command(
        commands,
        *("forget", _forget, "Remove measured rows, so that train and extract make them again"),
        "forget --profile smoke --runs opd --seeds 1",
    )
    add_selection(forgotten)

    pretrain = add_command(
        commands, "pretrain", _pretrain, "Build the student and the teacher", "pretrain --profile laptop"
    )
    add_workers(pretrain)
    add_force(pretrain)

    add_compare(commands)

    student = add_command(
        commands,
        *("student", _student, "Write the notebooks without their solutions", "student --out build/student"),
        description="Write the notebooks without their solutions, as .py and .ipynb, and a README.md.",
        of_study=False,
    )
    student.add_argument("--out", default="build/student", metavar="DIR", help="default: build/student")

    add_bench(commands)
    return parser


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
