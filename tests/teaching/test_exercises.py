"""What `check` says: right, or which mistake an answer looks like, and never the answer itself."""

import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from exercise_cells import ROOT, reference, solved
from wrong_answers import WRONG

from paper_lib.geometry.nulls import random_walk
from paper_lib.geometry.spectra import stable_rank
from paper_lib.ground.errors import CompanionError
from paper_lib.teaching.exercises import EXERCISES, Verdict, check
from paper_lib.teaching.judging import Exercise, Wrong, judge_function, judge_numbers, result_of


def right_of(name):
    return solved(name)["answer"]


@cache
def verdicts(name):
    """Of the wrong answers."""
    return [check(name, make(right_of(name)), tables=tables_of(name)) for make, _ in WRONG[name]]


def tables_of(name):
    return {table: reference(table) for table in EXERCISES[name].tables}


EVERY = [(name, number) for name in WRONG for number in range(len(WRONG[name]))]


def test_every_exercise_has_three_wrong_answers_or_more_here():
    assert list(WRONG) == list(EXERCISES)
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_a_wrong_answer_is_told_by_its_name_and_not_by_the_right_one(name, number):
    fragment, verdict = WRONG[name][number][1], verdicts(name)[number]
    assert not verdict.right
    assert fragment in verdict.message
    assert "\n" not in verdict.message
    assert len(verdict.message) < 200
    for value in _values(right_of(name)):
        assert not re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.])", verdict.message), value


def _values(right):
    """How a right answer might be written."""
    if callable(right):
        return []
    if isinstance(right, set | str):
        return {right} if isinstance(right, str) else right - {"stable_rank"}
    numbers = np.atleast_1d(np.asarray(right, dtype=float))
    return [format(number, how) for number in numbers for how in (".1f", ".2f", ".3f", ".4f", ".3g", "g")]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_wrong_answers_are_told_apart(name):
    said = {verdict.message for verdict in verdicts(name)}
    assert len(said) == len(WRONG[name])


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("answer", [object(), {"a": 1}, [[1, 2], [3]], "nonsense"])
def test_an_answer_of_another_kind_is_told_what_is_expected(name, answer):
    verdict = check(name, answer, tables=tables_of(name))
    assert not verdict.right
    assert re.search(r"expected|no run 'nonsense'|no metric 'a'|no metric '\[1, 2\]'", verdict.message)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_function_that_fails_is_told_in_one_line_with_the_type_of_its_error(name):
    if not callable(right_of(name)):
        assert "expected" in check(name, lambda: 1, tables=tables_of(name)).message
        return

    def divides(*arguments):
        return 1 / 0

    def too_few():
        return 1

    assert "your function raised ZeroDivisionError on " in check(name, divides).message
    assert "your function raised TypeError on " in check(name, too_few).message
    assert "returns None" in check(name, lambda *arguments: None).message


def test_no_answer_is_not_wrong_but_missing():
    for nothing in (..., None):
        verdict = check("02-3", nothing)
        assert verdict.right is None
        assert repr(verdict) == "02-3 not answered yet: put your answer in place of `...`"


def test_an_unknown_exercise_is_refused_with_those_that_exist():
    with pytest.raises(CompanionError, match=r"no exercise '09-1'; there are 01-1, 01-2, .*, 08-3"):
        check("09-1", 3)


def test_an_exercise_that_needs_tables_says_which():
    with pytest.raises(CompanionError, match="judged by the table 'nulls': pass tables="):
        check("05-2", "opd", tables={"matrices": reference("matrices")})


def test_the_right_answer_follows_the_tables_it_is_given():
    curves = reference("curves")
    changed = curves.assign(value=curves["value"].mask(curves["run"] == "opd", 3 * curves["value"]))
    right = right_of("06-2")
    assert check("06-2", right, tables={"curves": curves}).right
    assert not check("06-2", right, tables={"curves": changed}).right
    assert check("06-2", right / (right + 3 * (1 - right)), tables={"curves": changed}).right


def test_a_table_may_be_a_path():
    path = ROOT / "data" / "results" / "reference" / "curves.parquet"
    assert check("06-2", right_of("06-2"), tables={"curves": path}).right


def test_a_verdict_reads_well_as_text_and_as_markdown():
    verdict = Verdict(exercise="02-3", right=False, message="too large")
    assert repr(verdict) == "02-3 not yet: too large"
    assert verdict._repr_markdown_() == "**02-3 ✗ not yet:** too large"
    assert "✓ right" in Verdict(exercise="02-3", right=True, message="yes")._repr_markdown_()


def test_a_function_cannot_spoil_what_it_is_tried_on():
    def in_place(delta):
        answer = stable_rank(delta)
        delta.zero_()
        return answer

    assert check("02-3", in_place).right
    cases = {"twos": (np.full(2, 2.0),)}
    array = result_of(lambda each: each.fill(0) or 1, "twos", cases["twos"], "a number")
    assert array == 1
    assert cases["twos"][0].sum() == 4


def test_numbers_may_come_as_tensors_arrays_or_scalars_and_must_be_finite():
    for value in (2.0, np.float32(2), torch.tensor(2.0), np.array(2)):
        judge_numbers(value, 2.0, {}, unit="two")
    for value in (math.nan, math.inf, True, "2", [2.0]):
        with pytest.raises(Wrong, match="expected two"):
            judge_numbers(value, 2.0, {}, unit="two")


def test_an_unnamed_mistake_is_told_where_it_shows():
    cases = {"a small one": (1.0,), "a large one": (9.0,)}
    for answer, said in (
        (lambda x: 2 if x < 2 else 3, "too small on a large one, though right on a small one"),
        (lambda x: [x, x], r"returns shape \(2,\), expected a number"),
        (lambda x: math.nan, "returns nan: is something divided by 0"),
        (lambda x: {}, "a dict of no numbers"),
    ):
        with pytest.raises(Wrong, match=said):
            judge_function(answer, lambda x: (2 * x, {}), cases, returns="a number")


@pytest.mark.parametrize("name", ["04-4", "07-3"])
def test_matrices_of_another_kind_or_shape_are_told(name):
    for made in (lambda w: w.int(), lambda w: w[:2], lambda w: 0 * w, lambda w: w / 0, lambda w: "w"):
        verdict = check(name, lambda w, o=None, r=None: made(w) if o is None else (made(w), o))  # noqa: B023
        assert not verdict.right
        assert re.search("NSS is|no finite matrix|is not what it was", verdict.message)


def test_float32_will_do():
    verdict = check("07-3", lambda v, o, r: (r.float() @ v.float(), o.float() @ r.float().mT))
    assert verdict.right, verdict


def test_a_number_too_large_for_a_float_is_told():
    assert "expected" in check("04-1", 10**400).message


def test_what_interrupts_a_function_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        result_of(interrupted, "nothing", (), "a number")


def test_an_exercise_takes_time():
    with pytest.raises(ValueError, match="minutes is 0"):
        Exercise(name="09-1", title="nothing", minutes=0, judge=lambda answer: "")


def test_a_simulated_walk_has_the_cosine_of_exercise_02_4():
    walk = random_walk([1.0] * 40, (64, 64), torch.Generator().manual_seed(0)).flatten(1)

    def measured(f):
        at = walk[round(f * 40) - 1]
        return (at @ walk[-1]) / (at.norm() * walk[-1].norm())

    verdict = check("02-4", lambda f: round(float(measured(f)), 2))
    assert verdict.right, verdict
