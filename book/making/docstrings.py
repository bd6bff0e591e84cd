"""From the docstrings here, plain text with single backticks, to the reStructuredText that autodoc reads."""

import re
from typing import Any

from sphinx.application import Sphinx

_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_SPECIAL = re.compile(r"([\\*|])|_(?=\W|$)")
_NAMES = re.compile(r"^((?:\w+(?:\.\.\.)?)(?:, \w+)*):(?= )")


def to_rest(docstring: str) -> str:
    """The docstring as reStructuredText: code stays code, nothing else is markup, and the names of arguments
    that open a paragraph are strong."""
    made, at = [], 0
    for code in _CODE.finditer(docstring):
        made += [_plain(docstring[at : code.start()]), f"``{code[0].strip('`')}``"]
        at = code.end()
        if docstring[at : at + 1].isalnum():  # `mix`es: the markup has to end before the word does
            made.append("\\ ")
    summary, *paragraphs = "".join([*made, _plain(docstring[at:])]).split("\n\n")
    return "\n\n".join([summary, *(_NAMES.sub(r"**\1**:", paragraph) for paragraph in paragraphs)])


def _plain(text: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if name.startswith("paper_lib"):
        lines[:] = to_rest("\n".join(lines)).splitlines()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
