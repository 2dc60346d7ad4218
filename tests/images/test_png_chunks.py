"""Chunks of a PNG that are damaged: what is copied from them makes a sound file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from restore.images.encode import encode
from restore.images.read import image_from_bytes


def chunk(kind: bytes, body: bytes, *, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def with_chunks(*chunks: bytes, behind: bytes = b"") -> bytes:
    """A small PNG with these chunks before, and one behind its pixels."""
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()[:33] + b"".join(chunks) + stream.getvalue()[33:-12] + behind + chunk(b"IEND", b"")


def test_a_chunk_with_a_wrong_checksum_is_kept_with_the_right_one_and_told():
    data = with_chunks(chunk(b"tEXt", b"Title\0a cat", wrong=1), chunk(b"tEXt", b"Author\0somebody"))
    image = image_from_bytes(data, "x.png")
    assert image.notes == ["parts of the file may be damaged: the checksum is wrong in tEXt"]
    written, _ = encode(image, "png", "x.png")
    with Image.open(io.BytesIO(written)) as result:  # Pillow refuses a file with a wrong checksum
        assert result.text == {"Title": "a cat", "Author": "somebody"}
    assert image_from_bytes(written, "x.png").notes == []


def test_a_chunk_whose_name_is_no_name_is_left_out_and_told():
    image = image_from_bytes(with_chunks(behind=chunk(b"f\xfc\xcar", b"abc")), "x.png")
    assert image.notes == ["the chunk füÊr is left out"]
    written, _ = encode(image, "png", "x.png")
    with Image.open(io.BytesIO(written)) as result:
        result.load()
        assert result.size == (5, 4)


@pytest.mark.parametrize(
    ("kind", "size"), [(b"gAMA", 4), (b"cHRM", 32), (b"sRGB", 1), (b"cICP", 4), (b"tIME", 7), (b"cLLI", 8)]
)
def test_a_chunk_of_a_wrong_length_is_left_out_and_told(kind, size):
    """Pillow refuses a whole file with a short gAMA chunk."""
    for length in (0, size - 1, size + 1):
        image = image_from_bytes(with_chunks(chunk(kind, bytes(length))), "x.png")
        assert image.notes == [f"the broken chunk {kind.decode()} is left out"]
        written, _ = encode(image, "png", "x.png")
        assert kind not in written
