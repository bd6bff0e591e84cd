"""From the docstrings here, plain text with single backticks, to the reStructuredText that autodoc reads."""

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_SPECIAL = re.compile(r"([\\*|])|_(?=\W|$)")
_NAMES = re.compile(r"^((?:\w+(?:\.\.\.)?)(?:, \w+)*):(?= )")


def to_rest(docstring: str) -> str:
    """The docstring as reStructuredText: code and examples stay as they are, nothing else is markup, and the
    names of arguments that open a paragraph are strong."""
    return "\n\n".join(
        paragraph if paragraph.startswith(">>> ") else _prose(paragraph, strong=number > 0)
        for number, paragraph in enumerate(docstring.split("\n\n"))
    )


def _prose(docstring: str, *, strong: bool) -> str:
    made, at = [], 0
    for code in _CODE.finditer(docstring):
        made += [_plain(docstring[at : code.start()]), f"``{code[0].strip('`')}``"]
        at = code.end()
        if docstring[at : at + 1].isalnum():  # `mix`es: the markup has to end before the word does
            made.append("\\ ")
    text = "".join([*made, _plain(docstring[at:])])
    return _NAMES.sub(r"**\1**:", text) if strong else text


def _plain(text: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if name.startswith("paper_lib"):
        lines[:] = to_rest("\n".join(lines)).splitlines()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
