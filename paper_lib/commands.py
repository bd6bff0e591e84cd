"""The commands as one table: a row names the function that does the work and its options by argument name."""

import argparse
import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from paper_lib import __version__
from paper_lib.ground.errors import CompanionError, one_line

# --- Values of the command line's options.


def names(text: str) -> list[str]:
    """One or more names, between commas or spaces."""
    if not (given := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: leave the option out for its default")
    return given


def folder(text: str) -> str:
    """A path, which '' is not: it would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it names no folder (is a shell variable empty?)")
    return text


def count(text: str) -> int:
    """A whole number from 0 to 10⁹."""
    if not text.isdecimal() or len(text) > 10 or int(text) > 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to a billion")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 to 10⁷: of learning rates there is one a step."""
    if not 1 <= (number := count(text)) <= 10**7:
        raise argparse.ArgumentTypeError("it must be at least 1, and at most ten million")
    return number


def counts(text: str) -> list[int]:
    """One or more whole numbers, between commas or spaces."""
    return [count(name) for name in names(text)]


def rate(text: str) -> float:
    """A learning rate in (0, 1)."""
    if not 0 < (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate in (0, 1)")
    return value


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


SIZES = ("principal_rank", "angle_k", "K", "hill_k", "energy_k")


def size(text: str) -> tuple[str, int]:
    """NAME=N, a size of the diagnostics."""
    name, value = parameter(text)
    if name not in SIZES or type(value) is not int or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=N: NAME is {', '.join(SIZES)}")
    return name, value


VERDICTS = ("identical", "not-more-than-size", "frozen-norms", "mostly-rounding")


class Collect(argparse.Action):
    """Puts the (name, value) of an option that may be repeated into one dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), **dict([values])})


# --- A command, its options, and a parser of several.

Option = tuple[list[str], dict[str, Any]]
Kind = dict[str, Any]

NAME: Kind = {"metavar": "NAME"}
NAMES: Kind = {"type": names, "metavar": "NAMES"}
DIR: Kind = {"type": folder, "metavar": "DIR"}
NUMBER: Kind = {"type": count, "metavar": "N"}
POSITIVE: Kind = {"type": positive, "metavar": "N"}
RATE: Kind = {"type": rate, "metavar": "X"}
SIZE: Kind = {"type": size, "metavar": "NAME=N", "action": Collect, "default": {}, "dest": "sizes"}
VALUES: Kind = {"type": parameter, "metavar": "NAME=VALUE", "action": Collect, "default": {}}
FAIL: Kind = {"nargs": "+", "choices": VERDICTS, "default": [], "metavar": "VERDICT"}
FLAG: Kind = {"action": "store_true"}
EITHER: Kind = {"action": argparse.BooleanOptionalAction}
FINETUNED: Kind = {"type": folder, "metavar": "FINETUNED", "nargs": "?"}
REWARD: Kind = {"metavar": "NAME", "default": "trl.rewards:accuracy_reward"}


def option(flags: str, help_: str, kind: Kind | None = None, **settings: Any) -> Option:
    """The arguments of `add_argument`; `dest` is the function's argument where that has another name."""
    return flags.split(), {"help": help_, **(kind or {}), **settings}


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: `work`, the dotted name of a function, is called with every option by argument name.

    It is imported when the command runs, as --help must not wait for torch. A whole number that it returns is
    the exit status. Of the options in a list one at most may be given. examples: a line each. done: said at
    the end, with options in braces. notes: below the examples.
    """

    name: str
    work: str
    summary: str
    options: tuple[Option | list[Option], ...]
    examples: str
    notes: str = ""
    done: str = ""

    def run(self, options: dict[str, Any]) -> int:
        """Do the work; returns the exit status."""
        module, _, function = self.work.rpartition(".")
        result = getattr(import_module(module), function)(**options)
        if self.done:
            print(self.done.format(**options))
        return result if type(result) is int else 0


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that complains in one line, as every other error here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {one_line(message)} (see {self.prog} --help)\n")


def parser_of(prog: str, description: str, commands: Iterable[Command]) -> Parser:
    """A parser whose result holds `command`, the Command that was asked for, and the options of its work."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=f"paper_lib {__version__}")
    group = parser.add_subparsers(metavar="command", required=True)
    for command in commands:
        examples = command.examples.splitlines()
        lines = [f"example{'s' * (len(examples) > 1)}:", *(f"  {prog} {line}" for line in examples)]
        added = group.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary}.",
            epilog="\n".join([*lines, command.notes]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        for entry in command.options:
            to = added.add_mutually_exclusive_group() if isinstance(entry, list) else added
            for flags, settings in entry if isinstance(entry, list) else [entry]:
                to.add_argument(*flags, **settings)
    return parser


# --- The table.

PROFILE = option("--profile", "which study (default: laptop)", NAME, dest="profile_name", default="laptop")
DATA = option("--data-dir", "runs and tables (default: data)", DIR, default="data")
WORKERS = option("--workers", "processes (default: one a core)", POSITIVE)
BASE = option("base", "folder or safetensors file: where training started", metavar="BASE")
FORCE = option("--force", "recompute what is already there", FLAG)
RUNS = option("--runs", "default: every run of the profile", NAMES)
SEEDS = option("--seeds", "default: the seeds of the profile", type=counts, metavar="0,1")
SEED = option("--seed", "default: 0", NUMBER, default=0)

COMMANDS = (
    Command(
        name="figures",
        work="paper_lib.figures.execute.run_notebooks",
        summary="Run the notebooks: train, measure, draw",
        options=(
            *(PROFILE, DATA),
            option("--figures-dir", "default: figures", DIR, default="figures"),
            option("--only", "these notebooks, by number or name", NAMES, dest="notebooks", metavar="03,04"),
            SEED,
            option("-p --parameter", "of every notebook chosen; may be repeated", VALUES, dest="parameters"),
            option("--train", "train what is not measured (default: unless tables are committed)", EITHER),
            *(WORKERS, FORCE),
        ),
        examples="figures --profile smoke --only 03,04",
        done="figures in {figures_dir}/{profile_name}/",
    ),
    Command(
        name="train",
        work="paper_lib.training.study.train_study",
        summary="Train the runs that are neither finished nor measured",
        options=(PROFILE, DATA, RUNS, SEEDS, WORKERS, FORCE),
        examples="train --profile smoke --runs opd,rlvr --seeds 0",
    ),
    Command(
        name="extract",
        work="paper_lib.measure.extract.extract_study",
        summary="Measure the trained runs, and keep the rows of those that are measured",
        options=(PROFILE, DATA, WORKERS, FORCE),
        examples="extract --profile smoke --workers 2",
    ),
    Command(
        name="export",
        work="paper_lib.training.study.export_run",
        summary="Write a trained student as a Hugging Face model",
        options=(
            *(PROFILE, DATA),
            option("--run", "a trained run of the profile", NAME, dest="run_name", required=True),
            SEED,
            option("--step", "a snapshot (default: the last)", NUMBER),
            option("--dtype", "bfloat16 (default) or float32, as trained", default="bfloat16"),
            option("--out", "a new or empty folder", DIR, dest="destination", required=True),
        ),
        examples="export --profile laptop --run sft --seed 0 --out my_model",
        done="model in {destination}",
    ),
    Command(
        name="forget",
        work="paper_lib.measure.extract.forget",
        summary="Remove measured rows, so that train and extract make them again",
        options=(PROFILE, DATA, RUNS, SEEDS),
        examples="forget --profile smoke --runs opd --seeds 1",
    ),
    Command(
        name="pretrain",
        work="paper_lib.training.pretrain.build_models",
        summary="Build the student and the teacher",
        options=(PROFILE, DATA, WORKERS, FORCE),
        examples="pretrain --profile laptop",
    ),
    Command(
        name="compare",
        work="paper_lib.commands.compare_and_report",
        summary="Measure the update between two checkpoints of your own, and place it among the study's",
        options=(
            BASE,
            option("finetuned", "trained from it; a LoRA adapter is merged into BASE, or alone", FINETUNED),
            option("--out", "tables, summary.json, report.html; kept parts are reused", DIR, required=True),
            option("--with", "another fine-tune of BASE, to set beside this one", dest="other", metavar="B"),
            option("--fail-if", "exit with 3 where one holds", FAIL),
            option("--trajectory", "folders with the snapshots between", DIR, nargs="+", default=[]),
            option("--steps", "optimizer steps behind FINETUNED", POSITIVE, dest="last_step"),
            [
                option("--learning-rate", "constant: adds the drift ratio", RATE, dest="learning_rates"),
                option("--learning-rates", "the same from a JSON list, one per step", metavar="FILE"),
            ],
            option("--modules", "all (default), attention, mlp, or q,k,…,lm_head", NAME, default="all"),
            option("--nulls", "measure random updates of the same size too (thrice the time)", FLAG),
            option("--exact", "complete decompositions, however large the matrices", FLAG),
            option("--size -s", f"of the diagnostics ({', '.join(SIZES)}); may be repeated", SIZE),
            option("--hub", "allow BASE and FINETUNED to be names on the Hugging Face Hub", FLAG),
            option("--workers", "processes (default: as cores and memory allow)", POSITIVE),
            option("--threads", "of each process (default: 1)", POSITIVE, default=1),
            option("--backend", "default: loky, here", choices=("loky", "dask", "ray"), default="loky"),
            option("--address", "of the Dask scheduler or the Ray head", metavar="ADDR"),
            option("--no-report", "tables only", action="store_false", dest="report"),
            FORCE,
        ),
        examples="""\
compare base tuned --nulls --out compared/tuned
compare base run/checkpoint-300 --trajectory run --learning-rate 1e-6 --out compared/run
compare base adapter --modules q,k,v,o -s K=8 --out compared/adapter
compare adapter --out compared/alone
compare base sft --with rlvr --nulls --fail-if identical not-more-than-size --out compared/two
compare base tuned --out compared/tuned --backend dask --address tcp://head:8786""",
        notes="""
exit status: 0 all was measured; 1 some matrices were not, which are named; 2 nothing was, and why; 3 all was,
and a verdict of --fail-if holds; 130 stopped by Ctrl-C. Verdicts: identical, no matrix changed;
not-more-than-size, a Gaussian update of the same norm shows all of it, the stable rank too (asks for
--nulls); frozen-norms, no norm changed; mostly-rounding, over half of the norm is rounding to 16 bits.

Many workers or one with many threads: a worker takes at most 1.5 GB and twelve float64 copies of its matrix,
so few but huge matrices may be quicker with --workers 1 --threads N. Give Dask workers --nthreads 1.""",
    ),
    Command(
        name="forecast",
        work="paper_lib.compare.facts.forecast",
        summary="Say how much of a planned training bf16 can show, from BASE alone",
        options=(
            BASE,
            option("--learning-rate", "of AdamW, the highest", RATE, required=True),
            option("--steps", "optimizer steps", POSITIVE, required=True),
            option("--schedule", "default: constant", choices=("constant", "cosine"), default="constant"),
            option("--warmup", "steps of linear warm-up (default: 0)", NUMBER, default=0),
            option("--betas", "Adam's (default: 0.9 0.999)", nargs=2, type=float, default=[0.9, 0.999]),
            option("--hub", "allow BASE to be a name on the Hugging Face Hub", FLAG),
        ),
        examples="forecast base --learning-rate 1e-6 --steps 300",
    ),
    Command(
        name="recipe",
        work="paper_lib.live.recipe.run_recipe",
        summary="Train one of the paper's runs by TRL, at its own scale or another",
        options=(
            option("run_name", "a run of the paper", choices=("sft", "opd", "rlvr"), metavar="RUN"),
            option("--student", "folder, or name on the Hub", default="Qwen/Qwen3-8B-Base", metavar="MODEL"),
            option("--teacher", "the same, for opd", default="Qwen/Qwen3-32B", metavar="MODEL"),
            option("--data", "JSON lines: prompt, and completion or solution", metavar="FILE"),
            option("--out", "checkpoints (default: runs/paper)", DIR, default="runs/paper"),
            option("--reward", "module:function, for rlvr (default: TRL's accuracy_reward)", REWARD),
            option("--tokens", "of a response at most (default: 8192)", POSITIVE, default=8192),
            option("--cards", "H100s that a dry run counts with (default: 8)", POSITIVE, default=8),
            option("-p --parameter", "a setting of TRL; may be repeated", VALUES, dest="settings"),
            option("--dry-run", "print settings, memory and hours", FLAG),
        ),
        examples="""\
recipe opd --dry-run
recipe sft --student base --data demonstrations.jsonl --out runs/sft -p use_cpu=True""",
        notes="""
On eight cards: accelerate launch --num_processes 8 -m paper_lib recipe opd --data FILE --out DIR""",
    ),
)


def command_parser() -> Parser:
    """The parser of the command line."""
    return parser_of("python -m paper_lib", "Train, measure and redraw the study.", COMMANDS)


def compare_and_report(
    base: str, finetuned: str | None, out: str, *, report: bool, fail_if: list[str], **options: Any
) -> int:
    """`compare`, and the report of its tables; returns 1 where a matrix failed, 3 where a verdict of
    `fail_if` holds."""
    from paper_lib.compare.run import compare
    from paper_lib.compare.summary import read_summary

    if "not-more-than-size" in fail_if and not options["nulls"]:
        raise CompanionError("--fail-if not-more-than-size asks the nulls: add --nulls")
    failed = compare(base, finetuned, out, **options)
    if report:
        from paper_lib.compare.report import write_report

        print("[report] drawing it, within a minute", flush=True)
        print(one_line(f"report in {write_report(out)}"))
    for name, reason in failed.items():
        print(f"error: {one_line(reason if name in reason else f'{name}: {reason}')}", file=sys.stderr)
    held = [name for name in fail_if if read_summary(out)["verdicts"][name]]
    for name in held:
        print(f"error: {one_line(finetuned or base)} is {name}", file=sys.stderr)
    return 1 if failed else 3 if held else 0
