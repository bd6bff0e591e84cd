"""The command line, called again and again in a process that may crash or hang."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

LIMIT = 90  # seconds of the wall, on a machine that others load; a call takes a tenth of one
MEMORY = 6 << 30  # bytes of addresses that a call may take beyond what its process has
LONGEST = 1200  # characters of an error's one line


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """status: of the exit; None where the process died or did not end. said: lines on stderr. trouble: what
    no call may do. opened: every file that was read."""

    status: int | None
    said: tuple[str, ...] = ()
    trouble: str = ""
    opened: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether it said in one line why it did nothing."""
        return self.status == 2 and len(self.said) == 1 and not self.trouble


def judged_words(said: Sequence[str]) -> str:
    """What is wrong with the words on stderr: each is one readable line that begins with `error:`."""
    for line in said:
        if not line.startswith("error: "):
            return f"a line that is no error: {line[:120]!r}"
        if len(line) > LONGEST:
            return f"a line of {len(line)} characters"
        if not line.isprintable():
            return f"a line with control characters: {line[:120]!r}"
    return ""


def _serve(pipe: Any) -> None:
    """Answer calls until the other end closes."""
    import resource

    os.setsid()
    sys.setrecursionlimit(1000)
    import safetensors

    from paper_lib.__main__ import main
    from paper_lib.compare import run  # noqa: F401  (torch and all, before memory is limited)
    from paper_lib.training import checkpoints

    seen: list[str] = []
    open_ = safetensors.safe_open

    def noted(path: Any, *args: Any, **options: Any) -> Any:
        seen.append(os.path.abspath(path))
        return open_(path, *args, **options)

    checkpoints.safe_open = noted
    sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == "open" else None)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        seen.clear()
        out, err, trouble, status = io.StringIO(), io.StringIO(), "", None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else 1
            except BaseException as error:
                trouble = f"traceback: {type(error).__name__}: {str(error)[:160]}"
        said = tuple(err.getvalue().splitlines())
        pipe.send((status, said, trouble, tuple(dict.fromkeys(map(str, seen)))))


class Caller:
    """One process that is called over and over, and replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._process: Any = None

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, arguments: Sequence[str]) -> Outcome:
        """`python -m paper_lib ARGUMENTS`, but for the start of Python."""
        if self._process is None:
            context = get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        try:
            self._pipe.send(list(arguments))
            if not self._pipe.poll(LIMIT):
                self._end()
                return Outcome(status=None, trouble=f"still running after {LIMIT} s")
            status, said, trouble, seen = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code, self._process = self._process.exitcode, None
            return Outcome(status=None, trouble=f"the process died with {code}")
        return Outcome(status=status, said=said, trouble=trouble or judged_words(said), opened=seen)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
