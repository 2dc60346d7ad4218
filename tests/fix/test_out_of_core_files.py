"""What else stands in the files of pictures that go through in parts, and what can happen to such files meanwhile."""

from __future__ import annotations

import io
import os
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.files import sweep_leftovers
from restore.fix import out_of_core, reader
from restore.images import read_image
from restore.restorers.base import ModelRequirements
from tests.fix.conftest import Inverter, fix_with, load, logged, photo, save


class Tiled(Inverter):
    requirements = ModelRequirements(needs_mask=False, tileable=True)


@pytest.fixture(autouse=True)
def everything_is_huge(monkeypatch):
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("place", ["behind the pixels", "in a text"])
def test_a_png_whose_orientation_stands_elsewhere_is_turned(tmp_path, place):
    path = save(tmp_path / "in/x.png", photo(60, 40))
    data, block = path.read_bytes(), exif(6)
    if place == "in a text":  # as ImageMagick writes it
        text = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
        data = data[:33] + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)) + data[33:]
    else:
        data = data[:-12] + chunk(b"eXIf", block[6:]) + data[-12:]
    path.write_bytes(data)
    fix_with(tmp_path / "in", tmp_path / "out", Tiled())
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), 255 - np.rot90(photo(60, 40), -1))


def test_damage_in_a_jpeg_is_told(tmp_path):
    path = save(tmp_path / "in/x.jpg", photo(200, 200), quality=90)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 6] = b"\xff\xd5\x12\x34\xff\x00"
    path.write_bytes(data)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Tiled())
    assert summary.done == 1
    assert "the file is damaged; decoded as far as possible" in "\n".join(summary.warnings)


def test_what_only_the_second_decoder_reads_is_read(tmp_path):
    pixels = np.tile(np.arange(200, dtype=np.uint8), (60, 1))
    compressed = bytearray()
    Image.fromarray(pixels).save(stream := io.BytesIO(), "PNG")
    compressed += stream.getvalue()
    at = compressed.index(b"IDAT")
    length = struct.unpack_from(">I", compressed, at - 4)[0]
    compressed[at + 4 + length] ^= 1  # a checksum that is wrong
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.png").write_bytes(compressed)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Tiled())
    assert summary.done == 1, summary.failed
    assert "decoded by Pillow" in summary.warnings[0]
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), 255 - pixels)


@pytest.mark.parametrize("metadata", ["keep", "strip"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_resolution_is_kept(tmp_path, suffix, metadata):
    save(tmp_path / f"in/with.{suffix}", photo(20, 30), dpi=(300, 200))
    save(tmp_path / f"in/without.{suffix}", photo(20, 30))
    fix_with(tmp_path / "in", tmp_path / "out", Tiled(), metadata=metadata)
    with Image.open(tmp_path / f"out/with.{suffix}") as image:
        assert tuple(round(float(value)) for value in image.info["dpi"]) == (300, 200)
    with Image.open(tmp_path / f"out/without.{suffix}") as image:
        assert "dpi" not in image.info
        assert suffix != "jpg" or "jfif" in image.info


def test_a_picture_that_changes_meanwhile_fails_and_leaves_nothing(tmp_path):
    path = save(tmp_path / "in/x.png", photo(60, 40))
    save(tmp_path / "in/y.png", photo(60, 40))

    class Meddler(Tiled):
        def _restore(self, image, mask):
            if not self.calls:
                save(path, photo(60, 40, seed=7))
            return super()._restore(image, mask)

    summary = fix_with(tmp_path / "in", tmp_path / "out", Meddler(), log=tmp_path / "log")
    assert [failure.reason for failure in summary.failed] == ["the file changed while it was read; run again"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["y.png"]
    assert [line["status"] for line in logged(tmp_path / "log")] == ["failed", "done"]


def test_a_picture_that_vanishes_meanwhile_is_called_that(tmp_path):
    path = save(tmp_path / "in/x.png", photo(60, 40))

    class Meddler(Tiled):
        def _restore(self, image, mask):
            path.unlink()
            return super()._restore(image, mask)

    summary = fix_with(tmp_path / "in", tmp_path / "out", Meddler())
    assert [failure.reason for failure in summary.failed] == ["vanished during the run"]


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_whatever_a_killed_run_leaves_is_swept(tmp_path, monkeypatch, suffix):
    """Where the raw picture is turned, and where metadata are put in, the large file is written a second time."""
    options = {"tiffinfo": {0x0112: 6}} if suffix == "tif" else {"exif": exif(1)}
    save(tmp_path / f"in/x.{suffix}", photo(60, 40), **options)
    seen: list[Path] = []
    real = os.replace

    def watched(old, new):
        seen.append(Path(old))
        real(old, new)

    monkeypatch.setattr(os, "replace", watched)
    fix_with(tmp_path / "in", tmp_path / "out", Tiled())
    monkeypatch.undo()
    assert seen
    for path in seen:
        path.touch()
    sweep_leftovers(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"x.{suffix}"]
    assert read_image(tmp_path / f"out/x.{suffix}").size == ((40, 60) if suffix == "tif" else (60, 40))


def test_ctrl_c_finishes_a_picture_that_is_being_written_and_counts_it(tmp_path, monkeypatch):
    save(tmp_path / "in/x.png", photo(60, 40))
    save(tmp_path / "in/y.png", photo(60, 40))
    real = out_of_core.write_spooled

    def interrupted(*given, **options):
        signal.raise_signal(signal.SIGINT)
        return real(*given, **options)

    monkeypatch.setattr(out_of_core, "write_spooled", interrupted)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Tiled())
    assert (summary.interrupted, summary.done, summary.not_started) == (True, 1, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.png"]
