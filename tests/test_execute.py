"""The notebook runner: all is checked first and shown live, and an error is one line."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from patience import PATIENCE

from paper_lib.figures import execute
from paper_lib.figures.execute import KERNEL, ThisInterpreter, run_notebooks, take_turns
from paper_lib.ground.errors import CompanionError

PARAMETERS = """\
# %% tags=["parameters"]
profile: str = "laptop"  # which study
data_dir: str = "data"  # runs and tables
seed: int = 0  # of the bootstrap
level: float = 0.95  # of the intervals
"""
COMPUTES = PARAMETERS + "force: bool = False  # compute again\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def notebook(folder: Path, name: str, cells: str, parameters: str = PARAMETERS) -> None:
    text = "# %% [markdown]\n# # A title\n\n" + parameters + textwrap.dedent(cells)
    (folder / "notebooks" / name).write_text(text)


def run(folder: Path, profile: str = "smoke", **options):
    return run_notebooks(profile, data_dir=folder / "data", notebooks_dir=folder / "notebooks", **options)


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.mark.slow
def test_notebooks_run_in_order_here_and_in_this_interpreter(folder, capsys):
    notebook(folder, "04_second.py", "# %%\nprint('second')\n")
    cells = """
        # %%
        import os, sys
        print(profile, seed, level, data_dir, sys.executable, os.getcwd())
    """
    notebook(folder, "03_first.py", cells)
    first, second = run(folder, seed=3)
    assert first == folder / "data" / "executed" / "smoke" / "03_first.ipynb"
    assert f"smoke 3 0.95 {folder / 'data'} {sys.executable} {os.getcwd()}" in outputs(first)
    assert "second" in outputs(second)
    shown = capsys.readouterr().out
    assert shown.index("smoke 3 0.95") < shown.index("second\n")
    assert "[2/2]" in shown
    assert " s\n" in shown


def meeting(mine: str, other: str) -> str:
    """A cell that passes only while a second one runs, which waits for it in turn."""
    return f"""
        # %%
        import pathlib, time
        here = pathlib.Path(data_dir)
        here.mkdir(exist_ok=True)
        (here / {mine!r}).touch()
        deadline = time.monotonic() + {PATIENCE}
        while not (here / {other!r}).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (here / {other!r}).exists()
    """


@pytest.mark.slow
def test_notebooks_that_only_read_tables_run_side_by_side_after_those_that_compute(folder, capsys):
    computes = "# %%\nimport pathlib\n(pathlib.Path(data_dir) / 'computed').touch()\n"
    notebook(folder, "01_a.py", computes, COMPUTES)
    after = "# %%\nfrom pathlib import Path\nassert (Path(data_dir) / 'computed').exists()\n"
    for name, mine, other in (("02_b", "b", "c"), ("03_c", "c", "b")):
        notebook(folder, f"{name}.py", after + textwrap.dedent(meeting(mine, other)))
    (folder / "data").mkdir()
    assert [path.stem for path in run(folder, workers=2)] == ["01_a", "02_b", "03_c"]
    shown = capsys.readouterr().out
    assert shown.index("[1/3]") < shown.index("[2/3]") < shown.index("[3/3]")


@pytest.mark.slow
def test_those_that_compute_run_side_by_side_where_nothing_is_trained(folder):
    for name, mine, other in (("01_a", "a", "b"), ("02_b", "b", "a")):
        notebook(folder, f"{name}.py", meeting(mine, other), COMPUTES)
    assert len(run(folder, workers=2, train=False)) == 2


@pytest.mark.slow
def test_where_training_failed_nothing_is_measured(folder):
    notebook(folder, "01_a.py", "# %%\nraise SystemError('not trained')\n", COMPUTES)
    notebook(folder, "02_b.py", "# %%\nprint('measured')\n", COMPUTES)
    with pytest.raises(CompanionError, match="not trained"):
        run(folder)
    assert not (folder / "data" / "executed" / "smoke" / "02_b.ipynb").exists()


@pytest.mark.slow
def test_a_kernel_registered_on_the_machine_is_not_used(folder, monkeypatch):
    foreign = folder / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        '{"argv": ["/bin/false", "{connection_file}"], "language": "python", "display_name": "not ours"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    notebook(folder, "01_a.py", "# %%\nprint('ran')\n")
    assert "ran" in outputs(run(folder)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "huge"}, "huge"),
        (
            {"parameters": {"seeds": 1}},
            r"01_a\.py has no parameter 'seeds'; it has profile, data_dir, seed, level",
        ),
        ({"parameters": {"level": "one"}}, "parameter level is 'one', expected float such as 0.95"),
        ({"parameters": {"level": True}}, "parameter level is True, expected float such as 0.95"),
        ({"notebooks": ["07"]}, "no notebook '07' in .*: there are 01_a"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(folder, options, message):
    notebook(folder, "01_a.py", "# %%\nopen('ran', 'w')\n")
    with pytest.raises(CompanionError, match=message) as caught:
        run(folder, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("train", True, "--train"),
        ("force", True, "--force"),
        ("profile", "nonsense", "--profile"),
        ("data_dir", "elsewhere", "--data-dir"),
    ],
)
def test_what_has_an_option_of_its_own_is_no_parameter(folder, name, value, option):
    """These decide the order and the place of what runs, which are settled before a notebook is opened."""
    declares = COMPUTES + "train: bool | None = None  # train what is missing\n"
    notebook(folder, "01_a.py", "# %%\nopen('ran', 'w')\n", declares)
    with pytest.raises(CompanionError, match=rf"parameter {name} = .*: use that option") as caught:
        run(folder, parameters={name: value})
    assert f"{option}:" in str(caught.value)
    assert not (folder / "data").exists()


def test_a_notebook_without_a_parameters_cell_is_refused(folder):
    notebook(folder, "01_a.py", "# %%\nprint('ran')\n", parameters="")
    with pytest.raises(CompanionError, match="has no parameter 'profile' in a cell tagged 'parameters'"):
        run(folder)


def test_a_folder_without_notebooks_is_refused(tmp_path):
    with pytest.raises(CompanionError, match=r"no notebooks in .*: run this from the project's own folder"):
        run_notebooks("smoke", notebooks_dir=tmp_path)


@pytest.mark.slow
def test_a_parameter_reaches_the_notebook(folder):
    notebook(folder, "01_a.py", "# %%\nprint(level + seed)\n")
    assert "3" in outputs(run(folder, seed=2, parameters={"level": 1})[0])


@pytest.mark.slow
def test_parameters_that_may_be_none_reach_the_notebooks_that_declare_them(folder, capfd):
    declares = COMPUTES + "train: bool | None = None  # train what is missing\n"
    declares += "workers: int | None = None  # processes\n"
    notebook(folder, "01_a.py", "# %%\nprint('train is', train, workers)\n", declares)
    notebook(folder, "02_b.py", "# %%\nprint('train' in globals())\n")
    for asked, workers, told in (
        (None, None, "is None None"),
        (True, 1, "is True 1"),
        (False, 2, "is False 2"),
    ):
        first, second = run(folder, train=asked, workers=workers)
        assert told in outputs(first)
        assert "False" in outputs(second)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("wanted", ["2", "02", "b", "02_b", "notebooks/02_b.py"])
def test_a_notebook_is_chosen_by_number_or_name(folder, wanted):
    notebook(folder, "01_a.py", "")
    notebook(folder, "02_b.py", "")
    with pytest.raises(CompanionError, match=r"02_b\.py has no parameter 'x'"):
        run(folder, notebooks=[wanted], parameters={"x": 1})


@pytest.mark.slow
def test_a_failing_cell_is_one_line_and_the_copy_so_far_is_kept(folder):
    cells = """
        # %%
        print("before")

        # %%
        from paper_lib.ground.errors import CompanionError
        if level == 0.95:
            raise {error}
    """
    executed = folder / "data" / "executed" / "smoke"
    notebook(folder, "01_a.py", cells.format(error="CompanionError('teacher has 30 tokens, student 25')"))
    with pytest.raises(CompanionError) as caught:
        run(folder)
    assert "01_a.py, cell 4: teacher has 30 tokens, student 25 (" in str(caught.value)
    assert [path.name for path in executed.iterdir()] == ["01_a.failed.ipynb"]
    assert "before" in outputs(executed / "01_a.failed.ipynb")

    notebook(folder, "01_a.py", cells.format(error="ValueError('one\\n  two')"))
    with pytest.raises(CompanionError, match=r"cell 4: ValueError: one two \(as far as it came: "):
        run(folder)

    run(folder, parameters={"level": 0.5})
    assert [path.name for path in executed.iterdir()] == ["01_a.ipynb"]


@pytest.mark.slow
def test_a_kernel_that_dies_is_one_line(folder):
    notebook(folder, "01_a.py", "# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(CompanionError, match=r"01_a\.py: its kernel died, perhaps out of memory"):
        run(folder)


@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_one_line(folder, monkeypatch):
    spec = KernelSpec(argv=[sys.executable, "-c", "", "{connection_file}"], **KERNEL)
    monkeypatch.setattr(ThisInterpreter, "kernel_spec", spec)
    notebook(folder, "01_a.py", "# %%\nprint('ran')\n")
    with pytest.raises(CompanionError, match=r"01_a\.py: its kernel did not start") as caught:
        run(folder)
    assert "\n" not in str(caught.value)


def start(folder: Path, parameters: str, *notebooks: str) -> subprocess.Popen:
    """The command line in its own process group, on these cells; its output is a pipe."""
    for number, cells in enumerate(notebooks, 1):
        notebook(folder, f"0{number}_a.py", cells, parameters)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "paper_lib", "figures", "--profile", "smoke", "--workers", "2"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts what it puts in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


WAITING = f"""
    # %%
    import os, time
    open(f"kernel.{{os.getpid()}}", "w").close()
    print("waiting", flush=True)
    time.sleep(2 * {PATIENCE})
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc for processes")
@pytest.mark.parametrize(
    ("cells", "with_signal", "status"),
    [
        pytest.param((COMPUTES, WAITING), signal.SIGKILL, -9, id="killed alone"),
        pytest.param((PARAMETERS, WAITING, WAITING), signal.SIGINT, 130, id="interrupted side by side"),
    ],
)
def test_a_stopped_runner_leaves_no_kernel(request, folder, cells, with_signal, status):
    runner = start(folder, *cells)
    request.addfinalizer(runner.kill)
    kernels, deadline = list[int](), time.monotonic() + PATIENCE
    while len(kernels) < len(cells) - 1 and time.monotonic() < deadline:
        time.sleep(0.1)
        kernels = [int(path.suffix[1:]) for path in folder.glob("kernel.*")]
    assert len(kernels) == len(cells) - 1
    assert all(map(alive, kernels))
    if len(kernels) == 1:  # what computes is heard while it runs
        assert runner.stdout is not None
        assert "waiting\n" in iter(runner.stdout.readline, "")
    os.kill(runner.pid, with_signal)
    rest, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == status
    told = ["2 notebooks side by side: what each prints comes at its end"] * (len(kernels) > 1)
    told += ["stopped; the same command goes on from here"] * (with_signal == signal.SIGINT)
    assert rest.splitlines() == told
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, kernels)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, kernels))
    assert not list(folder.glob("data/executed/**/0?_a.ipynb"))


# --- Jobs side by side read as if they ran in order.


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
    take_turns([(1, first), (1, second)], stream, workers=2)
    assert stream.getvalue().splitlines() == ["first begins", "first ends", "second"]


def test_all_run_to_their_end_and_the_first_failure_is_raised():
    ran = []

    def fails(name):
        def job(stream):
            ran.append(name)
            raise ValueError(name)

        return job

    jobs = [(1, fails("a")), (1, fails("b")), (1, lambda stream: ran.append("c"))]
    with pytest.raises(ValueError, match="a"):
        take_turns(jobs, io.StringIO(), workers=1)
    assert ran == ["a", "b", "c"]


def test_the_largest_job_starts_first_and_is_told_in_its_place():
    began, stream = [], io.StringIO()

    def job(name):
        return lambda stream: (began.append(name), print(name, file=stream))

    take_turns([(2, job("a")), (1, job("b")), (3, job("c"))], stream, workers=1)
    assert began == ["c", "a", "b"]
    assert stream.getvalue() == "a\nb\nc\n"


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
        take_turns([(1, job), (1, later.append)], io.StringIO(), workers=1, stop=stopped.set)
    assert stopped.is_set()
    assert later == []


def test_no_jobs_are_no_error():
    stream = io.StringIO()
    take_turns([], stream, workers=2)
    assert stream.getvalue() == ""
