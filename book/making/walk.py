"""The way of one run through the code, from its profile to figure 4, read from imports and definitions."""

import ast
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

import paper_lib

# Where the run enters each stage: of ("opd", seed 0), on the way to `fig4_intrinsic_geometry`.
STAGES = {
    "its profile": ("paper_lib.study.profiles", "REFERENCE"),
    "trained": ("paper_lib.training.study", "train_planned"),
    "measured": ("paper_lib.measure.run_parts", "RunPart"),
    "kept in a table": ("paper_lib.measure.extract", "write_joined"),
    "drawn": ("paper_lib.figures.panels", "draw_trajectory"),
    "saved": ("paper_lib.figures.save", "save_figure"),
}


def walk() -> dict[str, list[str]]:
    """By stage, the modules whose functions a run passes there for the first time, in the order of the calls.

    A module counts when a function, class or constant of it is reached from the stage's entry by names that
    the code uses; an annotation is no use. Raises KeyError where an entry is gone.
    """
    passed: dict[tuple[str, str], None] = {}
    stages, before = {}, 0
    for stage, (module, name) in STAGES.items():
        if name not in _defined(module)[0]:
            raise KeyError(f"book/making/walk.py: {module} has no {name}, which stage {stage!r} enters")
        _follow(module, name, passed)
        modules = list(dict.fromkeys(module for module, _ in passed))
        stages[stage], before = modules[before:], len(modules)
    return stages


def _follow(module: str, name: str, passed: dict[tuple[str, str], None]) -> None:
    """Add the definition, and then what it uses, depth first."""
    defined, imported = _defined(module)
    if name in defined and (module, name) not in passed:
        passed[module, name] = None
        for used, attribute in _used(defined[name], imported):
            target = f"{used[0]}.{used[1]}"
            if _file(target) is None:
                _follow(*used, passed)
            elif attribute:
                _follow(target, attribute, passed)
        for local in (n.id for n in _nodes(defined[name]) if isinstance(n, ast.Name) and n.id != name):
            if local in defined:
                _follow(module, local, passed)


def _used(
    node: ast.AST, imported: dict[str, tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], str | None]]:
    """Names of ours that a definition takes from other modules, with the attribute taken of a module."""
    for each in _nodes(node):
        if isinstance(each, ast.ImportFrom) and (each.module or "").startswith("paper_lib"):
            yield from (((str(each.module), alias.name), None) for alias in each.names)
        elif (
            isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in imported
        ):
            yield imported[each.value.id], each.attr
        elif isinstance(each, ast.Name) and each.id in imported:
            yield imported[each.id], None


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A definition's nodes in the order of the text, annotations left out."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from _nodes(child)


@cache
def _defined(module: str) -> tuple[dict[str, ast.AST], dict[str, tuple[str, str]]]:
    """The top-level definitions of a module by name, and our imports: (module, name) by local name."""
    path = _file(module)
    defined: dict[str, ast.AST] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path else []:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paper_lib."):
            imported |= {a.asname or a.name: (str(node.module), a.name) for a in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {n.id: node for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return defined, imported


def _file(module: str) -> Path | None:
    path = Path(paper_lib.__path__[0], *module.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def drawing() -> str:
    """The walk as boxes in the page's colours: a band a stage, a numbered box a file."""
    bands, number = [], 1
    for stage, modules in walk().items():
        boxes = "".join(f"<li>{_box(module)}</li>" for module in modules)
        bands.append(f'<h3>{escape(stage)}</h3>\n<ol start="{number}">{boxes}</ol>')
        number += len(modules)
    return '<div class="walk">\n' + "\n".join(bands) + "\n</div>\n"


def _box(module: str) -> str:
    short = module.removeprefix("paper_lib.")
    room = short.split(".")[0] if "." in short else "the_hall"
    link = f"api/{room}.html#module-{short.replace('.', '-').replace('_', '-')}"
    return f'<a href="{link}">{escape(short.replace(".", "/"))}</a>'
