"""A command's parser: complaints in one line, an example in its help, options that several commands share."""

import argparse
from typing import Any, NoReturn

from paper_lib.arguments import counts, names, positive


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
