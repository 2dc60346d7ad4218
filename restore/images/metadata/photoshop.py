"""Photoshop's image resources, as JPEG and TIFF hold them; one of them is IPTC (Adobe Photoshop File Formats, 2019)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple

from restore.images.metadata.resolution import Resolution, same

#: The resource that is an IPTC record.
CAPTION = 0x0404
#: The resource that states the resolution.
RESOLUTION = 0x03ED
_THUMBNAILS = (0x0409, 0x040C)  # show the image before the repair
#: IPTC, whether there is a copyright, an address, and the digest of IPTC.
_CAPTIONS = (CAPTION, 1034, 1035, 1061)
#: The first is Photoshop's own; numbers of the others, which its plug-ins wrote, mean other things.
_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")


class Captions(NamedTuple):
    """What several formats hold.

    Attributes:
        resources: Photoshop's, with an IPTC record as one of them; b"" if there are none.
        comment: a text, in the bytes of the file; b"" if there is none.
    """

    resources: bytes = b""
    comment: bytes = b""


def without_thumbnails(resources: bytes) -> bytes:
    """The resources without thumbnails. The rest, from the first one that cannot be parsed, is copied."""
    return without(resources, _THUMBNAILS)


def without(resources: bytes, numbers: Container[int]) -> bytes:
    """The resources without those of some numbers. The rest, from the first one that cannot be parsed, is copied."""
    return _changed(resources, lambda number, raw: b"" if number in numbers else raw)


def with_resolution(resources: bytes, dpi: tuple[float, float] | None) -> bytes:
    """The resources with this resolution in the place of the one that they state.

    Args:
        resources: some that state none stay as they are.
        dpi: pixels per inch across and down; None: unknown, and the statement is removed.
    """

    def change(number: int, raw: bytes) -> bytes:
        if number != RESOLUTION:
            return raw
        stated = _resolution_in(_data(raw))
        if stated is None or dpi is None:
            return b""
        if stated.dpi is not None and same(stated.dpi, dpi):
            return raw
        changed = bytearray(raw)
        for at, value in zip((0, 8), dpi):
            struct.pack_into(">I", changed, _data_at(raw) + at, min(round(value * 65536), 0xFFFFFFFF))
        return bytes(changed)

    return _changed(resources, change)


def resolution_in(resources: bytes) -> Resolution | None:
    """The resolution that the resources state, or None."""
    return _resolution_in(dict(resources_of(resources)).get(RESOLUTION, b""))


def _resolution_in(body: bytes) -> Resolution | None:
    """Pixels per inch with 16 bits after the point, whatever unit Photoshop displays."""
    if len(body) < 12:
        return None
    across, down = struct.unpack_from(">I4xI", body)
    return Resolution(across / 65536, down / 65536)


def resources_of_document(data: bytes) -> bytes:
    """The resources of a Photoshop file; b"" if it is cut short."""
    try:
        (palette,) = struct.unpack_from(">I", data, 26)
        (length,) = struct.unpack_from(">I", data, 30 + palette)
    except struct.error:
        return b""
    return data[34 + palette : 34 + palette + length]


def captions_in(resources: bytes) -> bytes:
    """Those that describe an image whatever its pixels and layers are: IPTC, copyright and address."""
    return _changed(resources, lambda number, raw: raw if number in _CAPTIONS else b"", keep_rest=False)


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[Captions, bytes]:
    """The resources of a Photoshop file, if asked for; else they are the rest. It holds no comment."""
    return (Captions(passthrough), b"") if resources else (Captions(), passthrough)


def contents(passthrough: bytes) -> list[str]:
    """What resources are called in a note."""
    numbers = {number for number, _ in resources_of(passthrough)} - {RESOLUTION}
    return ["the IPTC caption" if CAPTION in numbers else "Photoshop's block"] if numbers else []


def resource(number: int, data: bytes) -> bytes:
    """A resource without a name."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


def resources_of(resources: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, data) of every resource, up to the first one that cannot be parsed."""
    for number, begin, end in _spans(resources):
        yield number, _data(resources[begin:end])


def _spans(resources: bytes) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of every resource; the last one may be cut.

    A resource is "8BIM", a number, a Pascal string, a length and data, padded to even lengths.
    """
    at = 0
    while resources[at : at + 4] in _SIGNATURES and at + 7 <= len(resources):
        number = struct.unpack_from(">H", resources, at + 4)[0] if resources[at : at + 4] == b"8BIM" else 0
        size_at = at + 6 + (resources[at + 6] + 2) // 2 * 2
        if size_at + 4 > len(resources):
            return
        end = size_at + 4 + (struct.unpack_from(">I", resources, size_at)[0] + 1) // 2 * 2
        yield number, at, min(end, len(resources))
        at = end


def _data(raw: bytes) -> bytes:
    """The data of a resource."""
    at = _data_at(raw)
    return raw[at : at + struct.unpack_from(">I", raw, at - 4)[0]]


def _data_at(raw: bytes) -> int:
    return 6 + (raw[6] + 2) // 2 * 2 + 4


def _changed(resources: bytes, change: Callable[[int, bytes], bytes], *, keep_rest: bool = True) -> bytes:
    """The resources with each replaced by what `change` makes of its number and bytes.

    The rest, from the first one that cannot be parsed, is copied if `keep_rest`.
    """
    changed, done = bytearray(), 0
    for number, begin, end in _spans(resources):
        changed += change(number, resources[begin:end])
        done = end
    return bytes(changed) + (resources[done:] if keep_rest else b"")
