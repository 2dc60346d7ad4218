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
def started() -> Iterator[Any]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    # In a container the browser has no namespaces of its own to lock itself into, and may have little /dev/shm.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Any, index: Path, *, hash: str = "", width: int = 1280, height: int = 900, **how: Any
) -> Iterator[Any]:
    """A page that has loaded, with `page.requests` (addresses) and `page.complaints`; the profile is new and empty.

    Args:
        browser: from `started`.
        index: the file.
        hash: end of the address.
        width, height: of the window, CSS pixels.
        how: further options of the browser's context, like `color_scheme`.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    try:
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(index.absolute().as_uri() + hash)
        yield page
    finally:
        context.close()
