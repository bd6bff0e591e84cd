"""The first mention of a glossary term on a page leads to the glossary, that of a claim to the ledger."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.nodes import Element, Node, Text
from sphinx import addnodes
from sphinx.application import Sphinx

_CLAIM = r"(?:C(?:1[0-5]|[1-9])[a-c]?|[PSM][1-9])"
_CLOSED = (
    *(nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.math, nodes.raw, nodes.caption),
    *(nodes.comment, nodes.rubric, nodes.term, nodes.target, addnodes.pending_xref, addnodes.desc_signature),
)
_SENTENCE = re.compile(r"(?:^|[.?!] )$")  # what a capital letter may follow
_EVERYDAY = {"base", "verdict", "verdicts", "visible"}  # terms that prose uses in other senses too
_UNLINKED = ("glossary", "ledger", "bibliography", "api/")  # pages that terms lead to, or that are code


def glossary_terms(page: str) -> list[list[str]]:
    """The terms of a MyST page's `{glossary}` blocks: each entry is a list of its spellings."""
    entries: list[list[str]] = []
    for block in re.findall(r"^```\{glossary\}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        open_entry = False
        for line in block.splitlines():
            if line and not line[0].isspace():
                if not open_entry:
                    entries.append([])
                entries[-1].append(line.strip())
                open_entry = True
            else:
                open_entry = False
    return entries


def first_mentions(
    text: str, targets: Mapping[str, str], pattern: re.Pattern[str]
) -> Iterator[tuple[str, str]]:
    """Split a text into (piece, target), with target "" but for what is mentioned for the first time.

    targets: what each spelling leads to; several may lead to one target.
    """
    at, linked = 0, set()
    for match in pattern.finditer(text):
        target = targets.get(match[0])
        if target is None and _SENTENCE.search(text[: match.start()]):
            target = targets.get(
                match[0][0].lower() + match[0][1:]
            )  # not Student's interval, in mid-sentence
        if target is None or target in linked:
            continue
        linked.add(target)
        yield text[at : match.start()], ""
        yield match[0], target
        at = match.end()
    yield text[at:], ""


def link_page(app: Sphinx, document: nodes.document) -> None:
    """Replace first mentions on one page (Sphinx's event doctree-read)."""
    page = app.env.current_document.docname
    if page.startswith(_UNLINKED):
        return
    targets: dict[str, str] = dict(app.config.link_targets)
    words = sorted(targets, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{_CLAIM}|(?i:{'|'.join(map(re.escape, words))}))(?![\w-])")
    for text in list(document.findall(Text)):
        if _is_closed(text):
            continue
        pieces = list(first_mentions(text.astext(), targets, pattern))
        if len(pieces) == 1:
            continue
        assert text.parent is not None
        text.parent.replace(text, [_node(piece, target, page) for piece, target in pieces if piece])
        done = {target for _, target in pieces if target}
        targets = {word: target for word, target in targets.items() if target not in done}


def _is_closed(text: Text) -> bool:
    above: Element | None = text.parent
    while above is not None:
        if isinstance(above, _CLOSED) or "sd-card" in above.get("classes", ()):
            return True
        above = above.parent
    return False


def _node(piece: str, target: str, page: str) -> Node:
    if not target:
        return Text(piece)
    kind, _, name = target.partition(":")
    options: dict[str, Any] = {"refdoc": page, "refwarn": True, "refexplicit": True, "reftarget": name}
    if kind == "term":
        inner = nodes.inline("", piece, classes=["xref", "std", "std-term"])
        return addnodes.pending_xref("", inner, refdomain="std", reftype="term", **options)
    inner = nodes.inline("", piece, classes=["xref", "std", "std-ref"])
    return addnodes.pending_xref("", inner, refdomain="std", reftype="ref", **options)


def _find_targets(app: Sphinx) -> None:
    pages = {
        name: (Path(app.srcdir) / f"{name}.md").read_text(encoding="utf-8") for name in ("glossary", "ledger")
    }
    app.config.link_targets = {
        spelling: f"term:{entry[0]}"
        for entry in glossary_terms(pages["glossary"])
        for spelling in entry
        if spelling not in _EVERYDAY
    }
    for claim in re.findall(r"^\(claim-(\w+)\)=", pages["ledger"], re.MULTILINE):
        app.config.link_targets[claim] = f"ref:claim-{claim.lower()}"
        app.config.link_targets.setdefault(claim.rstrip("abc"), f"ref:claim-{claim.lower()}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx; `link_targets` is filled from the glossary and the ledger."""
    app.add_config_value("link_targets", {}, "", types=[dict])
    app.connect("builder-inited", _find_targets)
    app.connect("doctree-read", link_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
