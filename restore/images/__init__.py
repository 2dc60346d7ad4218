"""The truth about image files: orientation, profiles, depth, alpha, metadata, atomic writes."""

from restore.images.discovery import find_pictures, stem_key
from restore.images.encode import WRITABLE_FORMATS, save_png, write_bytes, write_picture
from restore.images.formats import (
    FORMAT_OF_SUFFIX,
    PICTURE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    NotAPicture,
    format_of,
)
from restore.images.picture import Picture
from restore.images.read import (
    MAX_PIXELS,
    picture_from_bytes,
    read_bytes,
    read_mask,
    read_picture,
    read_rgb,
    read_rgb8,
)

__all__ = [
    "FORMAT_OF_SUFFIX",
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "UNREADABLE_SUFFIXES",
    "WRITABLE_FORMATS",
    "NotAPicture",
    "Picture",
    "find_pictures",
    "format_of",
    "picture_from_bytes",
    "read_bytes",
    "read_mask",
    "read_picture",
    "read_rgb",
    "read_rgb8",
    "save_png",
    "stem_key",
    "write_bytes",
    "write_picture",
]
