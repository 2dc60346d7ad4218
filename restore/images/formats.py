"""What a file is, by its content. Names lie, so they are asked only where there is no signature (TGA)."""

from __future__ import annotations

import struct
from pathlib import PurePath

from restore.errors import RestoreError

#: Suffix -> format, for everything that can be read and written.
FORMAT_OF_SUFFIX = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".mpo": "jpeg",
    ".png": "png", ".apng": "png",
    ".tif": "tiff", ".tiff": "tiff",
    ".webp": "webp",
    ".gif": "gif",
    ".avif": "avif",
    ".heic": "heic", ".heif": "heic",
    ".bmp": "bmp", ".dib": "bmp",
    ".tga": "tga",
    ".pcx": "pcx",
    ".ico": "ico",
    ".pbm": "ppm", ".pgm": "ppm", ".ppm": "ppm", ".pnm": "ppm",
    ".sgi": "sgi", ".rgb": "sgi", ".rgba": "sgi", ".bw": "sgi",
}  # fmt: skip

#: Suffixes of pictures that can be read.
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)

#: Suffixes of camera raw files. Most are TIFF inside, where only a small preview would be found.
RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef",
    ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
))  # fmt: skip

#: Suffixes of pictures that cannot be read, and are reported as failures and not passed over.
UNREADABLE_SUFFIXES = RAW_SUFFIXES | frozenset((
    ".psd", ".psb", ".xcf", ".jp2", ".j2k", ".jpx", ".jxl", ".exr", ".hdr", ".dds", ".icns", ".fits", ".svg",
    ".eps", ".ai", ".pdf", ".xbm", ".xpm", ".msp", ".djvu",
))  # fmt: skip

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"\0\0\1\0", "ico"),
    (b"\x01\xda", "sgi"),
)

_UNREADABLE: tuple[tuple[bytes, str], ...] = (
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"gimp xcf", "a GIMP file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR file"),
    (b"DDS ", "a DirectDraw surface"),
    (b"icns", "an Apple icon"),
    (b"SIMPLE  =", "a FITS file"),
    (b"BLP1", "a Blizzard texture"),
    (b"BLP2", "a Blizzard texture"),
    (b"DanM", "a Microsoft Paint file"),
    (b"LinS", "a Microsoft Paint file"),
    (b"/* XPM */", "an X pixmap"),
    (b"#define", "an X bitmap"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"FUJIFILMCCD-RAW", "a camera raw file"),
    (b"IIRO", "a camera raw file"),
    (b"IIRS", "a camera raw file"),
    (b"IIU\0", "a camera raw file"),
    (b"\0MRM", "a camera raw file"),
    (b"FOVb", "a camera raw file"),
    (b"AT&TFORM", "a DjVu document"),
)

_NUMBER_OR_COMMENT = tuple(bytes([character]) for character in b"0123456789#")

_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class NotAnImage(RestoreError):
    """The file is no image by its content, whatever its name says."""

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        hint: str | None = None,
        exit_code: int = 1,
    ) -> None:
        super().__init__(what, where=where, hint=hint, exit_code=exit_code)  # type: ignore[arg-type]


def format_of(data: bytes, name: str | PurePath) -> str:
    """The format of a file's content: `jpeg png tiff webp gif avif heic bmp ico tga pcx ppm sgi`.

    Args:
        data: the whole file, or at least its first 64 bytes.
        name: the file's name, for messages and for the formats without a signature.

    Raises:
        NotAnImage: no image by its content.
        RestoreError: an image of a kind that is not read (Photoshop, camera raw, ...), named.
    """
    if not data:
        raise NotAnImage("the file is empty", where=name)
    suffix = PurePath(name).suffix.lower()
    found = next((kind for start, kind in _SIGNATURES if data.startswith(start)), None) or _container(data)
    named = suffix in IMAGE_SUFFIXES
    if not named and not _bears_out(found, data):  # two letters are soon found, as in BMW
        found = None
    if found == "tiff" and (suffix in RAW_SUFFIXES or data[8:10] == b"CR"):
        raise _unreadable("a camera raw file", name)
    if found is not None:
        return found
    follows = named or data[3:64].lstrip().startswith(_NUMBER_OR_COMMENT)
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace() and follows:
        return "ppm"
    if data[:1] == b"\x0a" and data[1:2] in (b"\0", b"\2", b"\3", b"\4", b"\5") and data[2:3] == b"\1":
        return "pcx"
    for start, kind in _UNREADABLE:
        if data.startswith(start):
            raise _unreadable(kind, name)
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"<svg") or (head.startswith(b"<?xml") and b"<svg" in head):
        raise _unreadable("an SVG drawing", name)
    if suffix == ".tga" and len(data) >= 18 and data[1] in (0, 1) and data[2] in (1, 2, 3, 9, 10, 11):
        return "tga"
    raise NotAnImage("this is no picture (by its content)", where=name)


def _bears_out(found: str | None, data: bytes) -> bool:
    """Whether what follows a short signature is what has to follow it."""
    if found == "bmp":  # the length of the second header
        return data[15:18] == b"\0\0\0" and 12 <= data[14] <= 124
    if found == "ico":  # how many there are
        return data[4:6] != b"\0\0"
    if found == "sgi":  # compressed or not, bytes per value
        return data[2:3] in (b"\0", b"\1") and data[3:4] in (b"\1", b"\2")
    return True


def _container(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 256, len(data))
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "avif"
    return "heic" if any(brand in _HEIC_BRANDS for brand in brands) else None


def _unreadable(kind: str, name: str | PurePath) -> RestoreError:
    return RestoreError(f"{kind} cannot be read here", where=name, hint="convert it to TIFF or PNG first", exit_code=1)


# What a WebP's chunks tell of how it was compressed.


def is_lossless(data: bytes) -> bool:
    """Whether the (first) frame is compressed without loss: its chunk is `VP8L`, wherever a profile pushed it."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # A frame of an animation holds chunks itself, behind 16 bytes on its place and time.
        at += 8 + 16 if kind == b"ANMF" else 8 + length + length % 2
    return False
