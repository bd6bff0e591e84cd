"""Run every code cell of notebooks where torch is a name that nothing can be called of; prints as JSON, by
notebook, how many cells there are, and the source of each that failed, with the reason."""

import contextlib
import json
import sys
import types
from pathlib import Path

import jupytext
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class _Absent(type):
    """Any attribute is one more such class, as annotations ask for; a call says what it needed."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name, (), {})

    def __call__(cls, *args, **kwargs):
        raise RuntimeError(f"torch was asked for: {cls.__name__}")


class _Module(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Absent(name, (), {})


def block() -> None:
    """Put such a module in torch's place."""
    for name in ("", ".nn", ".nn.functional", ".utils", ".utils.data"):
        sys.modules[f"torch{name}"] = _Module(f"torch{name}")


def unrendered() -> None:
    """Figures are laid out and checked, and what is saved of them is empty: pixels need no torch."""
    draw = FigureCanvasAgg.draw
    Figure.savefig = lambda self, file, **_: file.write(b"<svg >")
    FigureCanvasAgg.draw = lambda self: None if hasattr(self, "renderer") else draw(self)


def run(path: Path, figures: Path) -> tuple[int, list[tuple[str, str]]]:
    """How many code cells a notebook has, and the failed ones."""
    cells = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    names: dict[str, object] = {"__name__": "__main__", "display": print}
    failed = []
    for cell in cells:
        source = cell.source
        if "parameters" in cell.metadata.get("tags", []):
            source += f"\nprofile = 'reference'\nfigures_dir = {str(figures)!r}\n"
        try:
            exec(compile(source, path.name, "exec"), names)
        except Exception as error:
            failed.append((cell.source, f"{type(error).__name__}: {error}"))
    plt.close("all")
    return len(cells), failed


if __name__ == "__main__":
    block()
    mpl.use("Agg")
    unrendered()
    figures, *notebooks = map(Path, sys.argv[1:])
    with contextlib.redirect_stdout(sys.stderr):
        told = {path.stem: run(path, figures / path.stem) for path in notebooks}
    json.dump(told, sys.stdout)
