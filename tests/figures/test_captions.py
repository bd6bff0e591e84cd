"""Captions: one of each figure, in its notebook, the same in its JSON and in the README."""

import ast
import json
import re
from pathlib import Path

import jupytext
import pytest

from paper_lib.figures.execute import notebook_sources

PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "figures" / "reference"
GALLERY = re.findall(
    r"!\[([^\]]*)\]\(figures/reference/(\w+)\.(?:png|gif)\)", (PROJECT / "README.md").read_text()
)


def captions() -> dict[str, str]:
    """Of every figure that a notebook saves: the literal that `caption` had when it was saved."""
    found = {}
    for source in notebook_sources(PROJECT / "notebooks"):
        code = "\n".join(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code")
        caption = ""
        for statement in ast.parse(code).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="caption")], value=ast.Constant(value=str(words))):
                    caption = words
                case ast.Expr(
                    value=ast.Call(
                        func=ast.Name(id="save_figure") | ast.Attribute(attr="save" | "animate")
                    ) as call
                ):
                    name = next(a.value for a in call.args if isinstance(a, ast.Constant))
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                    assert given.get("caption") == "caption", f"{name} is saved without `caption=caption`"
                    found[name], caption = caption, ""
    return found


def test_every_figure_of_every_notebook_has_a_caption_of_its_own():
    found = captions()
    assert len(found) >= 20
    for name, caption in found.items():
        assert re.fullmatch(r"[A-Z].{30,}\.", caption), f"{name}: {caption!r} is no sentence"
        assert caption.count(". ") <= 1, f"{name} has more than two sentences"
    assert len(set(found.values())) == len(found)


def test_the_readme_describes_its_pictures_with_their_captions():
    found = captions()
    assert len(GALLERY) == 4
    assert {name: alt for alt, name in GALLERY} == {name: found[name] for _, name in GALLERY}


@pytest.mark.parametrize(("alt", "name"), GALLERY, ids=[name for _, name in GALLERY])
def test_a_picture_of_the_readme_has_the_caption_of_its_json(alt, name):
    caption = json.loads((REFERENCE / f"{name}.json").read_text())["caption"]
    assert alt == caption
