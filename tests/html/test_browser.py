"""The page in a real browser: sorted, filtered, slid, stepped through, and never a word of complaint."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore.html import Column, PageTable, Row, write_page
from tests.html.browser import chromium, opened, started
from tests.html.test_write import HOSTILE

pytest.importorskip("playwright.sync_api", reason="no playwright here")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

COLUMNS = [Column("psnr", "PSNR (dB)", "higher", 2), Column("lpips", "LPIPS", "lower", 4)]
INF = float("inf")
#: name, psnr, lpips, group, note
FACTS = [
    ("picture 10", 30.0, 0.3, "noise", ""),
    ("picture 9", 20.0, None, "noise", "LPIPS: smaller than 31 px"),
    ("picture 2", INF, 0.0, "holes", "identical"),
    ("Zebra", None, 0.5, "holes", "cannot be read"),
    ("apple", 25.5, 0.1, "holes", ""),
]


def noise(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def rows() -> Iterator[Row]:
    hole = np.zeros((90, 120), bool)
    hole[20:40, 30:60] = True
    for number, (name, psnr, lpips, group, note) in enumerate(FACTS):
        scores = {key: score for key, score in (("psnr", psnr), ("lpips", lpips)) if score is not None}
        pictures = {"damaged": noise(number), "restored": noise(number + 50), "true": noise(number + 100)}
        yield Row(name, scores, {} if name == "Zebra" else pictures, hole, note, group)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "a page & more"
    tables = [
        PageTable("Scores", ["metric", "mean"], [["PSNR", "25.17"]]),
        PageTable("How", ["score", "convention"], [["PSNR", "all channels"]], folded=True),
    ]
    return write_page(folder, title="Test", rows=rows(), columns=COLUMNS, tables=tables, reference="true")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as running:
        yield running


@pytest.fixture
def page(browser: Any, index: Path) -> Iterator[Any]:
    """At the end of every test: no complaint in the console, and no request but for the page's own files."""
    with opened(browser, index) as loaded:
        yield loaded
        assert loaded.complaints == []
        assert all(url.startswith(index.parent.as_uri() + "/") for url in loaded.requests if url != "data:,")


def names(page: Any) -> list[str]:
    return page.locator("#body .name").all_text_contents()  # what is not on the screen has no inner text


def shown_images(page: Any) -> dict[str, str]:
    return {side: page.get_attribute(f"#{side}", "src") for side in ("over", "under")}


def becomes_true(page: Any, expression: str, arg: object = None, seconds: float = 20) -> bool:
    """Whether a JavaScript expression becomes true in time. Playwright's own waiting polls inside the page, by `eval`,
    which the page's security policy forbids.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if page.evaluate(expression, arg):
            return True
        page.wait_for_timeout(20)
    return False


def is_drawn(page: Any, image: str) -> bool:
    return becomes_true(page, f"document.querySelector('{image}').naturalWidth > 0")


def focused(page: Any, name: str) -> bool:
    """Waits: closing a dialog first gives the focus back to where it was, and then the page moves it on."""
    return becomes_true(page, "name => document.activeElement.textContent === name", name)


def position(page: Any) -> int:
    return int(page.get_attribute("#slider", "aria-valuenow"))


def open_first(page: Any) -> None:
    page.click("#body .row:first-child .name")


def test_table_histograms_and_rows_are_there(page: Any) -> None:
    assert page.inner_text("figure.table") == "Scores\nmetric\tmean\nPSNR\t25.17"
    assert page.is_hidden("details td >> nth=0")
    page.click("summary")
    assert page.inner_text("details td >> nth=1") == "all channels"
    assert page.locator(".histogram").count() == 2
    assert "1 × ∞, 1 without a value" in page.inner_text(".histogram >> nth=0")
    assert names(page) == [name for name, *_ in FACTS]
    cells = page.locator("#body .row:nth-child(3) .value").all_text_contents()
    assert cells == ["∞", "0.0000"]
    assert page.text_content("#body .row:nth-child(2) .note") == "LPIPS: smaller than 31 px"


def test_rows_sort_worst_first_and_what_is_no_number_stays_last(page: Any) -> None:
    psnr = page.locator("#head [data-key='0']")
    button = psnr.locator("button")
    button.click()
    assert psnr.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["picture 9", "apple", "picture 10", "picture 2", "Zebra"]
    button.press("Enter")
    assert psnr.get_attribute("aria-sort") == "descending"
    assert names(page) == ["picture 10", "apple", "picture 9", "picture 2", "Zebra"]
    button.press("Space")
    assert psnr.get_attribute("aria-sort") == "none"
    assert names(page) == [name for name, *_ in FACTS]
    page.click("#head [data-key='1'] button")
    assert names(page) == ["Zebra", "picture 10", "apple", "picture 2", "picture 9"]
    page.click("#head [data-key='name'] button")
    assert names(page) == ["apple", "picture 2", "picture 9", "picture 10", "Zebra"]


def test_rows_filter_by_words_of_name_note_and_group(page: Any) -> None:
    page.fill("#filter", "PICTURE noise")
    assert names(page) == ["picture 10", "picture 9"]
    assert page.inner_text("#shown") == "2 of 5"
    page.fill("#filter", "identical")
    assert names(page) == ["picture 2"]
    page.fill("#filter", "nowhere")
    assert page.is_visible("#empty")
    page.fill("#filter", "")
    page.select_option("#group", "holes")
    assert names(page) == ["picture 2", "Zebra", "apple"]
    page.click("#head [data-key='name'] button")
    assert names(page) == ["apple", "picture 2", "Zebra"]
    assert page.inner_text(".histogram >> nth=0 >> .axis .mean") == "mean 25.50"


def test_the_slider_follows_pointer_and_keys(page: Any) -> None:
    open_first(page)
    assert is_drawn(page, "#over")
    assert is_drawn(page, "#under")
    assert position(page) == 50
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60, steps=4)
    assert position(page) == 25
    width = page.locator("#slider").bounding_box()["x"] - box["x"]
    assert width == pytest.approx(box["width"] * 0.25, abs=2)
    page.mouse.move(box["x"] - 300, box["y"])
    page.mouse.up()
    assert position(page) == 0
    page.mouse.move(box["x"] + 100, box["y"])
    assert position(page) == 0, "it has been let go"
    for key, at in (("ArrowRight", 1), ("Shift+ArrowRight", 11), ("ArrowLeft", 10), ("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert position(page) == at
    clip = page.evaluate("getComputedStyle(document.getElementById('over')).clipPath")
    assert clip == "inset(0px 100% 0px 0px)"


def test_any_two_pictures_can_be_compared(page: Any) -> None:
    open_first(page)
    assert shown_images(page) == {"over": "images/000001-0.png", "under": "images/000001-1.png"}
    page.select_option("#right", "true")
    assert shown_images(page)["under"] == "images/000001-2.png"
    page.select_option("#left", "restored")
    assert shown_images(page)["over"] == "images/000001-1.png"
    page.keyboard.press("s")
    assert shown_images(page) == {"over": "images/000001-2.png", "under": "images/000001-1.png"}
    page.keyboard.press("1")
    assert shown_images(page)["over"] == "images/000001-0.png"
    page.keyboard.press("Shift+Digit1")
    assert shown_images(page) == {"over": "images/000001-1.png", "under": "images/000001-0.png"}, "changed places"
    page.keyboard.press("j")
    assert shown_images(page) == {"over": "images/000002-1.png", "under": "images/000002-0.png"}, "the choice stays"


def test_error_map_and_outline_are_toggles(page: Any) -> None:
    open_first(page)
    page.select_option("#right", "true")
    assert page.is_hidden("#legend")
    page.keyboard.press("e")
    assert shown_images(page) == {"over": "images/000001-e0.png", "under": "images/000001-2.png"}
    assert is_drawn(page, "#over")
    assert page.evaluate("document.getElementById('over').style.filter") == 'url("#heat")'
    assert page.evaluate("document.getElementById('under').style.filter") == "none"
    assert page.inner_text("#left-tag") == "|damaged − true|"
    assert "64 or more of 255 levels" in page.inner_text("#legend")
    page.select_option("#gain", label="16")
    assert "16 or more of 255 levels" in page.inner_text("#legend")
    page.click("#error")
    assert shown_images(page)["over"] == "images/000001-0.png"
    assert page.is_hidden("#hole")
    page.keyboard.press("o")
    assert page.is_visible("#hole")
    assert is_drawn(page, "#hole")
    page.keyboard.press("j")
    assert page.get_attribute("#hole", "src") == "images/000002-m.png", "it stays on"


def test_error_maps_are_drawn_in_colours(page: Any) -> None:
    """Of two noises the difference is all over the scale: warm colours must be on the screen."""
    from io import BytesIO

    from PIL import Image

    open_first(page)
    page.select_option("#right", "true")
    page.keyboard.press("e")
    page.keyboard.press("End")
    page.wait_for_timeout(200)
    seen = np.asarray(Image.open(BytesIO(page.locator("#canvas").screenshot())).convert("RGB")).reshape(-1, 3)
    assert (np.abs(seen.astype(int) - (252, 255, 165)).max(axis=1) < 12).mean() > 0.3, "64 levels and more"


def test_the_keyboard_goes_through_pictures_in_the_order_of_the_list(page: Any) -> None:
    page.click("#head [data-key='name'] button")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert focused(page, "picture 2")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-name") == "apple"
    assert page.inner_text("#position") == "1 of 5"
    assert page.is_disabled("#previous")
    for key, name in (("k", "apple"), ("ArrowDown", "picture 2"), ("j", "picture 9"), ("ArrowUp", "picture 2")):
        page.keyboard.press(key)
        assert page.inner_text("#viewer-name") == name
    for _ in range(5):
        page.keyboard.press("j")
    assert page.inner_text("#viewer-name") == "Zebra"
    assert page.is_visible("#nothing"), "it has no pictures"
    page.keyboard.press("Escape")
    assert page.is_hidden("#viewer")
    assert focused(page, "Zebra")


def test_the_question_mark_shows_the_keys_everywhere(page: Any) -> None:
    for _ in range(2):
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        page.keyboard.press("?")
        assert page.is_hidden("#keys")
        open_first(page) if page.is_hidden("#viewer") else None
    page.keyboard.press("Escape")
    # Closing the viewer moves the focus to its row a moment later; only then may the next key move it on.
    assert becomes_true(page, "location.hash === '' && document.activeElement.closest('#body .row') !== null")
    page.keyboard.press("/")
    assert becomes_true(page, "document.activeElement.id === 'filter'")
    page.keyboard.type("?j")
    assert becomes_true(page, "document.getElementById('filter').value === '?j'"), "in the filter they are letters"


def test_zoom_shows_a_pixel_as_a_pixel(page: Any) -> None:
    open_first(page)
    sizes = []
    for _ in range(4):
        sizes.append(page.locator("#canvas").bounding_box()["width"])
        page.keyboard.press("z")
    assert sizes[1:] == [120, 240, 480]
    assert sizes[0] == 480, "no more than four times as large"


def test_a_large_picture_shows_a_detail_at_full_size_that_can_be_moved_about(browser: Any, tmp_path: Path) -> None:
    large = np.full((1700, 2000, 3), 90, np.uint8)
    other = large.copy()
    other[1500:1600, 1500:1600] = 200
    given = [Row("large", {}, {"a": other, "b": large})]
    index = write_page(tmp_path / "p", title="Large", rows=given, columns=COLUMNS, reference="b")
    with opened(browser, index, hash="#1") as page:
        assert page.locator("#view option").all_text_contents() == [
            "whole, 2000×1700 at 80 %", "crop at 100 %, 800×800",
        ]  # fmt: skip
        assert shown_images(page)["over"] == "images/000001-0.jpg"
        page.keyboard.press("v")
        assert shown_images(page)["over"] == "images/000001-d0.jpg"
        page.select_option("#zoom", "4")
        assert page.locator("#canvas").bounding_box()["width"] == 3200
        at = page.evaluate("[stage.scrollLeft, stage.scrollTop]")
        box = page.locator("#stage").bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 300)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 260)
        page.mouse.up()
        assert page.evaluate("[stage.scrollLeft, stage.scrollTop]") == [at[0] + 100, at[1] + 40]
        assert position(page) == 50, "away from the border one moves the picture"
        assert page.complaints == []


def test_a_picture_has_an_address(browser: Any, index: Path) -> None:
    with opened(browser, index, hash="#3") as page:
        assert page.inner_text("#viewer-name") == "picture 2"
        page.keyboard.press("k")
        assert page.evaluate("location.hash") == "#2"
        page.keyboard.press("Escape")
        assert becomes_true(page, "location.hash === ''")
        assert page.complaints == []


def test_light_and_dark(browser: Any, index: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, index, color_scheme="light") as page:
        light = page.evaluate(ground)
        page.click("#theme")
        assert (page.inner_text("#theme"), page.evaluate(ground)) == ("Theme: light", light)
        page.keyboard.press("t")
        dark = page.evaluate(ground)
        assert dark != light
        page.reload()
        assert page.evaluate(ground) == dark, "the choice is remembered"
    with opened(browser, index, color_scheme="dark") as page:
        assert page.evaluate(ground) == dark


def test_a_finger_slides_and_a_phone_shows_all(browser: Any, index: Path) -> None:
    with opened(browser, index, width=360, height=740, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.tap("#body .row:first-child .name")
        box = page.locator("#canvas").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 20)
        assert position(page) == 75
        assert page.complaints == []


def test_hostile_names_are_shown_and_do_nothing(browser: Any, tmp_path: Path) -> None:
    given = [Row(name, {}, {name or "none": noise(1)}, note=name, group=name) for name in HOSTILE]
    index = write_page(
        tmp_path / "p", title=HOSTILE[2], rows=given, columns=[Column("x", HOSTILE[1], "higher", 2)],
        tables=[PageTable(HOSTILE[1], [HOSTILE[2]], [HOSTILE])], notes=HOSTILE, reference=HOSTILE[1],
    )  # fmt: skip
    with opened(browser, index) as page:
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        shown = page.locator("#body .name").all_text_contents()
        assert shown[:4] == HOSTILE[:4]
        assert shown[4] == r"line\nbreak\ttab\r\x00"
        for number in range(len(HOSTILE)):
            page.click(f"#body .row:nth-child({number + 1}) .about")
            assert page.locator("#viewer-name").text_content() == shown[number]
            page.keyboard.press("Escape")
        page.select_option("#group", HOSTILE[3])
        assert page.locator("#body .name").all_text_contents() == [HOSTILE[3]]
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert page.complaints == []


def test_a_thousand_rows_load_what_is_on_the_screen(browser: Any, tmp_path: Path) -> None:
    picture = noise(0, 30, 40)
    given = (Row(f"{n:04d}", {"psnr": float(n)}, {"a": picture}) for n in range(1000))
    index = write_page(tmp_path / "p", title="Many", rows=given, columns=COLUMNS)
    with opened(browser, index) as page:
        page.wait_for_timeout(300)
        assert page.locator("#body .row").count() == 1000
        pictures = [url for url in page.requests if "/images/" in url]
        assert 1 <= len(pictures) < 60
        assert all("-t." in url for url in pictures), "thumbnails alone"
        assert page.evaluate("getComputedStyle(document.querySelector('#body .row')).contentVisibility") == "auto"
        page.click("#head [data-key='0'] button")
        page.click("#head [data-key='0'] button")
        assert names(page)[0] == "0999"
        page.fill("#filter", "0500")
        assert names(page) == ["0500"]
        assert page.complaints == []


def test_all_images_side_by_side_to_choose_from(page: Any) -> None:
    open_first(page)
    page.keyboard.press("a")
    choices = page.locator("#gallery button")
    assert choices.all_inner_texts() == ["damaged", "restored", "true"]
    assert page.is_hidden("#canvas")
    assert becomes_true(page, "[...document.querySelectorAll('#gallery img')].every((image) => image.naturalWidth > 0)")
    page.keyboard.press("j")
    assert choices.count() == 3, "the choice to see all stays from row to row"
    choices.nth(2).click()
    assert page.is_visible("#canvas")
    assert page.input_value("#right") == "true"
    assert choices.count() == 0
