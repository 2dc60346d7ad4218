"""Damage that is found, holes that are filled, pictures that are cleaned up, and how much of it is applied."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix import reader
from restore.images import read_image
from restore.restorers.base import ModelRequirements
from tests.fix.conftest import Filler, Inverter, fix_with, hole, load, logged, photo, save, snapshot
from tests.images.profiles import ADOBE_RGB, matrix_profile


class Brights:
    """Finds what is white."""

    name, sha256 = "brights", "b" * 64

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def detect(self, shown: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
        self.seen.append(shown)
        return (shown.min(axis=2) > 0.95).astype(np.float32) * 0.8 + 0.1


class Grayer(Filler):
    """Fills holes with a dark gray."""

    name, sha256 = "grayer", "a" * 64

    def _restore(self, image, mask):
        return image.new_full(image.shape, 51 / 255)


def scratched(path: Path, size: tuple[int, int] = (40, 50), seed: int = 0) -> np.ndarray:
    """A picture that is white in some places."""
    pixels = photo(*size, seed)
    pixels[10:12, 5:30] = 255
    save(path, pixels)
    return pixels


def entries(path: Path) -> list[dict[str, Any]]:
    return logged(path)


def test_the_log_names_both_networks_of_a_detector(tmp_path):
    class Two(Brights):
        second = SimpleNamespace(name="thin", sha256="c" * 64)

    scratched(tmp_path / "in/a.png")
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Two(), log=tmp_path / "log")
    (entry,) = entries(tmp_path / "log")
    assert entry["models"] == {"brights": "b" * 64, "thin": "c" * 64, "grayer": "a" * 64}


def test_damage_is_found_filled_and_the_whole_cleaned_up(tmp_path):
    before = scratched(tmp_path / "in/a.png")
    detector = Brights()
    summary = fix_with(
        tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=detector, clean_up=Inverter(),
        log=tmp_path / "log",
    )  # fmt: skip
    assert summary.done == 1
    filled = np.where(before == 255, 51, before)
    assert np.array_equal(load(tmp_path / "out/a.png"), 255 - filled), "cleaned up when it is filled"
    assert len(detector.seen) == 1
    assert detector.seen[0].max() == 1, "what finds damage sees it"
    (entry,) = entries(tmp_path / "log")
    assert (entry["model"], entry["model_sha256"]) == ("grayer", "a" * 64)
    assert entry["models"] == {"brights": "b" * 64, "grayer": "a" * 64, "inverter": None}
    assert list(entry["models"]) == ["brights", "grayer", "inverter"]
    assert entry["mask_coverage"] == 50 / 2000
    assert (entry["settings"]["masks"], entry["settings"]["clean_up"]) == ("auto", "inverter")


def test_known_pixels_are_equal_without_clean_up(tmp_path):
    before = scratched(tmp_path / "in/a.png")
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights())
    assert np.array_equal(load(tmp_path / "out/a.png"), np.where(before == 255, 51, before))


def test_found_masks_are_widened_as_given_ones(tmp_path):
    scratched(tmp_path / "in/a.png")
    save(tmp_path / "mask.png", hole(40, 50, (10, 5, 12, 30)))
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights(), mask_dilate=3)
    fix_with(tmp_path / "in", tmp_path / "given", Grayer(), masks=tmp_path / "mask.png", mask_dilate=3)
    assert np.array_equal(load(tmp_path / "out/a.png"), load(tmp_path / "given/a.png"))


def test_where_nothing_is_found_the_picture_is_only_cleaned_up_or_copied(tmp_path):
    before = photo(40, 50)
    save(tmp_path / "in/a.png", before)
    fix_with(
        tmp_path / "in", tmp_path / "out", Filler(), masks="auto", detector=Brights(), clean_up=Inverter(),
        log=tmp_path / "log",
    )  # fmt: skip
    assert np.array_equal(load(tmp_path / "out/a.png"), 255 - before)
    (entry,) = entries(tmp_path / "log")
    assert (entry["model"], list(entry["models"]), entry["mask_coverage"]) == ("inverter", ["brights", "inverter"], 0)

    summary = fix_with(tmp_path / "in", tmp_path / "copied", Filler(), masks="auto", detector=Brights())
    assert (summary.done, summary.copied) == (1, 1)
    assert snapshot(tmp_path / "in") == snapshot(tmp_path / "copied")


class Polisher(Filler):
    """Makes everything a few levels darker, dark pages by one only."""

    name, sha256, levels = "polisher", "c" * 64, 4
    requirements = ModelRequirements(needs_mask=False)

    def _restore(self, image, mask):
        return image - (self.levels if image.mean() > 0.1 else 1) / 255


def test_a_picture_that_is_clean_is_not_cleaned_up(tmp_path):
    before = scratched(tmp_path / "in/a.png")
    save(tmp_path / "in/b.png", photo(40, 50, 1))
    polisher = Polisher()
    for levels in (2, 4):
        polisher.levels = levels
        summary = fix_with(
            tmp_path / "in", tmp_path / f"{levels}", Grayer(), masks="auto", detector=Brights(), clean_up=polisher,
            spare_clean=True, log=tmp_path / f"{levels}.log",
        )  # fmt: skip
        assert summary.done == 2
    filled = np.where(before == 255, 51, before)
    assert np.array_equal(load(tmp_path / "2/a.png"), filled), "known pixels keep their values"
    assert (tmp_path / "2/b.png").read_bytes() == (tmp_path / "in/b.png").read_bytes(), "copied"
    assert np.array_equal(load(tmp_path / "4/a.png"), np.maximum(filled.astype(int) - 4, 0))
    told = {levels: [list(entry["models"]) for entry in entries(tmp_path / f"{levels}.log")] for levels in (2, 4)}
    assert told[2] == [["brights", "grayer"], ["brights"]]
    assert told[4] == [["brights", "grayer", "polisher"], ["brights", "polisher"]]


def test_who_asks_for_cleaning_up_gets_it_however_little_it_does(tmp_path):
    before = scratched(tmp_path / "in/a.png")
    polisher = Polisher()
    polisher.levels = 2
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights(), clean_up=polisher)
    filled = np.where(before == 255, 51, before).astype(int)
    assert np.array_equal(load(tmp_path / "out/a.png"), np.maximum(filled - 2, 0))


def test_every_page_is_cleaned_up_or_left_as_it_is(tmp_path):
    from PIL import Image

    pages = [np.full((40, 50, 3), 20, np.uint8), photo(30, 20, 2)]
    pages[0][5:8, 3:9] = 255
    (tmp_path / "in").mkdir()
    first, *extra_pages = map(Image.fromarray, pages)
    first.save(tmp_path / "in/a.tif", save_all=True, append_images=extra_pages)
    fix_with(
        tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights(), clean_up=Polisher(),
        spare_clean=True, log=tmp_path / "log",
    )  # fmt: skip
    with Image.open(tmp_path / "out/a.tif") as image:
        assert np.array_equal(np.asarray(image), np.where(pages[0] == 255, 51, pages[0]))
        image.seek(1)
        assert np.array_equal(np.asarray(image), np.maximum(pages[1].astype(int) - 4, 0))
    (entry,) = entries(tmp_path / "log")
    assert list(entry["models"]) == ["brights", "grayer", "polisher"]


def test_every_page_has_its_own_damage(tmp_path):
    from PIL import Image

    pages = [photo(40, 50, 1), photo(30, 20, 2), photo(20, 60, 3)]
    pages[1][5:8, 3:9] = 255
    (tmp_path / "in").mkdir()
    first, *extra_pages = map(Image.fromarray, pages)
    first.save(tmp_path / "in/a.tif", save_all=True, append_images=extra_pages)
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights(), log=tmp_path / "log")
    with Image.open(tmp_path / "out/a.tif") as image:
        for number, page in enumerate(pages):
            image.seek(number)
            assert np.array_equal(np.asarray(image), np.where(page == 255, 51, page))
    (entry,) = entries(tmp_path / "log")
    assert entry["mask_coverage"] == 18 / (2000 + 600 + 1200)
    assert entry["model"] == "grayer"


def test_given_masks_with_clean_up_change_what_is_known(tmp_path):
    before = photo(40, 50)
    for name in ("marked", "clean"):
        save(tmp_path / f"in/{name}.png", before)
        save(tmp_path / f"masks/{name}.png", hole(40, 50, *([(3, 3, 9, 9)] if name == "marked" else [])))
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks=tmp_path / "masks", clean_up=Inverter())
    filled = np.where(load(tmp_path / "masks/marked.png")[:, :, None] > 0, 51, before)
    assert np.array_equal(load(tmp_path / "out/marked.png"), 255 - filled)
    assert np.array_equal(load(tmp_path / "out/clean.png"), 255 - before)


SOURCES = {
    "rgb.png": (photo(60, 50), {}),
    "gray16.tif": (photo(60, 50, channels=1, dtype=np.uint16), {}),
    "adobe.png": (photo(60, 50), {"icc_profile": matrix_profile(*ADOBE_RGB)}),
    "alpha.png": (photo(60, 50, channels=4), {}),
}


def differences(folder: Path, out: Path) -> dict[str, np.ndarray]:
    """By how much each picture's values differ, as shares of white."""
    found = {}
    for name in SOURCES:
        one, two = read_image(folder / name), read_image(out / name)
        found[name] = (two.pixels.astype(float) - one.pixels) / one.white
    return found


@pytest.mark.parametrize("limit", [10**9, 100], ids=["memory", "parts"])
@pytest.mark.parametrize("masked", [False, True])
def test_strength_is_the_share_of_the_repair_that_is_applied(masked, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
    for name, (pixels, options) in SOURCES.items():
        save(tmp_path / "in" / name, pixels, **options)
    save(tmp_path / "mask.png", hole(60, 50, (3, 3, 20, 30)))
    restorer, options = (Filler(), {"masks": tmp_path / "mask.png"}) if masked else (Inverter(), {})
    for strength in (1, 0.3):
        fix_with(tmp_path / "in", tmp_path / f"{strength}", restorer, strength=strength, **options)
    whole, part = differences(tmp_path / "in", tmp_path / "1"), differences(tmp_path / "in", tmp_path / "0.3")
    for name in SOURCES:
        assert np.abs(whole[name]).max() > 0.3
        np.testing.assert_allclose(part[name], 0.3 * whole[name], atol=0.8 / 255, err_msg=name)
        if masked:
            known = load(tmp_path / "mask.png") == 0
            assert (part[name][known] == 0).all(), "known pixels are equal"


@pytest.mark.parametrize("limit", [10**9, 100], ids=["memory", "parts"])
def test_no_strength_changes_nothing_at_all(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
    for name, (pixels, options) in SOURCES.items():
        save(tmp_path / "in" / name, pixels, **options)
    save(tmp_path / "in/a.jpg", photo(60, 50))
    restorer = Inverter()
    summary = fix_with(
        tmp_path / "in", tmp_path / "out", restorer, strength=0, correct_fading=True, log=tmp_path / "log"
    )
    assert snapshot(tmp_path / "in") == snapshot(tmp_path / "out")
    assert (summary.copied, restorer.calls) == (5, []), "nothing is run in vain"
    assert {entry["settings"]["strength"] for entry in entries(tmp_path / "log")} == {0}


def test_the_strength_of_a_chain_is_that_of_its_end(tmp_path):
    before = scratched(tmp_path / "in/a.png").astype(float)
    chain = {"masks": "auto", "detector": Brights(), "clean_up": Inverter()}
    fix_with(tmp_path / "in", tmp_path / "out", Grayer(), strength=0.5, **chain)
    repaired = 255 - np.where(before == 255, 51, before)
    assert np.abs(load(tmp_path / "out/a.png") - (before + repaired) / 2).max() <= 0.5


class Doubler(Inverter):
    name = "doubler"
    requirements = ModelRequirements(needs_mask=False, scale=2)


@pytest.mark.parametrize(
    ("restorer", "options", "words"),
    [
        (Inverter(), {"strength": 1.5}, "--strength"),
        (Inverter(), {"strength": float("nan")}, "--strength"),
        (Doubler(), {"strength": 0.5}, "changes the size"),
        (Filler(), {"masks": "auto"}, "requires a detector"),
        (Filler(), {"masks": "auto", "detector": Brights(), "mask_invert": True}, "--mask-invert"),
        (Filler(), {"masks": "auto", "detector": Brights(), "mask_missing": "skip"}, "--mask-missing"),
        (Filler(), {"masks": "auto", "detector": Brights(), "clean_up": Filler()}, "clean up whole images"),
        (Filler(), {"masks": "auto", "detector": Brights(), "clean_up": Doubler()}, "clean up whole images"),
        (Inverter(), {"clean_up": Inverter()}, "requires --masks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(restorer, options, words, tmp_path):
    save(tmp_path / "in/a.png", photo(20, 20))
    with pytest.raises(RestoreError, match=words) as caught:
        fix_with(tmp_path / "in", tmp_path / "out", restorer, **options)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_detector_that_fails_fails_that_file_alone(tmp_path):
    class Moody(Brights):
        def detect(self, shown, *, tile_px, on_event):
            if shown.shape[0] == 40:
                raise RestoreError("will not look at this", exit_code=1)
            return super().detect(shown, tile_px=tile_px, on_event=on_event)

    scratched(tmp_path / "in/a.png")
    scratched(tmp_path / "in/b.png", (50, 40))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Moody())
    assert summary.done == 1
    assert [failure.reason for failure in summary.failed] == ["will not look at this"]


def test_what_is_too_large_to_be_looked_for_damage_in_memory_says_so(tmp_path, monkeypatch):
    from restore.fix import reader

    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)
    monkeypatch.setattr(reader, "_pixels_for_memory", lambda: 1000)
    scratched(tmp_path / "in/a.png")
    summary = fix_with(tmp_path / "in", tmp_path / "out", Grayer(), masks="auto", detector=Brights())
    assert "must fit in memory as a whole" in summary.failed[0].reason
    assert snapshot(tmp_path / "out") == {}
