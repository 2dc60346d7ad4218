"""Undo and redo in the page: what is shown is the server's mask, and earlier tiles are not fetched again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.html.browser import chromium
from tests.serve.page_server import OpenFolder, becomes_true, is_open, opened_folder, page_at

pytest.importorskip("playwright.sync_api", reason="no playwright here")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

#: Several tiles on two levels, of which the page shows the coarser one.
WIDTH, HEIGHT = 1500, 900
#: Where the mask is looked at, in image pixels.
STEP = 75

#: Whether the marks are shown at points of a grid: one digit each.
SHOWN = f"""() => {{
    const canvas = document.getElementById("marks"), place = document.getElementById("stage").getBoundingClientRect();
    const ratio = canvas.width / place.width;
    const scale = Math.min((place.width - 48) / {WIDTH}, (place.height - 48) / {HEIGHT});
    const left = (place.width - {WIDTH} * scale) / 2, top = (place.height - {HEIGHT} * scale) / 2;
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let shown = "";
    for (let y = {STEP // 2}; y < {HEIGHT}; y += {STEP}) {{
        for (let x = {STEP // 2}; x < {WIDTH}; x += {STEP}) {{
            const column = Math.floor((left + x * scale) * ratio), row = Math.floor((top + y * scale) * ratio);
            shown += all.data[4 * (row * all.width + column) + 3] > 127 ? "1" : "0";
        }}
    }}
    return shown;
}}"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFolder]:
    base = tmp_path_factory.mktemp("undo")
    folder = base / "photographs"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 120, np.uint8)).save(folder / name)
    with opened_folder(folder, base / "work") as running:
        yield running


def of_server(opened: OpenFolder, name: str) -> str:
    points = opened.mask(opened.id(name))[STEP // 2 :: STEP, STEP // 2 :: STEP]
    return "".join("1" if value > 127 else "0" for value in points.flat)


def shows_the_mask(page: Any, opened: OpenFolder, name: str) -> bool:
    """Whether the page comes to show the server's mask."""
    for _ in range(200):
        if page.evaluate(SHOWN) == of_server(opened, name):
            return True
        page.wait_for_timeout(50)
    return False


def without_readback(page: Any) -> None:
    """Forget that the browser warns of this test's own reading."""
    page.complaints[:] = [one for one in page.complaints if "willReadFrequently" not in one]


def do(page: Any, opened: OpenFolder, name: str, what: str) -> None:
    """Change the mask, and wait until the server has done so."""
    file = opened.id(name)
    before = opened.page.session.workspace.masks.state(file).revision
    if what.startswith("stroke"):
        box = page.locator("#stage").bounding_box()
        y = box["y"] + box["height"] * int(what[-1]) / 10
        page.mouse.move(box["x"] + box["width"] * 0.2, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
        page.mouse.up()
    else:
        page.click(f"#{what}")
    for _ in range(200):
        if opened.page.session.workspace.masks.state(file).revision != before:
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"{what}: nothing happened")


def test_what_is_shown_is_the_mask_after_every_step(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, f"{opened.url}#/{opened.id('a.png')}") as page:
        assert is_open(page)
        page.evaluate("document.getElementById('size').value = 60")
        page.evaluate("document.getElementById('size').dispatchEvent(new Event('input'))")
        states = set()
        for what in (
            "stroke3", "stroke5", "invert", "undo", "undo", "redo", "redo", "undo", "stroke7", "undo", "undo", "redo",
            "redo", "invert", "clear", "undo", "undo", "undo", "undo", "redo", "redo", "redo", "redo",
        ):  # fmt: skip
            do(page, opened, "a.png", what)
            assert shows_the_mask(page, opened, "a.png"), what
            states.add(of_server(opened, "a.png"))
        assert len(states) == 6  # empty, one stroke, two of two kinds, and two inverted ones
        without_readback(page)


def test_an_undone_step_is_shown_without_fetching_tiles(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, f"{opened.url}#/{opened.id('b.png')}") as page:
        assert is_open(page)
        do(page, opened, "b.png", "stroke5")
        assert shows_the_mask(page, opened, "b.png")
        page.wait_for_timeout(500)
        do(page, opened, "b.png", "invert")
        assert shows_the_mask(page, opened, "b.png")
        page.wait_for_timeout(500)
        before = len(page.requests)
        for what in ("undo", "redo", "undo"):
            do(page, opened, "b.png", what)
            assert shows_the_mask(page, opened, "b.png"), what
        page.wait_for_timeout(300)
        tiles = [one for one in page.requests[before:] if "/mask/1/" in one or "/mask/0/" in one]
        assert tiles == []
        # Another window paints: what this one remembers of its steps is no longer true.
        file = opened.id("b.png")
        page.evaluate(
            f"fetch('/page/files/{file}/mask/polygon', {{ method: 'POST', headers: {{ 'Content-Type':"
            " 'application/json' }, body: JSON.stringify({ points: [[0, 0], [1500, 0], [1500, 300], [0, 300]] }) })"
        )
        page.wait_for_timeout(500)
        for what in ("stroke7", "undo", "undo", "redo", "redo"):
            do(page, opened, "b.png", what)
            assert shows_the_mask(page, opened, "b.png"), what
        assert becomes_true(page, "document.getElementById('redo').disabled")
        without_readback(page)
