"""The decks of slides: made of the notebooks' cells, complete, and open without a network."""

import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from browsers import find_chromium
from executed import SAVES
from playwright.sync_api import sync_playwright
from slides import LECTURE, TIMETABLE, lecture, topics_of, write_decks

from paper_lib.figures.execute import notebook_sources
from paper_lib.ground.errors import CompanionError

ROOT = Path(__file__).parents[2]
CHROMIUM = find_chromium()
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
SHOWN = ["02_extract", "03_sparsity", "04_pca", "05_locking", "06_controls"]
v4 = nbformat.v4


def as_executed(source: Path) -> nbformat.NotebookNode:
    """The notebook with a dot for every figure, and a line for every other cell that is shown."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "3"},
        "language_info": {"name": "p"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code" and SAVES.search(cell.source):
            cell.outputs = [v4.new_output("display_data", {"image/png": PNG})]
        elif cell.cell_type == "code":
            cell.outputs = [v4.new_output("stream", name="stdout", text="printed\n")]
    return notebook


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the decks, and how many slides each is said to have."""
    folder = tmp_path_factory.mktemp("slides")
    for source in notebook_sources(ROOT / "notebooks"):
        nbformat.write(as_executed(source), folder / f"{source.stem}.ipynb")
        for name in SAVES.findall(source.read_text(encoding="utf-8")):
            about = {"caption": f"What {name} is < 1.", "alt": f"How {name} looks."}
            (folder / f"{name}.json").write_text(json.dumps(about))
            (folder / f"{name}.png").write_bytes(b"a picture")
    return folder / "out", write_decks(folder, folder, folder / "out")


def slide(text: str, kind: str) -> nbformat.NotebookNode:
    return v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


@pytest.mark.slow
def test_every_chosen_notebook_has_a_deck_and_the_lecture_has_every_row(made):
    out, slides = made
    assert list(slides) == [*SHOWN, LECTURE]
    text = (out / f"{LECTURE}.html").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+–\d+ \|.*", TIMETABLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    figures = re.findall(r"`(\w+)`", " ".join(row.split("|")[2] for row in rows))
    assert len(figures) == 7
    places = [text.index(f"How {figure} looks.") for figure in figures]
    assert places == sorted(places)
    assert slides[LECTURE] > len(rows) + len(figures)
    for row in rows:
        assert row.split("|")[1].strip() + " minutes" in text


@pytest.mark.slow
def test_a_deck_shows_no_code_and_no_link_into_the_book_and_its_files_lie_beside_it(made):
    out, slides = made
    for deck in slides:
        text = (out / f"{deck}.html").read_text(encoding="utf-8")
        assert "results.save(" not in text
        assert "What fig" in text or deck == "02_extract"
        links = re.findall(r'<(?:a|img|link|script|iframe)\b[^>]*? (?:src|href)="([^"]+)"', text)
        files = [link for link in links if not link.startswith("data:")]
        assert len(files) >= 5
        assert all((out / file).is_file() for file in files)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_deck_opens_without_a_network_and_no_slide_is_taller_than_the_screen(made):
    out, slides = made
    heard = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True).new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(request.url))
        page.on("request", lambda asked: heard.append(asked.url) if asked.url.startswith("http") else None)
        for deck, count in slides.items():
            page.goto((out / f"{deck}.html").as_uri())
            page.wait_for_function("window.Reveal && Reveal.isReady()")
            page.evaluate("MathJax.startup.promise.then(() => true)")
            assert page.evaluate("Reveal.getTotalSlides()") == count
            assert page.locator("mjx-container").count()
            heights = page.evaluate(
                """Reveal.getSlides().map(slide => {
                    const place = Reveal.getIndices(slide);
                    Reveal.slide(place.h, place.v);
                    return slide.scrollHeight;
                })"""
            )
            assert max(heights) <= 700, deck
    assert heard == []


def test_a_lecture_asks_before_it_shows_and_keeps_the_outcome_for_the_speaker():
    topics = [[slide("A claim of\nfive words.", "slide"), slide("A reading.", "notes")]]
    cells = lecture('| 0–90 | 03: "claim of five" | Is it so? | It is |', topics)
    kinds = [cell.metadata.slideshow.slide_type for cell in cells]
    assert kinds == ["slide", "slide", "notes", "subslide", "notes"]
    assert "Is it so?" in cells[1].source
    assert cells[2].source == "It is"
    assert topics[0][0].metadata.slideshow.slide_type == "slide"


@pytest.mark.parametrize("named", ["`fig_rounding_null`", '"a phrase"'])
def test_a_lecture_that_names_what_no_slide_has_is_refused(named):
    with pytest.raises(CompanionError, match=r"names .*, which 0 topics"):
        lecture(f"| 0–90 | 03: {named} | Is it so? | It is |", [[slide("A claim.", "slide")]])


def test_a_notebook_whose_slides_do_not_open_with_one_is_refused():
    with pytest.raises(CompanionError, match="no slide: 'A reading"):
        topics_of(v4.new_notebook(cells=[slide("A reading.", "notes")]))


def test_slides_are_never_written_over_another_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no slides in it"):
        write_decks(tmp_path, tmp_path, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
