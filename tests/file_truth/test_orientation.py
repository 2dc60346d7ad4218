"""What a person sees of a turned picture is the same before and after, and nothing in the file says otherwise."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, load, photo, save

ORIENTATIONS = range(1, 9)
SAVED = {
    "jpg": {"quality": 95, "subsampling": 0},
    "png": {},
    "tif": {},
    "webp": {"lossless": True},
    "avif": {"quality": 95, "subsampling": "4:4:4"},
}


def leaning(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture that compression keeps well, and that looks different every way it is turned."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 250 / width, y * 250 / height, (x * x + y) * 250 / (width**2 + height)], -1).astype(np.uint8)


def seen(path: Path) -> np.ndarray:
    """As a viewer shows it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def exif_block(order: str, orientation: int, size: tuple[int, int], thumbnail: bytes) -> bytes:
    """As a camera writes it: orientation and size in the first directory, size in EXIF's, and a thumbnail."""

    def directory(entries: list[tuple[int, int, int]], following: int) -> bytes:
        body = struct.pack(order + "H", len(entries))
        for tag, kind, value in entries:
            packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            body += struct.pack(order + "HHI", tag, kind, 1) + packed
        return body + struct.pack(order + "I", following)

    height, width = size
    first, inner, second = 8, 8 + 2 + 4 * 12 + 4, 8 + 2 + 4 * 12 + 4 + 2 + 2 * 12 + 4
    picture_at = second + 2 + 3 * 12 + 4
    head = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*")
    return (
        head
        + struct.pack(order + "I", first)
        + directory([(0x100, 4, width), (0x101, 4, height), (0x112, 3, orientation), (0x8769, 4, inner)], second)
        + directory([(0xA002, 4, width), (0xA003, 3, height)], 0)
        + directory([(0x112, 3, orientation), (0x201, 4, picture_at), (0x202, 4, len(thumbnail))], 0)
        + thumbnail
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", SAVED)
def test_a_person_sees_the_same_before_and_after(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(tmp_path / f"in/x.{suffix}", leaning(), exif=exif, **SAVED[suffix])
    before = seen(source)
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity()).exit_code == 0
    with Image.open(tmp_path / f"out/x.{suffix}") as image:
        assert image.getexif().get(0x0112, 1) == 1
        stored = np.asarray(image.convert("RGB"))
    lossy = {"jpg": 4, "avif": 6}.get(suffix, 0)
    assert stored.shape == before.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    assert np.abs(stored.astype(int) - before).max() <= lossy
    if suffix in ("jpg", "png"):  # a second viewer
        for path in (source, tmp_path / f"out/x.{suffix}"):
            assert np.abs(cv2.imread(str(path))[:, :, ::-1].astype(int) - before).max() <= lossy


@pytest.mark.parametrize("target", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_also_from_format_to_format(tmp_path, orientation, target):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(tmp_path / "in/x.tif", leaning(), exif=exif)
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity(), ext=target, quality=95).exit_code == 0
    (out,) = (tmp_path / "out").iterdir()
    with Image.open(out) as image:
        assert image.getexif().get(0x0112, 1) == 1
        stored = np.asarray(image)
    assert np.abs(stored.astype(int) - seen(source)).max() <= {"png": 0, "tiff": 0}.get(target, 16)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_sizes_are_right_and_the_old_thumbnail_is_gone(tmp_path, suffix, order):
    small = io.BytesIO()
    Image.fromarray(leaning(12, 20)).save(small, "JPEG")
    block = exif_block(order, 6, (24, 40), small.getvalue())
    save(tmp_path / f"in/x.{suffix}", leaning(), exif=block, **SAVED[suffix])
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    out = tmp_path / f"out/x.{suffix}"
    assert small.getvalue()[:64] not in out.read_bytes()
    assert small.getvalue()[-64:] not in out.read_bytes()
    with Image.open(out) as image:
        assert image.size == (24, 40)
        exif = image.getexif()
        assert (exif[0x100], exif[0x101], exif[0x112]) == (24, 40, 1)
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        assert (inner[0xA002], inner[0xA003]) == (24, 40)
        assert not exif.get_ifd(ExifTags.IFD.IFD1)


def test_a_thumbnail_in_the_middle_of_the_block_is_wiped_and_what_follows_stays(tmp_path):
    small = io.BytesIO()
    Image.fromarray(leaning(12, 20)).save(small, "JPEG")
    block = exif_block("<", 1, (24, 40), small.getvalue()) + b"a maker's note"
    save(tmp_path / "in/x.png", leaning(), exif=block)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    data = (tmp_path / "out/x.png").read_bytes()
    assert small.getvalue()[-64:] not in data
    assert b"a maker's note" in data


def test_photoshop_s_and_xmp_s_thumbnails_go_and_captions_stay(tmp_path):
    def resource(number: int, content: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content + b"\0" * (len(content) % 2)

    caption = b"\x1c\x02\x78\x00\x07A child"
    segment = b"Photoshop 3.0\0" + resource(0x040C, b"OLD PIXELS" * 9) + resource(0x0404, caption)
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:ImageWidth="40" '
        b'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:PixelYDimension="24">'
        b"<xmp:Thumbnails><rdf:Alt>OLD PIXELS</rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(tmp_path / "in/x.jpg", leaning(), exif=exif, xmp=xmp, quality=95)
    data = source.read_bytes()
    source.write_bytes(data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    out = (tmp_path / "out/x.jpg").read_bytes()
    assert b"OLD PIXELS" not in out
    assert resource(0x0404, caption) in out
    for part in (b'tiff:Orientation="1"', b'tiff:ImageWidth="24"', b'exif:PixelYDimension="40"'):
        assert part in out
    with Image.open(tmp_path / "out/x.jpg") as image:
        assert image.info["photoshop"][0x0404] == caption


def test_what_xmp_alone_says_stays_for_the_readers_that_believe_it(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    save(tmp_path / "in/x.webp", leaning(), xmp=xmp, lossless=True)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    np.testing.assert_array_equal(seen(tmp_path / "out/x.webp"), seen(tmp_path / "in/x.webp"))
    np.testing.assert_array_equal(load(tmp_path / "out/x.webp"), leaning())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_match_the_picture_as_it_is_seen(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(tmp_path / f"in/x.{suffix}", leaning(), exif=exif)
    expected = seen(source).copy()
    mask = hole(*expected.shape[:2], (3, 1, 9, 20))
    save(tmp_path / "masks/x.png", mask)
    assert fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks").exit_code == 0
    expected[mask > 0] = 255
    np.testing.assert_array_equal(load(tmp_path / f"out/x.{suffix}"), expected)


def test_a_turned_mask_is_seen_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in/x.png", leaning(40, 24))
    save(tmp_path / "masks/x.png", hole(24, 40, (0, 0, 5, 8)), exif=exif)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks")
    changed = (load(tmp_path / "out/x.png") != leaning(40, 24)).any(axis=2)
    np.testing.assert_array_equal(changed, np.rot90(hole(24, 40, (0, 0, 5, 8)) > 0, -1))


def test_an_enlarged_picture_says_its_new_size(tmp_path):
    from restore.restorers.base import ModelRequirements

    class Doubler(Inverter):
        requirements = ModelRequirements(needs_mask=False, scale=2)

        def _restore(self, image, mask):
            return image.repeat_interleave(2, -1).repeat_interleave(2, -2)

    save(tmp_path / "in/x.jpg", leaning(), exif=exif_block("<", 8, (24, 40), b""))
    fix_with(tmp_path / "in", tmp_path / "out", Doubler())
    with Image.open(tmp_path / "out/x.jpg") as image:
        assert image.size == (48, 80)
        exif = image.getexif()
        assert (exif[0x100], exif[0x101]) == (48, 80)
        assert exif.get_ifd(ExifTags.IFD.Exif)[0xA002] == 48


def test_a_tag_that_is_not_one_number_is_left_to_the_readers_that_believe_it(tmp_path):
    """Turned by a tag that is not set back, the picture would be turned twice."""
    block = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 0x0112, 3, 2, 6, 6, 0)
    save(tmp_path / "in/x.png", photo(6, 9), exif=block)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / "in/x.png") as before, Image.open(tmp_path / "out/x.png") as after:
        np.testing.assert_array_equal(ImageOps.exif_transpose(before), ImageOps.exif_transpose(after))
