"""How coarsely the bitstream of a lossy WebP is quantized (RFC 6386, sections 7.3 and 9)."""

from __future__ import annotations

_START = b"\x9d\x01\x2a"


class _Bools:
    """The decoder of the header's bits. Each is 0 or 1 with the same probability."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 2
        self._value, self._range, self._shifted = body[0] << 8 | body[1], 255, 0

    def read(self, count: int = 1) -> int:
        """A number of N bits.

        Raises:
            IndexError: the bitstream is too short.
        """
        number = 0
        for _ in range(count):
            number = number << 1 | self._bit()
        return number

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) * 128 >> 8)
        bit = self._value >= split << 8
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._body[self._at]
                self._at += 1
        return int(bit)

    def skip_signed(self, count: int) -> None:
        """A number of N bits that may be left out, and its sign."""
        if self.read():
            self.read(count + 1)


def quantizer(data: bytes) -> int | None:
    """The quantizer of a key frame, 0 (fine) to 127; None: this is none, or it is cut.

    libwebp quantizes smooth parts more finely than it says here. The number follows from the quality alone.

    Args:
        data: the contents of a `VP8 ` chunk, or their first 200 bytes.
    """
    if len(data) < 12 or data[0] & 1 or data[3:6] != _START:
        return None
    try:
        return _quantizer(_Bools(data[10:]))
    except IndexError:
        return None


def _quantizer(bits: _Bools) -> int:
    bits.read(2)  # color space, clamping
    if bits.read():  # segments with quantizers of their own
        map_follows = bits.read()
        if bits.read():
            bits.read()
            for size in (7, 7, 7, 7, 6, 6, 6, 6):
                bits.skip_signed(size)
        for _ in range(3 * map_follows):
            if bits.read():
                bits.read(8)
    bits.read(10)  # the filter
    if bits.read() and bits.read():
        for _ in range(8):
            bits.skip_signed(6)
    bits.read(2)  # partitions
    return bits.read(7)
