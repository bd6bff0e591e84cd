"""The course for nbgrader: every exercise has a solution to cut out and a test that grades it."""

from unittest.mock import Mock

import jupytext
import nbformat
import pytest
from exercise_cells import ROOT, exercises, setting
from graded import NOTEBOOKS, assignment, write_course

from paper_lib.ground.errors import CompanionError
from paper_lib.teaching.exercises import EXERCISES

SOURCES = [ROOT / "notebooks" / f"{stem}.py" for stem in NOTEBOOKS]
KEPT = {"schema_version", "grade_id", "cell_type", "task", "grade", "locked", "solution", "points"}


def cells_of(source, data=ROOT / "data"):
    """What nbgrader keeps of the cells it knows, and their sources, by name."""
    notebook = assignment(jupytext.read(source), data)
    nbformat.validate(notebook)
    known = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {cell.metadata.nbgrader.grade_id: (dict(cell.metadata.nbgrader), cell.source) for cell in known}


def test_every_exercise_is_graded():
    assert [name for source in SOURCES for name in exercises(source)] == sorted(EXERCISES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_an_exercise_is_an_answer_to_cut_out_and_a_locked_test_worth_its_minutes(source):
    cells = cells_of(source)
    assert list(cells)[1:] == [f"{kind}-{name}" for name in exercises(source) for kind in ("answer", "check")]
    for name in exercises(source):
        answer, test = cells[f"answer-{name}"], cells[f"check-{name}"]
        assert set(answer[0]) == KEPT - {"points"}
        assert set(test[0]) == KEPT
        assert [answer[0][kind] for kind in ("solution", "grade", "locked")] == [True, False, False]
        assert [test[0][kind] for kind in ("solution", "grade", "locked")] == [False, True, True]
        assert test[0]["points"] == EXERCISES[name].minutes


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_solution_passes_its_test_and_what_is_handed_out_does_not(source):
    cells = cells_of(source)
    for name in exercises(source):
        (_, answer), (_, test) = cells[f"answer-{name}"], cells[f"check-{name}"]
        names = setting(name)
        exec(answer, names)
        exec(test, names)
        with pytest.raises(AssertionError, match="not answered yet"):
            exec(test, names | {"answer": ...})


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_nothing_of_a_solution_stands_outside_the_marks_and_the_parameters_are_the_graders(source, tmp_path):
    notebook = assignment(jupytext.read(source), tmp_path)
    prose = "\n".join(cell.source for cell in notebook.cells if "BEGIN SOLUTION" not in cell.source)
    assert "<details><summary>Solution" not in prose
    for name in exercises(source):
        answer = cells_of(source)[f"answer-{name}"][1]
        assert answer.count("### BEGIN SOLUTION\n") == answer.count("\n### END SOLUTION") == 1
        assert answer.splitlines()[0].startswith("# ")
    kept, parameters = cells_of(source, tmp_path)["parameters"]
    assert kept["locked"]
    names = {}
    exec(parameters, names)
    assert names["profile"] == "reference"
    assert names["data_dir"] == str(tmp_path)
    assert {value for name, value in names.items() if name.endswith("_dir")} <= {str(tmp_path), "figures", ""}


def test_a_course_is_laid_out_as_nbgrader_reads_it_and_never_over_another(tmp_path):
    written = write_course(tmp_path / "course", ROOT / "data")
    assert written == [tmp_path / "course" / "source" / s / f"{s}.ipynb" for s in NOTEBOOKS]
    config = Mock()
    exec((tmp_path / "course" / "nbgrader_config.py").read_text(), {"get_config": lambda: config})
    assert config.ClearSolutions.code_stub == {"python": "answer = ..."}
    assert config.Execute.timeout >= 600  # seconds for a cell, as some train
    with pytest.raises(CompanionError, match="not empty"):
        write_course(tmp_path / "course", ROOT / "data")
