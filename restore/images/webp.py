"""What a WebP's chunks tell of how it was compressed."""

from __future__ import annotations

import struct


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
