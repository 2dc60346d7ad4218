"""Masks that were drawn too tight are widened to where the damage ends; all others stay as they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data

from restore.errors import RestoreError
from restore.fix import reader
from restore.fix.auto_dilation import auto_reach_px, widen_holes
from restore.fix.options import FixOptions
from restore.fix.stages import Stages
from tests.fix.conftest import Filler, Inverter, fix_with, load, logged, save

HEIGHT, WIDTH = 340, 460


def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:HEIGHT, :WIDTH])


def lettering(*, slant: int = 0) -> np.ndarray:
    """Where somebody has written across the picture, and crossed it out: bool H×W."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.putText(mask, "SAMPLE", (30, 120), cv2.FONT_HERSHEY_SIMPLEX, 3.2, 255, 14)
    cv2.line(mask, (20, 200 + slant), (430, 300), 255, 11)
    return mask > 0


def written(mask: np.ndarray, colour: tuple[int, int, int] = (250, 250, 250), opacity: float = 1) -> np.ndarray:
    """The photograph with this painted over it, as a JPEG shows it: uint8 H×W×3."""
    picture = photograph().astype(np.float32)
    picture[mask] += opacity * (np.array(colour, np.float32) - picture[mask])
    file = cv2.imencode(".jpg", np.rint(picture[:, :, ::-1]).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return np.ascontiguousarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[:, :, ::-1])


def moved(mask: np.ndarray, by_px: int) -> np.ndarray:
    across = np.arange(-abs(by_px), abs(by_px) + 1)
    disc = (across[:, None] ** 2 + across[None] ** 2 <= by_px**2).astype(np.uint8)
    return (cv2.dilate if by_px > 0 else cv2.erode)(mask.astype(np.uint8), disc) > 0 if by_px else mask


def after(mask: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return widen_holes(mask.astype(np.float32), picture.astype(np.float32) / 255) > 0


@pytest.mark.parametrize(("colour", "opacity"), [((250, 250, 250), 1), ((10, 10, 10), 1), ((240, 40, 200), 0.6)])
@pytest.mark.parametrize("by_px", [1, 2, 3])
def test_a_rim_of_up_to_three_pixels_is_hidden_again(by_px: int, colour: tuple[int, int, int], opacity: float) -> None:
    mask = lettering()
    given = moved(mask, -by_px)
    found = after(given, written(mask, colour, opacity))
    assert (found & mask).sum() > 0.9 * mask.sum()
    assert (found & ~moved(mask, 2)).sum() == 0


@pytest.mark.parametrize("by_px", [0, 2, 4, 8])
def test_a_mask_that_fits_or_is_generous_stays_as_it_is(by_px: int) -> None:
    mask = lettering()
    given = moved(mask, by_px)
    assert np.array_equal(after(given, written(mask)), given)


def test_a_mask_on_an_undamaged_photograph_stays_as_it_is() -> None:
    given = lettering()
    assert np.array_equal(after(given, photograph()), given)


def test_holes_are_widened_each_for_itself() -> None:
    picture, mask = photograph().copy(), np.zeros((HEIGHT, WIDTH), bool)
    for left in (40, 320):
        mask[120:220, left : left + 60] = True
    picture[mask] = 255
    given = mask.copy()
    given[:, :200] = moved(mask, -2)[:, :200]
    found = after(given, picture)
    assert np.array_equal(found[:, 200:], mask[:, 200:])
    assert (found & mask).sum() > 0.998 * mask.sum(), "all but the corners"


def test_a_soft_edge_is_meant_to_be_soft() -> None:
    mask = lettering()
    soft = cv2.GaussianBlur(moved(mask, -3).astype(np.float32), (0, 0), 3)
    assert np.array_equal(widen_holes(soft, written(mask).astype(np.float32) / 255), soft)


def test_a_brush_with_smooth_edges_is_widened() -> None:
    mask = lettering()
    brush = cv2.GaussianBlur(moved(mask, -2).astype(np.float32), (0, 0), 0.6)
    brush[brush < 0.02] = 0
    found = widen_holes(brush, written(mask).astype(np.float32) / 255)
    assert (found >= brush).all()
    assert (found[mask] > 0.9).mean() > 0.98, "its smooth edge is inside now, and white"


def test_no_hole_is_widened_by_more_than_the_reach_which_grows_with_the_picture() -> None:
    assert [auto_reach_px(*size) for size in ((1, 1), (480, 640), (1000, 1000), (4000, 6000))] == [3, 3, 6, 29]
    mask = lettering()
    given = moved(mask, -5)
    assert not (after(given, written(mask)) & ~moved(given, auto_reach_px(HEIGHT, WIDTH) + 1)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (40, 30)])
def test_masks_of_nothing_and_of_everything_and_tiny_pictures_are_no_trouble(size: tuple[int, int]) -> None:
    shown = np.full((*size, 3), 0.5, np.float32)
    for value in (0, 0.3, 1):
        given = np.full(size, value, np.float32)
        assert np.array_equal(widen_holes(given, shown), given)
    corner = np.zeros(size, np.float32)
    corner[-1, -1] = 1
    assert np.array_equal(widen_holes(corner, shown), corner)


class Tight(Inverter):
    """Finds the lettering, but for its edges."""

    name, sha256 = "tight", None

    def detect(self, shown: np.ndarray, *, tile_px: int, on_event: object) -> np.ndarray:
        return moved(lettering(), -2).astype(np.float32)


@pytest.mark.parametrize("masks", ["given", "auto", "alpha"])
def test_fix_widens_masks_from_wherever_they_come(masks: str, tmp_path) -> None:
    mask = lettering()
    picture = written(mask, (255, 255, 255))
    given = moved(mask, -2)
    if masks == "alpha":
        picture = np.dstack([picture, np.where(given, 0, 255).astype(np.uint8)])
    save(tmp_path / "in/x.png", picture)
    save(tmp_path / "mask.png", given.astype(np.uint8) * 255)
    options = {"detector": Tight()} if masks == "auto" else {}
    source = tmp_path / "mask.png" if masks == "given" else masks
    for out, dilate in (("out", "auto"), ("plain", 0)):
        fix_with(
            tmp_path / "in", tmp_path / out, Inverter(), masks=source, mask_dilate=dilate,
            log=tmp_path / "log.jsonl", **options,
        )  # fmt: skip
    changed, plain = (
        (load(tmp_path / out / "x.png")[..., :3] != picture[..., :3]).any(axis=2) for out in ("out", "plain")
    )
    assert changed[mask].mean() > 0.95
    if masks != "auto":  # wide detected marks reach up to their edges anyway
        assert plain[mask].mean() < 0.95
    assert not changed[~moved(mask, 4 if masks == "auto" else 2)].any()
    records = logged(tmp_path / "log.jsonl")
    assert [record["settings"]["mask_dilate"] for record in records] == ["auto", 0]


def test_every_page_has_its_mask_widened_for_itself(tmp_path) -> None:
    from PIL import Image

    mask = lettering()
    pages = [Image.fromarray(picture) for picture in (photograph(), written(mask))]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in/x.tif", save_all=True, append_images=pages[1:])
    given = moved(mask, -2)
    save(tmp_path / "mask.png", given.astype(np.uint8) * 255)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png", mask_dilate="auto")
    with Image.open(tmp_path / "out/x.tif") as repaired:
        shares = []
        for number, before in enumerate((photograph(), written(mask))):
            repaired.seek(number)
            shares.append((np.asarray(repaired) != before).any(axis=2)[mask & ~given].mean())
    assert shares[0] == 0
    assert shares[1] > 0.8


def test_a_huge_picture_whose_mask_is_to_be_widened_is_in_memory(tmp_path, monkeypatch) -> None:
    mask = lettering()
    save(tmp_path / "in/x.png", written(mask))
    save(tmp_path / "mask.png", moved(mask, -2).astype(np.uint8) * 255)
    results = []
    for limit in (10**9, 10_000):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        monkeypatch.setattr(Stages, "repair_in_parts", lambda *_, **__: pytest.fail("it went in parts"))
        out = tmp_path / str(limit)
        summary = fix_with(tmp_path / "in", out, Filler(), masks=tmp_path / "mask.png", mask_dilate="auto")
        assert (summary.done, summary.failed) == (1, [])
        results.append(load(out / "x.png"))
    assert np.array_equal(*results)


@pytest.mark.parametrize("text", ["-1", "501", "much", "1.5", ""])
def test_what_is_no_width_is_refused(text: str, tmp_path) -> None:
    with pytest.raises(RestoreError, match="--mask-dilate") as caught:
        FixOptions(masks="alpha", mask_dilate=text)
    assert caught.value.exit_code == 2
    assert [FixOptions(mask_dilate=given).mask_dilate for given in ("auto", "0", "500")] == ["auto", 0, 500]
