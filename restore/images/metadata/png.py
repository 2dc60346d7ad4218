"""The chunks of a PNG that libvips does not copy from file to file (W3C PNG, third edition, section 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from restore.errors import printable
from restore.images.metadata import photoshop
from restore.images.metadata.exif import without_prefix
from restore.images.metadata.photoshop import CAPTION, Captions, resource, resources_of, without, without_thumbnails
from restore.images.metadata.resolution import Resolution, density, per_meter

_XMP_KEYWORD = b"XML:com.adobe.xmp"
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_CAPTIONS = (b"raw profile type iptc", b"raw profile type 8bim")
_COLORS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
#: Chunks that are written anew, describe the palette or the compressed data, or belong to other frames. Of all others,
#: those are copied whose name declares them safe to copy to changed pixels (W3C PNG, 5.4), and those in _STILL_TRUE.
_REWRITTEN = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST", b"sPLT", b"iCCP", b"eXIf", b"pHYs", b"acTL", b"fcTL",
    b"fdAT", b"iDOT", b"CgBI", b"dSIG", b"gIFg",
)  # fmt: skip
#: Chunks whose names do not declare that, and that hold all the same: colors, significant bits, background, time.
_STILL_TRUE = (
    *_COLORS, b"mDCV", b"cLLI", b"mDCv", b"cLLi", b"sBIT", b"bKGD", b"tIME", b"sTER", b"pCAL", b"oFFs", b"sCAL",
)  # fmt: skip
#: Chunks with one value per channel: they are copied if the channels stay the same.
_PER_CHANNEL = {b"sBIT": {1: (1,), 2: (2,), 3: (3,), 4: (4,)}, b"bKGD": {1: (2,), 2: (2,), 3: (6,), 4: (6,)}}
#: Chunks of one length. Programs refuse a file in which one has another.
_LENGTHS = {
    b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"mDCv": 24, b"cLLI": 8, b"cLLi": 8, b"tIME": 7,
    b"oFFs": 9, b"sTER": 1,
}  # fmt: skip
_SPACES = b" \t\n\r\v\f"
#: Bytes to which a compressed text may expand. Larger ones, which may be bombs, are not read.
_TEXT_LIMIT = 16 << 20


@dataclass(frozen=True)
class PngHeader:
    """The chunks beside the pixels.

    Attributes:
        exif: EXIF block, or None.
        frames: the number of images: the one that all programs show, and the other frames of an animation.
        passthrough: chunks to copy, raw.
        has_icc: there is a color profile.
        resolution: as pHYs states it, or None.
        xmp: XMP packet, or None.
        end: the position after the last chunk.
        left_out: what was lost with chunks that are not kept.
        wrong_sums: names of the chunks whose checksums are wrong, without those of the pixels.
    """

    exif: bytes | None = None
    frames: int = 1
    passthrough: bytes = b""
    has_icc: bool = False
    resolution: Resolution | None = None
    xmp: bytes | None = None
    end: int = 0
    left_out: tuple[str, ...] = ()
    wrong_sums: tuple[str, ...] = ()


@dataclass(frozen=True)
class PngColors:
    """What chunks other than a profile say about the colors.

    Attributes:
        code_points: (color primaries, transfer characteristics) of cICP.
        matrix, full_range: the rest of cICP; 0 and True for RGB.
        srgb: the sRGB chunk is there.
        gamma: of gAMA: the exponent from light to values, 1/2.2 in most files.
        chromaticities: of cHRM: x and y of white, red, green and blue.
    """

    code_points: tuple[int, int] | None = None
    matrix: int = 0
    full_range: bool = True
    srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None


def stated_colors(passthrough: bytes) -> PngColors:
    """The colors that the chunks of `PngHeader.passthrough` state."""
    found: dict[str, Any] = {}
    for kind, body, _, _ in _chunks(bytes(8) + passthrough):
        if kind == b"cICP":
            found |= {"code_points": (body[0], body[1]), "matrix": body[2], "full_range": body[3] == 1}
        elif kind == b"sRGB":
            found["srgb"] = True
        elif kind == b"gAMA":
            found["gamma"] = struct.unpack(">I", body)[0] / 100_000
        elif kind == b"cHRM":
            found["chromaticities"] = tuple(value / 100_000 for value in struct.unpack(">8I", body))
    return PngColors(**found)


def code_points_chunk(code_points: tuple[int, int]) -> bytes:
    """A cICP chunk for RGB."""
    return _chunk(b"cICP", bytes([*code_points, 0, 1]))


def read_header(data: bytes) -> PngHeader:
    """Parse all chunks, up to the first one that is broken."""
    exif: bytes | None = None
    xmp: bytes | None = None
    resolution: Resolution | None = None
    frames, has_icc, plain, end = 0, False, True, len(data)
    has_pixels = is_frame = False  # so far; the image is the first frame of its animation
    left_out: list[str] = []
    wrong_sums: dict[str, None] = {}
    passthrough = bytearray()  # appending to bytes would copy them for each of what may be a million chunks
    for kind, body, raw, at in _chunks(data):
        if kind[0] & 0x20 and raw[-4:] != (own := _chunk(kind, body))[-4:]:
            wrong_sums[printable(kind.decode("latin-1"))] = None
            raw = own  # many programs refuse a whole file for such a chunk
        if kind == b"IHDR" and len(body) == 13:
            plain = body[8] in (8, 16) and body[9] != 3  # neither spread bits nor a palette
        elif kind == b"eXIf":
            exif = body
        elif kind == b"acTL" and len(body) >= 4:
            frames = struct.unpack_from(">I", body)[0]
        elif kind == b"fcTL" and not has_pixels:
            is_frame = True
        elif kind == b"IDAT":
            has_pixels = True
        elif kind in (b"zTXt", b"tEXt") and body.startswith((b"Raw profile type ", b"raw profile type ")):
            name, profile = _raw_profile(kind, body)
            if name in (b"exif", b"app1") and profile.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
                exif = exif or profile
            elif profile and (name == b"xmp" or (name == b"app1" and profile.startswith(_XMP_PREFIX))):
                xmp = xmp or profile.removeprefix(_XMP_PREFIX)
            elif name == b"8bim" and without_thumbnails(profile) != profile:
                passthrough += _raw_profile_chunk("8bim", without_thumbnails(profile))
            elif name != b"exif":  # which no reader could use
                passthrough += raw
        elif kind == b"iCCP":
            has_icc = True
        elif kind == b"iTXt" and body.startswith(_XMP_KEYWORD + b"\0"):
            xmp = _text(body) or xmp
        elif kind == b"IEND":
            end = at
        elif kind not in _REWRITTEN:
            if kind in _PER_CHANNEL and not plain:
                continue
            if len(body) != _LENGTHS.get(kind, len(body)):
                left_out.append(f"the broken chunk {printable(kind.decode('latin-1'))}")
            elif kind in _STILL_TRUE or (kind.isalpha() and kind[0] & 0x20 and kind[3] & 0x20):
                passthrough += raw
            elif kind == b"caBX":
                left_out.append("its manifest of content credentials (C2PA)")
            else:
                left_out.append(f"the chunk {printable(kind.decode('latin-1'))}")
        if kind == b"pHYs" and len(body) == 9:
            across, down, unit = struct.unpack(">IIB", body)
            resolution = per_meter(across, down) if unit == 1 else Resolution(across, down, 0)
    frames = max(frames + (not is_frame), 1)
    lost, wrong = tuple(dict.fromkeys(left_out)), tuple(wrong_sums)
    return PngHeader(exif, frames, bytes(passthrough), has_icc, resolution, xmp, end, lost, wrong)


def contents(passthrough: bytes) -> list[str]:
    """What `PngHeader.passthrough` holds besides colors and time, in words."""
    found: dict[str, None] = {}
    texts: list[str] = []
    for kind, body, _, _ in _chunks(bytes(8) + passthrough):
        keyword = body.partition(b"\0")[0].decode("latin-1")
        if kind in _TEXTS and keyword.lower().encode("latin-1") in _RAW_CAPTIONS:
            found["the IPTC caption"] = None
        elif kind in _TEXTS and keyword == "Comment":
            found["the comment"] = None
        elif kind in _TEXTS:
            texts.append(keyword)
        elif kind not in _STILL_TRUE:
            found[f"the chunk {printable(kind.decode('latin-1'))}"] = None
    if texts:
        found[f"the text {texts[0]!r}" if len(texts) == 1 else f"{len(texts)} texts"] = None
    return list(found)


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[Captions, bytes]:
    """Photoshop's resources and the comment in `PngHeader.passthrough`, where asked for, and its other chunks."""
    text = b""
    found, rest = bytearray(), bytearray()
    known: set[int] = set()
    for kind, body, raw, _ in _chunks(bytes(8) + passthrough):
        keyword, _, value = body.partition(b"\0")
        if resources and kind in (b"tEXt", b"zTXt") and keyword.lower() in _RAW_CAPTIONS:
            profile = _raw_profile(kind, body)[1]
            profile = resource(CAPTION, profile) if profile.startswith(b"\x1c") else profile
            if any(True for _ in resources_of(profile)):
                found += without(profile, known)
                known.update(number for number, _ in resources_of(profile))
            else:
                rest += raw
        elif comment and kind in _TEXTS and keyword == b"Comment" and not text:
            text = value if kind == b"tEXt" else (_text(body) or b"") if kind == b"iTXt" else _inflated(value[1:])
        else:
            rest += raw
    return Captions(bytes(found), text), bytes(rest)


def of_captions(found: Captions) -> bytes:
    """The chunks that hold Photoshop's resources and a comment."""
    only_iptc = all(number == CAPTION for number, _ in resources_of(found.resources))
    name = "iptc" if only_iptc else "8bim"
    chunks = _raw_profile_chunk(name, found.resources) if found.resources else b""
    if not found.comment:
        return chunks
    if found.comment.isascii() or not _is_utf8(found.comment):
        return chunks + _chunk(b"tEXt", b"Comment\0" + found.comment.replace(b"\0", b" "))
    return chunks + _chunk(b"iTXt", b"Comment\0\0\0\0\0" + found.comment)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _TEXT_LIMIT)
    except zlib.error:
        return b""


def with_chunks(
    data: bytes,
    *,
    exif: bytes | None,
    xmp: bytes | None,
    passthrough: bytes,
    has_icc: bool,
    dpi: tuple[float, float] | None,
    shape: tuple[float, float] | None = None,
) -> bytes:
    """Insert metadata into a PNG, after its header.

    Args:
        data: a PNG as libvips writes it, without these chunks.
        exif: an EXIF block, or None.
        xmp: an XMP packet, or None.
        passthrough: raw chunks of the source (`PngHeader.passthrough`).
        has_icc: the PNG has a color profile, so older chunks that define colors are removed. cICP stays: it takes
            precedence over a profile.
        dpi: pixels per inch across and down; None = unknown.
        shape: of a pixel, as densities across and down; None = square.
    """
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(data[25], 0)
    new = bytearray()
    for kind, body, raw, _ in _chunks(bytes(8) + passthrough):
        if has_icc and kind in _COLORS and kind != b"cICP":
            continue
        if kind in _PER_CHANNEL and len(body) not in _PER_CHANNEL[kind].get(channels, ()):
            continue
        new += raw
    new += _resolution_chunk(dpi, shape)
    if exif:
        new += _chunk(b"eXIf", without_prefix(exif))
    if xmp:
        new += _chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp)
    data = _without(data, b"pHYs")  # libvips writes one even where it knows no resolution
    end_of_header = 8 + 12 + 13
    return data[:end_of_header] + bytes(new) + data[end_of_header:]


def without_colors(passthrough: bytes) -> bytes:
    """`PngHeader.passthrough` without the chunks that define colors."""
    return b"".join(raw for kind, _, raw, _ in _chunks(bytes(8) + passthrough) if kind not in _COLORS)


def with_resolution(passthrough: bytes, dpi: tuple[float, float] | None) -> bytes:
    """`PngHeader.passthrough` with this resolution in Photoshop's resources, if they state one."""
    changed = bytearray()
    for kind, body, raw, _ in _chunks(bytes(8) + passthrough):
        if kind in _TEXTS and body.lower().startswith(_RAW_CAPTIONS[1] + b"\0"):
            profile = _raw_profile(kind, body)[1]
            new = photoshop.with_resolution(profile, dpi)
            raw = raw if new == profile else _raw_profile_chunk("8bim", new)
        changed += raw
    return bytes(changed)


def _resolution_chunk(dpi: tuple[float, float] | None, shape: tuple[float, float] | None) -> bytes:
    values = (1, *(value / 0.0254 for value in dpi)) if dpi else (0, *density(None, shape)[1:]) if shape else None
    if values is None or not all(1 <= round(value) < 1 << 31 for value in values[1:]):
        return b""
    return _chunk(b"pHYs", struct.pack(">IIB", round(values[1]), round(values[2]), int(values[0])))


def with_end(data: bytes) -> bytes:
    """Complete the last chunk of a truncated PNG: decoders read the pixels of a chunk only if all of it is there."""
    at = 8
    while at + 8 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            if data[at + 4 : at + 8] != b"IDAT":
                break
            return data[:at] + _chunk(b"IDAT", data[at + 8 : at + 8 + length]) + _chunk(b"IEND", b"")
        at += 12 + length
    return data


def color_chunks(passthrough: bytes) -> bytes:
    """The chunks of `PngHeader.passthrough` that define the colors."""
    return b"".join(raw for kind, _, raw, _ in _chunks(bytes(8) + passthrough) if kind in _COLORS)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, int]]:
    """(kind, body, raw bytes, end) of every chunk."""
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            return
        kind = data[at + 4 : at + 8]
        if kind == b"IDAT":  # large, and no caller needs it
            yield kind, b"", b"", end
        else:
            yield kind, data[at + 8 : end - 4], data[at:end], end
        at = end


def _without(data: bytes, kind: bytes) -> bytes:
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if data[at + 4 : at + 8] == kind:
            return data[:at] + data[at + 12 + length :]
        if data[at + 4 : at + 8] == b"IDAT":
            break
        at += 12 + length
    return data


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text(body: bytes) -> bytes | None:
    """The text of an iTXt chunk, after keyword, compression, language and translation; None if it is broken."""
    rest = body.partition(b"\0")[2]
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    return parts[2] if rest[:1] == b"\0" else _inflated(parts[2]) or None


def _raw_profile(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """The name of a profile in hexadecimal text, in lower case, and its bytes; b"" if it is broken.

    ImageMagick and older tools write EXIF, IPTC and XMP so.
    """
    keyword, _, value = body.partition(b"\0")
    try:
        if kind == b"zTXt":
            value = zlib.decompressobj().decompress(value[1:], _TEXT_LIMIT)
        digits = b"".join(value.split(None, 2)[2:])
        profile = bytes.fromhex(digits.translate(None, _SPACES).decode("ascii"))
    except (zlib.error, ValueError):
        profile = b""
    return keyword[len(b"Raw profile type ") :].lower(), profile


def _raw_profile_chunk(name: str, profile: bytes) -> bytes:
    text = f"\n{name}\n{len(profile):8}\n{profile.hex()}\n".encode()
    return _chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text))
