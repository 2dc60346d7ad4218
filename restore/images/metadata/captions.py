"""What several formats hold, each in its own way: IPTC and Photoshop's other resources, and a comment."""

from __future__ import annotations

from restore.images.metadata import gif, jpeg, netpbm, photoshop, png, tiff

_TAKE = {
    "jpeg": jpeg.take_captions,
    "png": png.take_captions,
    "gif": gif.take_captions,
    "tiff": tiff.take_captions,
    "ppm": netpbm.take_captions,
    "psd": photoshop.take_captions,
}
_WRITE = {
    "jpeg": jpeg.of_captions,
    "png": png.of_captions,
    "gif": gif.of_captions,
    "tiff": tiff.of_captions,
    "ppm": netpbm.of_captions,
}
_HOLD_RESOURCES, _HOLD_COMMENTS = ("jpeg", "png", "tiff"), ("jpeg", "png", "gif", "ppm")


def converted(passthrough: bytes, source: str, target: str) -> tuple[bytes, bytes]:
    """The raw pieces of a file for another format.

    Args:
        passthrough: see `DecodedImage`.
        source: the format of the file.
        target: the other format.

    Returns:
        The raw pieces of the other format, and those of the file that it cannot hold.
    """
    if source not in _TAKE or target not in _WRITE or not passthrough:
        return b"", passthrough
    found, rest = _TAKE[source](passthrough, resources=target in _HOLD_RESOURCES, comment=target in _HOLD_COMMENTS)
    return _WRITE[target](found), rest
