"""Bit depth, gray, alpha, palettes, frames: what comes out is what went in, or a note says what became of it."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image

from restore.images.metadata import webp
from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, load, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile

EVERY = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def vips(path: Path, values: np.ndarray, **options: object) -> Path:
    """Write any depth with libvips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = values.ndim == 3 and values.shape[2] > 2
    kind = {"uint8": ("b-w", "srgb"), "uint16": ("grey16", "rgb16")}.get(values.dtype.name, ("b-w", "scrgb"))[colour]
    pyvips.Image.new_from_array(values).copy(interpretation=kind).write_to_file(str(path), **options)
    return path


def raw(path: Path) -> np.ndarray:
    """The numbers in a file, as OpenCV finds them, in the order R, G, B."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert values is not None
    return values if values.ndim == 2 else values[:, :, [2, 1, 0, 3][: values.shape[2]]]


def tiff_tag(path: Path, tag: int) -> object:
    with Image.open(path) as image:
        return image.tag_v2.get(tag)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_gradient_stays_one(tmp_path, suffix, channels):
    values = EVERY if channels == 1 else np.stack([EVERY, EVERY[::-1], EVERY.T], -1)
    vips(tmp_path / f"in/x.{suffix}", values)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    out = raw(tmp_path / f"out/x.{suffix}")
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out, values)
    assert len(np.unique(out if channels == 1 else out[..., 0])) == 65536

    mask = hole(256, 256, (100, 50, 150, 90))
    save(tmp_path / "masks/x.png", mask)
    fix_with(tmp_path / "in", tmp_path / "part", Filler(), masks=tmp_path / "masks")
    out = raw(tmp_path / f"part/x.{suffix}")
    np.testing.assert_array_equal(out[mask == 0], values[mask == 0])
    assert (out[mask > 0] == 65535).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_16_bit_repair_has_16_bits(tmp_path, suffix):
    vips(tmp_path / f"in/x.{suffix}", EVERY)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    np.testing.assert_array_equal(raw(tmp_path / f"out/x.{suffix}"), 65535 - EVERY)


@pytest.mark.parametrize("options", [{}, {"tile": True}, {"compression": "lzw"}, {"bigtiff": True}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiffs(tmp_path, options, dtype, channels):
    values = np.random.default_rng(1).random((150, 140, channels)[: 2 if channels == 1 else 3])
    values = (values * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype)
    vips(tmp_path / "in/x.tif", values, **options)
    assert fix_with(tmp_path / "in", tmp_path / "out", Identity()).warnings == []
    out = raw(tmp_path / "out/x.tif")
    assert pyvips.Image.new_from_file(str(tmp_path / "out/x.tif")).get_typeof("tile-width") == 0
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, values)
    if options.get("compression") and dtype != np.float32:  # which Pillow does not open
        assert tiff_tag(tmp_path / "out/x.tif", 259) == 5  # compressed as the source


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("icc", [b"", matrix_profile(*ADOBE_RGB), matrix_profile(None, 1.8)], ids=["", "rgb", "gray"])
def test_webp_stays_lossless_or_lossy_and_gray_looks_the_same(tmp_path, lossless, icc):
    source = save(tmp_path / "in/x.webp", photo(64, 64) * 3, lossless=lossless, icc_profile=icc)
    save(tmp_path / "gray/x.png", photo(64, 64, channels=1) * 3)
    fix_with(tmp_path / "in", tmp_path / "out", Identity(), metadata="strip")
    before, after = (webp.read_header(path.read_bytes()) for path in (source, tmp_path / "out/x.webp"))
    assert after.lossless == before.lossless == lossless
    difference = np.abs(load(tmp_path / "out/x.webp").astype(int) - load(source))
    assert difference.max() == 0 if lossless else 0 < difference.mean() < 20
    fix_with(tmp_path / "gray", tmp_path / "gray_out", Identity(), ext="webp")
    np.testing.assert_array_equal(load(tmp_path / "gray_out/x.webp"), np.dstack([load(tmp_path / "gray/x.png")] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "tga"])
def test_what_had_no_loss_becomes_a_webp_without(tmp_path, suffix):
    save(tmp_path / f"in/x.{suffix}", photo(20, 30))
    fix_with(tmp_path / "in", tmp_path / "out", Identity(), ext="webp")
    np.testing.assert_array_equal(load(tmp_path / "out/x.webp"), photo(20, 30))


def test_float_keeps_what_is_beyond_white_and_black(tmp_path):
    values = (np.random.default_rng(1).random((20, 30, 3)) * 3 - 0.5).astype(np.float32)
    vips(tmp_path / "in/x.tif", values)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    np.testing.assert_array_equal(raw(tmp_path / "out/x.tif"), values)


def test_64_bit_floating_point_is_refused_with_a_reason(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.tif").write_bytes(plain_tiff(bytes(20 * 30 * 8), (20, 30), 64, sample_format=3))
    (failure,) = fix_with(tmp_path / "in", tmp_path / "out", Identity()).failed
    assert "samples out of range" in failure.reason


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_few_bits_become_eight(tmp_path, bits, white_is_zero):
    codes = np.arange(16 * 16).reshape(16, 16) * 7 % 2**bits
    path = tmp_path / "in/x.tif"
    path.parent.mkdir()
    planes = (codes[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    strip = b"".join(np.packbits(row.reshape(-1)).tobytes() for row in planes)
    path.write_bytes(plain_tiff(strip, codes.shape, bits, photometric=0 if white_is_zero else 1))
    expected = codes * 255 // (2**bits - 1)
    expected = (255 - expected if white_is_zero else expected).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")), expected)  # as a viewer sees it
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / "out/x.tif") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), expected)


def plain_tiff(
    strip: bytes, size: tuple[int, int], bits: int, *, photometric: int = 1, sample_format: int = 1
) -> bytes:
    """One uncompressed gray strip."""
    tags = {
        256: size[1], 257: size[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: size[0],
        279: len(strip), 339: sample_format,
    }  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


@pytest.mark.parametrize("mode", ["1", "P"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_two_colours_and_palettes_become_eight_bits(tmp_path, suffix, mode):
    image = Image.fromarray(photo(12, 15) * 3)
    image = image.convert("1") if mode == "1" else image.quantize(16)
    (tmp_path / "in").mkdir()
    image.save(tmp_path / f"in/x.{suffix}")
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / f"in/x.{suffix}") as before, Image.open(tmp_path / f"out/x.{suffix}") as after:
        assert after.mode in ("L", "RGB", "P")
        np.testing.assert_array_equal(np.asarray(after.convert("RGB")), np.asarray(before.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_a_palette_keeps_its_transparency(tmp_path, suffix):
    image = Image.fromarray(photo(12, 15) * 3).quantize(16)
    soft = bytes(range(0, 256, 16)) if suffix == "png" else None
    (tmp_path / "in").mkdir()
    if suffix == "webp":
        image.info["transparency"] = 3
        image.convert("RGBA").save(tmp_path / "in/x.webp", lossless=True, exact=True)
    else:
        image.save(tmp_path / f"in/x.{suffix}", transparency=soft or 3)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / f"in/x.{suffix}") as before, Image.open(tmp_path / f"out/x.{suffix}") as after:
        old, new = np.asarray(before.convert("RGBA")), np.asarray(after.convert("RGBA"))
    assert 0 < (old[..., 3] == 0).mean() < 1
    np.testing.assert_array_equal(new[..., 3], old[..., 3])
    np.testing.assert_array_equal(new[new[..., 3] > 0], old[old[..., 3] > 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_not_touched_and_what_it_hides_neither(tmp_path, suffix, channels, dtype):
    values = photo(20, 30, channels=channels, dtype=dtype) * 4
    values[:5, ..., -1] = 0
    vips(tmp_path / f"in/x.{suffix}", values)
    for restorer in (Identity(), Inverter()):
        fix_with(tmp_path / "in", tmp_path / restorer.name, restorer)
        out = pyvips.Image.new_from_file(str(tmp_path / restorer.name / f"x.{suffix}")).numpy()
        assert out.dtype == dtype
        np.testing.assert_array_equal(out[..., -1], values[..., -1])
        expected = values[..., :-1] if restorer.name == "identity" else np.iinfo(dtype).max - values[..., :-1]
        np.testing.assert_array_equal(out[..., :-1], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_comes_out_straight_and_looks_the_same(tmp_path, dtype):
    top = np.iinfo(dtype).max
    values = (np.random.default_rng(2).random((40, 40, 4)) * top).astype(dtype)
    vips(tmp_path / "in/x.tif", values, premultiply=True)
    assert tiff_tag(tmp_path / "in/x.tif", 338) in (1, (1,))
    stored = raw_samples(tmp_path / "in/x.tif", dtype)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert tiff_tag(tmp_path / "out/x.tif", 338) in (2, (2,))
    out = pyvips.Image.new_from_file(str(tmp_path / "out/x.tif")).numpy()
    np.testing.assert_array_equal(out[..., 3], values[..., 3])
    alpha = out[..., 3:].astype(float) / top
    on_black = out[..., :3] * alpha
    assert np.abs(on_black - stored[..., :3]).max() <= 1


def raw_samples(path: Path, dtype: type) -> np.ndarray:
    """The samples of an uncompressed TIFF as they are stored, whatever they mean."""
    with Image.open(path) as image:
        offsets, counts = image.tag_v2[273], image.tag_v2[279]
        size = image.size
    data = path.read_bytes()
    body = b"".join(data[at : at + count] for at, count in zip(offsets, counts))
    return np.frombuffer(body, dtype).reshape(size[1], size[0], 4)


def test_a_channel_that_is_not_said_to_be_alpha_does_not_become_it(tmp_path):
    values = photo(9, 8, channels=4)
    (tmp_path / "in").mkdir()
    Image.fromarray(values[..., :3]).convert("RGBX").save(tmp_path / "in/x.tif")
    assert tiff_tag(tmp_path / "in/x.tif", 338) in (0, (0,))
    with Image.open(tmp_path / "in/x.tif") as image:
        before = np.asarray(image)
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert tiff_tag(tmp_path / "out/x.tif", 338) in (0, (0,))
    np.testing.assert_array_equal(load(tmp_path / "out/x.tif"), before)
    summary = fix_with(tmp_path / "in", tmp_path / "png", Identity(), ext="png")
    assert "an extra channel of unspecified meaning is left out" in summary.warnings[0]
    np.testing.assert_array_equal(load(tmp_path / "png/x.png"), values[..., :3])


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (3, 5), (2, 3)])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_any_size_and_any_hole(tmp_path, suffix, shape):
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    source = load(save(tmp_path / f"in/x.{suffix}", photo(*shape), **options))
    fix_with(tmp_path / "in", tmp_path / "same", Identity())
    np.testing.assert_array_equal(load(tmp_path / f"same/x.{suffix}"), source)
    for name, box, invert in (
        ("pixel", (shape[0] - 1, shape[1] - 1, shape[0], shape[1]), False),
        ("whole", (0, 0, *shape), False),
        ("other", (0, 0, 1, 1), True),
    ):
        mask = hole(*shape, box)
        save(tmp_path / f"{name}/x.png", mask)
        out = tmp_path / f"out_{name}"
        summary = fix_with(tmp_path / "in", out, Filler(), masks=tmp_path / name, mask_invert=invert)
        assert (summary.done, summary.exit_code) == (1, 0)
        expected = source.copy()
        expected[(mask > 0) != invert] = 255
        difference = np.abs(load(out / f"x.{suffix}").astype(int) - expected)
        assert difference.max() <= (3 if suffix == "jpg" else 0)


def test_a_float_alpha_in_another_range_is_a_mask_all_the_same(tmp_path):
    values = np.full((8, 8, 4), 100, np.float32)
    values[..., 3] = 255
    values[2:4, 2:4, 3] = 0
    vips(tmp_path / "in/x.tif", values)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks="alpha")
    out = pyvips.Image.new_from_file(str(tmp_path / "out/x.tif")).numpy()
    expected = values.copy()
    expected[2:4, 2:4] = 255
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_of_animations_the_first_frame_is_repaired_and_that_is_said(tmp_path, suffix):
    frames = [Image.fromarray((photo(16, 16, seed) // 16 * 64).astype(np.uint8)) for seed in range(3)]
    (tmp_path / "in").mkdir()
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "avif" else {}
    frames[0].save(tmp_path / f"in/x.{suffix}", save_all=True, append_images=frames[1:], **options)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    said = "only the first frame of the animation is read" if suffix == "avif" else "only the first of 3 frames is read"
    assert [line.endswith(said) for line in summary.warnings] == [True]
    with Image.open(tmp_path / f"in/x.{suffix}") as before, Image.open(tmp_path / f"out/x.{suffix}") as after:
        assert getattr(after, "n_frames", 1) == 1
        difference = np.asarray(after.convert("RGB")).astype(int) - np.asarray(before.convert("RGB"))
    assert np.abs(difference).mean() <= (12 if suffix == "avif" else 0)


def test_a_twelve_bit_jpeg_is_read_in_full_or_refused_with_its_reason(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.jpg").write_bytes(twelve_bit_jpeg())
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert summary.done + len(summary.failed) == 1
    if summary.failed:  # libjpeg-turbo can, libvips 8.18 does not ask it to
        assert "precision 12; convert it" in summary.failed[0].reason
        assert list((tmp_path / "out").glob("*")) == []


def twelve_bit_jpeg() -> bytes:
    """16×8 pixels, gray, two flat blocks: ITU-T T.81 with the sample precision of its extended process."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    codes = bytes((0, 0, 0, 15, *[0] * 12)) + bytes(range(15))
    # A block: the size of its DC difference (11 bits: +1024, then 0), the difference, and "no more" (one bit).
    bits = "1011" + format(1024, "011b") + "0" + "0000" + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return (
        b"\xff\xd8"
        + segment(0xDB, b"\0" + b"\1" * 64)
        + segment(0xC1, struct.pack(">BHHB", 12, 8, 16, 1) + b"\1\x11\0")
        + segment(0xC4, b"\0" + codes)
        + segment(0xC4, b"\x10" + bytes((1, *[0] * 15)) + b"\0")
        + segment(0xDA, b"\1\1\0\0\x3f\0")
        + scan
        + b"\xff\xd9"
    )
