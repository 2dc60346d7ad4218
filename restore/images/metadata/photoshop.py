"""Photoshop's image resources, as JPEG and TIFF hold them; one of them is IPTC (Adobe Photoshop File Formats, 2019)."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

#: The resource that is an IPTC record.
CAPTION = 0x0404
_THUMBNAILS = (0x0409, 0x040C)  # show the image before the repair


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
    """The resources without those of some numbers. The rest, from the first one that cannot be parsed, is copied.

    A resource is "8BIM", a number, a Pascal string, a length and data, padded to even lengths.
    """
    copied, at = b"", 0
    while resources[at : at + 4] == b"8BIM" and at + 7 <= len(resources):
        number = struct.unpack_from(">H", resources, at + 4)[0]
        size_at = at + 6 + (resources[at + 6] + 2) // 2 * 2
        if size_at + 4 > len(resources):
            break
        end = size_at + 4 + (struct.unpack_from(">I", resources, size_at)[0] + 1) // 2 * 2
        if number not in numbers:
            copied += resources[at:end]
        at = end
    return copied + resources[at:]


def resource(number: int, data: bytes) -> bytes:
    """A resource without a name."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


def resources_of(resources: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, data) of every resource, up to the first one that cannot be parsed."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 7 <= len(resources):
        size_at = at + 6 + (resources[at + 6] + 2) // 2 * 2
        if size_at + 4 > len(resources):
            return
        size = struct.unpack_from(">I", resources, size_at)[0]
        yield struct.unpack_from(">H", resources, at + 4)[0], resources[size_at + 4 : size_at + 4 + size]
        at = size_at + 4 + (size + 1) // 2 * 2
