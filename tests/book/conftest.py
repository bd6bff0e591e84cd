"""The built book in a browser that has no network."""

from collections.abc import Iterator

import pytest
from browsers import DESKTOP, SITE, find_chromium
from playwright.sync_api import Browser, BrowserContext, sync_playwright


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
