"""The page while something is in work, and when a photograph changes on the disk, in a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.html.browser import chromium
from tests.serve.page_server import OpenFolder, becomes_true, is_open, opened_folder, page_at

pytest.importorskip("playwright.sync_api", reason="no playwright here")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

#: Collects what the page says of its work.
WATCH = """() => {
    window.texts = [];
    const text = document.getElementById("work-text");
    new MutationObserver(() => window.texts.push(text.textContent)).observe(text, { childList: true });
}"""


def write(path: Path, seed: int, size: tuple[int, int] = (160, 240)) -> None:
    """Write a texture in one go, as programs do that save a file."""
    texture = np.random.default_rng(seed).integers(0, 90, (*size, 3))
    temporary = path.with_suffix(".new")
    Image.fromarray((texture + 60 + seed * 20).astype(np.uint8)).save(temporary, "PNG")
    os.replace(temporary, path)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFolder]:
    base = tmp_path_factory.mktemp("work")
    folder = base / "photographs"
    folder.mkdir()
    for name in ("disk.png", "fill.png"):
        write(folder / name, 1)
    with opened_folder(folder, base / "work") as running:
        yield running


def test_what_takes_long_is_said(browser: Any, opened: OpenFolder) -> None:
    show = """async (message) => {
        const { Work } = await import("/assets/work.js");
        new Work(() => {}).show("Repairing", null, "running", message);
        return document.getElementById("work-text").textContent;
    }"""
    with page_at(browser, opened.url) as page:
        assert page.evaluate(show, "reading") == "Repairing…"
        assert page.evaluate(show, "preparing photo for OpenVINO, once") == "Preparing photo for OpenVINO, once…"


def paint_in_the_middle(page: Any, opened: OpenFolder, name: str) -> None:
    box = page.locator("#stage").bounding_box()
    page.evaluate(
        "() => { const s = document.getElementById('size'); s.value = 100 * Math.log(50) / Math.log(2000);"
        " s.dispatchEvent(new Event('input')); }"
    )
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    masks = opened.page.session.workspace.masks
    for _ in range(200):
        if not masks.is_empty(opened.id(name)):
            return
        page.wait_for_timeout(50)
    raise AssertionError("nothing was painted")


def test_another_fill_looks_otherwise_and_work_is_told_in_percent(browser: Any, opened: OpenFolder) -> None:
    file = opened.id("fill.png")
    with page_at(browser, f"{opened.url}#/{file}") as page:
        assert is_open(page)
        paint_in_the_middle(page, opened, "fill.png")
        page.evaluate(WATCH)
        page.keyboard.press("Shift+R")
        assert becomes_true(page, "!document.getElementById('result-panel').hidden", 120)
        assert becomes_true(page, "document.getElementById('work').hidden")
        shares = [int(found[1]) for text in page.evaluate("texts") if (found := re.search(r"(\d+) %", text))]
        assert len(shares) > 3, "a person sees how far it is"
        first = opened.page.session.workspace.row(file)["result"]
        tiles = [opened.page.session.tiles(file, "repaired").read(0, 0, 0)]
        page.click("#another-fill")
        assert becomes_true(page, "document.getElementById('recipe-seed').value === '1'")
        result = f"fetch('/page/files/{file}').then((r) => r.json()).then((f) => f.result?.revision)"
        assert becomes_true(page, f"{result}.then((revision) => revision && revision !== {first})", 120)
        assert becomes_true(page, "document.getElementById('work').hidden")
        tiles.append(opened.page.session.tiles(file, "repaired").read(0, 0, 0))
        assert tiles[0] != tiles[1]
        page.keyboard.press("Control+s")
        assert becomes_true(page, "document.getElementById('saved').textContent.startsWith('Saved to')")
        assert b"seed 1" in (opened.output / "fill.png").read_bytes()
        page.select_option("#recipe-model", "telea")
        assert becomes_true(page, "document.getElementById('another-fill').disabled"), "it fills in one way"


def test_a_photograph_that_changes_on_the_disk_is_shown_anew_with_its_mask(browser: Any, opened: OpenFolder) -> None:
    file = opened.id("disk.png")
    with page_at(browser, f"{opened.url}#/{file}") as page:
        assert is_open(page)
        paint_in_the_middle(page, opened, "disk.png")
        mask = opened.mask(file)
        ground = "[...document.getElementById('ground').getContext('2d').getImageData(300, 300, 1, 1).data].join()"
        before = page.evaluate(ground)
        write(opened.folder / "disk.png", 6)
        page.evaluate("dispatchEvent(new Event('focus'))")
        told = "document.getElementById('messages').textContent"
        assert becomes_true(page, f"{told}.includes('has changed on the disk') && {told}.includes('mask is kept')")
        assert becomes_true(page, f"{ground} !== '{before}'")
        assert (opened.mask(file) == mask).all()
        assert is_open(page)

        write(opened.folder / "disk.png", 3, (150, 240))
        page.keyboard.press("Shift+R")  # without a look at it first
        assert becomes_true(page, f"{told}.includes('Its size has changed, so the mask is gone')")
        assert page.inner_text("#subtitle") == "240×150"
        assert not opened.mask(file).any()
        page.complaints[:] = [one for one in page.complaints if "status of 4" not in one and "willRead" not in one]
