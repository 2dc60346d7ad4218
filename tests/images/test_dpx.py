"""DPX files: every header fact and bit of an untouched pixel stays; what is not read says so."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.images import image_from_bytes, read_image, write_image
from restore.images.dpx import encode_dpx, read_header
from restore.images.encode import encode
from tests.fix.conftest import Filler, fix_with, hole, save


def dpx_bytes(
    rows: bytes, width: int, height: int, *, order: str = ">", bits: int = 10, packing: int = 1, descriptor: int = 50,
    transfer: int = 2, orientation: int = 0, offset: int = 2048, padding: int = 0xFFFFFFFF, elements: int = 1,
    encoding: int = 0, sign: int = 0,
) -> bytes:  # fmt: skip
    """A file as a scanner writes it, by the tables of SMPTE ST 268."""
    head = bytearray(offset)

    def put(at: int, kind: str, *values: Any) -> None:
        struct.pack_into(order + kind, head, at, *values)

    head[:4] = b"SDPX" if order == ">" else b"XPDS"
    put(4, "I8sII", offset, b"V2.0", offset + len(rows), 1)
    put(24, "III100s24s100s", 1664, 384, offset - 2048, b"reel_0001.dpx", b"1999:12:31:23:59:59", b"a scanner")
    put(660, "I", 0xFFFFFFFF)
    put(768, "HHII", orientation, elements, width, height)
    put(780, "IIfIfBBBBHHIII32s", sign, 0, 0.0, 1023, 2.046, descriptor, transfer, 1, bits, packing, encoding,
        offset, padding, 0xFFFFFFFF, b"the element")  # fmt: skip
    put(1628, "II", 1, 1)
    put(1664, "2s2s2s6s4s32s", b"01", b"02", b"03", b"000004", b"0005", b"FILM FORMAT")
    put(1724, "f", 24.0)
    put(1920, "I", 0x01020304)  # the time code
    put(1940, "f", 24.0)
    return bytes(head) + rows


def packed(codes: np.ndarray, order: str = ">", shift: int = 2) -> bytes:
    """Codes of 10 bits, H×W×3, in words."""
    red, green, blue = (codes[:, :, c].astype(np.uint32) for c in range(3))
    words = red << (20 + shift) | green << (10 + shift) | blue << shift
    return words.astype(f"{order}u4").tobytes()


CODES = np.random.default_rng(0).integers(0, 1024, (6, 7, 3))


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("transfer", [1, 2, 3, 6])
def test_ten_bits_come_out_as_they_went_in(order: str, packing: int, transfer: int) -> None:
    rows = packed(CODES, order, 2 if packing == 1 else 0)
    data = dpx_bytes(rows, 7, 6, order=order, packing=packing, transfer=transfer)
    image = image_from_bytes(data, "a.dpx")
    assert (image.format, image.bits, image.pixels.dtype, image.notes) == ("dpx", 10, np.uint16, [])
    np.testing.assert_array_equal(np.rint(image.pixels / 65535 * 1023), CODES)
    # The header says the same but for how long each row and the file are.
    out, notes = encode(image, "dpx", "b.dpx")
    assert notes == []
    assert out[2048:] == rows
    differing = [at for at in range(2048) if out[at] != data[at]]
    assert set(differing) <= set(range(812, 816))
    # A change of all pixels changes codes as it should.
    changed = image.blend(np.full((6, 7, 3), 0.5, np.float32), np.ones((6, 7), np.float32))
    again = image_from_bytes(encode(changed, "dpx", "b.dpx")[0], "b.dpx")
    assert np.abs(again.to_srgb() - 0.5).max() < (0.02 if transfer == 2 else 0.004)


def test_other_depths_and_channels() -> None:
    random = np.random.default_rng(1)
    for bits, dtype, descriptor, order in (
        (8, "u1", 50, ">"), (8, "u1", 51, "<"), (16, "u2", 50, "<"), (16, "u2", 6, ">"), (12, "u2", 50, ">"),
    ):  # fmt: skip
        channels = {6: 1, 50: 3, 51: 4}[descriptor]
        codes = random.integers(0, 1 << bits, (4, 8, channels))
        stored = codes << 4 if bits == 12 else codes
        rows = stored.astype(order + dtype).tobytes()
        data = dpx_bytes(rows, 8, 4, order=order, bits=bits, descriptor=descriptor, packing=int(bits == 12))
        image = image_from_bytes(data, "a.dpx")
        values = image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])
        np.testing.assert_array_equal(np.rint(values / image.white * ((1 << bits) - 1)), codes)
        assert image.bits == bits
        assert encode(image, "dpx", "b.dpx")[0][2048:] == rows
    gray = random.integers(0, 1024, (4, 7, 1))
    three = np.pad(gray[:, :, 0], ((0, 0), (0, 2))).reshape(4, 3, 3)[:, :, ::-1]  # the first pixel is in the lower bits
    data = dpx_bytes(packed(three), 7, 4, descriptor=6)
    image = image_from_bytes(data, "a.dpx")
    np.testing.assert_array_equal(np.rint(image.pixels / 65535 * 1023), gray)
    assert encode(image, "dpx", "b.dpx")[0][2048:] == data[2048:]


def test_rows_may_be_padded_or_not() -> None:
    codes = np.random.default_rng(2).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    rows = codes.reshape(3, 15)
    for data in (
        dpx_bytes(rows.tobytes(), 5, 3, bits=8, packing=0),
        dpx_bytes(np.pad(rows, ((0, 0), (0, 1))).tobytes(), 5, 3, bits=8, packing=0),
        dpx_bytes(np.pad(rows, ((0, 0), (0, 9))).tobytes(), 5, 3, bits=8, packing=0, padding=8),
    ):
        image = image_from_bytes(data, "a.dpx")
        np.testing.assert_array_equal(image.pixels, codes)
        out = encode(image, "dpx", "b.dpx")[0]
        np.testing.assert_array_equal(image_from_bytes(out, "b.dpx").pixels, codes)


@pytest.mark.parametrize("orientation", range(8))
def test_an_orientation_is_kept(orientation: int) -> None:
    data = dpx_bytes(packed(CODES), 7, 6, orientation=orientation)
    image = image_from_bytes(data, "a.dpx")
    first = np.rint(image.pixels / 65535 * 1023)
    right, down, turned = orientation in (1, 3, 5, 7), orientation in (2, 3, 6, 7), orientation >= 4
    assert image.size == ((7, 6) if turned else (6, 7))
    if not turned:  # the first value of the file is in this corner
        assert (first[-1 if down else 0, -1 if right else 0] == CODES[0, 0]).all()
    else:
        assert (first[-1 if orientation in (6, 7) else 0, -1 if orientation in (5, 7) else 0] == CODES[0, 0]).all()
    assert encode(image, "dpx", "b.dpx")[0][2048:] == data[2048:]


def test_densities_of_film_are_seen_as_light() -> None:
    codes = np.repeat(np.array([[[95], [445], [685], [1023]]]), 3, axis=2)
    image = image_from_bytes(dpx_bytes(packed(codes), 4, 1, transfer=1), "a.dpx")
    black, gray, white, bright = image.to_srgb()[0, :, 0]
    assert black < 0.01
    assert 0.38 < gray < 0.48  # 18 % of the light
    assert 0.85 < white < bright <= 1
    note = image_from_bytes(dpx_bytes(packed(codes), 4, 1, transfer=0), "a.dpx").notes
    assert note == ["the DPX does not say what its values mean: they are taken as sRGB"]
    notes = encode(image, "png", "a.png")[1]
    assert any("highlights compressed" in line for line in notes)
    assert any("film and television" in line for line in notes)


def test_metadata_are_stripped_but_not_the_facts(tmp_path: Path) -> None:
    (tmp_path / "a.dpx").write_bytes(dpx_bytes(packed(CODES), 7, 6))
    write_image(read_image(tmp_path / "a.dpx"), tmp_path / "b.dpx", metadata="strip")
    data = (tmp_path / "b.dpx").read_bytes()
    assert b"scanner" not in data
    assert b"1999" not in data
    assert struct.unpack_from(">f", data, 1940) == (24.0,)
    assert data[2048:] == packed(CODES)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"descriptor": 100}, "YCbCr 4:2:2"),
        ({"descriptor": 200}, "kind 200"),
        ({"bits": 32}, "32 bits"),
        ({"packing": 0}, "without filling bits"),
        ({"elements": 2}, "2 elements"),
        ({"encoding": 1}, "compressed"),
        ({"sign": 1}, "sign"),
        ({"descriptor": 51}, "alpha of 10 bits"),
        ({"padding": 1 << 30}, "follow each row"),
    ],
)
def test_what_is_not_read_says_so(facts: dict[str, int], words: str) -> None:
    with pytest.raises(RestoreError, match=words):
        image_from_bytes(dpx_bytes(packed(CODES), 7, 6, **facts), "a.dpx")


def test_hostile_headers_are_refused() -> None:
    whole = dpx_bytes(packed(CODES), 7, 6)
    for width, height in ((0, 6), (0xFFFFFFFF, 0xFFFFFFFF), (70000, 70000), (7, 60)):
        with pytest.raises(RestoreError):
            image_from_bytes(dpx_bytes(packed(CODES), width, height), "a.dpx")
    for at, value in ((4, 0xFFFFFFFE), (4, 0)):
        bad = bytearray(whole)
        struct.pack_into(">I", bad, at, value)
        struct.pack_into(">I", bad, 808, value)
        with pytest.raises(RestoreError, match="begin at byte"):
            image_from_bytes(bytes(bad), "a.dpx")
    for length in (4, 100, 1663, 2048, 2100):
        with pytest.raises(RestoreError):
            image_from_bytes(whole[:length], "a.dpx")
    partly = image_from_bytes(whole[:-28], "a.dpx", allow_truncated=True)
    assert "5 of 6 rows" in partly.notes[0]
    random = np.random.default_rng(3)
    for _ in range(300):
        bad = bytearray(whole)
        for at in random.integers(0, 2048, 6):
            bad[at] = random.integers(256)
        try:
            image = image_from_bytes(bytes(bad), "a.dpx", max_pixels=1_000_000)
        except RestoreError:
            continue
        assert image.pixels.size


def test_only_a_dpx_becomes_a_dpx() -> None:
    image = image_from_bytes(dpx_bytes(packed(CODES), 7, 6), "a.dpx")
    with pytest.raises(RestoreError, match="only other DPX files"):
        encode(replace(image, passthrough=b""), "dpx", "b.dpx")
    with pytest.raises(RestoreError, match="converted to sRGB"):
        encode(image.in_srgb(), "dpx", "b.dpx")
    bigger = encode_dpx(np.zeros((12, 14, 3), np.uint16), None, image.passthrough)
    header = read_header(bigger)
    assert (header.width, header.height, len(bigger)) == (14, 12, 2048 + 12 * 14 * 4)


def test_a_frame_changes_only_in_its_mask(tmp_path: Path) -> None:
    """Of log frames, codes beyond white stay, too."""
    codes = np.random.default_rng(4).integers(0, 1024, (32, 40, 3))
    (tmp_path / "in").mkdir()
    for number in range(3):
        data = dpx_bytes(packed(codes, "<"), 40, 32, order="<", transfer=3)
        (tmp_path / f"in/frame_{number:06d}.dpx").write_bytes(data)
    mask = hole(32, 40, (8, 10, 20, 30))
    pattern = tmp_path / "in/frame_%06d.dpx"
    summary = fix_with(pattern, tmp_path / "out/frame_%06d.dpx", Filler(), masks=str(save(tmp_path / "m.png", mask)))
    assert (summary.done, summary.failed) == (3, [])
    out = (tmp_path / "out/frame_000001.dpx").read_bytes()
    words = np.frombuffer(out, "<u4", offset=2048).reshape(32, 40)
    after = np.stack([words >> shift & 1023 for shift in (22, 12, 2)], axis=2)
    np.testing.assert_array_equal(after[mask == 0], codes[mask == 0])
    assert (after[mask > 0] > 900).all()
    assert struct.unpack_from("<I", out, 1920) == (0x01020304,)
    assert out[36:49] == b"reel_0001.dpx"


def test_ffmpeg_reads_the_same(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for order in (">", "<"):
        image = image_from_bytes(dpx_bytes(packed(CODES, order), 7, 6, order=order), "a.dpx")
        (tmp_path / "b.dpx").write_bytes(encode(image, "dpx", "b.dpx")[0])
        with av.open(str(tmp_path / "b.dpx")) as opened:
            frame = next(opened.decode(video=0))
        planes = [np.frombuffer(plane, np.uint16).reshape(6, -1)[:, :7] for plane in frame.planes]
        np.testing.assert_array_equal(np.stack([planes[2], planes[0], planes[1]], axis=2), CODES)
