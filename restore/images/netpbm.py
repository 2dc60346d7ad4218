"""PGM and PPM of more than 8 bits per channel (the specifications of Netpbm), which Pillow rounds to 8."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

_HEADER = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})" + rb"\s")
_HEADER_BYTES = 1 << 16


def read_netpbm(data: bytes, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, int] | None:
    """Read a PGM or PPM whose largest value exceeds 255.

    Args:
        data: the whole file.
        check_size: called with width and height before any memory is allocated.

    Returns:
        H×W×C, uint16, white = 65535, and the bits per channel in the file; None: another kind of file, or a damaged
        one.
    """
    header = _HEADER.match(data[:_HEADER_BYTES])
    if header is None:
        return None
    kind, width, height, top = (int(number) for number in header.groups())
    if not (width and height and 255 < top <= 65535):
        return None
    check_size(width, height)
    channels = 3 if kind in (3, 6) else 1
    count = width * height * channels
    body = data[header.end() :]
    if kind >= 5:
        if len(body) < 2 * count:
            return None
        values = np.frombuffer(body, ">u2", count).astype(np.uint32)
    else:
        try:
            values = np.array(re.sub(rb"#[^\n\r]*", b"", body).split()[:count], dtype=np.uint32)
        except (ValueError, OverflowError):
            return None
        if len(values) < count:
            return None
    values = (np.minimum(values, top) * 65535 + top // 2) // top
    return values.astype(np.uint16).reshape(height, width, channels), top.bit_length()


def write_netpbm(pixels: np.ndarray) -> bytes:
    """A PGM or PPM of 16 bits. `pixels`: H×W×1 or H×W×3, uint16, white = 65535."""
    height, width, channels = pixels.shape
    return b"P%d\n%d %d\n65535\n" % (5 if channels == 1 else 6, width, height) + pixels.astype(">u2").tobytes()
