"""Put together what Sphinx reads: written pages, executed notebooks, gallery, ledger, reference.

python book/making/assembled.py --executed DIR --figures DIR --values DIR --out DIR [--repository OWNER/NAME]
"""

import argparse
import csv
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import nbformat
from colab import for_colab
from drawn import write_data
from executed import figure_numbers, figures_in, page_of
from reference import reference_pages
from walk import drawing
from written import answer, gallery, write_pages

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError

BOOK = Path(__file__).resolve().parents[1]
ROOT = BOOK.parent
CARDS = ROOT.glob("data/results/*/README.md")
BESIDE = {"changelog.md": ROOT / "CHANGELOG.md"} | {f"data-{path.parent.name}.md": path for path in CARDS}
NOTEBOOKS = "notebooks"  # their folder among the pages


def assemble(executed: Path, figures: Path, values: Path, out: Path, repository: str = "") -> list[str]:
    """Write Sphinx's source to `out`, which is emptied first; returns the names of the figures shown.

    executed, figures: where `paper_lib figures` left a profile's notebooks and figures; values: those of
    the figures (`drawn.keep_values`). repository: owner/name on GitHub for the badges, none without.
    Raises FileNotFoundError where one is missing, FileExistsError where `out` is something else.
    """
    sources = notebook_sources(ROOT / NOTEBOOKS)
    if out.exists() and not (out / "index.md").exists():
        raise FileExistsError(f"{out} is there and is no source of the book: name another folder")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(BOOK / "pages", out)
    (out / NOTEBOOKS).mkdir()
    (out / "figures").mkdir()
    (out / "_extra" / "figures").mkdir(parents=True)
    shown: dict[str, tuple[str, str]] = {}
    for source in sources:
        page = page_of(executed / f"{source.stem}.ipynb", figures)
        nbformat.write(page, out / NOTEBOOKS / f"{source.stem}.ipynb")
        shown |= figures_in(page)
    for name in shown:
        shutil.copy(figures / f"{name}.png", out / "figures")
        for moving in figures.glob(f"{name}.gif"):
            shutil.copy(moving, out / "_extra" / "figures")
    write_data(figures, values, out / "_extra" / "data", figure_numbers())
    all_figures = gallery((out / "figures.md").read_text(encoding="utf-8"), shown, figure_numbers())
    (out / "figures.md").write_text(all_figures, encoding="utf-8")
    (out / "answer.md").write_text(answer((ROOT / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
    (out / "verdicts.md").write_text(verdicts(figures / "claims.csv"), encoding="utf-8")
    for name, path in BESIDE.items():
        shutil.copy(path, out / name)
    (out / "badges.md").write_text(badges([source.stem for source in sources], repository), encoding="utf-8")
    (out / "ledger.md").write_text(
        ledger((figures / "claims.md").read_text(encoding="utf-8")), encoding="utf-8"
    )
    write_pages(out, repository)
    reference_pages(out / "api")
    (out / "walk.html").write_text(drawing(), encoding="utf-8")
    for_colab(sources, out / "_extra" / "colab", repository)
    return list(shown)


def ledger(claims: str) -> str:
    """The ledger as `paper_lib` wrote it, with a label before each claim, to which its row leads."""
    labelled = re.sub(r"^### (\w+)\. ", r"(claim-\1)=\n### \1. ", claims, flags=re.MULTILINE)
    labelled = re.sub(r"^# .*", "# The ledger", labelled, count=1)
    return re.sub(
        r"^\| ([CPSM]\d+[abc]?) \|",
        lambda row: f"| [{row[1]}](#claim-{row[1].lower()}) |",
        labelled,
        flags=re.MULTILINE,
    )


def verdicts(claims: Path) -> str:
    """How many of the paper's claims came out how, at its own schedule and with matched settings."""
    with claims.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"].startswith("C")]
    kinds = {"verdict": "with SFT at its own schedule", "verdict, matched": "with matched settings"}
    lines = [f"Of the paper's fifteen claims, in {len(rows)} entries of [the ledger](ledger.md):", ""]
    for kind, words in kinds.items():
        counts = Counter(row[kind] for row in rows)
        lines.append(f"- {words}: {', '.join(f'{n} {verdict}' for verdict, n in counts.most_common())}")
    return "\n".join([*lines, ""])


def badges(notebooks: list[str], repository: str) -> str:
    """Links that open the project in Binder and each notebook in Colab; none while no repository is known."""
    if not repository:
        return "This copy of the book was built without naming a repository, so it has no links to them.\n"
    colab = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/colab"
    links = [f"[Binder](https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/start.md)"]
    links += [f"[Colab: {name}]({colab}/{name}.ipynb)" for name in notebooks]
    return "".join(f"- {link}\n" for link in links)


def main() -> None:
    """Assemble from the command line; what is missing or damaged is said in one line."""
    parser = argparse.ArgumentParser(description="Put together what Sphinx reads.")
    for name in ("executed", "figures", "values", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--repository", default="", metavar="OWNER/NAME", help="on GitHub, for the badges")
    options = parser.parse_args()
    try:
        folders = (options.executed, options.figures, options.values, options.out)
        shown = assemble(*folders, options.repository)
    except (OSError, ValueError, KeyError, CompanionError, nbformat.ValidationError) as error:
        sys.exit(f"error: {str(error).splitlines()[0]} (make book draws what it needs)")
    print(f"{len(shown)} figures, {len(list(options.out.rglob('*.ipynb')))} notebooks in {options.out}")


if __name__ == "__main__":
    main()
