"""Masks: pairing them with images, then reading, inverting, dilating and feathering them."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.fix.infrared import dust_mask, infrared_of
from restore.fix.log import ReasonCode
from restore.fix.mask_kinds import mask_of
from restore.fix.options import Dilate, MaskMissing
from restore.images import IMAGE_SUFFIXES, MAX_PIXELS, DecodedImage, NotAnImage, read_image
from restore.images.formats import suffix_of, walk_files
from restore.images.mask_names import ImageNames, name_in_common, pair_by_name
from restore.images.read import check_mask_size
from restore.packed import Packed
from restore.video.sequence import files_of, is_sequence

FloatArray = npt.NDArray[np.float32]

_FAINT = 0.1  # a mask with a lower maximum probably stores 0 and 1 instead of 0 and 255
_TOGETHER = 10_000  # images are paired with their masks in groups of about this many, to save memory
_NEARLY_ALL = 0.9  # above this coverage black and white are probably swapped


class Missing(TypedDict):
    """The outcome of a job whose image has no mask."""

    action: Literal["fail", "skip", "unmasked"]
    reason: str
    code: ReasonCode


@dataclass(frozen=True)
class MaskSource:
    """Where masks come from.

    Attributes:
        path: a folder of masks, or one file for all images (also a video or a sequence, for the frames of a video);
            None: each image's alpha or infrared channel, or detection.
        folder: `path` is a folder.
        invert: black (with alpha: opaque) means repair.
        missing: how to treat an image without a mask.
        found: masks are detected.
        infrared: the infrared channel of each image shows its mask.
    """

    path: Path | None
    folder: bool
    invert: bool
    missing: MaskMissing
    found: bool = False
    infrared: bool = False

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
        if masks == "infrared":
            return cls(None, False, False, missing, infrared=True)
        path = Path(masks)
        if is_sequence(path):
            files_of(path)
            return cls(path, False, invert, missing)
        if not path.exists():
            raise RestoreError("there is no such folder or file of masks", where=path)
        folder = path.is_dir()
        if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK):
            raise RestoreError("no permission to read the masks", where=path)
        return cls(path, folder, invert, missing)

    @property
    def alpha(self) -> bool:
        """Each image's own alpha is its mask."""
        return self.path is None and not self.found and not self.infrared

    def is_in(self, image: DecodedImage) -> bool:
        """Whether the image has the channel that masks are taken from, if that is where they come from."""
        if self.infrared:
            return infrared_of(image) is not None
        return not self.alpha or (image.alpha is not None and image.transparent)

    @property
    def named(self) -> str:
        """The value of `--masks`."""
        own = "auto" if self.found else "infrared" if self.infrared else "alpha"
        return own if self.path is None else os.fspath(self.path)

    def without_masks(self, folder: Path, files: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
        """The files of a folder without those that are masks, for masks stored among the images.

        Args:
            folder: the folder of the images.
            files: all files in it, also those that the user excluded: relative paths, and whether each is a link.
        """
        if self.path is None:
            return iter(files)
        real, root = os.path.realpath(self.path), os.path.realpath(folder)
        if self.folder and real == root:
            return _without_masks_beside(files)

        @lru_cache(1000)
        def real_folder(below: str) -> str:
            return os.path.realpath(os.path.join(root, below))

        def is_mask(name: str, is_link: bool) -> bool:
            if is_link:
                place = os.path.realpath(os.path.join(root, name))
            else:
                below, _, last = name.rpartition("/")
                place = os.path.join(real_folder(below), last)
            return place.startswith(real + os.sep) if self.folder else place == real

        return (file for file in files if not is_mask(*file))

    def when_missing(self) -> Missing:
        """The outcome for an image without a mask."""
        if self.missing == "skip":
            return Missing(action="skip", reason="has no mask", code="no_mask")
        if self.missing == "copy":
            return Missing(action="unmasked", reason="", code="")
        if self.alpha:
            return Missing(action="fail", reason="has no transparency to take a mask from", code="no_mask")
        if self.infrared:
            return Missing(action="fail", reason="has no infrared channel to take a mask from", code="no_mask")
        return Missing(
            action="fail",
            reason="has no mask; name it after the image (NAME.png or NAME_mask.png), "
            "or choose --mask-missing skip or copy",
            code="no_mask",
        )


def _without_masks_beside(files: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    known = Packed(files)
    is_mask = masks_among((name for name, _ in known), len(known))
    return (file for file, mask in zip(known, is_mask) if not mask)


def masks_among(names: Iterable[str], count: int) -> bytearray:
    """Which of several files are named as masks of others: 1 for each that is.

    Args:
        names: relative paths.
        count: how many.
    """
    is_mask = bytearray(count)
    for group in _alike(names, 1 + count // _TOGETHER):
        images = ImageNames([Path(name) for _, name in group], beside=True)
        for number, name in group:
            is_mask[number] = bool(images.of_mask(Path(name))[0])
    return is_mask


class PairedMasks:
    """The masks of numbered images."""

    def __init__(self, images: int) -> None:
        self._place = array("q", [-1]) * images
        self._ends = array("q", [0])
        self._paths = bytearray()
        self._several: dict[int, list[str]] = {}

    def __setitem__(self, number: int, masks: list[str]) -> None:
        if len(masks) > 1:
            self._several[number] = masks
        elif masks:
            self._place[number] = len(self._ends)
            self._paths += os.fsencode(masks[0])
            self._ends.append(len(self._paths))

    def __getitem__(self, number: int) -> list[str]:
        """Those of an image: none, one, or several, which is a conflict."""
        if (place := self._place[number]) >= 0:
            return [os.fsdecode(bytes(self._paths[self._ends[place - 1] : self._ends[place]]))]
        return self._several.get(number, [])


def pair_masks(
    folder: Path, images: Iterable[str], count: int, *, beside: bool = False
) -> tuple[PairedMasks, dict[str, str]]:
    """Find each image's mask by its name, in the same subfolder; see `pair_by_name`.

    Args:
        folder: of the masks.
        images: relative paths of the images, also of those that the user excluded; a path may occur twice.
        count: how many.
        beside: the masks are in a folder of the images.

    Returns:
        The masks of each image, by its place in `images`, and the masks without an image, with the reason.
    """
    masks = (name for name, _ in walk_files(folder) if suffix_of(name).lower() in IMAGE_SUFFIXES)
    return pair_names(masks, images, count, lambda name: os.fspath(folder / name), beside=beside)


def pair_names(
    masks: Iterable[str], images: Iterable[str], count: int, place_of: Callable[[str], str], *, beside: bool
) -> tuple[PairedMasks, dict[str, str]]:
    """As `pair_masks`, with the relative paths of the masks, and what makes their places of them."""
    paired = PairedMasks(count)
    unmatched: dict[str, str] = {}
    groups = 1 + count // _TOGETHER
    for some_images, some_masks in zip(_alike(images, groups), _alike(masks, groups)):
        names = dict.fromkeys(name for _, name in some_images)
        masks_of, strangers = pair_by_name(
            [Path(mask) for _, mask in some_masks], [Path(name) for name in names], beside=beside
        )
        for number, name in some_images:
            paired[number] = [place_of(mask.as_posix()) for mask in masks_of[Path(name)]]
        unmatched |= {place_of(mask.as_posix()): reason for mask, reason in strangers.items()}
    return paired, dict(sorted(unmatched.items()))


def _alike(names: Iterable[str], groups: int) -> list[Packed[tuple[int, str]]]:
    """Numbered paths in groups, such that an image and the masks that may have its name are in one."""
    grouped: list[Packed[tuple[int, str]]] = [Packed() for _ in range(groups)]
    for numbered in enumerate(names):
        grouped[hash(name_in_common(numbered[1])) % groups].append(numbered)
    return grouped


def effective_mask(
    image: DecodedImage,
    file: Path | None,
    *,
    invert: bool,
    dilate_px: Dilate,
    feather_px: int,
    infrared: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_event: Callable[[str], object] | None = None,
) -> FloatArray:
    """Read an image's mask, and invert, dilate and feather it.

    Args:
        image: upright.
        file: the mask; None: the alpha of the image, which must have one (transparent = repair), or its infrared
            channel.
        invert: black (with alpha: opaque) means repair.
        dilate_px: dilate holes by this many pixels in all directions; `auto`: see `widen_holes`.
        feather_px: fade out the repair over this many pixels around holes.
        infrared: without a file, take the dust that the infrared channel shows.
        max_pixels: as in `read_image`, for the mask's file.
        on_event: receives warnings.

    Returns:
        H×W in [0, 1]: 1 = repair, 0 = keep, between = blend.

    Raises:
        RestoreError: the file cannot be read, is of another size than the image, or shows no mask (`mask_of`).
    """
    if file is not None:
        try:
            given = read_image(file, max_pixels=max_pixels)
        except NotAnImage as error:  # converted, because the caller skips an image that raises `NotAnImage`
            raise RestoreError(error.what, where=file, exit_code=1) from error
        mask = _mask_of_size(given, image, file, invert=invert, on_event=on_event)
    elif infrared:
        mask = dust_mask(image, on_event=on_event)
    else:
        mask = transparency(image)
        mask = 1 - mask if invert else mask
    return prepare_mask(mask, dilate_px=dilate_px, feather_px=feather_px, image=image.to_srgb)


def mask_of_frame(
    given: DecodedImage,
    frame: DecodedImage,
    file: Path,
    *,
    invert: bool,
    dilate_px: Dilate,
    feather_px: int,
    on_event: Callable[[str], object] | None = None,
) -> FloatArray:
    """As `effective_mask`, of a mask that is read, for a frame of a video; `file`: where it comes from."""
    mask = _mask_of_size(given, frame, file, invert=invert, on_event=on_event)
    return prepare_mask(mask, dilate_px=dilate_px, feather_px=feather_px, image=frame.to_srgb)


def _mask_of_size(
    given: DecodedImage, image: DecodedImage, file: Path, *, invert: bool, on_event: Callable[[str], object] | None
) -> FloatArray:
    check_mask_size(given.size, image.size, file)
    return mask_of(given, image, invert=invert, name=file, on_event=on_event)


def transparency(image: DecodedImage) -> FloatArray:
    """The alpha of an image as a mask: H×W in [0, 1], 1 = transparent.

    Raises:
        RestoreError: the image has no alpha.
    """
    if image.alpha is None or not image.transparent:
        raise RestoreError("has no transparency to take a mask from", exit_code=1)
    opaque = np.divide(image.alpha, np.float32(image.white), dtype=np.float32)
    mask: FloatArray = np.clip(1 - np.nan_to_num(opaque, nan=1.0), 0, 1)
    return mask


def opaque_where_repaired(image: DecodedImage, mask: FloatArray | None) -> DecodedImage:
    """Make an image opaque inside the mask that came from its alpha; a transparent repair would be invisible."""
    if image.alpha is None or mask is None:
        return image
    alpha = image.alpha.copy()
    alpha[mask > 0] = image.white
    return replace(image, alpha=alpha)


def mask_warnings(masks: Sequence[FloatArray]) -> list[str]:
    """Warnings about the masks of an image (one mask per page) that are almost empty or cover almost everything."""
    maximum = max(float(mask.max(initial=0)) for mask in masks)
    covered = sum(int(np.count_nonzero(mask)) for mask in masks)
    warnings = coverage_warnings(covered / max(1, sum(mask.size for mask in masks)))
    if 0 < maximum < _FAINT:
        warnings.insert(0, f"the mask is almost empty (maximum value {maximum:.1%}; white = repair)")
    return warnings


def coverage_warnings(coverage: float) -> list[str]:
    """A warning if masks cover almost all pixels; `coverage` is the fraction of pixels in holes."""
    if coverage <= _NEARLY_ALL:
        return []
    return [f"the mask covers {coverage:.0%} of the image; if black means repair, add --mask-invert"]


def reach_px(dilate_px: int, feather_px: int) -> int:
    """Radius in pixels of the effect of one mask pixel in `dilate_and_feather`."""
    return dilate_px + 2 * feather_px + 2


def dilate_and_feather(mask: FloatArray, *, dilate_px: int, feather_px: int) -> FloatArray:
    """Dilate and feather a mask, H×W in [0, 1]; see `effective_mask`."""
    if not (dilate_px or feather_px) or not mask.any():
        return mask
    return _dilate(mask, dilate_px, feather_px)


def prepare_mask(
    mask: FloatArray, *, dilate_px: Dilate, feather_px: int, image: Callable[[], FloatArray]
) -> FloatArray:
    """As `dilate_and_feather`, but `auto` first widens holes to the end of the damage in `image()` (H×W×3, sRGB), and
    over rims that the damage has changed in another way, such as halos of sharpening."""
    if dilate_px == "auto":
        if mask.any():
            pixels = image()
            mask = _over_dirty_rims(mask, widen_holes(mask, pixels), pixels)
        dilate_px = 0
    return dilate_and_feather(mask, dilate_px=dilate_px, feather_px=feather_px)


def _over_dirty_rims(mask: FloatArray, wider: FloatArray, image: FloatArray) -> FloatArray:
    """Extend the holes that `widen_holes` left as they are over their dirty rims.

    Rims and the soft edges inside them get the maximum value of the mask nearby.
    """
    import cv2

    from restore.restorers import hole_rims

    rims = hole_rims.dirty_rims(image, mask > 0)
    if not rims.any():
        return wider
    labels = cv2.connectedComponents((rims | (wider > 0)).astype(np.uint8))[1]
    rims &= ~np.isin(labels, np.unique(labels[wider > mask]))
    nearby = cv2.dilate(mask, np.ones((2 * (hole_rims.LARGEST_REACH_PX + _EDGE_PX) + 1,) * 2, np.uint8))
    edge = cv2.dilate(rims.astype(np.uint8), np.ones((2 * _EDGE_PX + 1,) * 2, np.uint8)) > 0
    return np.where(rims | (edge & (mask > 0)), nearby, wider)


def _dilate(mask: FloatArray, dilate_px: int, feather_px: int) -> FloatArray:
    """Dilate by a disc, then add a ramp. 16-bit integers keep zeros outside exact."""
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
        # Dilating by a square of radius r and averaging over radius r keeps 1 on the whole hole and falls to 0 at 2 r.
        side = 2 * max(1, round(feather_px / 2)) + 1
        levels = cv2.blur(cv2.dilate(levels, np.ones((side, side), np.uint8)), (side, side))
    dilated = mask.copy()
    dilated[part] = np.maximum(mask[part], levels.astype(np.float32) / np.float32(65535))
    return dilated


# Automatic dilation: masks that are too tight are widened to the end of the damage.

_REACH_PX = 6  # search radius at one megapixel
_MIN_REACH_PX = 3
_MARGIN_PX = 1  # added to the result, because lenses, JPEG and brushes soften the end of damage
_WHITE = 0.5  # a pixel is in the hole from this value of the mask on
_EDGE_PX = 2  # depth of the soft edge left by an antialiased brush
_SOFT = 0.1  # an edge is deliberately soft if more than this fraction of pixels from 3 px outside on exceeds this value
_MIN_RING_PIXELS = 40  # holes with a smaller ring around them are not widened
_MIN_CONTRAST = 0.035  # of the range [0, 1]; a hole that differs less from its surroundings is not widened
_CONTRAST_RATIO = 1.5  # minimum squared contrast of a hole, relative to that among its surroundings
_MIN_FALL = 0.55  # the damage ends where its share T falls by at least this much within two pixels
_MIN_STEP = 0.25  # a pixel belongs to the damage if at least this much of the fall lies beyond it


def auto_reach_px(height: int, width: int) -> int:
    """Search radius for damage around holes in an image of this size: 6 pixels at a megapixel, and at least 3."""
    return max(_MIN_REACH_PX, round(_REACH_PX * math.sqrt(height * width / 1e6)))


def widen_holes(mask: FloatArray, image: FloatArray) -> FloatArray:
    """Widen holes that are too tight to the end of the damage.

    Each hole is treated separately; holes closer than the search radius count as one. Around a pixel p at distance d
    from the hole, let s be the mean of the hole at its edge, b the mean of the surroundings beyond the search radius,
    and c = s − b. The damage share T(d) is the least-squares fit of p = b + T c over all pixels at that distance:
    Σ⟨p − b, c⟩ / Σ⟨c, c⟩, with the term of each pixel limited to between −1 and 1.5.

    - A tight mask: T is near 1 up to the end of the damage, then near 0.
    - A mask that fits: T is near 0 from the first pixel on.
    - A generous mask, or an undamaged image: T falls slowly, like image content.

    So a hole is widened to the steepest fall of T within two pixels, plus one pixel, if T falls by more than half there
    and the fall is not at the edge of the hole. It stays unchanged if it hardly differs from its surroundings, if it
    differs hardly more than the surroundings do among themselves, or if its edge is soft.

    Args:
        mask: H×W in [0, 1], 1 = repair.
        image: H×W×3, sRGB, [0, 1].

    Returns:
        H×W in [0, 1]: `mask`, with the maximum value of each hole in the pixels that it gained.
    """
    import cv2

    reach = auto_reach_px(*mask.shape)
    hole = mask >= _WHITE
    if not hole.any():
        return mask
    # Pixels further away have no influence, so only this part is processed.
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
    # The soft edge of the original hole is now inside, so it becomes opaque as well.
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
    """The number of pixels by which each group of holes is widened; group 0 is the area far from all holes."""
    near, far = reach + 2, 2 * reach + 4
    zones = [  # the hole at its edge; its surroundings; the area beyond
        (depth > 0) & (depth <= reach),
        (outside > near) & (outside <= far),
        (outside > far) & (outside <= far + near),
    ]
    counts = [_around(zone.astype(np.float32), reach) for zone in zones]
    defined = [count > 1e-4 for count in counts]
    contrast, own, share = (np.zeros(mask.shape, np.float32) for _ in range(3))
    for channel in np.moveaxis(image, 2, 0):
        inner, outer, beyond = (
            _around(np.where(zone, channel, np.float32(0)), reach) / np.maximum(count, 1e-6)
            for zone, count in zip(zones, counts)
        )
        contrast += (inner - outer) ** 2
        own += (outer - beyond) ** 2
        share += (channel - outer) * (inner - outer)
    usable = defined[0] & defined[1]
    contrast *= usable
    own *= usable & defined[2]
    share = np.clip(share, -contrast, 1.5 * contrast)

    ring = np.ceil(outside).astype(np.int64)
    in_rings = (ring <= near) & ((ring > 0) | (depth <= 1))  # ring 0 is the outermost pixels of the hole
    groups = int(group.max()) + 1
    bins = group[in_rings] * (near + 1) + ring[in_rings]

    def total(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Sums by group and ring, groups×(near + 1)."""
        sums = np.bincount(bins, values[in_rings].astype(np.float64), groups * (near + 1))
        return np.asarray(sums, np.float64).reshape(groups, near + 1)

    number, strength = total(np.ones(mask.shape)), total(contrast)
    shares = total(share) / np.maximum(strength, 1e-9)
    first = np.maximum(number[:, 1], 1)
    distinct = (number[:, 1] >= _MIN_RING_PIXELS) & (strength[:, 1] >= first * _MIN_CONTRAST**2)
    distinct &= strength[:, 1] >= _CONTRAST_RATIO * total(own)[:, 1]
    distinct &= total(mask > _SOFT)[:, 3:].sum(1) <= _SOFT * number[:, 1]
    fall = shares[:, :reach] - shares[:, 2 : reach + 2]  # across each of the rings 1 to `reach`
    ends = fall.argmax(1) + 1
    at = np.arange(groups)
    ends -= shares[at, ends] - shares[at, ends + 1] < _MIN_STEP
    found = distinct & (fall.max(1) >= _MIN_FALL) & (ends > 0)
    widths: npt.NDArray[np.int64] = np.where(found, ends + _MARGIN_PX, 0)
    widths[0] = 0
    return widths


def _distance(where: npt.NDArray[np.bool_]) -> FloatArray:
    """Distance from each true pixel to the nearest false one, centre to centre; 0 at false pixels."""
    import cv2

    return np.asarray(cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _around(values: FloatArray, reach: int) -> FloatArray:
    """Mean over the square window of the rule, with zeros beyond the border."""
    import cv2

    side = 6 * reach + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)
