"""Parts measured in parallel, all their matrices in one queue; what is up to date is not measured again."""

from collections.abc import Sequence
from time import monotonic

from paper_lib.checkpoints import MatrixName
from paper_lib.errors import CompanionError
from paper_lib.parallel import completed, one_thread, roughly
from paper_lib.parts import Measured, Part, Unit


def measure_parts(parts: Sequence[Part], *, workers: int | None, force: bool) -> int:
    """Compute what is missing, its matrices in one queue, and say how many parts that were.

    Each part is written when its last matrix is done. Raises CompanionError, when all else is written, for
    the parts that failed.
    """
    todo = [part for part in parts if force or not part.up_to_date()]
    done = len(parts) - len(todo)
    if done:
        print(f"[extract] {done} of {len(parts)} parts are up to date", flush=True)
    tasks = [(number, unit) for number, part in enumerate(todo) for unit in part.units]
    results: list[dict[Unit, Measured]] = [{} for _ in todo]
    failures: dict[str, str] = {}
    began = monotonic()
    jobs = [(todo[number], unit) for number, unit in tasks]
    labels = [f"{part.label}, {unit}" for part, unit in jobs]
    outcomes = completed(
        *(_measure, jobs), labels=labels, what="extract", workers=workers, report=lambda line: None
    )
    for ready, (index, outcome) in enumerate(outcomes, start=1):
        number, unit = tasks[index]
        part = todo[number]
        if isinstance(outcome, CompanionError):
            failures.setdefault(part.label, str(outcome))
            continue
        results[number][unit] = outcome
        if len(results[number]) < len(part.units):
            continue
        with one_thread():
            part.write([results[number][unit] for unit in part.units])
        results[number] = {}  # its frames are on disk now
        done, left = done + 1, (monotonic() - began) / ready * (len(tasks) - ready)
        count = f"{len(part.matrices)} matrices"
        print(f"[extract {done}/{len(parts)}] {part.label}: {count}, {roughly(left)} left", flush=True)
    if failures:
        told = "; ".join(f"{label}: {reason}" for label, reason in failures.items())
        raise CompanionError(f"{told} (all other parts are measured and kept)")
    return len(todo)


def _measure(part: Part, unit: Unit) -> Measured:
    return part.measure(unit) if isinstance(unit, MatrixName) else part.measure_whole(unit)
