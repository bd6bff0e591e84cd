"""The browser that pages are tried in, and how long it may take to show what a test waits for."""

import shutil
from pathlib import Path

from playwright.sync_api import Page, expect

expect.set_options(timeout=120_000)

SITE = Path(__file__).parents[2] / "build" / "book"
DESKTOP = {"width": 1280, "height": 900}


def find_chromium() -> str | None:
    """Where a Chromium is, under the names that .ci/browser looks for; None without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def typeset(page: Page) -> None:
    """Wait until MathJax, where the page has formulas, has set them."""
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise.then(() => true)")
