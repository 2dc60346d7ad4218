"""Adds the history of an image to its XMP packet.

XMP is RDF in XML (ISO 16684-1:2019). A parser finds the positions, and bytes are inserted there. Every other byte of
the packet stays the same; a serializer would change prefixes and drop what it does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_HISTORY = "http://ns.adobe.com/xap/1.0/mm/ History"
_SOURCE_TYPE = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ DigitalSourceType"
_DESCRIPTION, _ROOT, _SEQUENCE = f"{_RDF} Description", f"{_RDF} RDF", f"{_RDF} Seq"
_NAMES = {
    "rdf": _RDF,
    "xmpMM": _HISTORY.split()[0],
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "Iptc4xmpExt": _SOURCE_TYPE.split()[0],
}
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    f'<rdf:RDF xmlns:rdf="{_RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()
#: In a tag: its end, or a quoted value, which may hold anything.
_NEXT_IN_TAG = re.compile(rb"[>\"']")
_MOST_LEVELS = 100


@dataclass(frozen=True)
class Event:
    """An entry of `xmpMM:History`: the action, the program, its parameters (ISO 16684-2, ResourceEvent)."""

    action: str
    agent: str
    parameters: str


def with_event(xmp: bytes | None, event: Event, source_type: str, *, keep_types: frozenset[str]) -> bytes:
    """Append an event to a packet's history, and set the image's digital source type.

    Args:
        xmp: the packet; None = a new one.
        event: to append.
        source_type: the value of `Iptc4xmpExt:DigitalSourceType`; it replaces the old one.
        keep_types: values that are not replaced, because they say more.

    Raises:
        ValueError: the packet is not XMP in UTF-8, or cannot be extended.
    """
    packet = _EMPTY if xmp is None else xmp
    found = _find(packet)
    if found.root is None:
        raise ValueError("the packet holds no RDF")
    li = f"<rdf:li{_declared('rdf', 'stEvt')} stEvt:action={quoteattr(event.action)}"
    li += f" stEvt:softwareAgent={quoteattr(event.agent)} stEvt:parameters={quoteattr(event.parameters)}/>"
    edits: list[tuple[int, int, bytes]] = []
    new = ""
    if found.history:
        if found.sequence is None:
            raise ValueError("its history is not a sequence")
        edits.append(_appended(packet, found.sequence, li.encode()))
    else:
        new += f"<xmpMM:History>\n<rdf:Seq>\n{li}\n</rdf:Seq>\n</xmpMM:History>\n"
    if found.source_type is None:
        new += f"<Iptc4xmpExt:DigitalSourceType>{escape(source_type)}</Iptc4xmpExt:DigitalSourceType>\n"
    elif packet[slice(*found.source_type)].decode().strip() not in keep_types:
        edits.append((*found.source_type, escape(source_type).encode()))
    if new:
        about = quoteattr(found.about or "")
        block = f"<rdf:Description rdf:about={about}{_declared('rdf', 'xmpMM', 'stEvt', 'Iptc4xmpExt')}>\n"
        edits.append(_appended(packet, found.root, f"{block}{new}</rdf:Description>\n".encode()))
    for begin, end, piece in sorted(edits, reverse=True):
        packet = packet[:begin] + piece + packet[end:]
    return packet


@dataclass
class _Found:
    """Positions in a packet, as spans of bytes.

    Attributes:
        root: where to append to `rdf:RDF`: an empty span before its end tag, or the whole of an empty element.
        about: the `rdf:about` of the packet's properties.
        history: the packet has a history.
        sequence: where to append to its entries, as `root`.
        source_type: the value of the digital source type.
        path: of the parser: open elements and their positions.
    """

    root: tuple[int, int] | None = None
    about: str | None = None
    history: bool = False
    sequence: tuple[int, int] | None = None
    source_type: tuple[int, int] | None = None
    path: list[tuple[str, int]] = field(default_factory=list)


def _find(packet: bytes) -> _Found:
    found = _Found()
    parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
    in_description = [_ROOT, _DESCRIPTION]

    def names() -> list[str]:
        names = [name for name, _ in found.path]
        return names[names.index(_ROOT) :] if _ROOT in names else []

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        if len(found.path) == _MOST_LEVELS:  # packets have some ten; every level is searched for each element
            raise ValueError(f"the packet has more than {_MOST_LEVELS} levels")
        found.path.append((name, at))
        place = names()
        if place == in_description:
            found.about = found.about or attributes.get(f"{_RDF} about")
        elif place == [*in_description, _HISTORY]:
            found.history = True
        if place == in_description and _SOURCE_TYPE in attributes:
            found.source_type = _attribute(packet, at, b"DigitalSourceType")
        elif place == [*in_description, _SOURCE_TYPE] and f"{_RDF} resource" in attributes:
            found.source_type = _attribute(packet, at, b"resource")

    def end(name: str) -> None:
        at, place = parser.CurrentByteIndex, names()
        _, began = found.path.pop()
        opened = tag_end(packet, began)
        empty = packet[opened - 2 : opened] == b"/>"
        span = (began, opened) if empty else (at, at)
        if place == [_ROOT]:
            found.root = span
        elif place == [*in_description, _HISTORY, _SEQUENCE]:
            found.sequence = span
        elif place == [*in_description, _SOURCE_TYPE] and found.source_type is None and not empty:
            found.source_type = (opened, at)

    def refuse(*_: object) -> None:
        raise ValueError("the packet declares a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(packet.rstrip(b"\0 \t\r\n"), True)
    except expat.ExpatError as error:
        raise ValueError(f"the packet is not XML: {error}") from error
    return found


def _declared(*prefixes: str) -> str:
    return "".join(f' xmlns:{prefix}="{_NAMES[prefix]}"' for prefix in prefixes)


def _appended(packet: bytes, span: tuple[int, int], piece: bytes) -> tuple[int, int, bytes]:
    """The edit that inserts a piece before an element's end tag, or into an empty element."""
    begin, end = span
    if begin == end:
        return begin, begin, piece + b"\n"
    tag = packet[begin:end]
    name = re.split(rb"[\s/>]", tag[1:], maxsplit=1)[0]
    return begin, end, tag[: tag.rindex(b"/")] + b">\n" + piece + b"\n</" + name + b">"


def tag_end(packet: bytes, at: int) -> int:
    """The position after the tag at a position.

    Raises:
        ValueError: it has no end.
    """
    while found := _NEXT_IN_TAG.search(packet, at):
        if found[0] == b">":
            return found.end()
        at = packet.find(found[0], found.end()) + 1
        if not at:
            break
    raise ValueError("the packet has a tag that cannot be parsed")


def _attribute(packet: bytes, at: int, name: bytes) -> tuple[int, int]:
    """The span of an attribute's value in the tag at a position; `name` has no prefix."""
    found = re.compile(rb"[\s:]" + name + rb"\s*=\s*(?:\"([^\"]*)\"|'([^']*)')").search(packet, at, tag_end(packet, at))
    if found is None:
        raise ValueError("the packet has an attribute that cannot be parsed")
    return found.span(1) if found[1] is not None else found.span(2)
