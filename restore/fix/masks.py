"""Which mask belongs to which image, and what it says once read, inverted, grown and softened."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.fix.log import ReasonCode
from restore.fix.options import Dilate, MaskMissing
from restore.images import MAX_PIXELS, DecodedImage, NotAnImage, find_images, read_mask, stem_key

FloatArray = npt.NDArray[np.float32]

_ENDING = "_mask"
_FAINT = 0.1  # below this maximum the file is probably one of zeros and ones, of 255
_NEARLY_ALL = 0.9  # above this coverage black and white are probably swapped


class Missing(TypedDict):
    """What becomes of a job whose image has no mask."""

    action: Literal["fail", "skip", "unmasked"]
    reason: str
    code: ReasonCode


@dataclass(frozen=True)
class MaskSource:
    """Where masks come from.

    Attributes:
        path: a folder of masks, or one file for all images; None: each image's own alpha, or what is found.
        folder: `path` is a folder.
        invert: black (with alpha: opaque) means repair.
        missing: what an image without a mask is.
        found: the detector makes them.
    """

    path: Path | None
    folder: bool
    invert: bool
    missing: MaskMissing
    found: bool = False

    @classmethod
    def open(cls, masks: str | os.PathLike[str], *, invert: bool, missing: MaskMissing) -> MaskSource:
        """Check that the masks are there.

        Raises:
            RestoreError: exit code 2; they are missing or unreadable.
        """
        if masks == "auto":
            return cls(None, False, False, "fail", found=True)
        if masks == "alpha":
            return cls(None, False, invert, missing)
        path = Path(masks)
        if not path.exists():
            raise RestoreError("there is no such folder or file of masks", where=path)
        folder = path.is_dir()
        if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK):
            raise RestoreError("no permission to read the masks", where=path)
        return cls(path, folder, invert, missing)

    @property
    def alpha(self) -> bool:
        """Each image's own alpha is its mask."""
        return self.path is None and not self.found

    @property
    def named(self) -> str:
        """As the user gave them."""
        return "auto" if self.found else "alpha" if self.path is None else os.fspath(self.path)

    def without_masks(self, folder: Path, names: Iterable[Path], everything: Sequence[Path]) -> list[Path]:
        """`names` less those that are masks themselves, where masks lie among the images.

        Args:
            folder: the folder of the images.
            names: relative paths.
            everything: all relative paths there, also those that the user has excluded.
        """
        if self.path is None:
            return list(names)
        real = os.path.realpath(self.path)
        if not self.folder:
            return [name for name in names if os.path.realpath(folder / name) != real]
        if real == os.path.realpath(folder):
            stems = {stem_key(name) for name in everything}
            return [name for name in names if _stem_without_ending(name) not in stems]
        return [name for name in names if not os.path.realpath(folder / name).startswith(real + os.sep)]

    def when_missing(self) -> Missing:
        """What is done with an image that has no mask."""
        if self.missing == "skip":
            return Missing(action="skip", reason="has no mask", code="no_mask")
        if self.missing == "copy":
            return Missing(action="unmasked", reason="", code="")
        if self.alpha:
            return Missing(action="fail", reason="has no transparency to take a mask from", code="no_mask")
        return Missing(
            action="fail",
            reason="has no mask; name it after the image (NAME.png or NAME_mask.png), "
            "or choose --mask-missing skip or copy",
            code="no_mask",
        )


def pair_masks(
    source: MaskSource, folder: Path, images: Sequence[Path], everything: Sequence[Path]
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Find each image's mask by relative stem: `x.png` or `x_mask.png`, with any image suffix.

    Args:
        source: where masks come from.
        folder: of the images.
        images: relative paths of the images to repair.
        everything: these, and those that the user excluded, whose masks are not reported as unmatched.

    Returns:
        For each image its masks (none, one, or several that contradict each other), and the masks without an image.
    """
    if source.path is None or not source.folder:
        return {name: [] if source.path is None else [source.path] for name in images}, []
    # In the images' own folder only `x_mask.png` is a mask.
    beside = os.path.realpath(source.path) == os.path.realpath(folder)
    stems = {stem_key(name) for name in everything}
    masks_of: dict[str, list[Path]] = {}
    unmatched = []
    for name in find_images(source.path):
        own, plain = stem_key(name), _stem_without_ending(name)
        if own in stems and not beside:
            masks_of.setdefault(own, []).append(source.path / name)
        elif plain in stems:
            masks_of.setdefault(plain, []).append(source.path / name)
        elif own not in stems:
            unmatched.append(source.path / name)
    return {name: masks_of.get(stem_key(name), []) for name in images}, unmatched


def effective_mask(
    image: DecodedImage,
    file: Path | None,
    *,
    invert: bool,
    dilate_px: Dilate,
    feather_px: int,
    max_pixels: int = MAX_PIXELS,
) -> FloatArray:
    """Read an image's mask, and invert, dilate and feather it.

    Args:
        image: upright.
        file: the mask; None: the image's own alpha (which it must have; transparent = repair).
        invert: black (with alpha: opaque) means repair.
        dilate_px: dilate holes by this many pixels in all directions; `auto`: see `widened`.
        feather_px: fade out the repair over this many pixels around holes.
        max_pixels: as in `read_image`, for the mask's file.

    Returns:
        H×W in [0, 1]: 1 = repair, 0 = keep, between = blend.

    Raises:
        RestoreError: the file cannot be read, or is of another size than the image.
    """
    if file is not None:
        try:
            mask = read_mask(file, size=image.size, invert=invert, max_pixels=max_pixels)
        except NotAnImage as error:  # which would have the image itself skipped as no image
            raise RestoreError(error.what, where=file, exit_code=1) from error
    else:
        mask = transparency(image)
        mask = 1 - mask if invert else mask
    return prepare_mask(mask, dilate_px=dilate_px, feather_px=feather_px, image=image.to_srgb)


def transparency(image: DecodedImage) -> FloatArray:
    """An image's alpha as a mask: H×W in [0, 1], 1 = transparent.

    Raises:
        RestoreError: it has none.
    """
    if image.alpha is None:
        raise RestoreError("has no transparency to take a mask from", exit_code=1)
    opaque = np.divide(image.alpha, np.float32(image.white), dtype=np.float32)
    mask: FloatArray = np.clip(1 - np.nan_to_num(opaque, nan=1.0), 0, 1)
    return mask


def opaque_where_repaired(image: DecodedImage, mask: FloatArray | None) -> DecodedImage:
    """An image whose alpha was its mask, made opaque there: a repair that stays transparent cannot be seen."""
    if image.alpha is None or mask is None:
        return image
    alpha = image.alpha.copy()
    alpha[mask > 0] = image.white
    return replace(image, alpha=alpha)


def mask_warnings(masks: Sequence[FloatArray]) -> list[str]:
    """Warnings about the masks of an image, one for each page: that they are almost empty, or cover almost all."""
    maximum = max(float(mask.max(initial=0)) for mask in masks)
    covered = sum(int(np.count_nonzero(mask)) for mask in masks)
    warnings = coverage_warnings(covered / max(1, sum(mask.size for mask in masks)))
    if 0 < maximum < _FAINT:
        warnings.insert(0, f"the mask is almost empty (maximum value {maximum:.1%}; white = repair)")
    return warnings


def coverage_warnings(coverage: float) -> list[str]:
    """The warning that masks cover almost all pixels, from the fraction that they cover."""
    if coverage <= _NEARLY_ALL:
        return []
    return [f"the mask covers {coverage:.0%} of the image; if black means repair, add --mask-invert"]


def reach_px(dilate_px: int, feather_px: int) -> int:
    """How far, in pixels, a pixel of a mask has an effect in `shaped`."""
    return dilate_px + 2 * feather_px + 2


def shaped(mask: FloatArray, *, dilate_px: int, feather_px: int) -> FloatArray:
    """A mask (H×W in [0, 1]) dilated and feathered; see `effective_mask`."""
    if not (dilate_px or feather_px) or not mask.any():
        return mask
    return _dilate(mask, dilate_px, feather_px)


def prepare_mask(
    mask: FloatArray, *, dilate_px: Dilate, feather_px: int, image: Callable[[], FloatArray]
) -> FloatArray:
    """As `shaped`; `auto` first widens holes to where the damage ends in `image()`, H×W×3, sRGB, [0, 1]."""
    if dilate_px == "auto":
        mask, dilate_px = widened(mask, image()) if mask.any() else mask, 0
    return shaped(mask, dilate_px=dilate_px, feather_px=feather_px)


def _dilate(mask: FloatArray, dilate_px: int, feather_px: int) -> FloatArray:
    """Dilate by a disc, then add a ramp; in 16-bit integers, so that zeros outside stay exact."""
    import cv2

    reach = reach_px(dilate_px, feather_px)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(rows[0] - reach, 0), max(columns[0] - reach, 0)
    part = np.s_[top : rows[-1] + 1 + reach, left : columns[-1] + 1 + reach]
    levels: np.ndarray = np.rint(mask[part] * 65535).astype(np.uint16)
    if dilate_px:
        across = np.arange(-dilate_px, dilate_px + 1)
        disc = (across[:, None] ** 2 + across[None, :] ** 2 <= dilate_px**2).astype(np.uint8)
        levels = cv2.dilate(levels, disc)
    if feather_px:
        # A square dilated by r and averaged over r is 1 on all of the hole and falls to 0 at 2 r.
        side = 2 * max(1, round(feather_px / 2)) + 1
        levels = cv2.blur(cv2.dilate(levels, np.ones((side, side), np.uint8)), (side, side))
    dilated = mask.copy()
    dilated[part] = np.maximum(mask[part], levels.astype(np.float32) / np.float32(65535))
    return dilated


def _stem_without_ending(name: Path) -> str | None:
    """`a/x` for `a/x_mask.png`; None for other names."""
    stem = stem_key(name)
    return stem.removesuffix(_ENDING) if stem.endswith(_ENDING) else None


# Masks that were drawn too tight: holes are widened to where the damage ends.


_REACH_PX = 6  # at a megapixel: as far as damage is looked for
_LEAST_REACH_PX = 3
_MARGIN_PX = 1  # added, because lenses, JPEG and brushes soften the end of damage
_WHITE = 0.5  # of a mask: from here on a pixel is in the hole
_EDGE_PX = 2  # of a brush that is smooth by a pixel
_SOFT = 0.1  # whiter than this three pixels outside, in more than this share, an edge is meant to be soft
_FEW = 40  # with fewer pixels around a hole the rule is not applied
_FAINT_DIFFERENCE = 0.035  # of 1: a hole that differs by less from what is around it
_OWN = 1.5  # times the square of what the surroundings differ by among themselves
_FALL = 0.55  # the damage ends where its share falls by this much within two pixels
_STEP = 0.25  # if this much of the fall is beyond a pixel, that pixel is damaged, too


def auto_reach_px(height: int, width: int) -> int:
    """As far as damage is looked for around holes of an image of this size: 6 pixels at a megapixel, and at least 3."""
    return max(_LEAST_REACH_PX, round(_REACH_PX * math.sqrt(height * width / 1e6)))


def widened(mask: FloatArray, image: FloatArray) -> FloatArray:
    """A mask whose holes reach as far as what they are to hide.

    The rule looks at each hole by itself; holes nearer to each other than it looks are one. Around a pixel p at a
    distance d from the hole, let s be the mean of the hole at its edge, b that of the surroundings further out than the
    mask may be wrong, and c = s − b. The damage's share T(d) of all pixels p at that distance is what fits best in
    p = b + T c (least squares: Σ⟨p − b, c⟩ / Σ⟨c, c⟩, each pixel's part between −1 and 1.5). Where a mask is too tight,
    T is near 1 up to where the damage ends and near 0 from there on; where it fits, T is near 0 from the first pixel
    on; where it is generous, or nothing is wrong with the image, T falls slowly, as images do. So a hole is widened
    to where T falls most within two pixels, and one pixel more, if it falls by more than half there and not at the
    hole's own edge; otherwise it stays as it is. It also stays where it hardly differs from its surroundings, or hardly
    more than these do among themselves, and where its edge is soft.

    Args:
        mask: H×W in [0, 1], 1 = repair.
        image: H×W×3, sRGB, [0, 1].

    Returns:
        H×W in [0, 1]: `mask`, and as white as the hole is where one was widened to.
    """
    import cv2

    reach = auto_reach_px(*mask.shape)
    hole = mask >= _WHITE
    if not hole.any():
        return mask
    # further than this nothing is looked at
    around = 6 * reach + 10
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    part = np.s_[
        max(rows[0] - around, 0) : rows[-1] + 1 + around, max(columns[0] - around, 0) : columns[-1] + 1 + around
    ]
    hole = hole[part]
    outside, depth = _distance(~hole), _distance(hole)
    group = np.asarray(cv2.connectedComponents((outside <= reach + 2).astype(np.uint8))[1], np.int64)
    width = _widths(image[part], mask[part], outside, depth, group, reach)
    strongest = np.zeros(len(width), np.float32)
    np.maximum.at(strongest, group[hole], mask[part][hole])
    wider = mask.copy()
    # a brush's smooth edge, now inside, is no edge any more
    rim = (width[group] > 0) & (outside <= width[group]) & (depth <= _EDGE_PX)
    wider[part][rim] = np.maximum(mask[part], strongest[group])[rim]
    return wider


def _widths(
    image: FloatArray,
    mask: FloatArray,
    outside: FloatArray,
    depth: FloatArray,
    group: npt.NDArray[np.int64],
    reach: int,
) -> npt.NDArray[np.int64]:
    """By how many pixels each group of holes is widened; group 0 is what is far from all."""
    near, far = reach + 2, 2 * reach + 4
    zones = [  # the hole at its edge; the surroundings; what lies around these
        (depth > 0) & (depth <= reach),
        (outside > near) & (outside <= far),
        (outside > far) & (outside <= far + near),
    ]
    counts = [_around(zone.astype(np.float32), reach) for zone in zones]
    known = [count > 1e-4 for count in counts]
    contrast, own, share = (np.zeros(mask.shape, np.float32) for _ in range(3))
    for channel in np.moveaxis(image, 2, 0):
        inner, outer, beyond = (
            _around(np.where(zone, channel, np.float32(0)), reach) / np.maximum(count, 1e-6)
            for zone, count in zip(zones, counts)
        )
        contrast += (inner - outer) ** 2
        own += (outer - beyond) ** 2
        share += (channel - outer) * (inner - outer)
    usable = known[0] & known[1]
    contrast *= usable
    own *= usable & known[2]
    share = np.clip(share, -contrast, 1.5 * contrast)

    ring = np.ceil(outside).astype(np.int64)
    looked_at = (ring <= near) & ((ring > 0) | (depth <= 1))  # with the outermost pixels of the hole as ring 0
    groups = int(group.max()) + 1
    places = group[looked_at] * (near + 1) + ring[looked_at]

    def total(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        sums = np.bincount(places, values[looked_at].astype(np.float64), groups * (near + 1))
        return np.asarray(sums, np.float64).reshape(groups, near + 1)

    number, strength = total(np.ones(mask.shape)), total(contrast)
    shares = total(share) / np.maximum(strength, 1e-9)
    first = np.maximum(number[:, 1], 1)
    plain = (number[:, 1] >= _FEW) & (strength[:, 1] >= first * _FAINT_DIFFERENCE**2)
    plain &= strength[:, 1] >= _OWN * total(own)[:, 1]
    plain &= total(mask > _SOFT)[:, 3:].sum(1) <= _SOFT * number[:, 1]
    fall = shares[:, :reach] - shares[:, 2 : reach + 2]  # around the rings 1 to `reach`
    ends = fall.argmax(1) + 1
    at = np.arange(groups)
    ends -= shares[at, ends] - shares[at, ends + 1] < _STEP
    found = plain & (fall.max(1) >= _FALL) & (ends > 0)
    widths: npt.NDArray[np.int64] = np.where(found, ends + _MARGIN_PX, 0)
    widths[0] = 0
    return widths


def _distance(where: npt.NDArray[np.bool_]) -> FloatArray:
    """From each of these pixels to the nearest other one, centre to centre; 0 at the others."""
    import cv2

    return np.asarray(cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _around(values: FloatArray, reach: int) -> FloatArray:
    """Mean over the neighbourhood that is looked at, with zeros beyond the border."""
    import cv2

    side = 6 * reach + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)
