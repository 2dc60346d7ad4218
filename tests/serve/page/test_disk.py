"""Files that change on the disk while the page has them open, and jobs that wait twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from restore import FixOptions, fix_folder
from restore.serve.app import create_app
from restore.serve.page.open import open_page
from restore.serve.settings import ServeSettings
from tests.serve.page.test_page import STROKE, TELEA, Page

SIZE = (96, 64)


def write(path: Path, value: int, size: tuple[int, int] = SIZE) -> None:
    """Write another image in one go, as programs do that save a file."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x + value, y + value, np.full_like(x, value)], axis=-1).astype(np.uint8)
    temporary = path.with_suffix(".new")
    Image.fromarray(pixels).save(temporary, "PNG")
    os.replace(temporary, path)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "a.png", 10)
    opened = open_page(folder, ServeSettings(work=tmp_path / "work", device="cpu", stop_seconds=1), warm=())
    with TestClient(
        create_app(settings=ServeSettings(device="cpu"), page=opened.routes), base_url="http://127.0.0.1"
    ) as client:
        yield Page(client, folder, opened)
    opened.close()


def test_a_file_that_changed_is_read_again_and_keeps_its_mask(page: Page) -> None:
    file = page.open("a.png")
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    page.post(f"files/{file}/mask/stroke", STROKE)
    mask = page.mask(file)
    assert page.wait(page.post(f"files/{file}/repair")["job"])["state"] == "done"
    before = page.get(f"files/{file}")

    write(page.folder / "a.png", 60)
    problem = page.post(f"files/{file}/repair", status=422)
    assert problem["detail"] == "the file has changed on the disk and is read again"
    assert page.open("a.png") == file
    detail = page.get(f"files/{file}")
    assert detail["original"]["revision"] != before["original"]["revision"]
    assert detail["result"] is None
    assert (page.mask(file) == mask).all()
    assert page.wait(page.post(f"files/{file}/repair")["job"])["state"] == "done"
    saved = Path(page.post(f"files/{file}/save")["path"])
    (page.folder.parent / "mask.png").write_bytes(page.get(f"files/{file}/mask.png"))
    options = FixOptions(masks=page.folder.parent / "mask.png")
    fix_folder(page.folder / "a.png", page.folder.parent / "own.png", "telea", options=options)
    assert saved.read_bytes() == (page.folder.parent / "own.png").read_bytes()

    write(page.folder / "a.png", 60, (80, 64))
    page.post(f"files/{file}/detect", status=422)
    page.open("a.png")
    detail = page.get(f"files/{file}")
    assert (detail["width"], detail["mask"]["empty"]) == (80, True)


def test_a_file_that_cannot_be_read_any_more_and_then_can_be_read_again(page: Page) -> None:
    file = page.open("a.png")
    whole = (page.folder / "a.png").read_bytes()
    (page.folder / "a.png").write_bytes(whole[:60])
    assert page.client.get(f"/page/files/{file}").status_code == 202
    for _ in range(200):
        if (answer := page.client.get(f"/page/files/{file}")).status_code != 202:
            break
        time.sleep(0.05)
    assert answer.status_code == 422
    write(page.folder / "a.png", 20)
    assert page.open("a.png") == file


def test_a_file_that_changes_while_it_is_repaired_is_not_taken_for_repaired(page: Page) -> None:
    file = page.open("a.png")
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    page.post(f"files/{file}/mask/stroke", STROKE)
    session = page.opened.session
    assert session is not None
    changed = []

    def change(event: str, what: dict) -> None:
        if event == "job" and what["task"] == "repair" and what["state"] == "running" and not changed:
            changed.append(write(page.folder / "a.png", 90))

    stop = session.listen(change)
    job = page.wait(page.post(f"files/{file}/repair")["job"])
    stop()
    assert changed
    assert (job["state"], job["problem"]["detail"]) == ("failed", "the image has changed since the repair began")
    page.open("a.png")
    assert page.get(f"files/{file}")["result"] is None


def test_of_several_repairs_that_wait_only_the_last_is_done(page: Page) -> None:
    file = page.open("a.png")
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    page.post(f"files/{file}/mask/stroke", STROKE)
    jobs = [page.post(f"files/{file}/repair")["job"] for _ in range(30)]
    states = [page.wait(job)["state"] for job in jobs]
    assert states[-1] == "done"
    assert states.count("cancelled") >= 27


def test_an_output_folder_that_has_become_a_file_is_named(page: Page) -> None:
    file = page.open("a.png")
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    page.post(f"files/{file}/mask/stroke", STROKE)
    assert page.wait(page.post(f"files/{file}/repair")["job"])["state"] == "done"
    page.opened.output.write_bytes(b"a file")
    problem = page.post(f"files/{file}/save", status=422)
    assert problem["detail"] == "is a file where a folder is needed"
    assert problem["where"] == str(page.opened.output)
    assert "remove or rename it" in problem["hint"]
    page.opened.output.unlink()
    page.post(f"files/{file}/save")
