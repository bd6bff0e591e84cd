"""Reference pages from the docstrings: a page a room of `paper_lib`, in the order in which the data goes."""

import ast
import pkgutil
from pathlib import Path

import paper_lib

ROOMS = (
    *("study", "training", "geometry", "measure", "figures", "ledger", "compare", "live", "teaching"),
    "ground",
)
HALL = "the hall"  # modules that lie in no room
HALL_SUMMARY = "The command line, and summaries of tables."


def reference_pages(folder: Path) -> None:
    """Write index.md and a page a room to a folder. Raises KeyError where ROOMS lacks one."""
    modules = sorted(m.name for m in pkgutil.walk_packages(paper_lib.__path__, "paper_lib.") if not m.ispkg)
    rooms = {HALL: [name for name in modules if name.count(".") == 1 and not name.endswith("__main__")]}
    for name in modules:
        if name.count(".") > 1:
            rooms.setdefault(name.split(".")[1], []).append(name)
    if wrong := sorted(set(rooms) ^ {HALL, *ROOMS}):
        raise KeyError(f"book/making/reference.py: ROOMS lacks a room, or one is gone: {', '.join(wrong)}")
    folder.mkdir(parents=True)
    index = ["# Reference", "", "Every module of `paper_lib`, from its docstrings, room by room.", ""]
    for room in (*ROOMS, HALL):
        summary = _summary(f"paper_lib.{room}") if room != HALL else HALL_SUMMARY
        index += [f"## [{room}]({_file(room)}.md)", "", summary, "", "| module | |", "|---|---|"]
        index += [
            f"| [`{_short(name)}`](#module-{_anchor(name)}) | {_summary(name)} |" for name in rooms[room]
        ]
        page = [f"# {room}", "", summary, ""]
        for name in rooms[room]:
            page += [f"(module-{_anchor(name)})=", f"## `{_short(name)}`", ""]
            page += ["```{eval-rst}", f".. automodule:: {name}", "```", ""]
        index.append("")
        (folder / f"{_file(room)}.md").write_text("\n".join(page), encoding="utf-8")
    index += ["```{toctree}", ":hidden:", "", *map(_file, (*ROOMS, HALL)), "```", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def _short(name: str) -> str:
    return name.removeprefix("paper_lib.")


def _anchor(name: str) -> str:
    return _short(name).replace(".", "-").replace("_", "-")


def _file(room: str) -> str:
    return room.replace(" ", "_")


def _summary(name: str) -> str:
    path = Path(paper_lib.__path__[0], *name.split(".")[1:])
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")
