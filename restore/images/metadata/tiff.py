"""The tags of a TIFF: what they say of the image, and those that libvips neither reads nor writes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from restore.images.metadata import photoshop
from restore.images.metadata.ifd import (
    BEYOND,
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    POSITIONS,
    Directory,
    Entry,
    layout_of,
    numbers,
    pack_block,
    pack_directory,
    read_block,
    read_directory,
    with_order,
)
from restore.images.metadata.resolution import UNITS, Resolution, as_rational

BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 258, 259, 262, 274, 277
_SUBFILE_TYPE, _ACROSS, _DOWN, _RESOLUTION_UNIT, _SUB_IFDS, _EXTRA_SAMPLES = 254, 282, 283, 296, 330, 338
_XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERS, _DNG_VERSION = 700, 33723, 34377, 34675, 37724, 50706
_PHOTOMETRIC_CFA, _PHOTOMETRIC_LINEAR_RAW = 32803, 34892
#: Tags that EXIF has in its first directory, so that they can go to other formats: document, description, make, model,
#: page, software, date, artist, host, rating, copyright, and the texts of Windows.
_IN_EXIF = frozenset((
    269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095,
    EXIF_IFD, GPS_IFD,
))  # fmt: skip
#: Tags that are not copied. They describe how the pixels lie in the file (and are written anew, like the resolution),
#: or hold positions in it, or are stale once pixels have changed, like the smallest and largest value. 59932 and 59933
#: only reserve space.
_NOT_COPIED = frozenset((
    *range(254, 269), 273, 274, *range(277, 285), *range(288, 294), 296, 300, 317, *range(320, 337), 338, 339, 340,
    341, 342, *range(343, 348), 351, *range(400, 406), *range(433, 436), *range(512, 523), *range(529, 533), 559,
    _XMP, 32781, *range(32932, 32936), *range(32995, 32999), *range(33300, 33306), 33421, 33422, *range(33628, 33632),
    34412, _ICC, 34908, 34909, 34910, _LAYERS, INTEROP_IFD, 37439, 59932, 59933,
))  # fmt: skip
#: Tags that say how colors are meant.
_COLORS = _TRANSFER, _WHITE, _PRIMARIES = 301, 318, 319
#: GeoTIFF: where pixels lie on a map.
_PLACES = frozenset((33550, 33922, 34264, 34735, 34736, 34737))
_COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}
#: Photometric interpretation -> number of color channels.
_COLOR_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}


@dataclass(frozen=True)
class TiffHeader:
    """The tags of a directory.

    Attributes:
        exif: descriptive tags, EXIF and GPS as one EXIF block, or None.
        compression: `none`, `lzw`, `deflate`, or "" for all others.
        raw: this is a camera raw file, which only uses the structure of TIFF.
        passthrough: the other tags to copy, as one EXIF block: IPTC, Photoshop's resources, GeoTIFF, private ones.
        extra: the meaning of the first channel after the colors: 0 unspecified, 1 and 2 transparency; None = there is
            no such channel.
        notes: for the user: what is left out.
        tags: the whole directory, in byte order `order`.
        at: its position.
    """

    exif: bytes | None = None
    compression: str = ""
    raw: bool = False
    passthrough: bytes = b""
    extra: int | None = None
    notes: tuple[str, ...] = ()
    tags: Directory = field(default_factory=dict)
    order: str = "<"
    at: int = 0

    def numbers(self, tag: int, *default: float) -> tuple[float, ...]:
        """The values of a tag, or `default`."""
        return numbers(self.tags.get(tag), self.order) or default

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag, or `default`."""
        return int(self.numbers(tag, default)[0])

    def block(self, tag: int) -> bytes | None:
        """The bytes of a tag, or None."""
        return self.tags[tag].value if tag in self.tags else None

    @property
    def is_gray(self) -> bool:
        """One channel, which is brightness."""
        return self.number(PHOTOMETRIC, -1) in (0, 1) and self.number(SAMPLES, 1) == 1

    @property
    def icc(self) -> bytes | None:
        """The color profile, or None."""
        return self.block(_ICC)

    @property
    def primaries(self) -> tuple[float, ...] | None:
        """x and y of white, red, green and blue, if stated for colors of red, green and blue."""
        if self.number(PHOTOMETRIC, -1) not in (2, 3, 6) or _WHITE not in self.tags or _PRIMARIES not in self.tags:
            return None
        values = (*self.numbers(_WHITE), *self.numbers(_PRIMARIES))
        return values if len(values) == 8 else None

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet, or None."""
        return self.block(_XMP)

    @property
    def resolution(self) -> Resolution | None:
        """The resolution, if stated."""
        across, down = self.numbers(_ACROSS, 0)[0], self.numbers(_DOWN, 0)[0]
        unit = UNITS.get(self.number(_RESOLUTION_UNIT, 2), 0.0)
        return Resolution(across, down, unit) if min(across, down) > 0 else None


def read_header(data: Any, at: int, *, first: int | None = None) -> TiffHeader:
    """Parse a directory. A broken one gives an empty header, and the decoder reports what is wrong.

    Args:
        data: the file, as bytes or mapped into memory.
        at: the position of the directory.
        first: the position of a directory whose metadata also belongs to the image, if it has none of its own.
    """
    if not at:
        return TiffHeader()
    order, big = layout_of(data)
    try:
        tags = read_directory(data, at, order, big=big, without=(_LAYERS,))
        if first is not None and first != at:
            above = read_directory(data, first, order, big=big, without=(_LAYERS,))
            tags |= {tag: above[tag] for tag in above if tag not in tags and _is_kept(tag, above[tag])}
            tags |= {tag: above[tag] for tag in (_XMP, _LAYERS, _DNG_VERSION) if tag in above and tag not in tags}
    except BEYOND:
        return TiffHeader()
    header = TiffHeader(tags=tags, order=order)
    photometric, samples = header.number(PHOTOMETRIC, -1), header.number(SAMPLES, 1)
    in_exif = {tag: tags[tag] for tag in tags if tag in _IN_EXIF}
    colors = _COLOR_CHANNELS.get(photometric, samples)
    return TiffHeader(
        exif=pack_block(in_exif, order) if in_exif else None,
        compression=_COMPRESSIONS.get(header.number(COMPRESSION, 1), ""),
        raw=photometric in (_PHOTOMETRIC_CFA, _PHOTOMETRIC_LINEAR_RAW) or _DNG_VERSION in tags,
        passthrough=_passthrough(header),
        extra=header.number(_EXTRA_SAMPLES, 0) if samples > colors else None,
        notes=tuple(_left_out(tags)),
        tags=tags,
        order=order,
        at=at,
    )


def _is_kept(tag: int, entry: Entry) -> bool:
    return tag in _IN_EXIF or (tag not in _NOT_COPIED and entry.kind not in POSITIONS)


def _passthrough(header: TiffHeader) -> bytes:
    kept = {tag: entry for tag, entry in header.tags.items() if _is_kept(tag, entry) and tag not in _IN_EXIF}
    if header.number(PHOTOMETRIC, -1) not in _COLOR_CHANNELS or header.number(BITS, 1) not in (8, 16):
        kept.pop(_COLORS[0], None)  # a table with an entry for every value
    if header.number(PHOTOMETRIC, -1) not in (0, 1, 2, 3, 6):  # the colors are converted
        kept = {tag: entry for tag, entry in kept.items() if tag not in _COLORS}
    for tag, change in (
        (_IPTC, _in_stream_order),
        (_PHOTOSHOP, lambda entry: photoshop.without_thumbnails(entry.value)),
    ):
        if tag in kept:
            value = change(kept[tag])
            kept[tag] = Entry(7, len(value), value)
    return pack_block(with_order(kept, header.order, "<"), "<") if kept else b""


def _in_stream_order(entry: Entry) -> bytes:
    """An IPTC record, which begins with 0x1C. Many programs store it as 32-bit numbers, in either byte order."""
    value = entry.value
    if entry.kind == 4 and value[0] != 0x1C and value[3] == 0x1C:
        return b"".join(value[i : i + 4][::-1] for i in range(0, len(value), 4))
    return value


def _left_out(tags: Directory) -> list[str]:
    notes = []
    if PHOTOMETRIC not in tags:  # only such images of one bit are read
        notes.append("the file does not say what its values mean: 0 is taken as white, as in faxes")
    if _LAYERS in tags:
        notes.append("Photoshop's layers are left out: the flattened image is read")
    if _SUB_IFDS in tags:
        notes.append("the images below the first one (SubIFDs) are left out")
    return notes


def without_places(passthrough: bytes) -> bytes:
    """`TiffHeader.passthrough` without what says where each pixel lies on a map."""
    return _filtered(passthrough, lambda tag: tag not in _PLACES)


def with_resolution(passthrough: bytes, dpi: tuple[float, float] | None) -> bytes:
    """`TiffHeader.passthrough` with this resolution in Photoshop's resources, if they state one."""
    tags = read_block(passthrough)[0] if passthrough else {}
    if _PHOTOSHOP not in tags:
        return passthrough
    old = tags[_PHOTOSHOP].value
    new = photoshop.with_resolution(old, dpi)
    return passthrough if new == old else pack_block(tags | {_PHOTOSHOP: Entry(7, len(new), new)}, "<")


def color_tags(passthrough: bytes) -> bytes:
    """The part of `TiffHeader.passthrough` that says how colors are meant."""
    return _filtered(passthrough, lambda tag: tag in _COLORS)


def _filtered(passthrough: bytes, keep: Callable[[int], bool]) -> bytes:
    if not passthrough:
        return b""
    tags = read_block(passthrough)[0]
    kept = {tag: entry for tag, entry in tags.items() if keep(tag)}
    return passthrough if len(kept) == len(tags) else pack_block(kept, "<") if kept else b""


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[photoshop.Captions, bytes]:
    """Photoshop's resources in `TiffHeader.passthrough`, if asked for, and its other tags. It holds no comment."""
    if not passthrough or not resources:
        return photoshop.Captions(), passthrough
    tags = read_block(passthrough)[0]
    iptc = tags[_IPTC].value if _IPTC in tags else b""
    found = tags[_PHOTOSHOP].value if _PHOTOSHOP in tags else b""
    if iptc:
        found = photoshop.resource(photoshop.CAPTION, iptc) + photoshop.without(found, (photoshop.CAPTION,))
    return photoshop.Captions(found), _filtered(passthrough, lambda tag: tag not in (_IPTC, _PHOTOSHOP))


def of_captions(found: photoshop.Captions) -> bytes:
    """`TiffHeader.passthrough` of Photoshop's resources, of which an IPTC record gets a tag of its own."""
    iptc = dict(photoshop.resources_of(found.resources)).get(photoshop.CAPTION)
    blocks = {_IPTC: iptc, _PHOTOSHOP: photoshop.without(found.resources, (photoshop.CAPTION,))}
    tags = {tag: Entry(7, len(block), block) for tag, block in blocks.items() if block}
    return pack_block(tags, "<") if tags else b""


def contents(passthrough: bytes) -> list[str]:
    """What `TiffHeader.passthrough` holds, in words, for a note that another format has no place for it."""
    if not passthrough:
        return []
    tags = [tag for tag in read_block(passthrough)[0] if tag not in (_WHITE, _PRIMARIES)]
    names = {_IPTC: "IPTC", _PHOTOSHOP: "Photoshop's resources", _TRANSFER: "the transfer function"}
    names |= dict.fromkeys(_PLACES, "GeoTIFF")
    return list(dict.fromkeys(names.get(tag, f"tag {tag}") for tag in sorted(tags)))


def add_tags(
    file: BinaryIO,
    *,
    exif: bytes | None,
    passthrough: bytes,
    transparent: bool = True,
    dpi: tuple[float, float] | None,
    shape: tuple[float, float] | None = None,
    is_mask: bool = False,
) -> None:
    """Add EXIF and other tags to a TIFF, in its file.

    A new directory is written at the end of the file; everything else stays in its place, so the file is never in
    memory.

    Args:
        file: a little-endian TIFF or BigTIFF as libvips writes it, opened for reading and writing.
        exif: EXIF block, or None.
        passthrough: see `TiffHeader`.
        transparent: its alpha is transparency.
        dpi: pixels per inch across and down; None = unknown, and the arbitrary ones of libvips are removed.
        shape: of a pixel, as densities across and down; None = square.
        is_mask: it is a mask of the page before it.

    Raises:
        ValueError: the EXIF block is broken.
    """
    added: Directory = {}
    if exif:
        block, order = read_block(exif)
        kept = {tag: entry for tag, entry in block.items() if _is_kept(tag, entry)}
        added |= with_order(kept, order, "<")
    if passthrough:
        added |= read_block(passthrough)[0]
    if not transparent:
        added[_EXTRA_SAMPLES] = Entry(3, 1, b"\0\0")
    # Square pixels of unknown size are stated as such: without these tags, some readers make up a size.
    for tag, value in zip((_ACROSS, _DOWN), dpi or shape or (1, 1)):
        added[tag] = Entry(5, 1, struct.pack("<II", *as_rational(value)))
    added[_RESOLUTION_UNIT] = Entry(3, 1, struct.pack("<H", 2 if dpi else 1))
    if is_mask:
        added[_SUBFILE_TYPE] = Entry(4, 1, struct.pack("<I", 4))
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"II+\0"):
        raise ValueError("the TIFF is not little-endian")
    big = head[2:3] == b"+"
    count_code, word, inline = ("<Q", "<Q", 8) if big else ("<H", "<I", 4)
    link = 8 if big else 4
    file.seek(struct.unpack_from(word, head, link)[0])
    (count,) = struct.unpack(count_code, file.read(struct.calcsize(count_code)))
    written: Directory = {}
    for _ in range(count):
        tag, kind, length, value = struct.unpack(f"<HH{word[1]}{inline}s", file.read(4 + 2 * inline))
        written[tag] = Entry(kind, length, value)  # the value, or its position in the file: both stay as they are
    (following,) = struct.unpack(word, file.read(inline))
    end = file.seek(0, 2)
    at = end + end % 2
    file.write(bytes(end % 2) + pack_directory(written | added, at, "<", big=big, following=following))
    file.seek(link)
    file.write(struct.pack(word, at))
