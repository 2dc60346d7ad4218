"""The name that the header of an SGI image holds (Haeberli, The SGI Image File Format)."""

from __future__ import annotations

_BEGIN, _END = 24, 104


def name_of(data: bytes) -> bytes:
    """The name, or b""."""
    return data[_BEGIN:_END].partition(b"\0")[0]


def with_name(data: bytes, name: bytes) -> bytes:
    """An SGI image with another name of at most 79 bytes."""
    return data[:_BEGIN] + name[: _END - _BEGIN - 1].ljust(_END - _BEGIN, b"\0") + data[_END:]


def contents(passthrough: bytes) -> list[str]:
    """What a name is called in a note."""
    return ["the name in it"] if passthrough else []
