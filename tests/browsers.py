"""The browser that pages are tried in."""

import shutil


def find_chromium() -> str | None:
    """Where a Chromium is, under the names that .ci/browser looks for; None without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)
