"""Independent jobs over worker processes, one thread each, with progress and every failure told at the
end."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import current_process
from threading import Thread
from time import monotonic, sleep
from typing import Any

import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits

from paper_lib.errors import CompanionError


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and BLAS, so that a job's floating-point sums do not depend on how many share
    the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def run_parallel(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    *,
    labels: Sequence[str],
    what: str,
    workers: int | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Any]:
    """function(*job) for every job, results in the order of the jobs.

    workers: processes (the number of cores where None); 1 stays in this process. joblib's active backend
    decides where they run, so `joblib.parallel_config("dask")` takes them to a cluster. Raises
    CompanionError, when all other jobs are done, if a job raised one; any other exception ends the work.
    """
    results: list[Any] = [None] * len(jobs)
    for index, result in completed(function, jobs, labels=labels, what=what, workers=workers, report=report):
        results[index] = result
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
    report: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """(place in `jobs`, result) of every job as soon as it is done, in any order.

    A job that raised a CompanionError has that as its result. Arguments as for `run_parallel`. Raises
    CompanionError where a worker died.
    """
    if not jobs:
        return
    say = report or _say
    count = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
    began = monotonic()
    tasks = (delayed(_guarded)(function, index, job) for index, job in enumerate(jobs))
    parallel = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1, pre_dispatch=count)
    try:
        for done, (index, result, seconds) in enumerate(parallel(tasks), start=1):
            left = (monotonic() - began) / done * (len(jobs) - done)
            outcome = f"failed: {result}" if isinstance(result, CompanionError) else f"{seconds:.0f} s"
            say(f"[{what} {done}/{len(jobs)}] {labels[index]}: {outcome}, {roughly(left)} left")
            yield index, result
    except TerminatedWorkerError as error:
        raise CompanionError(
            f"a worker died, perhaps out of memory: use fewer than {count} workers; what is finished is kept"
        ) from error


def _guarded(function: Callable[..., Any], index: int, job: tuple) -> tuple[int, Any, float]:
    began = monotonic()
    if current_process().name != "MainProcess":
        _follow_parent(os.getppid())
    with one_thread():
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


def _say(line: str) -> None:
    print(line, flush=True)


def roughly(seconds: float) -> str:
    """A duration as people say it."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
