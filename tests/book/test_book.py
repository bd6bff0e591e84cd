"""What the book is made of: pages from notebooks, links, docstrings, the ledger, notebooks for Colab."""

import hashlib
import io
import json
import re
import sys
from pathlib import Path

import assembled
import nbformat
import pandas as pd
import pytest
from assembled import badges, ledger, verdicts
from card import card
from colab import for_colab
from docstrings import to_rest
from drawn import keep_values, values_of, write_data
from executed import SAVES, figure_numbers, figures_in, page_of
from linking import first_mentions, glossary_terms
from markdown_it import MarkdownIt
from matplotlib import pyplot as plt
from reference import ROOMS, reference_pages
from walk import STAGES, drawing, walk
from written import answer, for_book, gallery

from paper_lib.figures import save, save_figure
from paper_lib.figures.execute import notebook_sources
from paper_lib.figures.words import tell
from paper_lib.geometry.metrics import FIGURES, METRICS
from paper_lib.ground.errors import CompanionError
from paper_lib.study.profiles import PROFILES

ROOT = Path(__file__).parents[2]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """A notebook as Papermill leaves it, and the figure that it saved."""
    v4 = nbformat.v4
    cell = v4.new_code_cell('save_figure(fig, "fig_one", figures_dir, profile=profile, inputs=[])')
    cell.metadata = {"papermill": {"duration": 1}, "tags": []}
    cell.outputs = [
        v4.new_output("execute_result", {"text/plain": "PosixPath('x/fig_one.svg')"}, execution_count=1),
        v4.new_output("display_data", {"image/png": "old", "text/plain": "<Figure>"}),
    ]
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/html": "<b>still</b>"}
    play = v4.new_code_cell("play()", outputs=[v4.new_output("display_data", widget)])
    solution = v4.new_code_cell("answer = 1", metadata={"tags": ["solution"]})
    injected = v4.new_code_cell('profile = "smoke"', metadata={"tags": ["injected-parameters"]})
    notebook = v4.new_notebook(
        cells=[v4.new_markdown_cell("See `05_locking`."), injected, cell, play, solution]
    )
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "papermill": {"input_path": "somewhere"},
        "widgets": {},
    }
    nbformat.write(notebook, tmp_path / "05_locking.ipynb")
    about = {"caption": "One line.", "alt": "One line. It goes from 0.1 to 0.9."}
    (tmp_path / "fig_one.json").write_text(json.dumps(about))
    (tmp_path / "fig_one.png").write_bytes(PNG)
    return tmp_path / "05_locking.ipynb"


def test_no_code_of_a_written_page_is_wider_than_the_page():
    wide = []
    for page in sorted((ROOT / "book" / "pages").glob("*.md")):
        blocks = MarkdownIt().parse(page.read_text(encoding="utf-8"))
        code = [each.content for each in blocks if each.type == "fence" and not each.info.startswith("{")]
        wide += [(page.name, line) for block in code for line in block.splitlines() if len(line) > 88]
    assert wide == []


def test_a_page_shows_the_saved_figure_with_caption_and_alternative_text(executed):
    page = page_of(executed, executed.parent)
    assert figures_in(page) == {"fig_one": ("One line.", "One line. It goes from 0.1 to 0.9.")}
    cell = next(cell for cell in page.cells if "save_figure" in cell.source)
    assert cell.metadata.mystnb.figure == {"caption": "One line.", "name": "fig-one"}
    assert cell.metadata.mystnb.image.alt == "One line. It goes from 0.1 to 0.9."
    (output,) = cell.outputs  # the path that save_figure returns is not shown
    assert output.data["image/png"] != "old"


def test_a_page_keeps_no_trace_of_its_execution_and_needs_no_kernel(executed):
    page = page_of(executed, executed.parent)
    assert set(page.metadata) == {"kernelspec", "language_info"}
    assert not any("papermill" in cell.metadata for cell in page.cells)
    assert not any("injected-parameters" in cell.metadata.tags for cell in page.cells)
    play = next(cell for cell in page.cells if cell.source == "play()")
    assert set(play.outputs[0].data) == {"text/html"}
    assert page.cells[0].source == "See [`05_locking`](05_locking.ipynb)."
    assert "hide-cell" in page.cells[-1].metadata.tags


def test_a_figure_is_numbered_as_prose_calls_it_and_the_code_that_draws_it_is_folded(executed):
    for path in executed.parent.glob("fig_one.*"):
        path.rename(path.with_stem("fig_pca_trajectory"))
    text = executed.read_text().replace("fig_one", "fig_pca_trajectory")
    executed.write_text(text.replace("See `05_locking`.", "`fig_pca_trajectory`, `fig_of_nobody`."))
    page = page_of(executed, executed.parent)
    number = figure_numbers()["fig_pca_trajectory"]
    assert re.fullmatch(r"04-\d", number)
    assert page.cells[0].source == f"[Figure {number}](#fig-pca-trajectory), `fig_of_nobody`."
    cell = next(cell for cell in page.cells if "results.save" in cell.source or "save_figure" in cell.source)
    assert cell.metadata.mystnb.figure.caption == f"**Figure {number}.** One line."
    assert "hide-input" in cell.metadata.tags
    assert cell.metadata.mystnb.code_prompt_show == "Show the code"
    assert figures_in(page)["fig_pca_trajectory"][0] == "One line."
    folded = [each for each in page.cells if "hide-input" in each.metadata.get("tags", ())]
    assert folded == [cell]


def test_each_equation_of_a_figure_is_one_click_from_its_code(executed):
    for path in executed.parent.glob("fig_one.*"):
        path.rename(path.with_stem("fig4_intrinsic_geometry"))
    executed.write_text(executed.read_text().replace("fig_one", "fig4_intrinsic_geometry"))
    cells = page_of(executed, executed.parent).cells
    figure = next(n for n, cell in enumerate(cells) if "fig4" in cell.source)
    links = re.findall(r'href="\.\./_modules/([\w/]+)\.html#(\w+)"', cells[figure + 1].source)
    assert [name for _, name in links] == ["stable_rank", "frobenius_norm", "hill_index"]
    for module, name in links:
        assert f"\ndef {name}(" in (ROOT / f"{module}.py").read_text(encoding="utf-8")
    assert '"sphinx.ext.viewcode"' in (ROOT / "book" / "conf.py").read_text(encoding="utf-8")


def test_the_catalogue_knows_what_the_cell_of_a_figure_draws():
    saved = {}
    for path in notebook_sources(ROOT / "notebooks"):
        for cell in path.read_text(encoding="utf-8").split("# %%"):
            calls = " ".join(re.findall(r"draw_\w+\(.*", cell))
            saved |= {name: set(re.findall(r'"(\w+)"', calls)) & set(METRICS) for name in SAVES.findall(cell)}
    assert set(FIGURES) <= set(saved)
    assert {name: drawn for name, drawn in saved.items() if not drawn <= set(FIGURES.get(name, ()))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
    ],
)
def test_a_damaged_executed_notebook_is_one_line(executed, monkeypatch, text):
    folder = executed.parent / "damaged"
    folder.mkdir()
    for source in notebook_sources(ROOT / "notebooks"):
        (folder / f"{source.stem}.ipynb").write_text(text)
    options = {
        "executed": folder,
        "figures": executed.parent,
        "values": executed.parent,
        "out": executed.parent / "out",
    }
    arguments = [word for name, path in options.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr(sys, "argv", ["assembled.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        assembled.main()
    told = str(stop.value.code)
    assert told.startswith(f"error: {folder}/01_train.ipynb is no executed notebook (")
    assert "\n" not in told


def test_a_card_of_the_gallery_leads_to_its_figure(executed):
    shown = figures_in(page_of(executed, executed.parent))
    row = "| ![Rank](../../figures/reference/fig_one.png) | Rank. `fig_one` | C7 |"
    page = f"# Every figure\n\n|---|---|---|\n{row}\n"
    made = gallery(page, shown, {"fig_one": "05-1"})
    assert "} Rank\n" in made
    assert ":link: fig-one\n" in made
    assert ":img-alt: One line.\n" in made
    assert "Figure 05-1 · C7" in made
    with pytest.raises(ValueError, match="no row for fig_two"):
        gallery(page, shown | {"fig_two": ("Two.", "Two.")}, {"fig_one": "05-1"})


def test_the_data_of_a_figure_are_what_its_panels_show(tmp_path):
    fig, (left, right) = plt.subplots(1, 2)
    left.set(title="rank", xlabel="progress")
    (line,) = left.plot([0.5, 1.0], [2.0, 3.0])
    left.fill_between([0.5, 1.0], [1.0, 2.5], [4.0, 3.5], color=line.get_color(), alpha=0.2)
    tell(left, "OPD", [2.0, 3.0], interval=(2.5, 3.5), seeds=8)
    right.plot([1, 2, 3], [6, 5, 4], "o")
    tell(right, "mix", [[1, 4], [3, 6]], of="3 kinds within")
    right.bar([7], [8])
    right.imshow([[0.5]])
    values = tmp_path / "values"
    values.mkdir()
    (values / "fig_two.csv").write_text(values_of(fig), encoding="utf-8")
    source = {"name": "reference/pairs.parquet", "sha256": "0" * 64}
    (tmp_path / "fig_two.json").write_text(json.dumps({"caption": "Two panels.", "tables": [source]}))
    write_data(tmp_path, values, tmp_path / "out", {"fig_two": "05-1"})
    text = (tmp_path / "out" / "fig_two.csv").read_text(encoding="utf-8")
    assert text.startswith("# Figure 05-1, fig_two: Two panels.\n# Drawn from reference/pairs.parquet")
    table = pd.read_csv(io.StringIO(text), comment="#")
    assert all(f"# {column}: " in text for column in table.columns)
    path = table[table["series"] == "OPD"]
    assert path["panel"].unique() == [1]
    assert "# panel 1: rank (x: progress)\n" in text
    assert path[["x", "value", "low", "high", "seeds"]].to_numpy().tolist() == [
        [0.5, 2, 1, 4, 8],
        [1, 3, 2.5, 3.5, 8],
    ]
    assert table.loc[table["series"] == "bars", ["x", "value"]].to_numpy().tolist() == [[0, 8]]
    assert table.loc[table["series"] == "cells", "value"].tolist() == [0.5]
    assert table.loc[table["series"] == "mix", ["x", "value"]].to_numpy().tolist() == [[1, 6], [2, 5], [3, 4]]


def test_a_figure_that_is_saved_leaves_its_values_and_an_empty_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "refuse_empty", save.refuse_empty)  # put back at the end
    keep_values(tmp_path / "values")
    fig, ax = plt.subplots()
    with pytest.raises(CompanionError, match="is empty"):
        save_figure(fig, "fig_one", tmp_path, inputs=[], caption="Nothing.")
    assert not list(tmp_path.iterdir())
    ax.bar([1], [2])
    tell(ax, "OPD", 2.0)
    save_figure(fig, "fig_one", tmp_path, inputs=[], caption="One.")
    assert (tmp_path / "values" / "fig_one.csv").read_text(encoding="utf-8") == values_of(fig)


def test_the_answer_is_the_readme_with_four_figures_as_cards():
    made = answer((ROOT / "README.md").read_text(encoding="utf-8"))
    assert made.startswith("## What the paper says")
    assert len(re.findall(r"^:link: fig", made, flags=re.MULTILINE)) == 4
    assert "## Two commands" not in made
    assert "figures/reference/" not in made


def test_links_between_files_become_links_between_pages():
    page = "[a](../../notebooks/05_locking.py), [b](../../data/results/reference/README.md#rows), "
    page += "[c](live.md)"
    assert for_book(page) == "[a](notebooks/05_locking.ipynb), [b](data-reference.md#rows), [c](live.md)"
    module = "[d](../../paper_lib/study/run_config.py) and [e](../../LICENSE)"
    assert for_book(module) == "[d](#module-study-run-config) and e"
    assert for_book(module, "a/b").endswith("[e](https://github.com/a/b/blob/HEAD/LICENSE)")


PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "notebooks/start.md")),
    *(path for path in (ROOT / "book" / "pages").glob("*.md") if path.stem != "index"),
    *ROOT.glob("data/results/*/README.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])
def test_a_page_reads_without_the_book(page):
    """Every link leads to a file of the repository, and to a heading of it where it names one."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        if ":" in path or heading.startswith("module-"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]


@pytest.mark.parametrize("profile", [profile.name for profile in PROFILES.values() if profile.committed])
def test_the_card_of_committed_tables_has_their_columns_and_checksums(profile):
    folder = ROOT / "data" / "results" / profile
    assert (folder / "README.md").read_text(encoding="utf-8") == card(folder)
    sums = dict(re.findall(r"^([0-9a-f]{64})  (\w+\.parquet)$", card(folder), flags=re.MULTILINE))
    assert sums == {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in folder.glob("*.parquet")
    }


@pytest.mark.parametrize("lacking", ["caption", "alt"])
def test_a_figure_that_says_nothing_stops_the_book(executed, lacking):
    about = json.loads((executed.parent / "fig_one.json").read_text())
    (executed.parent / "fig_one.json").write_text(json.dumps({**about, lacking: None}))
    with pytest.raises(KeyError, match=f"fig_one.json has no {lacking}"):
        page_of(executed, executed.parent)


def test_the_first_mention_alone_is_linked_in_the_sense_of_the_glossary():
    targets = {"stable rank": "term:stable rank", "student": "term:student", "C7": "ref:claim-c7"}
    pattern = re.compile("(?:C[0-9]+|(?i:stable rank|student))")
    text = "Stable rank (C7, C70): Student's interval of the stable rank of a student, C7."
    linked = [(piece, target) for piece, target in first_mentions(text, targets, pattern) if target]
    assert linked == [
        ("Stable rank", "term:stable rank"),
        ("C7", "ref:claim-c7"),
        ("student", "term:student"),
    ]
    assert "".join(piece for piece, _ in first_mentions(text, targets, pattern)) == text
    middle = "half of Student's interval"
    assert [target for _, target in first_mentions(middle, targets, pattern) if target] == []


def test_glossary_entries_have_all_their_spellings():
    page = "```{glossary}\nrollout\nrollouts\n  Completions.\n\nOPD\n  Distillation.\n```\n"
    assert glossary_terms(page) == [["rollout", "rollouts"], ["OPD"]]
    there = glossary_terms((ROOT / "book" / "pages" / "glossary.md").read_text())
    spellings = [spelling for entry in there for spelling in entry]
    assert len(there) >= 45
    assert len(spellings) == len(set(spellings))


def test_docstrings_become_markup_only_where_they_mean_it():
    made = to_rest("The `eta` of |a − b| ≤ η * max.\n\nw_0, w_t: (..., m, n), all `mix`es of W_.")
    assert made == (
        "The ``eta`` of \\|a − b\\| ≤ η \\* max.\n\n**w_0, w_t**: (..., m, n), all ``mix``\\ es of W\\_."
    )


def test_every_module_has_a_place_in_the_reference(tmp_path):
    reference_pages(tmp_path / "api")
    pages = {path.stem: path.read_text() for path in (tmp_path / "api").iterdir()}
    assert len(pages) == len(ROOMS) + 2
    assert "paper_lib.geometry.sparsity" in pages["geometry"]
    assert "[`geometry.sparsity`](#module-geometry-sparsity)" in pages["index"]


def test_a_run_passes_the_files_of_six_stages_on_its_way_to_figure_4(tmp_path):
    stages = walk()
    assert list(stages) == list(STAGES)
    passed = [module for modules in stages.values() for module in modules]
    assert len(passed) == len(set(passed)) <= 40
    assert stages["its profile"][0] == "paper_lib.study.profiles"
    order = [
        passed.index(f"paper_lib.{name}") for name in ("training.train", "measure.matrix", "figures.save")
    ]
    assert order == sorted(order)
    reference_pages(tmp_path / "api")
    for page, anchor in re.findall(r'<a href="(api/\w+)\.html#(module-[\w-]+)"', drawing()):
        assert f"({anchor})=" in (tmp_path / f"{page}.md").read_text()


def test_the_ledger_has_a_place_for_each_claim(tmp_path):
    claims = (ROOT / "figures" / "reference" / "claims.md").read_text(encoding="utf-8")
    labels = re.findall(r"^\(claim-(\w+)\)=\n### \1\. ", ledger(claims), flags=re.MULTILINE)
    assert len(labels) >= 21
    short = verdicts(ROOT / "figures" / "reference" / "claims.csv")
    assert [sum(map(int, re.findall(r"(\d+) [a-z]", line))) for line in short.splitlines()[2:]] == [17, 17]


def test_badges_need_a_repository():
    assert "](" not in badges(["01_train"], "")
    made = badges(["01_train"], "someone/companion")
    assert "mybinder.org/v2/gh/someone/companion/" in made
    assert "/github/someone/companion/blob/gh-pages/colab/01_train.ipynb" in made


def test_notebooks_for_colab_fetch_the_project_first(tmp_path):
    sources = notebook_sources(ROOT / "notebooks")
    for_colab(sources, tmp_path / "colab", "someone/companion")
    made = sorted((tmp_path / "colab").iterdir())
    assert [path.stem for path in made] == [source.stem for source in sources]
    notebook = nbformat.read(made[0], as_version=4)
    nbformat.validate(notebook)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "git clone" in first.source
    assert "someone/companion" in first.source
    for path in made:
        assert 'profile: str = "reference"' in path.read_text().replace('\\"', '"')
