"""Written pages as the book shows them: links to files lead to pages, rows of figures are cards."""

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

_LINK = re.compile(
    r"(?<!!)\[([^\]]+)\]\((?:(?:\.\./)+|(?=book/pages/|figures/|notebooks/|data/))([^)#]+)(#[^)]*)?\)"
)
_PAGES = (  # what a file of the repository is called in the book
    (r"(?:book/pages/)(.+\.md)", r"\1"),
    (r"notebooks/start\.md", "index.md"),
    (r"notebooks/(\w+)\.py", r"notebooks/\1.ipynb"),
    (r"figures/reference/claims\.md", "ledger.md"),
    (r"data/results/(\w+)/README\.md", r"data-\1.md"),
    (r"README\.md", "index.md"),
    (r"CHANGELOG\.md", "changelog.md"),
)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(figures/reference/(\w+)\.png\)")
_ROW = re.compile(r"\| (?:!\[.*\]\([^)]*\)|drawn by each run) \| (.*)\. `(\w+)` \| (.*?) ?\|")


def for_book(page: str, repository: str = "") -> str:
    """A page with its links to files of the repository as links to pages, or to the repository's site.

    repository: owner/name on GitHub; without one, a link to what is no page is its text alone.
    """

    def link(found: re.Match[str]) -> str:
        text, path, place = found[1], found[2], found[3] or ""
        if module := re.fullmatch(r"paper_lib/([\w/]+)\.py", path):
            return f"[{text}](#module-{module[1].replace('/', '-').replace('_', '-')})"
        if figure := re.fullmatch(r"figures/reference/(\w+)\.png", path):
            return f"[{text}](#{figure[1].replace('_', '-')})"
        for pattern, target in _PAGES:
            if re.fullmatch(pattern, path):
                return f"[{text}]({re.sub(pattern, target, path)}{place})"
        return f"[{text}](https://github.com/{repository}/blob/HEAD/{path})" if repository else text

    return _LINK.sub(link, page)


def answer(readme: str) -> str:
    """What the README says of the paper and of our findings, its table of pictures as cards."""
    said = "## What the paper says" + readme.partition("## What the paper says")[2].partition("\n## Two ")[0]
    blocks = said.split("\n\n")
    return "\n\n".join(_pictures(block) if _PICTURE.search(block) else block for block in blocks) + "\n"


def _pictures(table: str) -> str:
    """A table of titles and, below each, its picture."""
    cells = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    titles = [cell for line in cells for cell in line if not _PICTURE.search(cell) and cell.strip("-")]
    pictures = _PICTURE.findall(table)
    cards = [
        _card(title, name, alt, at="bottom") for title, (alt, name) in zip(titles, pictures, strict=True)
    ]
    return _grid(cards, "1")


def gallery(page: str, shown: Mapping[str, tuple[str, str]], numbers: Mapping[str, str]) -> str:
    """The page of all figures with a card for each row of its tables.

    shown: caption and alternative text by figure. numbers: as in 03-2. Raises KeyError for a figure that no
    notebook shows, ValueError where one that is shown has no row.
    """
    listed: list[str] = []

    def cards(lines: list[str]) -> str:
        rows = [found for line in lines if (found := _ROW.fullmatch(line))]
        rows.sort(key=lambda row: [int(part) for part in numbers[row[2]].split("-")])
        listed.extend(row[2] for row in rows)
        made = [
            _card(title, name, shown[name][0], " · ".join(filter(None, (f"Figure {numbers[name]}", claims))))
            for title, name, claims in (row.groups() for row in rows)
        ]
        return _grid(made, "1 2 2 3")

    groups = groupby(page.splitlines(), lambda line: line.startswith("|"))
    made = [cards(list(lines)) if table else "\n".join(lines) for table, lines in groups]
    if missing := sorted(set(shown) - set(listed)):
        raise ValueError(f"book/pages/figures.md has no row for {', '.join(missing)}")
    return "\n".join([*made, ""])


def _grid(cards: list[str], columns: str) -> str:
    return "\n".join([f"::::{{grid}} {columns}", ":gutter: 3", "", *cards, "::::", ""])


def _card(title: str, name: str, alt: str, below: str = "", *, at: str = "top") -> str:
    """A picture above its title, or at its bottom, leading to the figure in its notebook."""
    options = {f"img-{at}": f"figures/{name}.png", "img-alt": alt, "link": name.replace("_", "-")}
    options |= {"link-type": "ref", "class-card": f"figure-card at-{at}"}
    lines = [f":{key}: {value}" for key, value in options.items()]
    return "\n".join([f":::{{grid-item-card}} {title}", *lines, below, ":::", ""])


def write_pages(out: Path, repository: str) -> None:
    """Rewrite the links of every written page in `out`."""
    for path in out.glob("*.md"):
        path.write_text(for_book(path.read_text(encoding="utf-8"), repository), encoding="utf-8")
