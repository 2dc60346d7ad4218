"""The page's requests against a server with its workers, as a browser makes them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from restore.serve.app import create_app
from restore.serve.page.open import OpenedPage, open_page
from restore.serve.settings import ServeSettings
from tests.images.profiles import ADOBE_RGB, matrix_profile

SIZE = (96, 64)


def photograph(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    values = np.stack([120 + 60 * np.sin(x / 9), 100 + 50 * np.cos(y / 7), 80 + x % 50], 2)
    return np.clip(values + np.random.default_rng(0).normal(0, 4, values.shape), 0, 255).astype(np.uint8)


def scratched() -> np.ndarray:
    import cv2

    values = photograph(320, 256)
    cv2.polylines(values, [np.array([[30, 20], [150, 110], [170, 240]], np.int32)], False, (250, 250, 245), 2)
    cv2.line(values, (300, 10), (220, 250), (10, 10, 12), 2)
    return values


def write_folder(folder: Path) -> None:
    """A folder with one image of each kind that is easily shown or saved wrong, and one that is broken."""
    import tifffile

    folder.mkdir()
    values = photograph()
    Image.fromarray(scratched()).save(folder / "scratched.png")
    Image.fromarray(values).save(folder / "plain.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    Image.fromarray(values).save(folder / "turned.jpg", quality=92, exif=exif.tobytes())
    alpha = np.dstack([values, np.linspace(0, 255, values[:, :, 0].size).reshape(SIZE[1], SIZE[0]).astype(np.uint8)])
    Image.fromarray(alpha).save(folder / "alpha.png")
    icc = matrix_profile(*ADOBE_RGB)
    deep = values.astype(np.uint16) * 257 + 3
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", iccprofile=icc)
    data = (folder / "turned.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(data[: len(data) // 2])
    (folder / "plain.xmp").write_text("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")


class Page:
    """What a browser does, in a few words."""

    def __init__(self, client: TestClient, folder: Path, opened: OpenedPage) -> None:
        self.client, self.folder, self.opened = client, folder, opened

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(f"/page/{path}")
        assert answer.status_code == status, answer.text
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.content

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.client.post(f"/page/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def wait(self, job: str) -> Any:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            state = self.get(f"jobs/{job}")
            if state["state"] in ("done", "failed", "cancelled"):
                return state
            time.sleep(0.05)
        raise AssertionError("the job does not end")

    def id(self, name: str) -> int:
        return next(file["id"] for file in self.get("files") if file["name"] == name)

    def open(self, name: str) -> int:
        file = self.id(name)
        while (answer := self.client.get(f"/page/files/{file}")).status_code == 202:
            assert self.wait(answer.json()["job"])["state"] == "done"
        assert answer.status_code == 200, answer.text
        return file

    def mask(self, file: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.get(f"files/{file}/mask.png"))))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    base = tmp_path_factory.mktemp("page")
    write_folder(base / "scans")
    settings = ServeSettings(work=base / "work", device="cpu", stop_seconds=1)
    opened = open_page(base / "scans", settings, warm=())
    with TestClient(create_app(settings, page=opened.routes), base_url="http://127.0.0.1") as client:
        yield Page(client, base / "scans", opened)
    opened.close()


STROKE = {"points": [[30, 30, 4], [50, 36, 4]], "softness": 0.5, "erase": False}
TELEA = {"model": "telea"}


def test_the_session_describes_the_folder_and_the_recipe(page: Page) -> None:
    session = page.get("session")
    assert session["folder"] == str(page.folder)
    assert session["output"] == f"{page.folder}-repaired"
    assert (session["files"], session["tile"]) == (6, 512)
    names = {one["name"] for one in session["recipe"]}
    assert names >= {"correct_fading", "clean_up", "strength", "match_grain", "model"}
    assert all(one["label"] and one["help"] and "\n" not in one["help"] for one in session["recipe"])


def test_thumbnails_are_shown_upright_and_a_broken_file_fails_with_the_words_of_the_command_line(page: Page) -> None:
    sizes = {}
    for file in page.get("files"):
        if file["name"] != "broken.jpg":
            picture = Image.open(io.BytesIO(page.get(f"files/{file['id']}/thumbnail")))
            sizes[file["name"]] = picture.size
    assert sizes == {
        "plain.png": (96, 64), "turned.jpg": (64, 96), "alpha.png": (96, 64), "deep.tif": (96, 64),
        "scratched.png": (320, 256),
    }  # fmt: skip
    page.get(f"files/{page.id('broken.jpg')}/thumbnail", 204)
    broken = page.get("files")[[file["name"] for file in page.get("files")].index("broken.jpg")]
    from restore import FixOptions, fix_folder

    summary = fix_folder(
        page.folder / "broken.jpg", page.folder.parent / "x.jpg", "telea",
        options=FixOptions(masks=page.folder / "plain.png", device="cpu"),
    )  # fmt: skip
    assert broken["state"] == "failed"
    # The page has no such option, so it names the command.
    named = summary.failed[0].reason.replace("--allow-truncated", "restore fix --allow-truncated")
    assert broken["reason"] == named != summary.failed[0].reason


def test_tiles_show_the_image_in_srgb(page: Page) -> None:
    file = page.open("deep.tif")
    detail = page.get(f"files/{file}")
    assert detail["levels"] == [{"width": 96, "height": 64}]
    tile = Image.open(io.BytesIO(page.get(f"files/{file}/tiles/original/0/0/0")))
    from restore.images import read_rgb8

    difference = np.asarray(tile).astype(int) - read_rgb8(page.folder / "deep.tif")
    assert np.abs(difference).mean() < 5
    assert abs(difference.mean()) < 1
    page.get(f"files/{file}/tiles/original/0/1/0", 404)
    page.get(f"files/{file}/tiles/original/7/0/0", 404)
    page.get(f"files/{file}/tiles/repaired/0/0/0", 404)
    page.get(f"files/{file}/tiles/../0/0/0", 404)
    page.get("files/12345", 404)


def test_strokes_are_painted_undone_and_redone(page: Page) -> None:
    file = page.open("plain.png")
    change = page.post(f"files/{file}/mask/stroke", STROKE)
    assert (change["tiles"], change["undo"], change["redo"], change["empty"]) == ([[0, 0]], 1, 0, False)
    painted = page.mask(file)
    assert painted.max() == 255
    tile = Image.open(io.BytesIO(page.get(f"files/{file}/mask/0/0/0?v={change['revision']}")))
    assert tile.mode == "LA"
    assert np.array_equal(np.asarray(tile)[:, :, 1], painted)
    page.post(f"files/{file}/mask/polygon", {"points": [[5, 5], [20, 5], [5, 20]]})
    page.post(f"files/{file}/mask/invert")
    page.post(f"files/{file}/mask/grow", {"px": -2})
    for left in (3, 2, 1):
        change = page.post(f"files/{file}/mask/undo")
        assert (change["undo"], change["redo"]) == (left, 4 - left)
    assert np.array_equal(page.mask(file), painted)
    page.post(f"files/{file}/mask/undo")
    page.get(f"files/{file}/mask/0/0/0", 204)
    page.post(f"files/{file}/mask/redo")
    assert np.array_equal(page.mask(file), painted)
    page.post(f"files/{file}/mask/stroke", {"points": [], "softness": 0}, 422)
    page.post(f"files/{file}/mask/clear")
    assert not page.mask(file).any()


def test_masks_are_loaded_from_files(page: Page) -> None:
    file = page.open("turned.jpg")
    mask = np.zeros((96, 64), np.uint8)
    mask[10:20, 30:40] = 255
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    answer = page.client.put(f"/page/files/{file}/mask.png", content=stream.getvalue())
    assert answer.status_code == 200, answer.text
    assert answer.json()["undo"] == 1
    assert np.array_equal(page.mask(file), mask)
    stream = io.BytesIO()
    Image.fromarray(mask.T).save(stream, "PNG")
    answer = page.client.put(f"/page/files/{file}/mask.png", content=stream.getvalue())
    assert answer.status_code == 422
    assert "96×64" in answer.json()["detail"]
    assert page.client.put(f"/page/files/{file}/mask.png", content=b"no image").status_code == 422
    page.post(f"files/{file}/mask/clear")


def test_an_image_that_becomes_a_link_out_while_its_job_waits_is_not_read(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = page.open("plain.png")
    place, elsewhere = page.folder / "plain.png", page.folder.parent / "elsewhere.png"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    monkeypatch.setattr("restore.serve.page.workspace.is_inside", lambda path, folder: True)  # as it was then
    try:
        job = page.wait(page.post(f"files/{file}/repair", {"recipe": TELEA})["job"])
    finally:
        place.unlink()
        elsewhere.rename(place)
    assert job["state"] == "failed"
    assert job["problem"]["detail"] == "leads out of the folder"


def test_whole_images_are_worked_on_one_at_a_time(page: Page) -> None:
    file, masks = page.open("plain.png"), []
    assert page.opened.session is not None
    asking = threading.Thread(target=lambda: masks.append(page.mask(file)))
    with page.opened.session.whole_image:
        asking.start()
        asking.join(0.5)
        assert not masks
    asking.join(20)
    assert masks


def test_a_mask_for_an_image_that_has_vanished_leaves_nothing(page: Page) -> None:
    file = page.open("plain.png")
    (page.folder / "plain.png").rename(page.folder / "plain.away")
    try:
        assert page.client.put(f"/page/files/{file}/mask.png", content=b"x" * 1000).status_code >= 400
    finally:
        (page.folder / "plain.away").rename(page.folder / "plain.png")
    assert not list((page.opened.work / "masks").iterdir())


@pytest.mark.parametrize("name", ["plain.png", "turned.jpg", "alpha.png", "deep.tif"])
def test_what_is_saved_is_what_restore_fix_writes(page: Page, name: str) -> None:
    file = page.open(name)
    page.post(f"files/{file}/mask/clear")
    page.post(f"files/{file}/mask/stroke", STROKE)
    page.post(f"files/{file}/save", {}, 422) if name == "plain.png" else None
    job = page.wait(page.post(f"files/{file}/repair", {"recipe": TELEA | {"strength": 0.9}})["job"])
    assert job["state"] == "done", job
    detail = page.get(f"files/{file}")
    assert (detail["state"], detail["result"]["current"]) == ("repaired", True)
    page.get(f"files/{file}/tiles/repaired/0/0/0?v={detail['result']['revision']}")
    page.get(f"files/{file}/thumbnail?v={detail['revision']}")
    saved = page.post(f"files/{file}/save", {})
    from restore import FixOptions, fix_folder

    own = page.folder.parent / "by-command" / name
    own.parent.mkdir(exist_ok=True)
    (page.folder.parent / "mask.png").write_bytes(page.get(f"files/{file}/mask.png"))
    options = FixOptions(
        masks=page.folder.parent / "mask.png", strength=0.9, correct_fading=False, clean_up=False, device="cpu",
        overwrite=True,
    )  # fmt: skip
    assert fix_folder(page.folder / name, own, "telea", options=options).exit_code == 0
    assert Path(saved["path"]) == page.folder.parent / "scans-repaired" / name
    assert Path(saved["path"]).read_bytes() == own.read_bytes()
    assert own.read_bytes() != (page.folder / name).read_bytes()
    assert Path(saved["path"]).stat().st_mtime_ns == own.stat().st_mtime_ns
    assert page.get(f"files/{file}")["state"] == "saved"
    if name == "plain.png":
        assert (page.folder.parent / "scans-repaired" / "plain.xmp").read_bytes() == own.with_suffix(
            ".xmp"
        ).read_bytes()


def test_a_saved_file_of_somebody_else_is_kept(page: Page) -> None:
    file = page.open("plain.png")
    target = page.folder.parent / "scans-repaired" / "plain.png"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"mine")
    page.post(f"files/{file}/mask/stroke", STROKE)
    page.wait(page.post(f"files/{file}/repair", {"recipe": TELEA})["job"])
    answer = page.post(f"files/{file}/save", {}, 409)
    assert answer["code"] == "exists"
    assert target.read_bytes() == b"mine"
    page.post(f"files/{file}/save", {"overwrite": True})
    assert target.read_bytes() != b"mine"


def test_ground_is_repaired_further_and_undone(page: Page) -> None:
    file = page.open("alpha.png")
    page.post(f"files/{file}/mask/stroke", STROKE)
    page.wait(page.post(f"files/{file}/repair", {"recipe": TELEA})["job"])
    before = page.get(f"files/{file}")
    change = page.post(f"files/{file}/ground")
    assert change["empty"]
    detail = page.get(f"files/{file}")
    assert detail["original"]["is_repair"]
    assert detail["result"] is None
    tile = page.get(f"files/{file}/tiles/original/0/0/0")
    page.post(f"files/{file}/mask/undo")
    after = page.get(f"files/{file}")
    assert after["result"] == before["result"] | {"current": after["result"]["current"]}
    assert page.get(f"files/{file}/tiles/repaired/0/0/0") == tile


def test_a_preview_fills_a_hole_in_its_surroundings(page: Page) -> None:
    file = page.open("plain.png")
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    page.post(f"files/{file}/mask/clear")
    page.post(f"files/{file}/preview", {}, 422)
    page.post(f"files/{file}/mask/stroke", STROKE)
    job = page.wait(page.post(f"files/{file}/preview", {"box": [10, 10, 80, 60]})["job"])
    assert job["state"] == "done", job
    result = job["result"]
    picture = Image.open(io.BytesIO(page.client.get(result["url"]).content))
    assert picture.size == (result["width"], result["height"])
    assert result["x"] <= 26
    assert result["x"] + result["width"] >= 54
    page.post(f"files/{file}/preview", {"box": [70, 50, 90, 60]}, 422)


def test_found_damage_is_what_restore_detect_finds_at_every_sensitivity(page: Page) -> None:
    from restore.restorers.detector import open_detector

    file = page.open("scratched.png")
    page.post(f"files/{file}/mask/found", {"threshold": 0.5}, 404)
    told: list[float] = []
    stop = page.opened.session.listen(
        lambda event, what: told.append(what["progress"]) if what.get("message") == "detecting" else None
    )
    job = page.wait(page.post(f"files/{file}/detect")["job"])
    stop()
    assert job["state"] == "done", job
    assert len(set(told)) > 4, "a person sees how far it is"
    assert told == sorted(told)
    assert 0 <= told[0] < told[-1] == 1
    detail = page.get(f"files/{file}")
    assert detail["state"] == "found"
    assert detail["found"]["ready"]
    assert detail["found_fraction"] > 0.005
    detector = open_detector(device="cpu")
    likely = detector.probability(scratched().astype(np.float32) / 255)
    assert detail["found_fraction"] == pytest.approx(detector.mask_of(likely).mean(), rel=0.02)
    tile = np.asarray(Image.open(io.BytesIO(page.get(f"files/{file}/found/0/0/0?v={detail['found']['revision']}"))))
    assert np.abs(tile - likely * 255).max() <= 0.51
    thresholds = detail["found"]["sensitivities"]
    assert thresholds["normal"] == detail["found"]["threshold"] == detector.threshold
    covered = []
    for name in ("gentle", "normal", "strong"):
        threshold = thresholds[name]
        page.post(f"files/{file}/mask/clear")
        page.post(f"files/{file}/mask/found", {"threshold": threshold})
        mask = page.mask(file) > 0
        less, more = (detector.adjusted(threshold=threshold + by).mask_of(likely) > 0 for by in (1 / 509, -1 / 509))
        assert (less <= mask).all()
        assert (mask <= more).all()
        covered.append(mask.sum())
    assert 0 < covered[0] <= covered[1] <= covered[2]


def test_the_bucket_takes_one_mark_and_the_eraser_takes_it_away(page: Page) -> None:
    file = page.open("scratched.png")
    if not page.get(f"files/{file}")["found"]["ready"]:
        page.wait(page.post(f"files/{file}/detect")["job"])
    threshold = page.get(f"files/{file}")["found"]["threshold"]
    page.post(f"files/{file}/mask/clear")
    page.post(f"files/{file}/mask/found", {"threshold": threshold})
    whole = page.mask(file)
    y, x = (int(values[0]) for values in np.nonzero(whole[:60, :150]))
    page.post(f"files/{file}/mask/clear")
    page.post(f"files/{file}/mask/found", {"threshold": threshold, "at": [x + 0.5, y + 0.5]})
    one = page.mask(file)
    assert one[y, x] == 255
    assert 0 < np.count_nonzero(one) < np.count_nonzero(whole)
    page.post(f"files/{file}/mask/found", {"threshold": threshold, "at": [x + 0.5, y + 0.5], "erase": True})
    assert not page.mask(file).any()
    nothing = page.post(f"files/{file}/mask/found", {"threshold": threshold, "at": [1, 200]})
    assert nothing["tiles"] == []


def test_wrong_recipes_are_refused_in_words(page: Page) -> None:
    file = page.open("plain.png")
    for recipe, word in (
        ({"strength": 2}, "strength"), ({"model": "/etc/passwd"}, "model"), ({"clean_up": 1}, "clean_up"),
        ({"nonsense": 1}, "nonsense"), ({"clean_up": True, "match_grain": True}, "match-grain"),
    ):  # fmt: skip
        answer = page.client.put(f"/page/files/{file}/recipe", json=recipe)
        assert answer.status_code == 422
        assert word in answer.json()["where"]


def test_requests_of_other_sites_are_refused(page: Page) -> None:
    file = page.id("plain.png")
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        answer = page.client.post(f"/page/files/{file}/mask/clear", headers=headers)
        assert answer.status_code == 403
    page.get("jobs/nonsense", 404)


def test_nothing_is_written_beside_the_originals(page: Page) -> None:
    names = {"alpha.png", "broken.jpg", "deep.tif", "plain.png", "plain.xmp", "scratched.png", "turned.jpg"}
    assert {path.name for path in page.folder.iterdir()} == names


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("mask/stroke", {"points": [[0, 0, 1e9]], "softness": 0}),
        ("mask/stroke", {"points": [[0, 0]], "softness": 0}),
        ("mask/stroke", {"points": "x"}),
        ("mask/polygon", {"points": [[0, 0], [1, 1]]}),
        ("mask/grow", {"px": 10**6}),
        ("preview", {"box": [0, 0, 1]}),
        ("repair", {"recipe": {"model": "../x"}}),
    ],
)
def test_nonsense_is_refused_with_a_problem(page: Page, path: str, body: Any) -> None:
    file = page.open("plain.png")
    page.post(f"files/{file}/mask/stroke", STROKE)
    answer = page.client.post(f"/page/files/{file}/{path}", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("part", ["mask/-1/0/0", f"mask/0/{10**30}/0", "mask/0/-1/-1", "mask/99/0/0"])
def test_places_outside_of_a_mask_are_empty(page: Page, part: str) -> None:
    page.get(f"files/{page.open('plain.png')}/{part}", 204)


def test_the_name_of_an_image_that_is_long_enough_for_no_file_is_not_found(page: Page) -> None:
    page.get(f"files/{10**300}/previews/1", 404)


def test_half_a_surrogate_pair_is_refused_in_words(page: Page) -> None:
    content = '{"\\ud800": 1}'  # valid JSON that no UTF-8 can hold
    answer = page.client.put(
        f"/page/files/{page.open('plain.png')}/recipe", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["where"] == "\\ud800"


@pytest.mark.parametrize("keep", [0, 1000, None])
def test_tiles_that_are_damaged_are_made_anew(page: Page, keep: int | None) -> None:
    file = page.open("alpha.png")
    before = page.get(f"files/{file}/tiles/original/0/0/0")
    session = page.opened.session
    assert session is not None
    tiles = session.tiles(file, "original").path
    content = tiles.read_bytes()
    tiles.write_bytes(content[:keep] if keep is not None else b"x" * len(content))
    session._opened.clear()  # as after a restart
    assert page.open("alpha.png") == file
    assert page.get(f"files/{file}/tiles/original/0/0/0") == before


@pytest.mark.parametrize("part", [f"previews/{10**30}", "previews/-1", "found/0/0/0"])
def test_what_is_not_there_is_not_found(page: Page, part: str) -> None:
    page.get(f"files/{page.open('turned.jpg')}/{part}", 404)


def test_a_number_that_is_none_is_refused(page: Page) -> None:
    file = page.open("plain.png")
    for path, text in (
        ("mask/stroke", '{"points": [[NaN, 1, 2]], "softness": 0}'),
        ("mask/stroke", '{"points": [[1, 1, 2]], "softness": NaN}'),
        ("preview", '{"box": [NaN, 0, 1, 1]}'),
    ):
        answer = page.client.post(
            f"/page/files/{file}/{path}", content=text, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422)


def test_another_fill_of_a_deep_hole_looks_otherwise_and_is_what_restore_fix_writes(page: Page) -> None:
    from restore import FixOptions, fix_folder

    file = page.open("scratched.png")
    page.post(f"files/{file}/mask/clear")
    page.post(f"files/{file}/mask/stroke", {"points": [[40, 30, 12], [50, 36, 12]]})
    repaired = []
    for seed in (0, 3, 3):
        page.client.put(f"/page/files/{file}/recipe", json={"model": "inpaint", "seed": seed})
        job = page.wait(page.post(f"files/{file}/repair")["job"])
        assert job["state"] == "done", job
        assert job["result"]["is_same"] == (len(repaired) == 2)
        repaired.append(page.post(f"files/{file}/save", {"overwrite": True})["path"])
        repaired[-1] = Path(repaired[-1]).read_bytes()
    assert repaired[0] != repaired[1] == repaired[2]
    mask = page.folder.parent / "mask.png"
    mask.write_bytes(page.get(f"files/{file}/mask.png"))
    for number, options in ((0, {}), (1, {"seed": 3})):
        target = page.folder.parent / f"fixed{number}.png"
        fix_folder(page.folder / "scratched.png", target, "inpaint", options=FixOptions(masks=mask, **options))
        assert target.read_bytes() == repaired[number]
    page.client.put(f"/page/files/{file}/recipe", json=TELEA)
    assert page.wait(page.post(f"files/{file}/repair")["job"])["state"] == "done", "telea takes no seed"
    page.client.put(f"/page/files/{file}/recipe", json={"model": "inpaint", "seed": 0})
    page.post(f"files/{file}/mask/clear")
