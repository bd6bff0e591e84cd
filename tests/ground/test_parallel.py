"""Parallel work: results in the order of the jobs, progress told, failures kept to the end."""

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from patience import PATIENCE

from paper_lib.ground import parallel
from paper_lib.ground.errors import CompanionError
from paper_lib.ground.parallel import completed, cores, run_parallel, threads


def work(number):
    if number < 0:
        raise CompanionError(f"{number} is negative")
    return number**2


def run(numbers, *, function=work):
    labels = [f"number {number}" for number in numbers]
    jobs = [(number,) for number in numbers]
    return run_parallel(function, jobs, labels=labels, what="square", workers=1)


def test_results_come_in_the_order_of_the_jobs(capsys):
    assert run([3, 1, 2]) == [9, 1, 4]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("[square 3/3] number 2: 0 s, about 0 s left")
    assert run([]) == []


def test_a_job_that_takes_long_is_heard_of_before_it_is_done(monkeypatch, tmp_path):
    """Into a file too, which no line of is kept back."""
    monkeypatch.setattr(parallel, "FIRST", 0.02)
    monkeypatch.setattr(parallel, "EVERY", 0.02)
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)

        def until_heard(number, more):
            deadline = time.monotonic() + PATIENCE
            while more not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
                time.sleep(0.01)

        jobs = [(1, "[wait] 0 of 2 jobs done, 1 at work"), (2, "[wait] 1 of 2 jobs done, 1 at work")]
        outcomes = completed(until_heard, jobs, labels=["a", "b"], what="wait", workers=1)
        assert dict(outcomes) == {0: None, 1: None}
    said = (tmp_path / "log").read_text()
    assert "how long still shows with the first" in said
    assert re.search(r"1 of 2 jobs done, 1 at work for \d+ s: about \d+ s left", said)


def test_a_line_of_progress_comes_soon_and_then_seldom(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(parallel, "monotonic", lambda: clock[0])
    say, heard = parallel.Paced(), []
    for second in range(200):
        clock[0] = second
        say(str(second))
        heard += capsys.readouterr().out.split()
    assert heard == ["5", "65", "125", "185"]


def test_items_come_in_order_and_are_counted(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "FIRST", 0.0)
    monkeypatch.setattr(parallel, "EVERY", 0.0)
    assert list(parallel.told("abcd", "opd seed 0")) == list("abcd")
    assert "[opd seed 0] 3 of 4, about 0 s left" in capsys.readouterr().out


def test_failures_are_told_when_all_else_is_done(capsys):
    done = []

    def noted(number):
        done.append(number)
        return work(number)

    with pytest.raises(CompanionError, match=r"^-1 is negative; -2 is negative$"):
        run([-1, 5, -2, 6], function=noted)
    assert done == [-1, 5, -2, 6]
    assert "number -1: failed: -1 is negative" in capsys.readouterr().out.splitlines()[0]


def test_a_mistake_of_ours_ends_the_work():
    with pytest.raises(TypeError):
        run([1, None, 2])


def test_jobs_have_one_thread():
    before = torch.get_num_threads()
    assert run([0], function=lambda number: torch.get_num_threads()) == [1]
    torch.set_num_threads(2)
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_is_kept_to_one_core_has_one():
    before = os.sched_getaffinity(0)
    assert cores() <= len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_each_result_is_there_before_the_next_job_starts():
    started = []

    def noted(number):
        started.append(number)
        return work(number)

    jobs = [(3,), (-1,), (2,)]
    labels = ["a", "b", "c"]
    outcomes = completed(noted, jobs, labels=labels, what="square", workers=1)
    assert next(outcomes) == (0, 9)
    assert started == [3]
    (second, failure), third = outcomes
    assert (second, str(failure), third) == (1, "-1 is negative", (2, 4))


@pytest.mark.slow
def test_a_dead_worker_is_one_line():
    with pytest.raises(CompanionError, match=r"^a worker died, perhaps out of memory: use fewer than 2 "):
        run_parallel(os._exit, [(1,), (1,)], labels=["a", "b"], what="exit", workers=2)


ORPHANED = f"""
import os, sys, time
from paper_lib.ground.parallel import run_parallel
sys.stdout = sys.stderr  # for progress
def wait(number):
    os.write(1, f"{{os.getpid()}}\\n".encode())  # at once: both write to one pipe
    time.sleep(2 * {PATIENCE})
run_parallel(wait, [(0,), (1,)], labels=["a", "b"], what="wait", workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc for processes")
def test_workers_end_with_their_parent():
    parent = subprocess.Popen([sys.executable, "-c", ORPHANED], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)
    parent.stdout.close()


@pytest.mark.slow
def test_a_process_that_is_no_main_process_outlives_its_own_jobs():
    process = get_context("spawn").Process(target=run_and_wait)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0


def run_and_wait():
    run([1])
    time.sleep(2)  # longer than workers take to see that their parent is gone


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_starts_when_its_parent_is_gone_ends(monkeypatch):
    """What it is told to follow is the process that sent the job, not whichever adopted it."""
    ended = []
    monkeypatch.setattr(parallel, "current_process", lambda: SimpleNamespace(name="LokyProcess-1"))
    monkeypatch.setattr(parallel, "sleep", lambda _: None)
    monkeypatch.setattr(parallel.os, "_exit", lambda status: ended.append(status))
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    parallel._guarded(lambda: None, 0, (), 1, int(gone.stdout))
    deadline = time.monotonic() + PATIENCE
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [1]


def test_a_backend_that_gives_all_at_once_is_asked_in_rounds(monkeypatch):
    class Whole:
        supports_return_generator = False

    monkeypatch.setattr("paper_lib.ground.parallel.get_active_backend", lambda: (Whole(), 1))
    assert run([3, 1, 2]) == [9, 1, 4]
    with pytest.raises(CompanionError, match="-1 is negative"):
        run([3, -1, 2])
