"""Depths that Pillow reads as 8 bits without a word."""

import io
import struct

import numpy as np
import pytest

from restore.images import read_image


def test_an_sgi_of_sixteen_bits_is_told(tmp_path):
    head = struct.pack(">HBBHHHHII4x80sI404x", 474, 0, 2, 3, 4, 4, 3, 0, 65535, b"", 0)
    (tmp_path / "a.sgi").write_bytes(head + np.full((3, 4, 4), 0x1280, ">u2").tobytes())
    image = read_image(tmp_path / "a.sgi")
    assert (image.pixels == 0x12).all()
    assert image.notes == ["only 8 of 16 bits per channel are read"]


def test_a_heic_of_ten_bits_is_told(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_bytes(mode="RGB;16", size=(64, 64), data=bytes(64 * 64 * 6)).save(stream)
    (tmp_path / "a.heic").write_bytes(stream.getvalue())
    assert read_image(tmp_path / "a.heic").notes == ["only 8 of 10 bits per channel are read"]
