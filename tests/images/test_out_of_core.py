"""Rows in a file that can be changed in place, and that pyvips reads."""

import numpy as np
import pytest
import pyvips

from restore.images.out_of_core import Spool

FORMATS = {"uint8": "uchar", "uint16": "ushort"}


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (301, 7), (130, 211)])
def test_every_value_arrives(bands, dtype, size, tmp_path, monkeypatch):
    monkeypatch.setattr("restore.images.out_of_core._STRIP_BYTES", 5000)
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, bands), dtype, endpoint=True)
    image = pyvips.Image.new_from_memory(values, size[1], size[0], bands, FORMATS[dtype])
    spool = Spool.from_vips(image, tmp_path / "raw")
    everything = slice(0, size[0]), slice(0, size[1])
    assert np.array_equal(spool.read(*everything), values)
    spool.write(slice(0, 1), slice(0, 1), values[:1, :1] // 2)
    values = values.copy()
    values[:1, :1] //= 2
    assert np.array_equal(spool.to_vips().numpy().reshape(values.shape), values)
    assert set(spool.to_vips().get_fields()) == set(pyvips.Image.black(1, 1).get_fields()), "it carries nothing else"
    other = Spool.create(tmp_path / "other", size, bands, np.dtype(dtype))
    for row in range(size[0]):
        other.write(slice(row, row + 1), everything[1], values[row : row + 1])
    assert np.array_equal(other.to_vips().numpy().reshape(values.shape), values)


def test_rows_behind_the_first_four_gigabytes_arrive_too(tmp_path):
    spool = Spool.create(tmp_path / "raw", (75_000, 60_000), 1, np.dtype(np.uint8))
    row = np.arange(60_000, dtype=np.uint8)[None, :, None]
    spool.write(slice(74_999, 75_000), slice(0, 60_000), row)  # before it a hole, which takes no disk space
    assert np.array_equal(spool.read(slice(74_999, 75_000), slice(0, 60_000)), row)
    assert np.array_equal(spool.read(slice(74_990, 75_000), slice(7, 300))[-1:], row[:, 7:300])
    last = spool.to_vips().crop(0, 74_999, 200, 1)
    assert bytes(last.write_to_memory()) == bytes(range(200))
