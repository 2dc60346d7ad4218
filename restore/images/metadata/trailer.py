"""What follows an image in its file: the video of a motion photo, further images, data of other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from restore.images.metadata.boxes import boxes_in
from restore.images.metadata.jpeg import end_of_image

_PADDING = b"\0\xff \t\r\n"
_JPEG = b"\xff\xd8\xff"
#: In the segments of a JPEG that holds the gain map of another (ISO 21496-1, Adobe's and Apple's forerunners).
_GAIN_MAP = (b"http://ns.adobe.com/hdr-gain-map/", b"http://ns.apple.com/HDRGainMap/", b"urn:iso:std:iso:ts:21496:")
_HEAD_BYTES = 1 << 16
#: Boxes of a HEIC or AVIF that hold a motion photo's video, and what Samsung's cameras add.
_VIDEO_BOXES = (b"mpvd", b"sefd")
_GAIN_MAP_ITEM = re.compile(rb"infe[\x02\x03]...(?:..|....)..tmap", re.DOTALL)
_GAIN_MAP_AUXILIARY = (b"urn:com:apple:photo:2020:aux:hdrgainmap",)
_DEPTH_AUXILIARY = (b"urn:mpeg:hevc:2015:auxid:2\0", b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth")


@dataclass(frozen=True)
class Trailer:
    """What follows an image.

    Attributes:
        kept: bytes to append to an output of the same format.
        gain_map: a gain map for HDR screens was left out. It describes the unrepaired image.
        depth_map: a depth map was left out.
        images: the number of further images that were left out.
    """

    kept: bytes = b""
    gain_map: bool = False
    depth_map: bool = False
    images: int = 0

    @property
    def video(self) -> bool:
        """There is a video in `kept`."""
        return is_video(self.kept)


def is_video(kept: bytes) -> bool:
    """Whether a trailer holds a video, as motion photos do."""
    return b"ftyp" in kept or b"MotionPhoto_Data" in kept


def after_jpeg(data: Any, *, several: bool) -> Trailer:
    """What follows the first image of a JPEG.

    Args:
        data: the file, as bytes or mapped into memory.
        several: its index of images (CIPA DC-007, the multi-picture format) declares more. They are left out, as the
            index is: its positions hold for this file only.
    """
    at = end_of_image(data, 0)
    kept, gain_map, images = bytearray(), False, 0
    while at is not None and at < len(data):
        begin = at
        while data[at : at + 1] == b"\0":
            at += 1
        end = end_of_image(data, at) if data[at : at + 3] == _JPEG else None
        if end is None:
            kept += data[begin:]
            break
        head = data[at : min(at + _HEAD_BYTES, end)]
        if any(name in head for name in _GAIN_MAP):
            gain_map = True
        elif several:
            images += 1
        else:
            kept += data[begin:end]
        at = end
    return Trailer(bytes(kept) if kept.strip(_PADDING) else b"", gain_map=gain_map, images=images)


def after_boxes(data: Any) -> Trailer:
    """What a HEIC or AVIF holds beside its main image (ISO/IEC 14496-12, 23008-12)."""
    kept, gain_map, depth_map = bytearray(), False, False
    for kind, begin, start, end in boxes_in(data, 0, len(data)):
        if kind in _VIDEO_BOXES:
            kept += data[begin:end]
        elif kind == b"meta":
            items = data[start:end]
            gain_map = bool(_GAIN_MAP_ITEM.search(items)) or any(name in items for name in _GAIN_MAP_AUXILIARY)
            depth_map = any(name in items for name in _DEPTH_AUXILIARY)
    return Trailer(bytes(kept), gain_map=gain_map, depth_map=depth_map)


def after_image(data: Any, end: int) -> Trailer:
    """What follows an image that ends at a position."""
    kept = bytes(data[end:])
    return Trailer(kept if kept.strip(_PADDING) else b"")
