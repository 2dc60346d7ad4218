"""The reason of one file holds nothing of another."""

from __future__ import annotations

import io
import struct
import threading
import time

import numpy as np
import pytest
import pyvips
from PIL import Image

from restore.errors import RestoreError
from restore.images.color import open_profile
from restore.images.decode import decoder_message
from restore.images.decoder_output import undecodable
from restore.images.formats import UnsupportedFile
from restore.images.read import image_from_bytes
from restore.images.vips_errors import with_own_errors
from tests.images.profiles import ADOBE_RGB, colorants, table_profile


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def extraneous_jpeg() -> bytes:
    """libjpeg decodes it with a warning."""
    data = encoded("JPEG")
    at = data.index(b"\xff\xda")
    return data[:at] + b"junk!" + data[at:]


def test_a_decoded_file_leaves_nothing_for_the_reason_of_the_next():
    assert "extraneous" in image_from_bytes(extraneous_jpeg(), "a.jpg").notes[0]
    with pytest.raises(RestoreError) as caught:
        image_from_bytes(encoded("PNG")[:300], "b.png")
    assert "extraneous" not in str(caught.value)


def test_what_fails_beside_others_is_repeated_alone():
    """One thread fills the buffer while the other fails."""
    others_run, stop, tries = threading.Event(), threading.Event(), []

    def noisy() -> None:
        def operation() -> None:
            pyvips.vips_lib.vips_foreign_find_load(b"/noise")  # leaves a message
            others_run.set()
            stop.wait(5)

        with_own_errors(operation)

    def failing() -> None:
        tries.append(time.monotonic())
        stop.set()
        raise pyvips.Error("failed")

    thread = threading.Thread(target=noisy)
    thread.start()
    others_run.wait(5)
    with pytest.raises(pyvips.Error) as caught:
        with_own_errors(failing)
    thread.join()
    assert len(tries) == 2
    assert "noise" not in str(caught.value)


@pytest.mark.parametrize(
    ("complaint", "unsupported"),
    [
        ("Unsupported JPEG process: SOF type 0xf7", True),
        ("Compression scheme 34712 strip decoding is not implemented", True),
        ("JBIG support not configured", True),
        ("unknown pixel mode", True),
        ("No decoding plugin installed for this compression format", True),
        ("integers from -3 to 9 are not supported", True),
        ("premature end of JPEG image", False),
        ("libpng read error", False),
        ("Bogus Huffman table definition", False),
    ],
)
def test_what_is_unsupported_is_not_called_damaged(complaint, unsupported):
    error = undecodable("tiff", complaint, "x")
    assert isinstance(error, UnsupportedFile) == unsupported
    assert ("damaged" in str(error)) != unsupported


def test_a_message_that_quotes_odd_bytes_spoils_no_operation_after_it():
    """LittleCMS quotes the type of a curve: four bytes of the profile."""
    table = b"mAB " + bytes(4) + bytes((3, 3, 0, 0)) + struct.pack(">5I", 32, 0, 0, 0, 0) + b"\xff\xfe\xfd\xfc" * 4
    icc = table_profile(lambda values: values @ colorants(ADOBE_RGB[0]).T, extra={b"A2B0": table})
    with pytest.raises(ValueError, match="the color profile is broken"):
        open_profile(icc, 3)
    assert pyvips.Image.black(2, 3).copy().width == 2  # pyvips reads the buffer of messages to find `copy`
    text = pyvips.ffi.new("char[]", b"chunk \xc1")
    assert pyvips._to_string(text) == pyvips.error._to_string(text) == "chunk \\xc1"


def test_the_property_lookups_of_another_thread_are_no_reason():
    pyvips.vips_lib.vips_error_clear()
    pyvips.vips_lib.vips_foreign_find_load(b"/absent")
    pyvips.Image.black(1, 1)._get_pspec("copy")  # the first half of the call `image.copy()`
    error = pyvips.Error("cannot load")
    assert "no property named `copy'" in str(error)
    assert "property" not in decoder_message(error)
    assert "/absent" in decoder_message(error)
