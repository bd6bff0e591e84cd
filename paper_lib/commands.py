"""The commands: what each is asked, and the work that it starts."""

import argparse
import ast
import json
import sys
from typing import Any, NoReturn

from paper_lib import __version__
from paper_lib.errors import CompanionError

# --- Values of the command line's options.


def names(text: str) -> list[str]:
    """One or more names, between commas or spaces."""
    if not (found := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: leave the option out for its default")
    return found


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if (number := count(text)) == 0:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def counts(text: str) -> list[int]:
    """One or more whole numbers, between commas or spaces."""
    return [count(name) for name in names(text)]


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


# --- A command's parser: complaints in one line, an example in its help, options that several commands
# --- share.


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line, as every other error here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def add_command(
    commands: Any,
    name: str,
    work: Any,
    summary: str,
    example: str,
    *,
    description: str = "",
    of_study: bool = True,
) -> Parser:
    """Add a command to an `argparse` group of commands; `work` gets its options and may return a status.

    description: in its own help, where that says more than the summary. of_study: whether it takes --profile
    and --data-dir.
    """
    added: Parser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary}.",
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


def add_force(to: Parser) -> None:
    """--force."""
    to.add_argument("--force", action="store_true", help="recompute what is already there")


def add_workers(to: Parser) -> None:
    """--workers."""
    to.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")


def add_selection(to: Parser) -> None:
    """--runs and --seeds."""
    to.add_argument("--runs", type=names, metavar="NAMES", help="default: every run of the profile")
    to.add_argument("--seeds", type=counts, metavar="0,1", help="default: the seeds of the profile")


# --- The command line of `compare`.

SIZES = ("principal_rank", "angle_k", "K", "hill_k", "energy_k")
_EXAMPLES = """\
examples:
  python -m paper_lib compare base tuned --nulls --out compared/tuned
  python -m paper_lib compare base run/checkpoint-300 --trajectory run --learning-rate 1e-6 --out compared/run
  python -m paper_lib compare base adapter --modules q,k,v,o -s K=8 --out compared/adapter
  python -m paper_lib compare base tuned --out compared/tuned --backend dask --address tcp://head:8786

Many workers or one with many threads: a worker takes at most 1.5 GB and twelve float64 copies of its matrix,
so few but huge matrices may be quicker with --workers 1 --threads N. Give Dask workers --nthreads 1."""


def add_compare(commands: Any) -> None:
    """Add the command to an `argparse` group of commands."""
    compare = commands.add_parser(
        "compare",
        help="Measure the update between two checkpoints of your own",
        description="Measure the update between two checkpoints of your own, and say where it lies between "
        "SFT, OPD and RLVR.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(work=_compare)
    add = compare.add_argument
    add("base", metavar="BASE", help="folder or safetensors file: where training started")
    add("finetuned", metavar="FINETUNED", help="the same after training; a LoRA adapter is merged into BASE")
    add("--out", required=True, metavar="DIR", help="tables and report.html go there; kept parts are reused")
    add("--trajectory", nargs="+", default=[], metavar="DIR", help="folders with the snapshots between")
    add("--steps", type=positive, metavar="N", help="optimizer steps behind FINETUNED")
    rates = compare.add_mutually_exclusive_group()
    rates.add_argument("--learning-rate", type=_rate, metavar="X", help="constant: adds the drift ratio")
    rates.add_argument("--learning-rates", metavar="FILE", help="the same from a JSON list, one per step")
    add(
        "--modules",
        default="all",
        metavar="NAMES",
        help="all (default), attention, mlp, or q,k,…,lm_head",
    )
    add("--nulls", action="store_true", help="measure random updates of the same size too (thrice the time)")
    add("--exact", action="store_true", help="complete decompositions, however large the matrices")
    add(
        *("--size", "-s"),
        type=_size,
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"another size of the diagnostics ({', '.join(SIZES)}); may be repeated",
    )
    add("--hub", action="store_true", help="allow BASE and FINETUNED to be names on the Hugging Face Hub")
    add("--workers", type=positive, metavar="N", help="processes (default: as cores and memory allow)")
    add("--threads", type=positive, default=1, metavar="N", help="of each process (default: 1)")
    add("--backend", choices=("loky", "dask", "ray"), default="loky", help="default: this machine (loky)")
    add("--address", metavar="ADDR", help="of the Dask scheduler or the Ray head")
    add("--no-report", action="store_true", help="tables only")
    add("--force", action="store_true", help="measure again what is there")


def _compare(options: argparse.Namespace) -> int:
    from paper_lib.compare.run import compare

    compared = compare(
        options.base,
        options.finetuned,
        options.out,
        trajectory=options.trajectory,
        last_step=options.steps,
        learning_rates=_learning_rates(options),
        modules=options.modules,
        sizes=dict(options.size),
        nulls=options.nulls,
        exact=options.exact,
        hub=options.hub,
        workers=options.workers,
        threads=options.threads,
        backend=options.backend,
        address=options.address,
        force=options.force,
    )
    if not options.no_report:
        from paper_lib.compare.report import write_report

        print(f"report in {write_report(options.out)}")
    for name, reason in compared.failed.items():
        print(f"error: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
    return 1 if compared.failed else 0


def _learning_rates(options: argparse.Namespace) -> Any:
    from paper_lib.compare.pairing import require_rates

    if options.learning_rates is None:
        return options.learning_rate
    try:
        with open(options.learning_rates, encoding="utf-8") as file:
            rates = json.load(file)
    except (OSError, ValueError) as error:
        raise CompanionError(f"{options.learning_rates} is no JSON file to read: {error}") from None
    if not isinstance(rates, list) or not all(type(rate) in (int, float) for rate in rates):
        raise CompanionError(f"{options.learning_rates} holds no list of numbers, one per optimizer step")
    require_rates(rates, options.learning_rates)
    return rates


def _size(text: str) -> tuple[str, Any]:
    name, value = parameter(text)
    if name not in SIZES or type(value) is not int or value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=N, with NAME of {', '.join(SIZES)}"
        )
    return name, value


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate in (0, 1)")
    return rate


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
    from paper_lib.training.study import train_study

    train_study(
        options.profile,
        data_dir=options.data_dir,
        runs=options.runs,
        seeds=options.seeds,
        workers=options.workers,
        force=options.force,
    )


def _extract(options: argparse.Namespace) -> None:
    from paper_lib.measure.extract import extract_study

    extract_study(options.profile, data_dir=options.data_dir, workers=options.workers, force=options.force)


def _export(options: argparse.Namespace) -> None:
    from paper_lib.training.export import export_run

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
    from paper_lib.measure.join import forget

    forget(options.profile, data_dir=options.data_dir, runs=options.runs, seeds=options.seeds)


def _pretrain(options: argparse.Namespace) -> None:
    from paper_lib.training.pretrain import build_pair

    build_pair(options.profile, data_dir=options.data_dir, workers=options.workers, force=options.force)


def _student(options: argparse.Namespace) -> None:
    from paper_lib.teaching.student import write_student_edition

    written = write_student_edition(options.out)
    print(f"{len(written)} files in {options.out}: start with its README.md")
