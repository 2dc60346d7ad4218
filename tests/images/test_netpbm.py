"""PGM and PPM of more than 8 bits."""

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.images import read_image, write_image


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay_sixteen(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65536, (6, 9, channels)).astype(np.uint16)
    head = b"P%d # a comment\n9 6\n65535\n" % (5 if channels == 1 else 6)
    (tmp_path / "a.ppm").write_bytes(head + values.astype(">u2").tobytes())
    image = read_image(tmp_path / "a.ppm")
    np.testing.assert_array_equal(image.pixels, values)
    assert image.notes == []
    assert write_image(image, tmp_path / "b.ppm") == []
    assert (tmp_path / "b.ppm").read_bytes().endswith(values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "b.ppm").pixels, values)


@pytest.mark.parametrize("kind", [b"P2", b"P5"])
def test_the_largest_value_is_white(tmp_path, kind):
    numbers = [0, 1, 512, 1023]
    body = b" ".join(b"%d" % n for n in numbers) if kind == b"P2" else np.array(numbers, ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(kind + b"\n2 2\n1023\n" + body)
    image = read_image(tmp_path / "a.pgm")
    assert image.pixels.ravel().tolist() == [0, 64, 32800, 65535]
    assert image.bits == 10


def test_half_a_file_fails(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n100 100\n65535\n" + bytes(100))
    with pytest.raises(RestoreError, match="cannot be decoded"):
        read_image(tmp_path / "a.pgm")


@pytest.mark.parametrize("header", [b"P5\n3\xdcx 2\n255\n", b"P5\n3 123456789012\n255\n", b"P2\n1 1\n9\n\x07\xff"])
def test_the_reason_quotes_no_bytes_and_no_python(tmp_path, header):
    (tmp_path / "a.pgm").write_bytes(header)
    with pytest.raises(RestoreError, match=r"the PPM cannot be decoded: broken data; the file is damaged"):
        read_image(tmp_path / "a.pgm")


def test_a_header_that_lies_allocates_nothing(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5\n1000000 1000000\n65535\n")
    with pytest.raises(RestoreError, match="over the limit"):
        read_image(tmp_path / "a.pgm")
