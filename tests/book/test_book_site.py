"""The built book works in a browser that has no network: make check-book."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import find_chromium
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

pytestmark = pytest.mark.site

SITE = Path(__file__).parents[2] / "build" / "book"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
TABLET = {"width": 1100, "height": 800}
SERIOUS = ("critical", "serious")
of_all_pages = pytest.mark.xdist_group("all pages")  # one process opens them, once


@dataclass
class Visit:
    """What a page was like: links and anchors as written, pictures as (address, alternative text), and the
    widths of the screens that it is wider than."""

    links: list[str]
    anchors: set[str]
    pictures: list[tuple[str, str | None]]
    trouble: list[str]
    too_narrow: list[int]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = find_chromium()
    assert found, "no Chromium here: bash .ci/browser installs one"
    assert (SITE / "index.html").is_file(), f"no book in {SITE}: make book builds it"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture
def offline(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=DESKTOP, offline=True)
    yield context
    context.close()


@pytest.fixture(scope="module")
def visits(browser: Browser) -> dict[str, Visit]:
    """Every page of the site, opened from disk with the network off."""
    context = browser.new_context(viewport=DESKTOP, offline=True)
    page, seen = context.new_page(), {}
    trouble: list[str] = []
    page.on("console", lambda message: trouble.extend(_complaint(message)))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("request", lambda request: trouble.extend(_abroad(request.url)))
    for path in sorted(SITE.rglob("*.html")):
        if "_static" in path.parts:
            continue
        trouble.clear()
        page.goto(path.as_uri(), wait_until="load")
        _typeset(page)
        name = path.relative_to(SITE).as_posix()
        code = name.startswith("_modules/")
        seen[name] = Visit(*_contents(page), list(trouble), [] if code else _too_narrow(page))
    context.close()
    return seen


def _too_narrow(page: Page) -> list[int]:
    """The widths of the screens that the page is wider than."""
    found = []
    for screen in (TABLET, PHONE, DESKTOP):
        page.set_viewport_size(screen)
        if page.evaluate("document.documentElement.scrollWidth") > screen["width"]:
            found.append(screen["width"])
    return found


def _complaint(message: ConsoleMessage) -> list[str]:
    return [message.text] if message.type in ("error", "warning") else []


def _abroad(address: str) -> list[str]:
    return [] if urlparse(address).scheme in ("file", "data", "blob") else [f"asked for {address}"]


def _typeset(page: Page) -> None:
    """Wait until MathJax, where the page has formulas, has set them."""
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise.then(() => true)")


def _contents(page: Page) -> tuple[list[str], set[str], list[tuple[str, str | None]]]:
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))")
    anchors = page.evaluate("[...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name)")
    pictures = page.evaluate(
        "[...document.images].map(image => [image.getAttribute('src'), image.getAttribute('alt')])"
    )
    return links, set(anchors), [tuple(picture) for picture in pictures]


@of_all_pages
def test_every_page_opens_without_complaint_or_request(visits):
    assert len(visits) > 20
    assert {page: visit.trouble for page, visit in visits.items() if visit.trouble} == {}


@of_all_pages
def test_every_internal_link_leads_somewhere(visits):
    broken = []
    for page, visit in visits.items():
        for link in visit.links:
            address, fragment = urldefrag(link)
            if urlparse(address).scheme or address.startswith("//"):
                continue
            target = (SITE / page).parent / unquote(address) if address else SITE / page
            target = target.resolve()
            if not target.is_file():
                broken.append(f"{page}: {link}")
            elif fragment and target.suffix == ".html":
                name = target.relative_to(SITE.resolve()).as_posix()
                if unquote(fragment) not in visits[name].anchors:
                    broken.append(f"{page}: {link}")
    assert broken == []


@of_all_pages
def test_every_picture_has_alternative_text_and_shows_something(visits):
    bare, blank = [], []
    for page, visit in visits.items():
        for source, alt in visit.pictures:
            if not alt or not alt.strip():
                bare.append(f"{page}: {source[:80]}")
            if _is_blank((SITE / page).parent, source):
                blank.append(f"{page}: {source[:80]}")
    assert bare == []
    assert blank == []


def _is_blank(folder: Path, source: str) -> bool:
    if source.endswith(".svg") or source.startswith("data:image/svg"):
        return False
    inline = re.match(r"data:image/\w+;base64,(.*)", source, flags=re.DOTALL)
    content = base64.b64decode(inline[1]) if inline else (folder / unquote(source)).read_bytes()
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return bool((pixels == pixels[0, 0]).all())


@of_all_pages
def test_each_figure_has_its_data_below_it(visits):
    said = [link for visit in visits.values() for link in visit.links if link.endswith(".csv")]
    assert len(said) == len({path.stem for path in (SITE / "data").glob("*.csv")}) >= 25


def test_the_claims_of_a_notebook_are_a_table(offline):
    page = offline.new_page()
    for name in ("03_sparsity", "04_pca", "05_locking", "06_controls"):
        page.goto((SITE / "notebooks" / f"{name}.html").as_uri())
        expect(page.locator("th", has_text=re.compile("^claim$")).first).to_be_visible()
        expect(page.locator("p", has_text="| claim |")).to_have_count(0)


@of_all_pages
def test_the_figures_say_their_numbers(visits):
    """Captions alone would not do: a reader who sees no picture gets the values."""
    for page in [name for name in visits if re.match(r"notebooks/0[1-8]", name)]:
        figures = [alt for source, alt in visits[page].pictures if "_images" in source]
        assert figures or "02_" in page
        for alt in figures:
            assert len(re.findall(r"\d", alt)) >= 4, f"{page}: {alt}"


def test_the_start_page_has_the_answer_and_four_doors(offline):
    page = offline.new_page()
    page.goto((SITE / "index.html").as_uri())
    assert page.locator("#what-we-found table tbody tr").count() == 6
    assert page.locator("#what-we-found ol > li").count() == 5
    assert page.locator(".figure-card img").count() == 4
    assert page.locator("#four-doors .sd-card").count() == 4


@pytest.mark.parametrize(("name", "least"), [("index", 4), ("figures", 25)])
def test_a_card_leads_to_its_figure(offline, name, least):
    page = offline.new_page()
    page.goto((SITE / f"{name}.html").as_uri())
    assert page.locator(".figure-card img").count() >= least
    page.locator(".figure-card").first.click()
    page.wait_for_url("**/notebooks/0*")
    page.locator(f"[id='{urldefrag(page.url)[1]}'] img").wait_for()


def test_the_first_mention_of_a_term_leads_to_the_glossary(offline):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "05_locking.html").as_uri())
    page.get_by_role("link", name="stable rank", exact=True).first.click()
    page.wait_for_url("**/glossary.html#term-stable-rank")
    assert page.url.endswith("glossary.html#term-stable-rank")
    expect(page.locator("#term-stable-rank")).to_be_visible()


@pytest.mark.parametrize("equation", ["stable_rank", "frobenius_norm", "hill_index"])
def test_each_equation_of_figure_4_is_one_click_from_its_code(offline, equation):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "05_locking.html").as_uri())
    page.get_by_role("link", name=f"spectra.{equation}", exact=True).first.click()
    page.wait_for_url(f"**/_modules/paper_lib/geometry/spectra.html#{equation}")
    expect(page.locator(f"#{equation}")).to_contain_text(f"def {equation}(")


@of_all_pages
def test_no_page_is_wider_than_the_screen(visits):
    assert {page: visit.too_narrow for page, visit in visits.items() if visit.too_narrow} == {}


@pytest.mark.parametrize(
    "name",
    [
        *("index", "figures", "findings", "data-reference", "glossary", "ledger", "teaching"),
        *("live", "notebooks/03_sparsity", "notebooks/06_controls"),
    ],
)
def test_pages_have_no_serious_barrier(offline, name):
    # Thousands of words of code have the same few colours on every page: one page shows them.
    parts = {} if name == "live" else {"exclude": [[".highlight"]]}
    page = offline.new_page()
    page.goto((SITE / f"{name}.html").as_uri())
    _typeset(page)
    found = Axe().run(page, parts).response["violations"]
    page.emulate_media(color_scheme="dark")
    contrast = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
    found += Axe().run(page, parts, contrast).response["violations"]
    serious = [
        f"{each['id']}: {node['target']} {node['failureSummary'][:200]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"][:3]
    ]
    assert serious == []


def test_the_rollout_viewer_works_without_a_kernel_and_by_keyboard(offline):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / "01_train.html").as_uri())
    view = page.locator('[data-view="rollout"]')
    tokens, shown = view.locator('[data-output="tokens"]'), view.locator('[data-output="alpha"]')
    before = tokens.inner_text()
    completion = view.locator('[data-control="completion"]')
    completion.select_option(index=(completion.evaluate("select => select.selectedIndex") + 1) % 8)
    expect(tokens).not_to_have_text(before, use_inner_text=True)
    view.locator('[data-control="alpha"]').focus()
    page.keyboard.press("Home")
    expect(shown).to_have_text(re.compile(r"^0(\.0*)?$"))
    assert float(shown.inner_text()) == 0
    at_zero = tokens.inner_text()
    page.keyboard.press("End")
    expect(shown).to_have_text(re.compile(r"^1(\.0*)?$"))
    assert float(shown.inner_text()) == 1
    expect(tokens).not_to_have_text(at_zero, use_inner_text=True)


@pytest.mark.parametrize("name", ["05_locking", "06_controls"])
def test_a_chart_to_play_with_works_without_a_kernel_and_by_keyboard(offline, name):
    page = offline.new_page()
    page.goto((SITE / "notebooks" / f"{name}.html").as_uri())
    view = page.locator('[data-view="chart"]').first
    said, first = view.locator('[data-output="said"]'), view.locator("[data-control]").first
    first.focus()
    heard = []
    for key in ("Home", "End"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        heard.append(said.inner_text())
    assert len(set(heard)) == 2
    expect(view.locator('[data-output="still"]')).to_be_hidden()
