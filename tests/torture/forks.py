"""Commands in children of this process, which has imported all that they need: they start at once, and may be
killed, confined or run side by side without harm to anything else."""

import hashlib
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tiny import EARLY, OPD, SFT, TINY

from paper_lib.__main__ import main
from paper_lib.study import profiles

GONE = 60  # seconds that children of a killed command may take to follow it, on a machine that others load
PATIENCE = 600
MARK = "PAPER_LIB_TORTURE"
NOTEBOOK = """# %% tags=["parameters"]
profile: str = "smoke"  # study
data_dir: str = "data"  # tables
figures_dir: str = "figures"  # pictures

# %%
from pathlib import Path

import matplotlib.pyplot as plt

from paper_lib.figures import save_figure, words
from paper_lib.ground.tables import read_table

path = Path(data_dir) / "results" / "tiny" / "matrices.parquet"
table = read_table(path).query("metric == 'update_sparsity'")
fig, ax = plt.subplots(figsize=(3, 2))
ax.plot(table["value"].to_numpy())
words.tell(ax, "opd", table["value"].to_numpy())
save_figure(fig, "fig_torture", figures_dir, inputs=[path], caption="Sparsity of every matrix.")
"""


def draw(folder: str, data: str, figures: str) -> int:
    """`figures`, on the notebooks of a folder."""
    from paper_lib.figures.execute import run_notebooks

    run_notebooks("smoke", data_dir=data, figures_dir=figures, notebooks_dir=folder, train=False, workers=1)
    return 0


STUDY = replace(TINY, runs=(SFT, OPD, EARLY))  # of the runs that are trained unlike each other


@dataclass(frozen=True, kw_only=True)
class Ended:
    """status: of the exit; None where it was still running. words: of stdout and stderr."""

    status: int | None
    words: str

    @property
    def lines(self) -> list[str]:
        """What it said but for its progress."""
        progress = ("[", "left out:", "report in", "figures in")
        return [
            line
            for line in self.words.splitlines()
            if not line.startswith(progress) and "matrices," not in line
        ]


class Child:
    """A command in a process of its own. confined: called there first."""

    def __init__(self, arguments: Sequence[str], *, confined: Callable[[], None] = lambda: None) -> None:
        self._read, write = os.pipe()
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.setsid()
                os.close(self._read)
                os.dup2(write, 1)
                os.dup2(write, 2)
                os.environ[MARK] = self.mark
                confined()
                status = draw(*arguments[1:]) if arguments[0] == "draw" else main(list(arguments))
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                import sys

                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(write)

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Its end, or None as its status after so many seconds; words are taken as they come."""
        import select

        deadline, words = time.monotonic() + seconds, getattr(self, "_words", b"")
        status = None
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._read], [], [], min(left, 0.5))
            if ready and (more := os.read(self._read, 1 << 16)):
                words += more
                continue
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(code)
                break
            if ready:  # its end of the pipe is closed, and it is about to go
                time.sleep(0.01)
        self._words = words
        return Ended(status=status, words=words.decode(errors="replace"))

    def kill(self) -> str:
        """SIGKILL; returns what outlives it though it should not."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._read)
        deadline = time.monotonic() + GONE
        while (alive := _marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        return f"{len(alive)} of its processes went on" if alive else ""


def _marked(mark: str) -> list[int]:
    """Processes that descend from a child, wherever they went."""
    found, wanted = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


def small_files(limit: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes: what a full disk does, for anyone."""

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return confine


def nobody() -> None:
    """Root may write anywhere."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files, by their paths below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def known_profile() -> None:
    """Make the tiny study a profile, here and in children."""
    import matplotlib.pyplot  # noqa: F401

    import paper_lib.compare.report
    import paper_lib.compare.run
    import paper_lib.figures
    import paper_lib.measure.extract
    import paper_lib.training.study  # noqa: F401

    profiles.PROFILES[STUDY.name] = STUDY
