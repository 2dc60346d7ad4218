"""What the headers of an AV1 image say of its colors and of loss (AV1 bitstream specification, 5.5 and 5.9)."""

from __future__ import annotations

from collections.abc import Iterator

UNSPECIFIED = 2  # in ITU-T H.273
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # types of units
_SELECT = 2  # a tool that each frame chooses for itself


class _Bits:
    def __init__(self, body: bytes) -> None:
        self._body, self.at = body, 0

    def read(self, count: int) -> int:
        value = 0
        for at in range(self.at, self.at + count):
            value = value << 1 | self._body[at >> 3] >> (7 - (at & 7)) & 1
        self.at += count
        return value


class SequenceHeader:
    """A sequence header.

    Attributes:
        size: (W, H), the largest of a frame.
        code_points: (color primaries, transfer characteristics) of ITU-T H.273, or None.
        matrix: matrix coefficients.
        full_range: the values use all codes, not only those of video.
        stated_at: the position of the code points in bits; None: they are not stated.
        is_srgb: red, green and blue of sRGB; then the bits that follow the code points are others.

    Raises:
        IndexError: the header is too short.
        ValueError: it is not one of a still image.
    """

    def __init__(self, body: bytes) -> None:
        bits = _Bits(body)
        profile, _, self.reduced = bits.read(3), bits.read(1), bool(bits.read(1))
        if self.reduced:
            bits.read(5)
        else:
            _skip_operating_points(bits)
        across, down = bits.read(4) + 1, bits.read(4) + 1
        self.size_bits = across, down
        self.size = bits.read(across) + 1, bits.read(down) + 1
        self.id_bits = 0
        if not self.reduced and bits.read(1):
            more = bits.read(4) + 2
            self.id_bits = more + bits.read(3) + 1
        self.superblock = 4 + bits.read(1)
        bits.read(2)
        self.screen_tools = self.integer_motion = _SELECT
        self.order_bits = 0
        if not self.reduced:
            self._read_tools(bits)
        self.has_superres = bool(bits.read(1))
        bits.read(2)
        high = bits.read(1)
        if profile == 2 and high:
            bits.read(1)
        gray = bits.read(1) if profile != 1 else 0
        self.code_points: tuple[int, int] | None = None
        self.stated_at: int | None = None
        self.matrix = UNSPECIFIED
        if bits.read(1):
            self.stated_at = bits.at
            self.code_points = bits.read(8), bits.read(8)
            self.matrix = bits.read(8)
        self.is_srgb = self.code_points == (1, 13) and self.matrix == 0 and not gray
        self.full_range = self.is_srgb or bool(bits.read(1))

    def _read_tools(self, bits: _Bits) -> None:
        bits.read(4)
        order = bits.read(1)
        if order:
            bits.read(2)
        self.screen_tools = _SELECT if bits.read(1) else bits.read(1)
        if self.screen_tools:
            self.integer_motion = _SELECT if bits.read(1) else bits.read(1)
        if order:
            self.order_bits = bits.read(3) + 1


def sequence_headers(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of the bodies of the sequence headers in a bitstream.

    Raises:
        IndexError: the bitstream is broken.
    """
    return ((start, stop) for kind, start, stop in _units(data, at, end) if kind == _SEQUENCE_HEADER)


def quantizer(data: bytes) -> int | None:
    """How coarsely the first frame of a bitstream is quantized: 0, without loss, to 255; None: not understood."""
    sequence = None
    try:
        for kind, start, stop in _units(data, 0, len(data)):
            if kind == _SEQUENCE_HEADER:
                sequence = SequenceHeader(data[start:stop])
            elif kind in (_FRAME_HEADER, _FRAME) and sequence is not None:
                return _quantizer(_Bits(data[start : min(start + 256, stop)]), sequence)
    except (IndexError, ValueError):
        pass
    return None


def _units(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of the body of each unit (OBU)."""
    while at < end:
        head = data[at]
        at += 2 if head & 4 else 1
        size, shift = end - at, 0
        if head & 2:
            size = 0
            while shift < 56:  # at most 8 bytes
                byte = data[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
        yield head >> 3 & 15, at, min(at + size, end)
        at += size


def _skip_operating_points(bits: _Bits) -> None:
    if bits.read(1):
        raise ValueError("a sequence with timing is not a still image")
    delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay and bits.read(1):
            bits.read(4)


def _quantizer(bits: _Bits, sequence: SequenceHeader) -> int:
    """`base_q_idx` of a key frame: 0 = without loss."""
    override = 0
    if not sequence.reduced and bits.read(4) != 1:  # no copy of another frame; a key frame; shown
        raise ValueError("the first frame is not a key frame")
    fixed_probabilities = bits.read(1)
    screen = bits.read(1) if sequence.screen_tools == _SELECT else sequence.screen_tools
    if screen and sequence.integer_motion == _SELECT:
        bits.read(1)
    if not sequence.reduced:
        bits.read(sequence.id_bits)
        override = bits.read(1)
        bits.read(sequence.order_bits)
    size = sequence.size
    if override:
        size = bits.read(sequence.size_bits[0]) + 1, bits.read(sequence.size_bits[1]) + 1
    if sequence.has_superres and bits.read(1):
        raise ValueError("a frame that is enlarged in decoding")
    if bits.read(1):
        bits.read(32)
    if screen:
        bits.read(1)
    if not sequence.reduced and not fixed_probabilities:
        bits.read(1)
    _skip_tiles(bits, size, sequence.superblock)
    return bits.read(8)


def _skip_tiles(bits: _Bits, size: tuple[int, int], superblock: int) -> None:
    columns, rows = (-(-2 * (side + 7 >> 3) // (1 << superblock)) for side in size)
    shift = superblock + 2
    fewest = _log2(4096 >> shift, columns)
    fewest_tiles = max(fewest, _log2(4096 * 2304 >> 2 * shift, rows * columns))
    if not bits.read(1):
        raise ValueError("tiles of different sizes")
    across = _increments(bits, fewest, _log2(1, min(columns, 64)))
    down = _increments(bits, max(fewest_tiles - across, 0), _log2(1, min(rows, 64)))
    if across or down:
        bits.read(across + down + 2)


def _increments(bits: _Bits, start: int, end: int) -> int:
    value = start
    while value < end and bits.read(1):
        value += 1
    return value


def _log2(block: int, target: int) -> int:
    """The smallest k for which block·2^k is at least target."""
    k = 0
    while block << k < target:
        k += 1
    return k
