"""The page with photographs in unusual states: unreadable ones, and ones that were left in the middle of the work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.html.browser import chromium
from tests.processes import until
from tests.serve.page_server import OpenFolder, becomes_true, is_open, opened_folder, page_at
from tests.serve.test_page import pretend_found

pytest.importorskip("playwright.sync_api", reason="no playwright here")
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFolder]:
    base = tmp_path_factory.mktemp("states")
    folder = base / "photographs"
    folder.mkdir()
    texture = np.random.default_rng(0).integers(60, 150, (140, 200, 3)).astype(np.uint8)
    for name in ("a.png", "c.png"):
        Image.fromarray(texture).save(folder / name)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:9000])
    with opened_folder(folder, base / "work") as running:
        yield running


@pytest.fixture
def two(tmp_path: Path) -> Iterator[OpenFolder]:
    """A folder of two photographs whose thumbnails are made."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), "gray").save(folder / name)
    with opened_folder(folder, tmp_path / "work") as running:
        until(lambda: all(file["width"] for file in running.page.session.files()))
        yield running


def open_broken_after(page: Any, opened: OpenFolder, name: str) -> None:
    """Open a photograph, then the broken one."""
    page.evaluate(f"location.hash = '/{opened.id(name)}'")
    assert is_open(page)
    page.evaluate(f"location.hash = '/{opened.id('b.png')}'")
    assert becomes_true(page, "document.getElementById('preparing').textContent.includes('PNG')")
    page.complaints[:] = [one for one in page.complaints if "status of 4" not in one]


def test_an_unreadable_photograph_names_a_command_that_helps(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        open_broken_after(page, opened, "a.png")
        assert "restore fix --allow-truncated" in page.inner_text("#preparing")
        page.click("#back")
        reason = page.locator("[data-state=failed] .reason")
        assert reason.get_attribute("title") == reason.inner_text(), "what is cut off shows under the pointer"


def test_an_unreadable_photograph_leaves_the_mask_of_the_one_before_alone(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        open_broken_after(page, opened, "a.png")
        for button in ("grow", "shrink", "invert", "clear", "load-mask"):
            assert page.is_disabled(f"#{button}")
        assert page.is_hidden("#save-mask"), "it would save the mask of the other photograph"
        assert page.evaluate(
            """async () => {
                const { Mask } = await import("/assets/mask.js");
                const mask = new Mask({ pending: [] }, (error) => { throw error; }, () => {});
                mask.reset(null);
                return mask.apply("grow", { px: 3 });
            }"""
        ) is None  # fmt: skip
        page.wait_for_timeout(300)
        assert not [one for one in page.requests if "/mask/grow" in one]


def test_an_unreadable_photograph_is_no_dead_end(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        open_broken_after(page, opened, "a.png")
        page.keyboard.press("j")
        assert becomes_true(page, f"location.hash === '#/{opened.id('c.png')}'")
        assert is_open(page)
        page.keyboard.press("k")
        assert becomes_true(page, f"location.hash === '#/{opened.id('b.png')}'")
        page.click("#previous")
        assert becomes_true(page, f"location.hash === '#/{opened.id('a.png')}'")
        page.complaints[:] = [one for one in page.complaints if "status of 4" not in one]


def test_marks_that_have_not_joined_the_mask_are_there_after_a_reload(browser: Any, opened: OpenFolder) -> None:
    pretend_found(opened, "c.png")
    with page_at(browser, f"{opened.url}#/{opened.id('c.png')}") as page:
        for _ in range(2):
            assert is_open(page)
            assert page.get_attribute("#find", "aria-pressed") == "true"
            assert page.is_enabled("#found-add")
            page.reload()
        assert is_open(page)
        page.click("#found-add")
        assert becomes_true(page, "!document.getElementById('undo').disabled")
        page.reload()
        assert is_open(page)
        assert page.get_attribute("#find", "aria-pressed") == "false", "they are in the mask"


def test_a_stroke_under_way_does_not_count_for_the_next_photograph(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        waiting = page.evaluate(
            """async () => {
                const { Mask } = await import("/assets/mask.js");
                const file = (id) => ({ id, mask: { revision: 1, empty: true, undo: 0, redo: 0 } });
                const stage = { pending: [], layers: { mask: { renew() {}, renewTiles() {} } }, redraw() {} };
                const mask = new Mask(stage, () => {}, () => {});
                mask.reset(file(1));
                const sent = mask.enqueue(async () => ({ revision: 2, undo: 1, redo: 0, empty: false }));
                mask.reset(file(2));
                await sent;
                return mask.waiting;
            }"""
        )
        assert waiting == 0


def test_all_repairs_are_saved_at_once_and_other_files_are_asked_about(browser: Any, opened: OpenFolder) -> None:
    (opened.output).mkdir()
    (opened.output / "c.png").write_bytes(b"of somebody else")
    with page_at(browser, opened.url) as page:
        page.click("#save-all")
        assert "no unsaved repairs" in page.inner_text("#messages")
        page.evaluate(
            """() => fetch("/page/apply", {
                method: "POST", headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ recipe: { find: false, model: "telea" }, ids: %s }),
            })"""
            % [opened.id("a.png"), opened.id("c.png")]
        )
        assert becomes_true(page, "document.querySelectorAll('[data-state=repaired]').length === 2", 120)
        page.click("#save-all")
        assert becomes_true(page, "document.getElementById('ask').open")
        assert "c.png" in page.inner_text("#ask-text")
        assert (opened.output / "c.png").read_bytes() == b"of somebody else"
        assert (opened.output / "a.png").is_file()
        page.click("#ask-yes")
        assert becomes_true(page, "document.querySelectorAll('[data-state=saved]').length === 2")
        assert (opened.output / "c.png").read_bytes()[1:4] == b"PNG"
        page.complaints[:] = [one for one in page.complaints if "status of 4" not in one]


def test_work_that_a_new_server_does_not_know_is_told_in_words(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        told = page.evaluate(
            """async () => {
                const { finished } = await import("/assets/server.js");
                return finished("unknown").catch((error) => error.message);
            }"""
        )
        assert "has restarted" in told
        page.complaints[:] = [one for one in page.complaints if "status of 4" not in one]


def fail(opened: OpenFolder, name: str) -> None:
    """Have a photograph fail, as when a worker cannot read it."""
    opened.page.session.unreadable(opened.id(name), {"detail": "it is damaged", "code": "failed"})


REASON_OF_FIRST = "document.querySelector('#cards .reason')?.textContent"


def test_a_change_before_the_page_listens_is_shown(browser: Any, two: OpenFolder) -> None:
    with page_at(browser, two.url) as page:
        page.goto("about:blank")  # the page of before may not have begun to listen

        def late(route: Any) -> None:
            assert becomes_true(page, f"{REASON_OF_FIRST} === ''"), "the list has come"
            fail(two, "a.png")
            route.continue_()

        page.route("**/page/events", late)
        page.goto(two.url)
        assert becomes_true(page, f"{REASON_OF_FIRST} === 'it is damaged'")


def test_a_change_while_the_list_is_on_its_way_is_shown(browser: Any, two: OpenFolder) -> None:
    with page_at(browser, two.url) as page:
        page.goto("about:blank")  # no list of before is counted
        lists = 0

        def old(route: Any) -> None:
            nonlocal lists
            lists += 1
            answer = route.fetch()
            if lists == 2:  # that of the page that listens now
                fail(two, "b.png")
                page.wait_for_timeout(500)  # the event comes first
            route.fulfill(response=answer)

        page.route("**/page/files", old)
        page.goto(two.url)
        assert becomes_true(page, "document.querySelectorAll('#cards .reason')[1]?.textContent === 'it is damaged'")
        page.wait_for_timeout(500)
        assert page.locator("#cards .reason").nth(1).inner_text() == "it is damaged"
        assert lists == 2


def test_the_contact_sheet_says_when_the_server_does_not_answer(browser: Any, opened: OpenFolder) -> None:
    with page_at(browser, opened.url) as page:
        assert becomes_true(page, "document.getElementById('subtitle').textContent.includes('Click a photograph')")
        page.route("**/page/events", lambda route: route.abort())
        page.reload()
        assert becomes_true(page, "document.getElementById('subtitle').textContent.includes('does not answer')")
        page.unroute("**/page/events")
        assert becomes_true(page, "document.getElementById('subtitle').textContent.includes('Click a photograph')")
        page.complaints.clear()  # the browser's own, of the requests that failed
