"""Reading and writing image files without loss: orientation, profiles, depth, alpha, metadata, atomic writes."""

from restore.images.encode import WRITABLE_FORMATS, write_bytes, write_image, write_png
from restore.images.formats import (
    FORMAT_OF_SUFFIX,
    IMAGE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    NotAnImage,
    UnsupportedFile,
    find_images,
    format_of,
    index_by_stem,
    pair_key,
    stem_key,
    unlistable_message,
)
from restore.images.image import DecodedImage
from restore.images.read import (
    MAX_PIXELS,
    image_from_bytes,
    read_bytes,
    read_image,
    read_mask,
    read_rgb,
    read_rgb8,
)

__all__ = [
    "FORMAT_OF_SUFFIX",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "UNREADABLE_SUFFIXES",
    "WRITABLE_FORMATS",
    "DecodedImage",
    "NotAnImage",
    "UnsupportedFile",
    "find_images",
    "format_of",
    "image_from_bytes",
    "index_by_stem",
    "pair_key",
    "read_bytes",
    "read_image",
    "read_mask",
    "read_rgb",
    "read_rgb8",
    "stem_key",
    "unlistable_message",
    "write_bytes",
    "write_image",
    "write_png",
]
