"""Removes from an XMP packet what it says of parts of a file that are gone: a motion photo's video, a gain map, ...

As in `xmp`, a parser finds the positions, and every other byte of the packet stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from restore.images.metadata.xmp import tag_end

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_OPLUS = "http://ns.oplus.com/photos/1.0/camera/"
_GAIN_MAPS = (
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
)
_NOTE = "http://ns.adobe.com/xmp/note/"
_ITEM = "http://ns.google.com/photos/1.0/container/item/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/ Directory"
_DESCRIPTION, _LI = f"{_RDF} Description", f"{_RDF} li"
_START = re.compile(rb"<[^\s/>]+")
_ATTRIBUTE = re.compile(rb"(?<=\s)([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_MOTION = re.compile(r"Motion|MicroVideo|OLivePhoto|VideoLength")

#: Whether a property goes: its namespace and name.
_Property = Callable[[str, str], bool]
#: Whether an item of a container's directory goes: its meaning ("Primary", "GainMap", "MotionPhoto", ...), its type.
_Item = Callable[[str, str], bool]


def without_video(xmp: bytes) -> bytes:
    """The packet of a motion photo whose video is gone (Google, Motion Photo format 1.0)."""
    return _without(
        xmp,
        lambda space, name: space in (_CAMERA, _OPLUS) and _MOTION.match(name) is not None,
        lambda meaning, kind: meaning == "MotionPhoto" or kind.startswith("video/"),
    )


def without_gain_map(xmp: bytes) -> bytes:
    """The packet of an image whose gain map is gone (Adobe Gain Map 1.0; Google, Ultra HDR 1.1)."""
    return _without(xmp, lambda space, _: space in _GAIN_MAPS, lambda meaning, _: meaning == "GainMap")


def without_images(xmp: bytes) -> bytes:
    """The packet of a container whose further images are gone."""
    return _without(
        xmp, lambda *_: False, lambda meaning, kind: kind.startswith("image/") and meaning not in ("Primary", "")
    )


def without_extension(xmp: bytes) -> bytes:
    """The packet without its link to an extended packet (Adobe, XMP part 3, 1.1.3.1)."""
    return _without(xmp, lambda space, name: space == _NOTE and name == "HasExtendedXMP", lambda *_: False)


@dataclass
class _Open:
    """An element that the parser is in."""

    name: str
    at: int
    meaning: str = ""
    kind: str = ""
    text: list[str] = field(default_factory=list)
    items: int = 0
    gone: int = 0


def _without(packet: bytes, is_gone: _Property, item_is_gone: _Item) -> bytes:
    """The packet without some properties and items; unchanged if it cannot be parsed."""
    parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
    path: list[_Open] = []
    spans: list[tuple[int, int]] = []
    prefixes: dict[str, set[str]] = {}

    def declare(prefix: str | None, space: str) -> None:
        prefixes.setdefault(space, set()).add(prefix or "")

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        element = _Open(name, at)
        names = [key.rpartition(" ") for key in attributes] if name == _DESCRIPTION else []
        gone = {f"{prefix}:{local}" for space, _, local in names if is_gone(space, local) for prefix in prefixes[space]}
        if gone:
            spans.extend(_attributes(packet, at, gone))
        element.meaning = attributes.get(f"{_ITEM} Semantic", "")
        element.kind = attributes.get(f"{_ITEM} Mime", "")
        path.append(element)

    def end(name: str) -> None:
        element = path.pop()
        space, _, local = name.rpartition(" ")
        text = "".join(element.text).strip()
        meaning = element.meaning or (text if name == f"{_ITEM} Semantic" else "")
        kind = element.kind or (text if name == f"{_ITEM} Mime" else "")
        gone = bool(path) and path[-1].name == _DESCRIPTION and is_gone(space, local)
        directory = path[-2] if len(path) > 1 and path[-2].name == _CONTAINER else None
        if name == _LI and directory is not None:
            directory.items += 1
            gone = item_is_gone(meaning, kind)
            directory.gone += gone
        elif name == _CONTAINER:
            gone = 0 < element.gone >= element.items - 1  # only the image itself is left in it
        elif path:
            path[-1].meaning, path[-1].kind = path[-1].meaning or meaning, path[-1].kind or kind
        if gone:
            opened = tag_end(packet, element.at)
            empty = packet[opened - 2 : opened] == b"/>"
            spans.append((element.at, opened if empty else tag_end(packet, parser.CurrentByteIndex)))

    def characters(text: str) -> None:
        if path:
            path[-1].text.append(text)

    def refuse(*_: object) -> None:
        raise ValueError("the packet declares a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartNamespaceDeclHandler = declare
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    try:
        parser.Parse(packet.rstrip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError):
        return packet
    kept, at = bytearray(), 0
    for begin, stop in _outermost(spans):
        kept += packet[at:begin]
        at = stop
    return bytes(kept) + packet[at:]


def _outermost(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans that lie in no other; of two elements, one is always inside the other or apart from it."""
    kept: list[tuple[int, int]] = []
    for begin, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if not kept or begin >= kept[-1][1]:
            kept.append((begin, end))
    return kept


def _attributes(packet: bytes, at: int, gone: set[str]) -> Iterator[tuple[int, int]]:
    """The spans of some attributes (`prefix:name`) in the tag at a position, with the space before them."""
    end = tag_end(packet, at)
    before = _START.match(packet, at, end)
    last = at if before is None else before.end()
    for found in _ATTRIBUTE.finditer(packet, last, end):
        if found[1].decode("utf-8", "replace") in gone:
            yield last, found.end()
        last = found.end()
