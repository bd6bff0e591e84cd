"""The command line: python -m paper_lib, with a command such as figures or compare."""

import argparse
import sys
from collections.abc import Sequence

from paper_lib.commands import command_parser
from paper_lib.ground.errors import CompanionError, one_line


def main(arguments: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None) -> int:
    """Run one command of `parser`, by default ours; returns the exit status: 0, 1 where a part of the work
    failed, 2 for an error told in one line, 130 for Ctrl-C."""
    options = vars((parser or command_parser()).parse_args(arguments))
    try:
        return options.pop("command").run(options)
    except CompanionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error).splitlines()[0]
        print(f"error: {one_line(told)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
