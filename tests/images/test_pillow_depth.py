"""Depths beyond 8 bits: kept, or told where Pillow reads 8 of them without a word."""

import struct

import numpy as np
import pytest
import pyvips

from restore.images import read_image, write_image
from restore.images.decode_pillow import decode_with_pillow


def test_an_sgi_of_sixteen_bits_is_told(tmp_path):
    head = struct.pack(">HBBHHHHII4x80sI404x", 474, 0, 2, 3, 4, 4, 3, 0, 65535, b"", 0)
    (tmp_path / "a.sgi").write_bytes(head + np.full((3, 4, 4), 0x1280, ">u2").tobytes())
    image = read_image(tmp_path / "a.sgi")
    assert (image.pixels == 0x12).all()
    assert image.notes == ["only 8 of 16 bits per channel are read"]


def codes(height=16, width=24, bits=10):
    """Every code from 0 up to white."""
    values = np.linspace(0, 2**bits - 1, height * width * 3).reshape(height, width, 3)
    return np.rint(values).astype(np.uint16)


def test_a_heic_of_ten_bits_keeps_them(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_bytes("RGB;16", (24, 16), (codes() << 6).tobytes()).save(
        tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0, full_range_flag=1
    )
    image = read_image(tmp_path / "a.heic")
    assert (image.notes, image.bits, image.pixels.dtype) == ([], 10, np.uint16)
    assert np.array_equal(image.pixels >> 6, codes())
    assert (image.pixels.min(), image.pixels.max()) == (0, 65535)  # black and white of any depth
    assert write_image(image, tmp_path / "b.heic") == []
    assert np.array_equal(read_image(tmp_path / "b.heic").pixels, image.pixels)
    assert write_image(image, tmp_path / "b.png") == []
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, image.pixels)


@pytest.mark.parametrize("bits", [10, 12])
def test_an_avif_of_more_than_eight_bits_keeps_them(tmp_path, bits):
    source = codes(bits=bits) << 16 - bits
    vips = pyvips.Image.new_from_memory(source.tobytes(), 24, 16, 3, "ushort").copy(interpretation="rgb16")
    vips.heifsave(str(tmp_path / "a.avif"), compression="av1", lossless=True, bitdepth=bits)
    image = read_image(tmp_path / "a.avif")
    assert np.array_equal(image.pixels >> 16 - bits, codes(bits=bits))
    assert image.pixels.max() == 65535
    write_image(image, tmp_path / "b.avif")
    assert np.array_equal(read_image(tmp_path / "b.avif").pixels, image.pixels)


def test_an_avif_that_pillow_reads_with_eight_bits_is_told():
    source = codes() << 6
    vips = pyvips.Image.new_from_memory(source.tobytes(), 24, 16, 3, "ushort").copy(interpretation="rgb16")
    data = vips.heifsave_buffer(compression="av1", bitdepth=10)
    output = decode_with_pillow(data, "avif", "a.avif", 10_000)
    assert output.notes == ["only 8 of 10 bits per channel are read"]
