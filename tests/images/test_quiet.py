"""A program that reads images hears nothing of the libraries on standard error, and keeps its own settings."""

import logging
import subprocess
import sys
import threading
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from restore.images.quiet import QUIET_PILLOW

READ = "import sys; from restore.images import read_image; print(read_image(sys.argv[1]).size)"


def test_a_program_that_reads_an_image_hears_nothing(tmp_path):
    path = tmp_path / "x.ico"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path, bitmap_format="png", sizes=[(16, 16)])
    data = bytearray(path.read_bytes())
    data[6:8] = b"\x20\x20"  # the file promises 32×32 pixels
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="not the expected size"), Image.open(path) as image:
        image.load()
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(16, 16)\n", "")


def test_a_program_that_reads_a_broken_jpeg_2000_gets_an_exception_alone(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), np.uint16)
    _, data = cv2.imencode(".jp2", deep, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    (tmp_path / "x.jp2").write_bytes(data.tobytes()[:-3000])
    done = subprocess.run([sys.executable, "-c", READ, tmp_path / "x.jp2"], capture_output=True, text=True)
    assert "DamagedFile" in done.stderr.splitlines()[-1]
    assert "OpenJPEG" not in done.stderr


def test_warnings_and_loggers_are_as_before():
    before, handlers = list(warnings.filters), list(logging.getLogger("PIL").handlers)
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with QUIET_PILLOW:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with QUIET_PILLOW:
        assert len(warnings.filters) == len(before) + 2
    assert len(warnings.filters) == len(before) + 2
    leave.set()
    thread.join()
    assert (list(warnings.filters), list(logging.getLogger("PIL").handlers)) == (before, handlers)
