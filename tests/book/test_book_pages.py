"""Every page of the built book, opened once without a network: make check-book."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import numpy as np
import pytest
from browsers import DESKTOP, SITE, typeset
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page

pytestmark = pytest.mark.site

PHONE, TABLET = {"width": 400, "height": 800}, {"width": 1100, "height": 800}


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
        typeset(page)
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


def _contents(page: Page) -> tuple[list[str], set[str], list[tuple[str, str | None]]]:
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))")
    anchors = page.evaluate("[...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name)")
    pictures = page.evaluate(
        "[...document.images].map(image => [image.getAttribute('src'), image.getAttribute('alt')])"
    )
    return links, set(anchors), [tuple(picture) for picture in pictures]


def test_every_page_opens_without_complaint_or_request(visits):
    assert len(visits) > 20
    assert {page: visit.trouble for page, visit in visits.items() if visit.trouble} == {}


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


def test_each_figure_has_its_data_below_it(visits):
    said = [link for visit in visits.values() for link in visit.links if link.endswith(".csv")]
    assert len(said) == len({path.stem for path in (SITE / "data").glob("*.csv")}) >= 25


def test_the_figures_say_their_numbers(visits):
    """Captions alone would not do: a reader who sees no picture gets the values."""
    for page in [name for name in visits if re.match(r"notebooks/0[1-8]", name)]:
        figures = [alt for source, alt in visits[page].pictures if "_images" in source]
        assert figures or "02_" in page
        for alt in figures:
            assert len(re.findall(r"\d", alt)) >= 4, f"{page}: {alt}"


def test_no_page_is_wider_than_the_screen(visits):
    assert {page: visit.too_narrow for page, visit in visits.items() if visit.too_narrow} == {}
