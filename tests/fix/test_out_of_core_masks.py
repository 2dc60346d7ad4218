"""Holes in a picture that goes through in parts are repaired as in one that is in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from restore.fix import reader
from restore.fix.reader import Reader
from restore.images import read_image
from restore.restorers.base import ModelRequirements, Restorer
from tests.fix.conftest import fix_with, hole, load, photo, plan_with, run_with, save
from tests.images.profiles import ADOBE_RGB, matrix_profile

SIZE = (700, 900)
HOLES = hole(*SIZE, (5, 5, 25, 40), (300, 200, 310, 500), (690, 890, 700, 900))


class FromAround(Restorer):
    """Fills holes with what is around them, twenty pixels far."""

    name, purpose = "from around", "test"
    requirements = ModelRequirements(needs_mask=True, overlap_px=20, multiple=4)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return F.avg_pool2d(F.pad(image, (20, 20, 20, 20), mode="reflect"), 41, 1)


@pytest.fixture
def both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Path]]:
    """Repairs tmp_path/in in memory, and in parts, where reading whole pictures is refused."""

    def way(name: str, limit: int, **options: object) -> Path:
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        summary = fix_with(tmp_path / "in", tmp_path / name, FromAround(), tile=96, **options)
        assert not summary.failed, summary.format()
        assert summary.done == len(list((tmp_path / "in").iterdir()))
        return tmp_path / name

    def run(**options: object) -> tuple[Path, Path]:
        memory = way("memory", 10**9, **options)
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "load_whole", lambda *_: pytest.fail("it was read as a whole"))
            return memory, way("parts", 500_000, **options)

    return run


def alike(one: Path, two: Path) -> bool:
    first, second = read_image(one), read_image(two)
    same_alpha = (first.alpha is None) == (second.alpha is None) and (
        first.alpha is None or np.array_equal(first.alpha, second.alpha)
    )
    return np.array_equal(first.pixels, second.pixels) and first.icc == second.icc and same_alpha


@pytest.mark.parametrize("options", [{}, {"mask_dilate": 3}, {"mask_dilate": 7, "mask_feather": 9}])
def test_holes_are_repaired_as_in_memory(options, tmp_path, both_ways):
    save(tmp_path / "in/gray16.tif", photo(*SIZE, channels=1, dtype=np.uint16))
    save(tmp_path / "in/rgb.png", photo(*SIZE))
    save(tmp_path / "in/adobe.tif", photo(*SIZE), icc_profile=matrix_profile(*ADOBE_RGB))
    mask = save(tmp_path / "mask.png", HOLES)
    memory, parts = both_ways(masks=mask, **options)
    for name in ("gray16.tif", "rgb.png", "adobe.tif"):
        assert alike(memory / name, parts / name), name
    before, after = read_image(tmp_path / "in/rgb.png").pixels, read_image(parts / "rgb.png").pixels
    assert (after[HOLES > 0] != before[HOLES > 0]).any(axis=1).mean() > 0.9
    if not options:
        assert np.array_equal(after[HOLES == 0], before[HOLES == 0])


def test_soft_and_inverted_masks_and_turned_pictures(tmp_path, both_ways):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in/a.png", np.ascontiguousarray(np.rot90(photo(*SIZE))), exif=exif)
    save(tmp_path / "mask.png", 255 - HOLES // 2)
    memory, parts = both_ways(masks=tmp_path / "mask.png", mask_invert=True)
    assert alike(memory / "a.png", parts / "a.png")


@pytest.mark.parametrize(("strokes", "invert"), [(255, False), (0, True)])
def test_of_a_mask_s_transparent_parts_nothing_is_repaired(tmp_path, both_ways, strokes, invert):
    save(tmp_path / "in/x.png", photo(*SIZE))
    save(tmp_path / "mask.png", np.dstack([np.full((*SIZE, 3), strokes, np.uint8), HOLES]))
    for out in both_ways(masks=tmp_path / "mask.png", mask_invert=invert):
        known = HOLES == 0
        assert np.array_equal(load(out / "x.png")[known], photo(*SIZE)[known])
        assert not np.array_equal(load(out / "x.png"), photo(*SIZE))


def test_the_own_alpha_as_mask_ends_up_opaque(tmp_path, both_ways):
    rgba = photo(*SIZE, channels=4)
    rgba[:, :, 3] = 255 - HOLES
    rgba[0, :, 3] = 100
    save(tmp_path / "in/a.png", rgba)
    save(tmp_path / "in/b.tif", rgba)
    memory, parts = both_ways(masks="alpha")
    for name in ("a.png", "b.tif"):
        assert alike(memory / name, parts / name)
        assert (read_image(parts / name).alpha == 255).all()


def test_an_empty_mask_gives_the_file_byte_for_byte(tmp_path, both_ways):
    source = save(tmp_path / "in/a.tif", photo(*SIZE), compression="tiff_lzw")
    save(tmp_path / "mask.png", np.zeros(SIZE, np.uint8))
    _, parts = both_ways(masks=tmp_path / "mask.png")
    assert (parts / "a.tif").read_bytes() == source.read_bytes()


def test_an_empty_mask_still_changes_the_format_when_asked(tmp_path, both_ways):
    save(tmp_path / "in/a.tif", photo(*SIZE))
    save(tmp_path / "mask.png", np.zeros(SIZE, np.uint8))
    memory, parts = both_ways(masks=tmp_path / "mask.png", ext="png")
    assert alike(memory / "a.png", parts / "a.png")


def test_what_the_parts_cannot_hold_is_repaired_in_memory(tmp_path, monkeypatch):
    """A hole with its surroundings as large as the picture, and a mask in a format that has to be read whole."""
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100_000)
    save(tmp_path / "in/a.png", photo(*SIZE))
    large = save(tmp_path / "large.png", hole(*SIZE, (0, 0, 700, 880)))
    other = tmp_path / "other.webp"
    Image.fromarray(HOLES).save(other, lossless=True)
    for number, mask in enumerate((large, other)):
        summary = fix_with(tmp_path / "in", tmp_path / f"{number}", FromAround(), masks=mask)
        assert (summary.done, summary.failed) == (1, [])
        before, after = (read_image(tmp_path / way / "a.png").pixels for way in ("in", f"{number}"))
        assert not np.array_equal(before, after)


def test_a_mask_of_another_size_or_none_fails_that_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "HUGE_PIXELS", 1000)
    save(tmp_path / "in/a.png", photo(*SIZE))
    save(tmp_path / "in/b.png", photo(*SIZE))
    save(tmp_path / "masks/a.png", np.zeros((700, 899), np.uint8))
    summary = fix_with(tmp_path / "in", tmp_path / "out", FromAround(), masks=tmp_path / "masks")
    assert [("the mask has 899×700 pixels" in f.reason, "has no mask" in f.reason) for f in summary.failed] == [
        (True, False),
        (False, True),
    ]
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("empty", "x.png: the file is empty"), ("pipe", "x.png: this is not a regular file"), ("gone", "no such file")],
)
@pytest.mark.parametrize("pixels", [100, 10**9])
def test_a_mask_that_cannot_be_read_is_named_and_its_picture_fails(tmp_path, monkeypatch, kind, reason, pixels):
    monkeypatch.setattr(reader, "HUGE_PIXELS", pixels)
    save(tmp_path / "in/x.png", photo(*SIZE))
    mask = save(tmp_path / "masks/x.png", HOLES)
    plan = plan_with(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    mask.unlink()
    if kind == "empty":
        mask.touch()
    elif kind == "pipe":
        os.mkfifo(mask)  # opened in the usual way it would wait for ever
    (failure,) = run_with(plan, FromAround()).failed
    assert reason in failure.reason


def test_a_picture_without_a_mask_that_counts_as_clean_is_copied(tmp_path, both_ways):
    save(tmp_path / "in/x.png", photo(*SIZE))
    save(tmp_path / "masks/y.png", hole(5, 5))
    _, parts = both_ways(masks=tmp_path / "masks", mask_missing="copy")
    assert (parts / "x.png").read_bytes() == (tmp_path / "in/x.png").read_bytes()
