"""A headless Chromium that opens a page from the disk and remembers what it asked for and complained of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """Where a browser of this kind is on this machine; None without one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def opened(index: Path, *, width: int = 1280, height: int = 900, **context: Any) -> Iterator[Any]:
    """A page that has loaded, with `page.requests` and `page.complaints`; the profile is new and empty.

    Args:
        index: the file.
        width, height: of the window, CSS pixels.
        context: further options of the browser's context, like `color_scheme`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # In a container the browser has no namespaces of its own to lock itself into, and may have little /dev/shm.
        arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
            page.requests, page.complaints = [], []
            page.on("request", lambda request: page.requests.append(request))
            page.on("console", lambda message: page.complaints.append(message.text))
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
            page.goto(index.absolute().as_uri())
            page.requests_until_load = list(page.requests)
            yield page
        finally:
            browser.close()
