"""What `check` says: right, or which mistake an answer looks like, and never the answer itself."""

import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from exercise_cells import ROOT, reference, solved

from paper_lib.errors import CompanionError
from paper_lib.exercises import EXERCISES, Verdict, check
from paper_lib.judging import Case, Exercise, Wrong, judge_function, judge_numbers, result_of
from paper_lib.nulls import random_walk
from paper_lib.spectra import singular_values, stable_rank
from paper_lib.summaries import at_end, over_matrices


def right_of(name):
    return solved(name)["answer"]


@cache
def verdicts(name):
    """Of the three wrong answers."""
    return [check(name, make(right_of(name)), tables=tables_of(name)) for make, _ in WRONG[name]]


def tables_of(name):
    return {table: reference(table) for table in EXERCISES[name].tables}


def mirrored(w):
    return -w


def svd(w):
    return torch.linalg.svd(w, full_matrices=False)


def bf16(w):
    return w.bfloat16().float()


def gap(z, t):
    return z.log_softmax(0) - t.log_softmax(0)


def kept(scores, count, weight):
    weights = scores.new_zeros(len(scores))
    weights[scores.argsort(descending=True)[:count]] = weight
    return weights


def fewest(reach, differences):
    return next(n for n in range(2, 9999) if reach(n, differences) < abs(differences.mean()))


def student(level, freedom):
    from scipy.stats import t

    return t.ppf(level, freedom)


def at_end_ratio(matrices, metric):
    rows = matrices[(matrices["metric"] == metric)]
    rows = rows[rows["step"] == rows.groupby("run")["step"].transform("max")]
    means = rows.groupby("run")["value"].mean()
    return means["sft"] / means["opd"]


def sparsity(run):
    ends = at_end(over_matrices(reference("matrices"), "update_sparsity"))
    return ends.loc[ends["run"] == run, "value"].mean()


def shrunk(null):
    ends = at_end(over_matrices(reference("nulls"), "update_sparsity", sizes=reference("matrices")))
    return ends.loc[(ends["run"] == "opd") & (ends["null"] == null), "value"].mean()


# Three plausible wrong answers to each exercise, and what the verdict has to name.
WRONG = {
    "01-1": [
        (lambda right: 5375 / 300, "ratio of the steps"),
        (lambda right: right / 8, "do not multiply again"),
        (lambda right: 1 / right, "wrong way up"),
    ],
    "01-2": [
        (lambda right: lambda r: r - r.mean(), "standard deviation"),
        (lambda right: lambda r: (r - r.mean()) / (r.std(correction=0) + 1e-4), "by G, not by G − 1"),
        (lambda right: lambda r: (r - r.mean()) / r.std(), "deviation is 0"),
    ],
    "01-3": [
        (lambda right: lambda z, t: -right(z, t), "the sign"),
        (lambda right: lambda z, t: z.softmax(0) * gap(z, t), "softmax takes p away"),
        (lambda right: lambda z, t: z.softmax(0) - t.softmax(0), "forward KL"),
    ],
    "02-1": [
        (lambda right: right | {"update_sparsity"}, "a step of bf16"),
        (lambda right: {"stable_rank"}, "quotients of singular values"),
        (lambda right: right | {"spectral_shift"}, "W_0 is not doubled"),
    ],
    "02-2": [
        (lambda right: lambda a, b: (a == b).double().mean(), "counted in float32"),
        (lambda right: lambda a, b: 1 - right(a, b), "that is the density"),
        (lambda right: lambda a, b: ((bf16(a) - bf16(b)).abs() <= 1e-3).double().mean(), "η is relative"),
    ],
    "02-3": [
        (lambda right: lambda d: singular_values(d).sum() / singular_values(d)[0], "are not squared"),
        (lambda right: lambda d: d.square().sum() / singular_values(d).min() ** 2, "the smallest"),
        (lambda right: torch.linalg.matrix_rank, "that is the rank"),
    ],
    "02-4": [
        (lambda right: lambda f: f, "divided by both norms"),
        (lambda right: lambda f: math.sqrt(1 - f), "the rest of the walk"),
        (lambda right: lambda f: math.degrees(math.acos(math.sqrt(f))), "an angle in degrees"),
    ],
    "03-1": [
        (lambda right: (0.2966 * 0.9273, right[1]), "what the principal overlap allows"),
        (lambda right: right[::-1], "wrong order"),
        (lambda right: (0.2966, 0.3188), "those are the overlaps"),
    ],
    "03-2": [
        (lambda right: lambda w, a, r: right(w, a, min(w.shape)), "largest weights themselves"),
        (lambda right: lambda w, a, r: ~right(w, a, r), "the complement"),
        (
            lambda right: lambda w, a, r: right(w - (svd(w).U[:, :r] * svd(w).S[:r]) @ svd(w).Vh[:r], a, 9),
            "what the reconstruction leaves out",
        ),
    ],
    "03-3": [
        (lambda right: right + 100 * (shrunk("rescaled_sft") - sparsity("sft")), "at SFT's own norm"),
        (lambda right: -right, "the sign"),
        (lambda right: 100 * (sparsity("opd") - shrunk("rescaled_sft_matched")), "matched SFT's update"),
    ],
    "04-1": [
        (lambda right: 2, "not with k"),
        (lambda right: right - 1, "one short"),
        (lambda right: 90, "too large"),
    ],
    "04-2": [
        (lambda right: lambda a, b, k: math.radians(right(a, b, k)), "radians"),
        (lambda right: lambda a, b, k: right(a.mT, b.mT, k), "the left singular vectors"),
        (
            lambda right: (
                lambda a, b, k: torch.rad2deg(
                    torch.linalg.svdvals(svd(a).Vh[:k] @ svd(b).Vh[:k].mT).max().acos()
                )
            ),
            "the smallest",
        ),
    ],
    "04-3": [
        (lambda right: at_end_ratio(reference("matrices"), "angle_u_mean"), "angles as they are"),
        (
            lambda right: (
                at_end_ratio(reference("matrices"), "angle_u_mean")
                / at_end_ratio(reference("matrices"), "relative_norm")
            ),
            "averaged before dividing",
        ),
        (lambda right: at_end_ratio(reference("matrices"), "relative_norm"), "how much farther"),
    ],
    "04-4": [
        (lambda right: lambda w: 1.1 * w, "orthogonal matrices alone"),
        (lambda right: mirrored, "no span turns"),
        (lambda right: lambda w: w.flip(0), "the left vectors turn"),
    ],
    "05-1": [
        (lambda right: lambda a, b, K: right(a.mT, b.mT, K), "the left singular vectors"),
        (lambda right: lambda a, b, K: K * right(a, b, K), "not divided by K"),
        (lambda right: lambda a, b, K: (K * right(a, b, K)) ** 0.5 / K, "not squared"),
    ],
    "05-2": [
        (lambda right: "opd", "the run of the claim"),
        (lambda right: "sft", "own walk starts highest"),
        (lambda right: "rlvr", "another run gains more"),
    ],
    "05-3": [
        (lambda right: lambda a, b, K: right(a.sqrt(), b.sqrt(), K), "energy is σ²"),
        (lambda right: lambda a, b, K: right(a, b, K) - 1, "one short"),
        (lambda right: lambda a, b, K: K, "flatter spectrum"),
    ],
    "05-4": [
        (lambda right: lambda v: math.sqrt(right(v)), "a cosine"),
        (lambda right: lambda v: 1 - right(v), "the share outside"),
        (lambda right: lambda v: 1.0, "need not"),
    ],
    "06-1": [
        (
            lambda right: lambda r, k: kept(-r, math.ceil(k * len(r)), len(r) / math.ceil(k * len(r))),
            "smallest",
        ),
        (lambda right: lambda r, k: kept(r, math.ceil(k * len(r)), 1.0), "not rescaled"),
        (lambda right: lambda r, k: kept(r, int(k * len(r)), len(r) / int(k * len(r))), "rounded down"),
    ],
    "06-2": [
        (lambda right: 1 - right, "weighs the larger gradient more"),
        (lambda right: 0.5, "only where the two gradients have one norm"),
        (lambda right: right / (1 - right), "a quotient of the norms"),
    ],
    "06-3": [
        (lambda right: lambda d: fewest(lambda n, d: 1.96 * d.std(ddof=1) / n**0.5, d), "1.96"),
        (
            lambda right: lambda d: fewest(lambda n, d: student(0.975, n - 1) * d.std() / n**0.5, d),
            "by N, not by N − 1",
        ),
        (
            lambda right: (
                lambda d: fewest(lambda n, d: student(0.975, len(d) - 1) * d.std(ddof=1) / n**0.5, d)
            ),
            "for the seeds you have",
        ),
    ],
    "07-1": [
        (lambda right: right[::-1], "the other way round"),
        (lambda right: [r / s**0.5 for r, s in zip(right, (300, 1024), strict=True)], "noise grows"),
        (lambda right: [3072 * r for r in right], "the norm of the whole matrix"),
    ],
    "07-2": [
        (lambda right: 2**-9, "spread between none and half a step"),
        (lambda right: 100 * right, "a percentage"),
        (lambda right: right / 8, "float16"),
    ],
    "07-3": [
        (lambda right: lambda v, o, r: (r @ v, o @ r), "turns twice"),
        (lambda right: lambda v, o, r: (r @ v, o), "does not know"),
        (lambda right: lambda v, o, r: (v, o), "nothing changed"),
    ],
}
EVERY = [(name, number) for name in WRONG for number in range(3)]


def test_every_exercise_has_three_wrong_answers_here():
    assert list(WRONG) == list(EXERCISES)


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
def test_the_three_wrong_answers_are_told_apart(name):
    said = {verdict.message for verdict in verdicts(name)}
    assert len(said) == 3


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
        assert check("02-3", nothing).message.startswith("not answered yet")


def test_an_unknown_exercise_is_refused_with_those_that_exist():
    with pytest.raises(CompanionError, match=r"no exercise '09-1'; there are 01-1, 01-2, .*, 07-3"):
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
    assert verdict._repr_markdown_() == "**02-3 ✗ not yet.** too large"
    assert "✓ right" in Verdict(exercise="02-3", right=True, message="yes")._repr_markdown_()


def test_a_function_cannot_spoil_what_it_is_tried_on():
    def in_place(delta):
        answer = stable_rank(delta)
        delta.zero_()
        return answer

    assert check("02-3", in_place).right


def test_numbers_may_come_as_tensors_arrays_or_scalars_and_must_be_finite():
    for value in (2.0, np.float32(2), torch.tensor(2.0), np.array(2)):
        judge_numbers(value, 2.0, unit="two", mistakes=())
    for value in (math.nan, math.inf, True, "2", [2.0]):
        with pytest.raises(Wrong, match="expected two"):
            judge_numbers(value, 2.0, unit="two", mistakes=())


def test_an_unnamed_mistake_is_told_where_it_shows():
    cases = [Case(name="a small one", arguments=(1.0,)), Case(name="a large one", arguments=(9.0,))]
    options = {"returns": "a number", "cases": cases, "mistakes": ()}
    with pytest.raises(Wrong, match="too small on a large one, though right on a small one"):
        judge_function(lambda x: 2 if x < 2 else 3, lambda x: 2 * x, **options)
    with pytest.raises(Wrong, match=r"returns shape \(2,\), expected a number"):
        judge_function(lambda x: [x, x], lambda x: 2 * x, **options)
    with pytest.raises(Wrong, match="returns nan: is something divided by 0"):
        judge_function(lambda x: math.nan, lambda x: 2 * x, **options)
    with pytest.raises(Wrong, match="a dict of no numbers"):
        judge_function(lambda x: {}, lambda x: 2 * x, **options)


def test_what_interrupts_a_function_is_not_swallowed():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        result_of(interrupted, Case(name="nothing", arguments=()), "a number")


def test_an_exercise_takes_time():
    with pytest.raises(ValueError, match="minutes is 0"):
        Exercise(name="09-1", title="nothing", minutes=0, judge=lambda answer, tables: "")


def test_a_simulated_walk_has_the_cosine_of_exercise_02_4():
    walk = random_walk([1.0] * 40, (64, 64), torch.Generator().manual_seed(0)).flatten(1)

    def measured(f):
        at = walk[round(f * 40) - 1]
        return (at @ walk[-1]) / (at.norm() * walk[-1].norm())

    verdict = check("02-4", lambda f: round(float(measured(f)), 2))
    assert verdict.right, verdict
