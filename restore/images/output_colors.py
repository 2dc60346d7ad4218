"""How a format stores the colors of an image: in a profile, in a statement of its own, or as sRGB."""

from __future__ import annotations

from restore.images.image import DecodedImage

#: Formats that store gray as color: a profile for gray would not fit.
WITHOUT_GRAY = ("webp", "avif", "heic")
_WITH_PROFILE = ("jpeg", "png", "tiff", "webp", "avif", "heic", "bmp", "dpx")
_WITH_CODE_POINTS = ("png", "avif", "heic")


def fit_colors(image: DecodedImage, kind: str, notes: list[str]) -> DecodedImage:
    """The image, converted to sRGB where `becomes_srgb` says so, with a note."""
    if not becomes_srgb(image, kind):
        return image
    if not (image.gray and kind in WITHOUT_GRAY):
        notes.append(f"colors converted to sRGB{', highlights compressed' if _is_hdr(image) else ''}")
    return image.in_srgb()


def becomes_srgb(image: DecodedImage, kind: str) -> bool:
    """Whether a format cannot store the colors of an image, or sRGB stores them as well and for more readers."""
    if image.icc is None:
        return False
    if kind not in _WITH_PROFILE or (image.gray and kind in WITHOUT_GRAY):
        return True
    stated = image.stated_colors
    if stated is None or kind == image.format or (stated.code_points and kind in _WITH_CODE_POINTS):
        return False
    return _is_hdr(image) or not stated.beyond_srgb


def profile_for(image: DecodedImage, kind: str) -> bytes | None:
    """The color profile to embed in a file of this format; None also if the file states the colors without one."""
    stated = image.stated_colors
    if stated is None or (stated.by_exif and image.exif is None):
        return image.icc
    if kind == image.format or (stated.code_points and kind in ("avif", "heic")):
        return None
    return image.icc


def _is_hdr(image: DecodedImage) -> bool:
    return image.stated_colors is not None and bool(image.stated_colors.hdr)
