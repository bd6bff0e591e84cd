"""Parallel work: results in the order of the jobs, progress told, failures kept to the end."""

import pytest
import torch

from paper_lib.errors import CompanionError
from paper_lib.parallel import one_thread, run_parallel


def work(number):
    if number < 0:
        raise CompanionError(f"{number} is negative")
    return number**2


def run(numbers, *, lines=None, function=work):
    report = (lambda line: None) if lines is None else lines.append
    labels = [f"number {number}" for number in numbers]
    jobs = [(number,) for number in numbers]
    return run_parallel(function, jobs, labels=labels, what="square", workers=1, report=report)


def test_results_come_in_the_order_of_the_jobs():
    lines = []
    assert run([3, 1, 2], lines=lines) == [9, 1, 4]
    assert len(lines) == 3
    assert lines[-1].startswith("[square 3/3] number 2: 0 s, about 0 s left")
    assert run([]) == []


def test_failures_are_told_when_all_else_is_done():
    lines, done = [], []

    def noted(number):
        done.append(number)
        return work(number)

    with pytest.raises(CompanionError, match=r"^-1 is negative; -2 is negative$"):
        run([-1, 5, -2, 6], lines=lines, function=noted)
    assert done == [-1, 5, -2, 6]
    assert "number -1: failed: -1 is negative" in lines[0]


def test_a_mistake_of_ours_ends_the_work():
    with pytest.raises(TypeError):
        run([1, None, 2])


def test_jobs_have_one_thread():
    before = torch.get_num_threads()
    assert run([0], function=lambda number: torch.get_num_threads()) == [1]
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
