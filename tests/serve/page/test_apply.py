"""Work in the background: the recipe for all, its cancel, and the events that tell of it."""

from __future__ import annotations

import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from restore.serve.app import listen, make_server
from restore.serve.page.open import OpenedPage, open_page
from restore.serve.settings import ServeSettings
from tests.processes import until
from tests.serve.page.test_page import STROKE, TELEA, Page, photograph, scratched

NAMES = [f"{number}.png" for number in range(4)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, OpenedPage]]:
    base = tmp_path_factory.mktemp("apply")
    (base / "scans").mkdir()
    for name in NAMES:
        Image.fromarray(photograph() if name != "3.png" else scratched()).save(base / "scans" / name)
    settings = ServeSettings(work=base / "work", device="cpu", stop_seconds=1)
    opened = open_page(base / "scans", settings, warm=("telea",))
    listener = listen(settings)
    server = make_server(settings, page=opened.routes)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
        yield Page(client, base / "scans", opened), opened
    server.should_exit = True
    thread.join(30)
    opened.close()


def test_models_are_opened_when_the_thumbnails_are_there(served: tuple[Page, OpenedPage]) -> None:
    page, opened = served
    assert opened.session is not None
    finished = opened.session.jobs.finished
    until(lambda: ("warm", "done") in finished)
    assert finished["thumbnail", "done"] == len(NAMES)
    assert all(file["width"] for file in page.get("files"))


def test_the_recipe_is_applied_to_what_nobody_has_touched_and_events_tell(served: tuple[Page, OpenedPage]) -> None:
    page, _ = served
    touched = page.open("0.png")
    page.post(f"files/{touched}/mask/stroke", STROKE)
    seen: list[tuple[str, dict[str, object]]] = []
    ready = threading.Event()

    def listens() -> None:
        with page.client.stream("GET", "/page/events") as stream:
            event = ""
            for line in stream.iter_lines():
                ready.set()
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    seen.append((event, json.loads(line.removeprefix("data: "))))
                    if sum(kind == "job" and what["state"] == "done" for kind, what in seen) == 3:
                        return

    thread = threading.Thread(target=listens, daemon=True)
    thread.start()
    assert ready.wait(20)
    jobs = page.post("apply", {"ids": None, "recipe": TELEA | {"find": False, "correct_fading": True}})["jobs"]
    assert len(jobs) == 3
    assert all(page.wait(job)["state"] == "done" for job in jobs)
    thread.join(20)
    assert not thread.is_alive()
    for name in NAMES[1:]:
        file = page.open(name)
        detail = page.get(f"files/{file}")
        assert (detail["state"], detail["mask"]["empty"], detail["result"]["current"]) == ("repaired", True, True)
        assert detail["recipe"]["correct_fading"] is True
        told = [what for kind, what in seen if kind == "file" and what["id"] == file]
        assert told[-1]["state"] == "repaired"
        states = [what["state"] for kind, what in seen if kind == "job" and what["file"] == file]
        assert states[0] == "queued"
        assert states[-1] == "done"
    assert page.get(f"files/{touched}")["state"] == "found"
    assert page.post("apply", {"recipe": {}})["jobs"] == []


def test_with_find_the_detector_makes_the_mask_which_can_be_edited(served: tuple[Page, OpenedPage]) -> None:
    page, _ = served
    file = page.open("3.png")
    (job,) = page.post("apply", {"ids": [file], "recipe": TELEA})["jobs"]
    done = page.wait(job)
    assert done["state"] == "done", done
    detail = page.get(f"files/{file}")
    assert detail["result"]["current"] is True
    assert not detail["mask"]["empty"]
    mask = page.mask(file)
    assert mask.max() == 255
    from restore import FixOptions, fix_folder

    own, masks = page.folder.parent / "own.png", page.folder.parent / "masks"
    options = FixOptions(masks="auto", clean_up=False, save_masks=masks, device="cpu")
    fix_folder(page.folder / "3.png", own, "telea", options=options)
    assert np.array_equal(mask, np.asarray(Image.open(next(masks.rglob("*.png")))))
    assert Path(page.post(f"files/{file}/save", {})["path"]).read_bytes() == own.read_bytes()
    page.post(f"files/{file}/mask/undo")
    assert page.get(f"files/{file}")["mask"]["empty"]


def test_a_job_that_waits_or_runs_is_cancelled(served: tuple[Page, OpenedPage]) -> None:
    page, opened = served
    assert opened.session is not None
    for name in NAMES[:3]:
        page.post(f"files/{page.open(name)}/mask/stroke", STROKE)
    before = [page.get(f"files/{page.id(name)}")["result"] for name in NAMES[:3]]
    jobs = [page.post(f"files/{page.id(name)}/repair", {"recipe": TELEA})["job"] for name in NAMES[:3]]
    for job in reversed(jobs):
        page.post(f"jobs/{job}/cancel")
    states = [page.wait(job)["state"] for job in jobs]
    assert states[1:] == ["cancelled", "cancelled"]
    after = [page.get(f"files/{page.id(name)}")["result"] for name in NAMES[1:3]]
    assert [one and one["revision"] for one in after] == [one and one["revision"] for one in before[1:]]
    until(lambda: not list((opened.work / "masks").iterdir()))
    results = {path.name for path in (opened.work / "results").iterdir()}
    kept = {f"{page.id(name)}-{page.get(f'files/{page.id(name)}')['result']['revision']}" for name in NAMES[1:]}
    assert kept <= results
    # The worker is as good as before.
    assert page.wait(page.post(f"files/{page.id('1.png')}/repair", {"recipe": TELEA})["job"])["state"] == "done"


def test_thumbnails_of_many_files_at_once(served: tuple[Page, OpenedPage]) -> None:
    page, opened = served
    for path in (opened.work / "thumbnails").iterdir():
        path.unlink()
    start = time.monotonic()
    for name in NAMES:
        assert page.get(f"files/{page.id(name)}/thumbnail").startswith(b"\xff\xd8")
    assert time.monotonic() - start < 20


def test_parallel_requests_keep_the_mask_whole(served: tuple[Page, OpenedPage]) -> None:
    page, opened = served
    file = page.open("3.png")
    page.post(f"files/{file}/mask/clear")
    statuses: list[int] = []

    def paint(seed: int) -> None:
        chance = np.random.default_rng(seed)
        with httpx.Client(base_url=page.client.base_url, timeout=60) as client:
            for _ in range(12):
                what = chance.choice(["stroke", "undo", "redo", "invert", "tile", "png", "detail"])
                body = {"points": [[*chance.uniform(0, 300, 2), 12]], "softness": 0.5}
                if what in ("tile", "png", "detail"):
                    part = {"tile": "/mask/0/0/0", "png": "/mask.png", "detail": ""}[what]
                    answer = client.get(f"/page/files/{file}{part}")
                else:
                    answer = client.post(f"/page/files/{file}/mask/{what}", json=body if what == "stroke" else None)
                statuses.append(answer.status_code)

    threads = [threading.Thread(target=paint, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 204}
    state = page.get(f"files/{file}")["mask"]
    before = page.mask(file)
    for _ in range(state["undo"]):
        page.post(f"files/{file}/mask/undo")
    for _ in range(state["undo"]):
        page.post(f"files/{file}/mask/redo")
    assert np.array_equal(page.mask(file), before)
    assert opened.workspace.database.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_a_mask_that_is_a_bomb_is_refused(served: tuple[Page, OpenedPage]) -> None:
    page, opened = served
    file = page.open("0.png")
    before = page.mask(file)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    for content in (bomb, b"", b"<svg/>", bomb[:40]):
        answer = page.client.put(f"/page/files/{file}/mask.png", content=content)
        assert answer.status_code == 422
        assert answer.json()["detail"]
    assert np.array_equal(page.mask(file), before)
    assert not list((opened.work / "masks").glob("*.upload"))
