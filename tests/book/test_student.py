"""The student edition: every cell but the solutions, and never over anybody's work."""

import jupytext
import nbformat
import pytest
from exercise_cells import ROOT, SOURCES, cells, tagged
from student import main, write_student_edition

from paper_lib.ground.errors import CompanionError


def write(out):
    return write_student_edition(out, ROOT / "notebooks")


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    out = tmp_path_factory.mktemp("handed_out") / "student"
    write(out)
    return out


def kept(source):
    return [(c.cell_type, c.source, dict(c.metadata)) for c in cells(source) if not tagged(c, "solution")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_all_other_cells_are_equal_in_both_formats_and_without_outputs(edition, source):
    text = jupytext.read(edition / f"{source.stem}.py")
    notebook = nbformat.read(edition / f"{source.stem}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for copy in (text, notebook):
        found = [(c.cell_type, c.source) for c in copy.cells]
        assert found == [(kind, words) for kind, words, _ in kept(source)]
        tags = [c.metadata.get("tags", []) for c in copy.cells]
        assert tags == [metadata.get("tags", []) for _, _, metadata in kept(source)]
        assert not any(c.get("outputs") or c.get("execution_count") for c in copy.cells)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_line_of_a_solution_is_handed_out(edition, source):
    others = {line.strip() for _, words, _ in kept(source) for line in words.splitlines()}
    handed_out = "\n".join(path.read_text() for path in edition.iterdir())
    lines = {line.strip() for c in cells(source) if tagged(c, "solution") for line in c.source.splitlines()}
    secret = {line for line in lines - others if len(line) > 8 and not line.startswith(("import ", "from "))}
    assert len(secret) > 20
    escaped = handed_out.replace('\\"', '"')
    assert [line for line in secret if line in escaped] == []
    assert "<details><summary>Solution" not in handed_out


def test_the_readme_says_how_to_start_and_counts_the_exercises(edition):
    text = (edition / "README.md").read_text()
    assert f"--ServerApp.root_dir={edition.as_posix()} " in text
    assert 'profile = "reference"' in text
    for source in SOURCES:
        number = sum(tagged(c, "exercise") for c in cells(source))
        assert f"| `{source.stem}` | {number} | " in text


def test_it_replaces_itself_by_the_same_bytes(edition):
    before = {path.name: path.read_bytes() for path in edition.iterdir()}
    write(edition)
    assert {path.name: path.read_bytes() for path in edition.iterdir()} == before


def test_an_edition_that_was_cut_short_is_completed(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "out" / "05_locking.py").unlink()
    assert (tmp_path / "out" / "05_locking.py") in write(tmp_path / "out")
    assert (tmp_path / "out" / "05_locking.py").is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        CompanionError, match=r"thesis\.txt is not of this student edition, or was edited: remove it, or name"
    ):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(CompanionError, match=r"thesis\.txt is a file"):
        write(tmp_path / "thesis.txt")


def test_answers_and_other_files_in_an_edition_are_not_overwritten(tmp_path):
    out = tmp_path / "out"
    write(out)
    (out / "04_pca.py").write_text("answer = 6")
    with pytest.raises(CompanionError, match=r"04_pca\.py is not of this student edition, or was edited"):
        write(out)
    assert (out / "04_pca.py").read_text() == "answer = 6"
    (out / "04_pca.py").unlink()
    (out / "notes.md").write_text("mine")
    with pytest.raises(CompanionError, match=r"notes\.md is not of this student edition"):
        write(out)


def test_an_empty_folder_will_do_and_missing_notebooks_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(write(tmp_path / "empty")) == 2 * len(SOURCES) + 1
    with pytest.raises(CompanionError, match="no notebooks in"):
        write_student_edition(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_it_and_tells_errors_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["student.py", "--out", str(tmp_path / "out")])
    main()
    assert capsys.readouterr().out == f"notebooks in {tmp_path / 'out'}: start with its README.md\n"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    monkeypatch.setattr("sys.argv", ["student.py", "--out", str(tmp_path / "other")])
    with pytest.raises(SystemExit) as refused:
        main()
    assert str(refused.value).startswith(f"error: {tmp_path / 'other' / 'mine'} is not of")
