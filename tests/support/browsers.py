"""The browser that pages are tried in, and how long it may take to show what a test waits for."""

import shutil

from playwright.sync_api import expect

expect.set_options(timeout=120_000)


def find_chromium() -> str | None:
    """Where a Chromium is, under the names that .ci/browser looks for; None without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)
