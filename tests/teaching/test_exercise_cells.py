"""Every exercise of the notebooks is known to `check`, and every solution is right."""

import subprocess
import sys

import pytest
from exercise_cells import HEADING, SOURCES, exercises, reference, solved, tagged

from paper_lib.teaching.exercises import EXERCISES, check

CELLS = {name: cells for source in SOURCES for name, cells in exercises(source).items()}
every_exercise = pytest.mark.parametrize("name", EXERCISES)


def test_every_exercise_is_registered_under_its_notebook_and_the_other_way_round():
    assert list(CELLS) == list(EXERCISES)
    assert all(known.name == name for name, known in EXERCISES.items())
    assert 18 <= len(EXERCISES) <= 27


@every_exercise
def test_its_heading_has_the_title_and_the_minutes_that_are_registered(name):
    heading = HEADING.match(CELLS[name][0].source)
    assert (heading[2], int(heading[3])) == (EXERCISES[name].title, EXERCISES[name].minutes)


@every_exercise
def test_it_is_a_task_with_a_hint_a_place_for_the_answer_and_a_solution_that_can_be_folded(name):
    task, place, text, *code = CELLS[name]
    assert "<details><summary>Hint</summary>\n\n" in task.source
    assert task.source.endswith("\n\n</details>")
    assert tagged(place, "exercise")
    assert place.source.startswith("answer = ...  # ")
    assert place.source.splitlines()[-1].startswith(f'check("{name}", answer')
    assert all(tagged(cell, "solution") for cell in (text, *code))
    assert text.source.startswith("<details><summary>Solution</summary>\n\n")
    assert text.source.endswith("\n\n</details>")
    assert all(cell.metadata["jupyter"] == {"source_hidden": True} for cell in code)
    asked = place.source.splitlines()[-1]
    assert code[-1].source.endswith(f"verdict = {asked}\nassert verdict.right, verdict\nverdict")


@every_exercise
def test_as_it_stands_it_says_that_it_is_not_answered_yet(name):
    names = {"check": check, "matrices": None, "nulls": None, "curves": None}
    place = CELLS[name][1].source.splitlines()
    exec("\n".join(place[:-1]), names)
    verdict = eval(place[-1], names)
    assert verdict.right is None


@every_exercise
def test_its_solution_is_right(name):
    verdict = solved(name)["verdict"]
    assert verdict.right
    assert verdict.exercise == name


def test_solutions_leave_the_tables_as_they_were():
    before = reference("matrices").copy()
    for name in ("03-3", "04-3", "05-2"):
        assert solved(name)["matrices"].equals(before)


@pytest.mark.slow
def test_checking_an_answer_loads_no_training_and_no_models():
    script = (
        "import sys; from paper_lib.teaching.exercises import check\n"
        "check('06-1', lambda gap, keep: gap)\n"
        "unwanted = {'transformers', 'paper_lib.training.train', 'paper_lib.training.models', 'papermill'}\n"
        "print(unwanted & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
