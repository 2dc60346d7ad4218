"""JPEGs without quantization (ITU-T T.81, annex H), which no library here writes."""

import struct

import numpy as np
import pytest
from PIL import Image

from restore.images import read_image, write_image
from restore.images.metadata import jpeg


def lossless_jpeg(values):
    """Predictor 1, one table in which every category of difference has a code of 4 bits."""
    height, width, channels = values.shape
    samples = values.astype(int)
    predicted = np.empty_like(samples)
    predicted[:, 1:] = samples[:, :-1]
    predicted[1:, 0] = samples[:-1, 0]
    predicted[0, 0] = 128
    bits = []
    for difference in (samples - predicted).ravel():
        category = int(abs(difference)).bit_length()
        extra = difference if difference >= 0 else difference + (1 << category) - 1
        bits.append(f"{category:04b}" + (f"{extra:0{category}b}" if category else ""))
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker, body):
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    table = bytes([0]) + bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    ids = b"RGB" if channels == 3 else b"\1"
    frame = struct.pack(">BHHB", 8, height, width, channels) + b"".join(bytes([i, 0x11, 0]) for i in ids)
    start = bytes([channels]) + b"".join(bytes([i, 0]) for i in ids) + bytes([1, 0, 0])
    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, start) + scan + b"\xff\xd9"


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_written_as_well_as_a_jpeg_can_be_and_that_is_told(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 256, (16, 24, channels)).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(lossless_jpeg(values))
    source = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(source.pixels, values)
    notes = write_image(source, tmp_path / "b.jpg")
    assert notes == ["the JPEG was lossless; it is compressed at quality 100"]
    header = jpeg.read_header((tmp_path / "b.jpg").read_bytes())
    assert header.quality == 100
    assert header.subsampling == ("4:4:4" if channels == 3 else "")
    with Image.open(tmp_path / "b.jpg") as image:
        assert np.abs(np.asarray(image).reshape(values.shape).astype(int) - values).mean() < 1
    assert write_image(source, tmp_path / "c.png") == []
