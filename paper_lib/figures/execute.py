"""Run the notebooks without a browser: checked parameters, output as it comes, whole executed copies."""

import ast
import io
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TextIO
from weakref import WeakSet

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from paper_lib.ground.errors import CompanionError
from paper_lib.ground.files import write_text
from paper_lib.ground.parallel import cores
from paper_lib.study.profiles import get_profile

# --- Where the notebooks are.


def notebook_sources(folder: str | Path) -> list[Path]:
    """The numbered Jupytext sources of a folder, in order. Raises CompanionError where there is none."""
    sources = sorted(Path(folder).glob("[0-9][0-9]_*.py"))
    if not sources:
        raise CompanionError(f"no notebooks in {folder}/: run this from the project's own folder")
    return sources


# --- Jupyter kernels of the running interpreter, and their end.

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels of the running interpreter, whatever kernels are registered on the machine."""

    _all: ClassVar["WeakSet[ThisInterpreter]"] = WeakSet()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._all.add(self)

    @classmethod
    def kill_all(cls) -> None:
        """End every kernel: they are in sessions of their own, where no Ctrl-C reaches them."""
        logging.getLogger("papermill").setLevel(logging.CRITICAL)  # where each death would be told
        for manager in list(cls._all):
            process = getattr(manager.provisioner, "process", None)
            if process is not None:
                process.kill()

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's own log (loopback is not encrypted, its parent is gone) is no news to a reader.
        launcher = ("-m", "ipykernel_launcher", "--log-level=CRITICAL", "-f", "{connection_file}")
        env = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's plain bars will do
        return KernelSpec(argv=[sys.executable, *launcher], env=env, **KERNEL)


# --- Jobs side by side whose output reads as if they ran in order.

Job = Callable[[TextIO], None]  # writes what it has to say to the stream it is given


def take_turns(
    jobs: Sequence[tuple[int, Job]], stream: TextIO, *, workers: int, stop: Callable[[], None] = lambda: None
) -> None:
    """Run jobs in threads, `workers` at a time; `stream` gets their output in their order, as they end.

    jobs: with a size each; the largest start first. All run to their end; then the first exception in their
    order is raised. Ctrl-C starts no further job and calls `stop`, which ends those that run, again and
    again until none does.
    """
    outputs = [io.StringIO() for _ in jobs]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        first = sorted(range(len(jobs)), key=lambda place: -jobs[place][0])
        started = {place: pool.submit(jobs[place][1], outputs[place]) for place in first}
        futures = [started[place] for place in range(len(jobs))]
        try:
            for future, output in zip(futures, outputs, strict=True):
                wait([future])
                print(output.getvalue(), end="", file=stream, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            while wait([each for each in futures if not each.cancelled()], timeout=0.2).not_done:
                stop()  # what a job has started since
            raise
    for future in futures:
        future.result()


# --- The notebooks.


def run_notebooks(
    profile_name: str,
    *,
    seed: int = 0,
    data_dir: str | Path = "data",
    figures_dir: str | Path = "figures",
    notebooks: Sequence[str] | None = None,
    force: bool = False,
    train: bool | None = None,
    workers: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    notebooks_dir: str | Path = "notebooks",
) -> list[Path]:
    """Execute the notebooks; returns the executed copies, data_dir/executed/profile_name/NN_name.ipynb.

    Those that compute (they declare `force`) run first, in order if something may be trained, since the
    second measures what the first trains. All others, which only read tables, follow side by side.
    notebooks: numbers or names ("03", "sparsity", "03_sparsity"); None is all. The arguments up to `workers`
    reach each notebook that declares them; all chosen must declare the other `parameters`, by name and type.
    All is checked before the first cell runs. Kernels start in the current directory; what cells print is
    shown as it comes, side by side in the order of the notebooks. Raises CompanionError for an unknown
    profile, notebook or parameter, and where a cell fails; a copy is NN_name.failed.ipynb until its notebook
    has run to its end.
    """
    in_order = force or get_profile(profile_name).trains(train)
    # All parameters are checked here; papermill would warn of those whose type it cannot read.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    settings = {"profile": profile_name, "seed": seed, "force": force, "train": train, "workers": workers}
    settings |= {"data_dir": str(data_dir), "figures_dir": str(figures_dir)}
    sources = _choose(Path(notebooks_dir), notebooks)
    plan = [(source, *_prepare(source, settings, parameters or {})) for source in sources]
    done = Path(data_dir) / "executed" / profile_name
    done.mkdir(parents=True, exist_ok=True)
    copies = [done / f"{source.stem}.ipynb" for source in sources]
    computing, drawing = list[tuple[int, Job]](), list[tuple[int, Job]]()
    for number, ((source, notebook, values), copy) in enumerate(zip(plan, copies, strict=True), 1):
        run = partial(_execute, f"[{number}/{len(plan)}] {source}", source, notebook, values, copy)
        (computing if "force" in values else drawing).append((len(notebook.cells), run))
    for _, job in computing if in_order else ():
        job(sys.stdout)
    for jobs in [drawing] if in_order else [computing, drawing]:
        if len(jobs) > 1:
            print(f"{len(jobs)} notebooks side by side: what each prints comes at its end", flush=True)
        take_turns(jobs, sys.stdout, workers=workers or cores(), stop=ThisInterpreter.kill_all)
    return copies


def _choose(folder: Path, wanted: Sequence[str] | None) -> list[Path]:
    known = {path.stem: path for path in notebook_sources(folder)}
    if wanted is None:
        return list(known.values())
    chosen = set()
    for name in wanted:
        plain = Path(name).name.removesuffix(".py")
        matches = [stem for stem in known if plain in (stem, stem[3:]) or plain.zfill(2) == stem[:2]]
        if not matches:
            raise CompanionError(f"no notebook {name!r} in {folder}/: there are {', '.join(known)}")
        chosen.update(matches)
    return [path for stem, path in known.items() if stem in chosen]


def _prepare(
    source: Path, settings: Mapping[str, Any], extra: Mapping[str, Any]
) -> tuple[NotebookNode, dict[str, Any]]:
    """The notebook of one py:percent source, and the values that its parameters cell takes."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = KERNEL
    declared = _declared(notebook)
    if missing := [name for name in ("profile", "data_dir") if name not in declared]:
        raise CompanionError(f"{source} has no parameter {missing[0]!r} in a cell tagged 'parameters'")
    for name, value in extra.items():
        if name in settings:
            raise CompanionError(
                f"parameter {name} = {value!r} would pass by --{name.replace('_', '-')}: use that option"
            )
        if name not in declared:
            raise CompanionError(
                f"{source} has no parameter {name!r}; it has {', '.join(declared)} (--only chooses notebooks)"
            )
        # Of the default's type; where that is None, any goes.
        default, whole = declared[name], type(value) is int
        if not (default is None or type(value) is type(default) or (isinstance(default, float) and whole)):
            kind = f"{type(default).__name__} such as {default!r}"
            raise CompanionError(f"{source}: parameter {name} is {value!r}, expected {kind}")
    values = {name: value for name, value in settings.items() if name in declared and value is not None}
    return notebook, {**values, **extra}


def _declared(notebook: NotebookNode) -> dict[str, Any]:
    """Every parameter and its default. papermill's own inspection misses what is `int | None`."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(tagged[0].source).body if tagged else []
    return {
        each.target.id: ast.literal_eval(each.value)
        for each in statements
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value is not None
    }


def _execute(
    name: str, source: Path, notebook: NotebookNode, values: Mapping[str, Any], copy: Path, stream: TextIO
) -> None:
    """Run a notebook and write its executed copy; the stream gets its name, its output and its seconds."""
    failed, start = copy.with_suffix(".failed.ipynb"), time.perf_counter()
    print(name, file=stream, flush=True)
    try:
        executed = papermill.execute_notebook(
            notebook,
            str(failed).replace("{", "{{").replace("}", "}}"),  # papermill fills in what is in braces
            parameters=values,
            kernel_name=KERNEL["name"],
            kernel_manager_class=ThisInterpreter,
            progress_bar=False,
            stdout_file=stream,
            stderr_file=sys.stderr if stream is sys.stdout else stream,
        )
    except PapermillExecutionError as error:
        reason = " ".join(error.evalue.split())
        if error.ename != CompanionError.__name__:
            reason = f"{error.ename}: {reason}"
        raise CompanionError(
            f"{source}, cell {error.exec_count}: {reason} (as far as it came: {failed})"
        ) from None
    except DeadKernelError:
        raise CompanionError(f"{source}: its kernel died, perhaps out of memory (see {failed})") from None
    except RuntimeError as error:  # of jupyter_client, which has no class of its own for it
        raise CompanionError(
            f"{source}: its kernel did not start ({error}): is the machine busy, or without loopback?"
        ) from error
    except KeyboardInterrupt:
        # The cell's task is abandoned on purpose; asyncio would print its traceback on the way out.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    executed.metadata.papermill.update(input_path=source.as_posix(), output_path=copy.as_posix())
    write_text(copy, nbformat.writes(executed) + "\n")
    failed.unlink(missing_ok=True)
    print(f"{name}: {time.perf_counter() - start:.1f} s", file=stream, flush=True)
