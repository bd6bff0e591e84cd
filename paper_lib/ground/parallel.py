"""Independent jobs over worker processes, a thread each, with progress and every failure told at the end."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import current_process
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import torch
from joblib import Parallel, cpu_count, delayed
from joblib._parallel_backends import LokyBackend
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_limits

from paper_lib.ground.errors import CompanionError


def cores() -> int:
    """How many cores this process may use, which its affinity or a container may hold below the machine's."""
    return cpu_count()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads for torch and BLAS: the number alone decides how floating-point sums are split."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


FIRST, EVERY = 5.0, 60.0  # seconds until the first line of progress, and from one to the next


class Paced:
    """Prints a line that it is called with, unless it printed one a while ago."""

    def __init__(self) -> None:
        self._next = monotonic() + FIRST

    def __call__(self, line: str) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + EVERY
            print(line, flush=True)


def told(items: Sequence[Any], label: str) -> Iterator[Any]:
    """The items; a line every so often says how many are behind, and how long the rest may take."""
    pace, began = Paced(), monotonic()
    for done, item in enumerate(items):
        left = roughly((monotonic() - began) / max(1, done) * (len(items) - done))
        pace(f"[{label}] {done} of {len(items)}, {left} left of this one")
        yield item


def run_parallel(
    function: Callable[..., Any], jobs: Sequence[tuple], *, labels: Sequence[str], what: str, **options: Any
) -> list[Any]:
    """function(*job) for every job, results in the order of the jobs; options: further ones of `completed`.

    joblib's active backend decides where jobs run, so `joblib.parallel_config("dask")` takes them to a
    cluster. Raises CompanionError, when all other jobs are done, if a job raised one; any other exception
    ends the work.
    """
    by_place = dict(completed(function, jobs, labels=labels, what=what, **options))
    results = [by_place[place] for place in range(len(jobs))]
    if failures := [str(result) for result in results if isinstance(result, CompanionError)]:
        raise CompanionError("; ".join(failures))
    return results


def completed(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    *,
    labels: Sequence[str],
    what: str,
    workers: int | None = None,
    threads_each: int = 1,
) -> Iterator[tuple[int, Any]]:
    """(place in `jobs`, result) of every job as soon as it is done, in any order.

    A job that raised a CompanionError has that as its result. workers: processes (the number of cores where
    None); 1 stays in this process. threads_each: of torch and BLAS in each job. How many jobs are done is
    printed every so often. Raises CompanionError where a worker died.
    """
    if not jobs:
        return
    count = max(1, min(workers or cores(), len(jobs)))
    began, done, over, pace = monotonic(), 0, Event(), Paced()

    def left() -> str:
        rest = (monotonic() - began) / max(1, done) * (len(jobs) - done)
        return f"{roughly(rest)} left" if done else "how long still shows with the first"

    def count_aloud() -> None:
        while not over.wait(min(FIRST, 1)):
            at_work = f"{min(count, len(jobs) - done)} at work for {monotonic() - began:.0f} s"
            pace(f"[{what}] {done} of {len(jobs)} jobs done, {at_work}: {left()}")

    # A worker of this machine may start when this process is gone already: it is told whom to follow.
    parent = os.getpid() if isinstance(get_active_backend()[0], LokyBackend) else None
    tasks = [delayed(_guarded)(function, index, job, threads_each, parent) for index, job in enumerate(jobs)]
    Thread(target=count_aloud, daemon=True, name="progress").start()
    try:
        for done, (index, result, seconds) in enumerate(_as_completed(tasks, count), start=1):
            outcome = f"failed: {result}" if isinstance(result, CompanionError) else f"{seconds:.0f} s"
            print(f"[{what} {done}/{len(jobs)}] {labels[index]}: {outcome}, {left()}", flush=True)
            yield index, result
    except TerminatedWorkerError as error:
        died = f"a worker died, perhaps out of memory: use fewer than {count} workers"
        raise CompanionError(f"{died}; what is finished is kept") from error
    finally:
        over.set()


def _as_completed(tasks: list[Any], count: int) -> Iterator[tuple[int, Any, float]]:
    """Results as they come; in rounds of `count` on a backend that only gives all at once, as Ray's does."""
    backend, _ = get_active_backend()
    if backend.supports_return_generator:
        parallel = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1, pre_dispatch=count)
        yield from parallel(tasks)
        return
    for start in range(0, len(tasks), count):
        yield from Parallel(n_jobs=count, batch_size=1)(tasks[start : start + count])


def _guarded(
    function: Callable[..., Any], index: int, job: tuple, threads_each: int, parent: int | None
) -> tuple[int, Any, float]:
    began = monotonic()
    if current_process().name != "MainProcess" and parent != os.getpid():
        _follow_parent(parent or os.getppid())
    with threads(threads_each):
        try:
            result = function(*job)
        except CompanionError as error:
            result = error
    return index, result, monotonic() - began


@cache
def _follow_parent(parent: int) -> None:
    """End this worker soon after its parent did, however that ended: nobody waits for its result any more."""

    def watch() -> None:
        while os.getppid() == parent:
            sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True, name="follow-parent").start()


def roughly(seconds: float) -> str:
    """A duration as people say it."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
