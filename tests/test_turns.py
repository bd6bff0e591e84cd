"""Jobs side by side read as if they ran in order."""

import io
import threading
import time

import pytest
from patience import PATIENCE

from paper_lib import execute
from paper_lib.execute import take_turns


def test_output_comes_in_the_order_of_the_jobs_though_the_later_ones_end_first():
    second_done = threading.Event()

    def first(stream):
        print("first begins", file=stream)
        assert second_done.wait(PATIENCE)
        print("first ends", file=stream)

    def second(stream):
        print("second", file=stream)
        second_done.set()

    stream = io.StringIO()
    take_turns([first, second], stream, workers=2)
    assert stream.getvalue().splitlines() == ["first begins", "first ends", "second"]


def test_a_job_is_heard_while_it_runs_from_its_turn_on():
    stream, shown = io.StringIO(), []

    def job(output):
        print("at once", file=output)
        deadline = time.monotonic() + PATIENCE
        while not stream.getvalue() and time.monotonic() < deadline:  # the main thread gives it its turn
            time.sleep(0.01)
        shown.append(stream.getvalue())

    take_turns([job], stream, workers=1)
    assert shown == ["at once\n"]


def test_all_run_to_their_end_and_the_first_failure_is_raised():
    ran = []

    def fails(name):
        def job(stream):
            ran.append(name)
            raise ValueError(name)

        return job

    with pytest.raises(ValueError, match="a"):
        take_turns([fails("a"), fails("b"), lambda stream: ran.append("c")], io.StringIO(), workers=1)
    assert ran == ["a", "b", "c"]


def test_an_interrupt_stops_those_that_run_and_starts_no_other(monkeypatch):
    running, stopped, later = threading.Event(), threading.Event(), []

    def job(stream):
        running.set()
        assert stopped.wait(PATIENCE)

    def interrupted(futures, timeout=None, wait=execute.wait):
        if timeout is None:
            assert running.wait(PATIENCE)
            raise KeyboardInterrupt
        return wait(futures, timeout=timeout)

    monkeypatch.setattr(execute, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take_turns([job, later.append], io.StringIO(), workers=1, stop=stopped.set)
    assert stopped.is_set()
    assert later == []


def test_no_jobs_are_no_error():
    stream = io.StringIO()
    take_turns([], stream, workers=2)
    assert stream.getvalue() == ""
