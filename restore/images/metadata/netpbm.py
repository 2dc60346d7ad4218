"""The comments in the header of a PBM, PGM or PPM (the specifications of Netpbm)."""

from __future__ import annotations

import re

from restore.images.metadata.photoshop import Captions

_TOKEN = re.compile(rb"\s+|#[^\n\r]*|\d+")
_HEADER_BYTES = 1 << 16


def comments_of(data: bytes) -> bytes:
    """The lines of comments in a header, each with its # and a line feed at its end."""
    numbers = 2 if data[1:2] in (b"1", b"4") else 3  # width, height, largest value
    head, at, comments = data[:_HEADER_BYTES], 2, bytearray()
    while numbers and (token := _TOKEN.match(head, at)):
        at = token.end()
        if token[0].startswith(b"#"):
            comments += token[0] + b"\n"
        elif token[0].isdigit():
            numbers -= 1
    return bytes(comments)


def with_comments(data: bytes, comments: bytes) -> bytes:
    """A file with comments after its first line, `P6` or the like."""
    return data[:3] + comments + data[3:]


def contents(passthrough: bytes) -> list[str]:
    """What comments are called in a note."""
    return ["the comment"] if passthrough else []


def take_captions(passthrough: bytes, *, resources: bool, comment: bool) -> tuple[Captions, bytes]:
    """The comments as one text, if asked for; else they are the rest. A PPM holds no resources."""
    if not comment:
        return Captions(), passthrough
    lines = [line.removeprefix(b"#").strip() for line in passthrough.splitlines()]
    return Captions(comment=b"\n".join(lines)), b""


def of_captions(found: Captions) -> bytes:
    """The lines that hold a comment."""
    return b"".join(b"# " + line + b"\n" for line in found.comment.splitlines())
