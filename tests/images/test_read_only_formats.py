"""JPEG 2000, JPEG XL and Photoshop files: read exactly, and never written under a false name."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from restore.errors import RestoreError
from restore.images import UnsupportedFile, read_image
from restore.images.decoder_output import DamagedFile, ImageTooLarge
from restore.images.jpeg_xl import Header, left_out_of, read_header
from restore.images.read import image_from_bytes
from tests.fix.conftest import Inverter, fix_with, plan_with, save

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 9, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (7, 9, 3), np.uint16)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6


# Photoshop


def packed(row: bytes) -> bytes:
    """PackBits without any repetition."""
    return bytes([len(row) - 1]) + row


def photoshop(
    planes: np.ndarray, mode: int, *, layers: int = 0, rle: bool = False, big: bool = False, resources: bytes = b""
) -> bytes:
    """A file with these channels C×H×W, by the specification."""
    count, height, width = planes.shape
    wide, rows = (">Q", ">H") if big else (">I", ">H")
    rows = ">I" if big else rows
    data = struct.pack(">4sH6xHIIHH", b"8BPS", 2 if big else 1, count, height, width, planes.itemsize * 8, mode)
    data += struct.pack(">I", 0) + struct.pack(">I", len(resources)) + resources
    section = struct.pack(wide, 2) + struct.pack(">h", layers) if layers else b""
    data += struct.pack(wide, len(section)) + section
    content = planes.astype(planes.dtype.newbyteorder(">"))
    if not rle:
        return data + b"\0\0" + content.tobytes()
    lines = [packed(row.tobytes()) for plane in content for row in plane]
    return data + b"\0\1" + b"".join(struct.pack(rows, len(line)) for line in lines) + b"".join(lines)


def resource(number: int, content: bytes) -> bytes:
    return b"8BIM" + struct.pack(">H2xI", number, len(content)) + content + bytes(len(content) % 2)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("pixels", [PIXELS, DEEP], ids=["8", "16"])
def test_the_merged_image_of_a_photoshop_file_is_read_exactly(pixels, rle, big):
    image = image_from_bytes(photoshop(pixels.transpose(2, 0, 1), 3, layers=3, rle=rle, big=big), "x.psd")
    assert np.array_equal(image.pixels, pixels)
    assert image.pixels.dtype == pixels.dtype
    assert image.notes == ["only the merged image is read; layers are left out: 3"]


def test_profile_texts_and_resolution_of_a_photoshop_file_are_kept():
    across = struct.pack(">I2HI2H", 600 << 16, 1, 1, 300 << 16, 1, 1)
    blocks = resource(1039, ICC) + resource(1060, XMP) + resource(1005, across) + resource(1058, EXIF)
    image = image_from_bytes(photoshop(PIXELS.transpose(2, 0, 1), 3, resources=blocks), "x.psd")
    assert (image.icc, image.dpi) == (ICC, (300, 600))  # turned by the orientation
    assert image.size == (9, 7)
    assert image.xmp == XMP


def test_gray_and_ink_of_a_photoshop_file():
    gray = PIXELS[:, :, :1]
    assert np.array_equal(image_from_bytes(photoshop(gray.transpose(2, 0, 1), 1), "x.psd").pixels, gray)
    paper = image_from_bytes(photoshop(np.full((4, 7, 9), 255, np.uint8), 4), "x.psd")
    assert paper.pixels.min() >= 254  # no ink
    assert paper.notes[0].startswith("CMYK converted to RGB")
    black = image_from_bytes(photoshop(np.zeros((4, 7, 9), np.uint8), 4), "x.psd")
    assert black.pixels.max() < 60


def test_transparency_of_a_photoshop_file_is_freed_of_its_white():
    alpha = np.full((7, 9, 1), 128, np.uint8)
    on_white = np.rint(PIXELS * (alpha / 255) + 255 * (1 - alpha / 255)).astype(np.uint8)
    planes = np.concatenate([on_white, alpha], axis=2).transpose(2, 0, 1)
    image = image_from_bytes(photoshop(planes, 3, layers=-1), "x.psd")
    assert np.abs(image.pixels.astype(int) - PIXELS).max() <= 2
    assert np.array_equal(image.alpha, alpha[:, :, 0])
    # A program that does not blend with white leaves darker colors than that blend can have.
    planes = np.concatenate([PIXELS // 4, alpha], axis=2).transpose(2, 0, 1)
    assert np.array_equal(image_from_bytes(photoshop(planes, 3, layers=-1), "x.psd").pixels, PIXELS // 4)
    saved = image_from_bytes(photoshop(planes, 3), "x.psd")  # a saved selection is no transparency
    assert (saved.alpha, saved.notes) == (None, ["channels beyond the colors are left out"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (photoshop(PIXELS.transpose(2, 0, 1), 9), "its colors are Lab"),
        (photoshop(np.zeros((3, 7, 9), np.float32), 3), "it has 32 bits per channel"),
        (
            photoshop(PIXELS.transpose(2, 0, 1), 3, resources=resource(1057, b"\0\0\0\1\0")),
            "no merged image, because it was saved without 'Maximize Compatibility'",
        ),
    ],
)
def test_what_a_photoshop_file_lacks_is_said(data, words):
    with pytest.raises(UnsupportedFile, match=words):
        image_from_bytes(data, "x.psd")


@pytest.mark.parametrize("channels", [0, 1, 2])
def test_a_photoshop_file_with_too_few_channels_is_damaged(channels):
    data = photoshop(PIXELS.transpose(2, 0, 1), 3)
    with pytest.raises(DamagedFile, match="fewer channels than its color mode"):
        image_from_bytes(data[:12] + struct.pack(">H", channels) + data[14:], "x.psd")


@pytest.mark.parametrize("at", [14, 18], ids=["height", "width"])
def test_an_image_without_pixels_is_damaged(at):
    data = photoshop(PIXELS.transpose(2, 0, 1), 3)
    with pytest.raises(DamagedFile, match="the header states a size of"):
        image_from_bytes(data[:at] + bytes(4) + data[at + 4 :], "x.psd")


def test_a_psb_whose_layers_end_beyond_any_address_is_damaged():
    data = photoshop(PIXELS.transpose(2, 0, 1), 3, big=True)
    at = len(data) - 2 - PIXELS.nbytes - 8
    assert data[at : at + 8] == bytes(8)
    with pytest.raises(DamagedFile, match="broken or cut short"):
        image_from_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :], "x.psb")


@pytest.mark.parametrize("rle", [False, True])
def test_a_photoshop_file_that_is_cut_short_is_damaged(rle):
    data = photoshop(PIXELS.transpose(2, 0, 1), 3, rle=rle)
    for length in (20, 30, len(data) // 2, len(data) - 1):
        with pytest.raises(DamagedFile):
            image_from_bytes(data[:length], "x.psd")
    with pytest.raises(ImageTooLarge):
        image_from_bytes(data, "x.psd", max_pixels=62)


# JPEG 2000


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def jpeg2000(pixels: np.ndarray, kind: str = "jp2") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", no_jp2=kind == "j2k")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_jpeg_2000_is_read_exactly(kind):
    for pixels in (PIXELS, PIXELS[:, :, 0], np.dstack([PIXELS, PIXELS[:, :, 0]])):
        image = image_from_bytes(jpeg2000(pixels, kind), f"x.{kind}")
        assert np.array_equal(image.pixels, pixels.reshape(7, 9, -1)[:, :, :3])
        assert (image.alpha is not None) == (pixels.ndim == 3 and pixels.shape[2] == 4)


def test_sixteen_bits_of_jpeg_2000_stay():
    deep = RNG.integers(0, 65536, (64, 96, 3), np.uint16)
    done, data = cv2.imencode(".jp2", deep[:, :, ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert done
    image = image_from_bytes(data.tobytes(), "x.jp2")
    assert np.array_equal(image.pixels, deep)
    gray = image_from_bytes(jpeg2000(DEEP[:, :, 0]), "x.jp2")
    assert np.array_equal(gray.pixels[:, :, 0], DEEP[:, :, 0])


def test_profile_texts_and_resolution_of_jpeg_2000_are_kept():
    data = jpeg2000(PIXELS)
    start = data.index(b"jp2h") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    resolution = box(b"res ", box(b"resc", struct.pack(">4H2b", 30000, 254, 30000, 254, 2, 2)))
    colors = box(b"colr", b"\2\0\0" + ICC)
    ihdr = data[start + 8 : start + 8 + 22]
    texts = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP)
    data = data[:start] + box(b"jp2h", ihdr + colors + resolution) + texts + data[end:]
    image = image_from_bytes(data, "x.jp2")
    assert np.array_equal(image.pixels, PIXELS)
    assert (image.icc, image.xmp) == (ICC, XMP)
    assert image.dpi == pytest.approx((300, 300))


@pytest.mark.parametrize(("color", "words"), [(12, "CMYK"), (14, "CIELab"), (99, "enumerated color space 99")])
def test_colors_of_jpeg_2000_that_are_not_understood_fail(color, words):
    data, plain = jpeg2000(PIXELS), b"colr\1\0\0" + struct.pack(">I", 16)
    assert data.count(plain) == 1
    with pytest.raises(UnsupportedFile, match=words):
        image_from_bytes(data.replace(plain, plain[:-4] + struct.pack(">I", color)), "x.jp2")


@pytest.mark.parametrize("channels", [2, 4])
def test_a_channel_of_jpeg_2000_is_transparency_only_if_declared(channels):
    pixels = RNG.integers(0, 256, (16, 16, channels), np.uint8)
    data = jpeg2000(pixels)
    assert image_from_bytes(data, "x.jp2").transparent
    undeclared = image_from_bytes(data.replace(b"cdef", b"cdeg"), "x.jp2")
    assert not undeclared.transparent
    assert np.array_equal(undeclared.alpha, pixels[:, :, -1])
    place = data.index(b"cdef") + 6 + 6 * (channels - 1)  # of the last channel
    assert data[place : place + 6] == struct.pack(">3H", channels - 1, 1, 0)
    with pytest.raises(UnsupportedFile, match="its colors are multiplied by its transparency"):
        image_from_bytes(data[: place + 3] + b"\2" + data[place + 4 :], "x.jp2")


def test_boxes_of_jpeg_2000_that_are_left_out_are_told():
    data = jpeg2000(PIXELS) + box(b"xml ", b"<a/>") + box(b"uuid", bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"))
    notes = image_from_bytes(data, "x.jp2").notes
    assert notes == ["a description in XML is left out", "its GeoTIFF block is left out"]


def test_broken_jpeg_2000():
    data = jpeg2000(PIXELS)
    with pytest.raises(DamagedFile):
        image_from_bytes(data[: len(data) // 2], "x.jp2")
    with pytest.raises(ImageTooLarge):
        image_from_bytes(data, "x.jp2", max_pixels=62)
    start = data.index(b"colr") - 4
    for cut in (start + 8, start + 9):  # ends inside the color box
        with pytest.raises(DamagedFile):
            image_from_bytes(data[:cut], "x.jp2")
    signed = data.replace(b"\x07\x01\x01", b"\x87\x01\x01")
    assert signed != data
    with pytest.raises(UnsupportedFile, match="its values are signed"):
        image_from_bytes(signed, "x.jp2")


# JPEG XL


def jpeg_xl(pixels: np.ndarray, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl")
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JXL", lossless=True, **options)
    return stream.getvalue()


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[:, :, 0], np.dstack([PIXELS, PIXELS[:, :, 1]]), DEEP[:, :, 0]])
def test_jpeg_xl_is_read_exactly(pixels):
    image = image_from_bytes(jpeg_xl(pixels), "x.jxl")
    assert np.array_equal(image.pixels, pixels.reshape(7, 9, -1)[:, :, :3])
    assert image.pixels.dtype == pixels.dtype
    assert (image.alpha is not None) == (pixels.shape[2:] == (4,))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (256, 16), (300, 400), (1, 700), (90, 160), (600, 1200)])
def test_the_size_in_the_header_of_jpeg_xl(size):
    assert read_header(jpeg_xl(np.zeros((*size, 3), np.uint8))) == Header(*size[::-1], animated=False)


#: Two frames of 16×8 pixels, red and green, written by cjxl.
ANIMATED = bytes.fromhex(
    "ff0ac1050308282e090802920900005c004b188b1500d48a3118d40522007025e9628004a09f7200080292050060004b"
    "188b1500d48a31c6c8187581080032a6b418382019d514"
)


def test_an_animated_jpeg_xl_is_read_to_its_last_frame_and_says_so():
    pytest.importorskip("pillow_jxl")
    image = image_from_bytes(ANIMATED, "x.jxl")
    assert (image.pixels == (30, 200, 30)).all()
    assert image.notes == ["only the last frame of the animation is read"]


@pytest.mark.parametrize("animated", [True, False])
@pytest.mark.parametrize("preview", ["", "1" + "10" + "100", "0" + "00" + "110000" + "000" + "00" + "010000"])
@pytest.mark.parametrize("intrinsic", ["", "1" + "10100" + "100"])
def test_what_comes_before_the_animation_in_the_header_of_jpeg_xl(animated, preview, intrinsic):
    size = "1" + "00000" + "111"  # 8 rows, twice as many columns
    fields = f"{int(bool(intrinsic))}{intrinsic}{int(bool(preview))}{preview}{int(animated)}"
    bits = size + "0" + "1" + "000" + fields + "0" * 300
    data = b"\xff\x0a" + int(bits[::-1], 2).to_bytes(100, "little")
    assert read_header(data) == Header(16, 8, animated)


def test_a_jpeg_in_jpeg_xl_is_that_jpeg(tmp_path):
    pytest.importorskip("pillow_jxl")
    Image.fromarray(np.repeat(PIXELS, 3, axis=0)).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + EXIF)
    with Image.open(tmp_path / "x.jpg") as image:
        image.save(tmp_path / "x.jxl", lossless_jpeg=True)
    turned = read_image(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jxl").pixels, turned.pixels)


def test_pixels_of_jpeg_xl_that_do_not_fit_the_image_fail(monkeypatch):
    class Decoder:
        def __init__(self, num_threads: int) -> None:
            pass

        def __call__(self, data: bytes) -> tuple[object, ...]:
            info = SimpleNamespace(width=9, height=7, num_channels=3, has_alpha_channel=False, mode="RGB")
            return False, info, bytes(7 * 9 * 3 * 8), b"", []

    data = jpeg_xl(PIXELS)
    monkeypatch.setattr("pillow_jxl.Decoder", Decoder)
    with pytest.raises(UnsupportedFile, match="unknown layout"):
        image_from_bytes(data, "x.jxl")


def test_what_jpeg_xl_holds_besides_is_told(tmp_path):
    start = b"\0\0\0\x0cJXL \r\n\x87\n"
    data = start + box(b"jumb", b"signed") + box(b"jxlc", b"\xff\x0a") + box(b"jhgm", b"map")
    assert left_out_of(data) == ["its manifest of content credentials (C2PA)", "its HDR gain map"]
    pytest.importorskip("pillow_jxl")
    Image.fromarray(np.repeat(PIXELS, 3, axis=0)).save(tmp_path / "x.jpg", comment=b"a comment")
    with Image.open(tmp_path / "x.jpg") as image:
        image.save(tmp_path / "x.jxl", lossless_jpeg=True)
    assert read_image(tmp_path / "x.jxl").notes == ["the comment is left out"]


def test_broken_jpeg_xl_and_a_missing_package(monkeypatch):
    data = jpeg_xl(PIXELS)
    for broken in (data[:30], data[: len(data) // 2], b"\xff\x0a"):
        with pytest.raises(DamagedFile):
            image_from_bytes(broken, "x.jxl")
    with pytest.raises(ImageTooLarge):
        image_from_bytes(data, "x.jxl", max_pixels=62)
    monkeypatch.setattr("restore.images.formats.find_spec", lambda name: None)
    with pytest.raises(UnsupportedFile) as caught:
        image_from_bytes(data, "x.jxl")
    assert str(caught.value) == (
        "x.jxl: this is a JPEG XL file; JPEG XL needs an extra package: pip install 'restore-toolkit[jxl]'"
    )


# PDF


def pdf(*pages: np.ndarray, dpi: float = 150) -> bytes:
    stream = io.BytesIO()
    first, *others = map(Image.fromarray, pages)
    first.save(stream, "PDF", resolution=dpi, save_all=True, append_images=others, quality=95)
    return stream.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 2, y * 3, x + y]).astype(np.uint8)


def test_the_pages_of_a_pdf_have_the_pixels_of_their_scans(tmp_path: Path):
    pytest.importorskip("pypdfium2")
    pages = smooth(64, 96), smooth(40, 30)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/scan.pdf").write_bytes(pdf(*pages))
    first = read_image(tmp_path / "in/scan.pdf")
    assert first.dpi == pytest.approx((150, 150), abs=0.01)
    assert np.abs(first.pixels.astype(int) - pages[0]).mean() < 2  # Pillow stores a JPEG
    assert first.notes == [
        "a page of a PDF document is drawn at 150 pixels per inch, in sRGB", "only the first of 2 pages is read",
    ]  # fmt: skip
    assert fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext="tiff").done == 1
    with Image.open(tmp_path / "out/scan.tiff") as image:
        assert image.n_frames == 2
        image.seek(1)
        assert np.abs(255 - np.asarray(image).astype(int) - pages[1]).mean() < 2


def test_pdfs_that_cannot_be_read(monkeypatch):
    pytest.importorskip("pypdfium2")
    with pytest.raises(DamagedFile, match="it is broken, or has no pages"):
        image_from_bytes(b"%PDF-1.7" + bytes(99), "x.pdf")
    with pytest.raises(ImageTooLarge):
        image_from_bytes(pdf(smooth(64, 96)), "x.pdf", max_pixels=64 * 96 - 1)
    monkeypatch.setattr("restore.images.formats.find_spec", lambda name: None)
    with pytest.raises(UnsupportedFile, match=r"this is a PDF document; .* pip install 'restore-toolkit\[pdf\]'"):
        image_from_bytes(pdf(smooth(64, 96)), "x.pdf")


# What a repair makes of them


def test_they_are_written_in_another_format_only(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.psd").write_bytes(photoshop(DEEP.transpose(2, 0, 1), 3))
    (tmp_path / "in/b.jp2").write_bytes(jpeg2000(PIXELS))
    save(tmp_path / "in/c.psd", PIXELS, format="PNG")  # the content decides
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert {failure.path.name: failure.reason for failure in summary.failed} == {
        "a.psd": "this is a Photoshop file, which can be read but not written; choose another format with --ext, "
        "such as tiff",
        "b.jp2": "this is a JPEG 2000 file, which can be read but not written; choose another format with --ext, "
        "such as tiff",
    }
    assert os.listdir(tmp_path / "out") == ["c.psd"]
    with pytest.raises(RestoreError, match="can be read but not written") as caught:
        plan_with(tmp_path / "in/a.psd", f"{tmp_path}/one/")
    assert caught.value.exit_code == 2
    assert fix_with(tmp_path / "in", tmp_path / "tiffs", Inverter(), ext="tiff").done == 3
    assert np.array_equal(65535 - read_image(tmp_path / "tiffs/a.tiff").pixels, DEEP)
    assert np.array_equal(255 - read_image(tmp_path / "tiffs/b.tiff").pixels, PIXELS)
    assert fix_with(tmp_path / "in/a.psd", tmp_path / "one.avif", Inverter()).done == 1


def test_ext_avif(tmp_path: Path):
    save(tmp_path / "in/a.png", PIXELS)
    assert fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext="avif").done == 1
    after = read_image(tmp_path / "out/a.avif")
    assert after.format == "avif"
    assert after.size == (7, 9)
