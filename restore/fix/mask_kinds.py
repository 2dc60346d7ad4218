"""What the file of a mask shows: black and white, strokes of color, a painted copy of the photograph, or neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.fix.painted_copies import commonest_color, equal_fraction, eroded, has_color, painted
from restore.images import DecodedImage
from restore.images.read import is_lossy, mask_from_image

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_TOLERANCE = 24  # levels (of 255) around black and white, as for lossy masks
_COLORED = 48  # range of the channels of a pixel, in levels, from which on it has a color
_MIN_COLORED = 4  # pixels
_SATURATED = 0.3  # likewise, relative to the difference of the pixel from the background
_GRAY = 8  # range of the channels of a pixel, in levels, above which it is tinted
_FEW_TINTED = 0.001  # of all pixels; a gray image has no more tinted ones
_FEW = 0.02  # of all pixels: a mask with fewer grays and no color is black and white
_PHOTO = 0.5  # of all pixels: a photograph has more grays
_ROUGH = 1.0  # mean deviation of gray pixels from their surroundings, in levels, that soft masks stay below
_MIN_BACKGROUND = 0.4  # of all pixels; dark photographs have less black, light ones less white
_MOSTLY = 0.97  # of all pixels; no photograph leaves so much background
_MIN_STRENGTH = 48  # levels between a stroke and the background, at least; dark photographs differ by less
_UNIFORM = 4  # levels by which a background of any color varies
_FLAT_COLORS = 8
_SPREAD = 16  # levels by which a flat color varies in a lossy file
_FLAT = 0.7  # of the pixels inside strokes that must have one of these colors; in photographs it is mostly half


@dataclass(frozen=True)
class Tones:
    """Counts of the pixels of a mask; those of parts add up.

    Attributes:
        total: all pixels.
        colored: pixels with a color.
        gray: pixels between black and white.
        roughness: sum over gray pixels of the deviation from their surroundings, in levels.
    """

    total: int = 0
    colored: int = 0
    gray: int = 0
    roughness: float = 0.0

    @classmethod
    def of(cls, mask: DecodedImage) -> Tones:
        """Count the pixels of a mask, or of a part of one."""
        import cv2

        levels = _levels(mask)
        colored = 0
        if not mask.gray:
            low, high = _extremes(levels)
            colored = int(np.count_nonzero((high - low > _COLORED) & _opaque(mask)))
        value = np.ascontiguousarray(levels[:, :, 0]) if mask.gray else cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
        gray = (value > _TOLERANCE) & (value < 255 - _TOLERANCE) & _opaque(mask)
        smooth = cv2.blur(value.astype(np.float32), (3, 3))
        return cls(value.size, colored, int(np.count_nonzero(gray)), float(np.abs(value - smooth)[gray].sum()))

    def __add__(self, other: Tones) -> Tones:
        return Tones(
            self.total + other.total,
            self.colored + other.colored,
            self.gray + other.gray,
            self.roughness + other.roughness,
        )

    @property
    def has_color(self) -> bool:
        """The mask has strokes of color, or is a photograph."""
        return self.colored >= _MIN_COLORED

    @property
    def smooth(self) -> bool:
        """Grays are transitions, as in a soft mask, and not the texture of a photograph."""
        return self.roughness <= _ROUGH * self.gray

    @property
    def plain(self) -> bool:
        """Black and white with smooth transitions: what it means does not depend on the image."""
        return not self.has_color and (self.smooth or self.gray <= _FEW * self.total)


def mask_of(
    mask: DecodedImage,
    image: DecodedImage,
    *,
    invert: bool,
    name: str | os.PathLike[str],
    on_event: Callable[[str], object] | None = None,
) -> FloatArray:
    """What a mask of the size of its image means.

    - Black and white, also soft: white (with `invert`: black) is repaired; see `mask_from_image`.
    - A copy of the image with strokes on it, of any colors: the difference is repaired.
    - Strokes of color on a white, black or transparent background: the strokes are repaired.

    Args:
        mask: upright.
        image: upright, of the same size.
        invert: black = 1. Has no effect on copies and on strokes of color.
        name: of the mask, for messages.
        on_event: receives warnings.

    Returns:
        H×W in [0, 1], 1 = repair.

    Raises:
        RestoreError: exit code 1; the mask shows something else.
    """
    tones = Tones.of(mask)
    if not tones.plain:
        difference, equal = _painted_copy(mask, image)
        if difference is not None:
            if on_event is not None and not difference.any():
                on_event("the mask is a copy of the image, and nothing is painted on it")
            return difference
        if tones.has_color:
            strokes = _colored_strokes(mask)
            if strokes is not None:
                return strokes
        if tones.has_color or tones.gray > _PHOTO * tones.total:
            what = "the mask has a background of another color than white, black or transparent"
            if not _has_background(mask):
                gray = "" if tones.has_color else "gray "
                differing = f"differs from the image in {1 - equal:.0%} of its pixels"
                what = f"the mask looks like a {gray}photograph that {differing}"
            raise RestoreError(
                what, where=name, hint="paint strokes on a copy of the image, or white on black", exit_code=1
            )
    if not invert and (strokes := _black_strokes(mask)) is not None:
        return strokes
    return np.asarray(mask_from_image(mask, invert=invert), np.float32)


def _painted_copy(mask: DecodedImage, image: DecodedImage) -> tuple[FloatArray | None, float]:
    """The strokes on a copy of the image (None: it is none), and the fraction of pixels that are equal."""
    opaque = _opaque(mask)
    best = 0.0
    for photo, given in _comparable(mask, image):
        if image.alpha is not None and image.transparent:
            photo = _flattened(photo, image, given)
        is_copy, equal = equal_fraction(photo, given, opaque)
        best = max(best, equal)
        if is_copy:
            erased = _alpha(image) - _alpha(mask) if mask.alpha is not None else np.float32(0)
            given[~opaque] = photo[~opaque]
            strokes = painted(photo, given, lossy=is_lossy(mask))
            return np.maximum(strokes, np.clip(erased, 0, 1)), equal
    return None, best


def _comparable(mask: DecodedImage, image: DecodedImage) -> Iterator[tuple[Bytes, Bytes]]:
    """Image and mask as 8 bits, H×W×3, in ways that programs store a copy."""
    import cv2

    photo, given = _srgb_levels(image), _srgb_levels(mask)
    low, high = _extremes(given)
    tinted = np.count_nonzero(high - low > _GRAY)
    if not image.gray and tinted <= _FEW_TINTED * given[:, :, 0].size:  # a gray copy of an image with colors
        photo, given = (
            np.asarray(cv2.cvtColor(cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
            for levels in (photo, given)
        )
    yield photo, given
    if image.icc != mask.icc and mask.gray == image.gray:  # a program that ignores profiles drops them
        yield _rgb_levels(image), _rgb_levels(mask)


def _flattened(photo: Bytes, image: DecodedImage, given: Bytes) -> Bytes:
    """The image without transparency: over white, over black or as it is, whichever fits the mask."""
    opacity = _alpha(image)[:, :, None]
    best, least = photo, np.abs(photo.astype(np.int16) - given).max(axis=2, keepdims=True)
    for ground in (255, 0):
        other = np.rint(photo * opacity + ground * (1 - opacity)).astype(np.uint8)
        difference = np.abs(other.astype(np.int16) - given).max(axis=2, keepdims=True)
        best, least = np.where(difference < least, other, best), np.minimum(difference, least)
    return best


def _colored_strokes(mask: DecodedImage) -> FloatArray | None:
    """Strokes of color on a plain background, with their soft edges; None: it shows something else."""
    import cv2

    levels, opaque = _rgb_levels(mask), _opaque(mask)
    low, high = _extremes(levels)
    grounds = [
        (~opaque, None),
        (opaque & (high <= _TOLERANCE), high),
        (opaque & (low >= 255 - _TOLERANCE), 255 - low),
    ]
    background, strength = max(grounds, key=lambda ground: np.count_nonzero(ground[0]))
    if np.count_nonzero(background) < _MIN_BACKGROUND * background.size:
        return None
    few = np.count_nonzero(background) >= _MOSTLY * background.size
    if not few and not _are_flat(levels, ~background, strength):
        return None
    if strength is None:
        return _alpha(mask)
    values = strength.astype(np.float32) / 255
    if np.median(strength[background]) > 0:  # not quite black or white
        values[background] = 0
    # A dark or pale color counts as much as any: each hue of a stroke is stretched to its strongest pixel.
    colored = ~background & (high - low > _SATURATED * strength)
    _, labels = cv2.connectedComponents((~background).view(np.uint8))
    hue = cv2.cvtColor(levels, cv2.COLOR_RGB2HSV)[:, :, 0][colored] // 15
    key = np.asarray(labels[colored].astype(np.int64) * 16 + hue, np.int64)
    strongest = np.zeros(int(key.max(initial=0)) + 1, np.float32)
    np.maximum.at(strongest, key, values[colored])
    values[colored] /= strongest[key]
    if is_lossy(mask):  # chroma of half the resolution blurs the edges of colors
        values = (values >= 0.5).astype(np.float32)
    return np.asarray(values * _alpha(mask), np.float32)


def _black_strokes(mask: DecodedImage) -> FloatArray | None:
    """Dark strokes on a transparent background; None: there is also white, or no such background."""
    if mask.alpha is None or not mask.transparent:
        return None
    opaque = _opaque(mask)
    lightest = _levels(mask)[opaque].max(initial=0)
    if np.count_nonzero(~opaque) < _MIN_BACKGROUND * opaque.size or lightest >= 255 - _TOLERANCE:
        return None
    return _alpha(mask)


def _has_background(mask: DecodedImage) -> bool:
    """Whether one color makes up much of a mask, as in no photograph."""
    levels, opaque = _rgb_levels(mask), _opaque(mask)
    color = commonest_color(levels, opaque, opaque.size, reach=_UNIFORM)
    if color is None:
        return False
    return bool(np.count_nonzero(has_color(levels, color, _UNIFORM)) >= _MIN_BACKGROUND * opaque.size)


def _are_flat(levels: Bytes, strokes: BoolArray, strength: Bytes | None = None) -> bool:
    """Whether a few flat colors make up the inside of strokes, and not the texture of a photograph.

    Args:
        levels: H×W×3.
        strokes: H×W.
        strength: H×W, difference from the background; colors that hardly differ do not count. None: all count.
    """
    inside = eroded(strokes, 1)
    if 4 * np.count_nonzero(inside) < np.count_nonzero(strokes):  # thin strokes
        inside = strokes
    left, total, explained = inside, int(np.count_nonzero(inside)), 0
    for _ in range(_FLAT_COLORS):
        color = commonest_color(levels, left, total, reach=_SPREAD)
        if color is None:
            break
        found = left & has_color(levels, color, _SPREAD)
        if strength is None or np.median(strength[found]) >= _MIN_STRENGTH:
            explained += int(np.count_nonzero(found))
        left = left & ~found
    return explained >= _FLAT * total


def _extremes(levels: Bytes) -> tuple[Bytes, Bytes]:
    """The lowest and the highest channel of each pixel, H×W."""
    import cv2

    red, green, blue = cv2.split(levels)
    low, high = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    return np.asarray(low, np.uint8), np.asarray(high, np.uint8)


def _alpha(image: DecodedImage) -> FloatArray:
    """The opacity of an image: H×W in [0, 1]."""
    if image.alpha is None or not image.transparent:
        return np.ones(image.size, np.float32)
    values = np.divide(image.alpha, np.float32(image.white), dtype=np.float32)
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0), 0, 1), np.float32)


def _opaque(image: DecodedImage) -> BoolArray:
    """H×W, True where an image is more opaque than transparent."""
    if image.alpha is None or not image.transparent:
        return np.ones(image.size, bool)
    return np.asarray(image.alpha >= image.white / 2)


def _levels(image: DecodedImage) -> Bytes:
    """The stored values as 8 bits, H×W×C."""
    if image.pixels.dtype == np.uint8:
        return image.pixels
    values = np.divide(image.pixels, np.float32(image.white), dtype=np.float32)
    values = np.clip(np.nan_to_num(values, nan=0.0), 0, 1)
    return np.asarray(np.rint(values * 255), np.uint8)


def _rgb_levels(image: DecodedImage) -> Bytes:
    """The stored values as 8 bits, H×W×3."""
    levels = _levels(image)
    return np.repeat(levels, 3, axis=2) if image.gray else levels.copy()


def _srgb_levels(image: DecodedImage) -> Bytes:
    """The image as 8 bits in sRGB, H×W×3."""
    if image.profile is None:
        return _rgb_levels(image)
    height, width = image.size
    levels = np.empty((height, width, 3), np.uint8)
    step = max(1_000_000 // width, 1)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        values = replace(image, pixels=image.pixels[rows], alpha=None).to_srgb()
        levels[rows] = np.rint(np.clip(values, 0, 1) * 255)
    return levels
