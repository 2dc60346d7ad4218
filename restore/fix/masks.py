"""Masks: where they come from, and how they are read, inverted, dilated and feathered."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.files import similar_path
from restore.fix.auto_dilation import over_dirty_rims, widen_holes
from restore.fix.infrared import dust_mask, infrared_of
from restore.fix.log import ReasonCode
from restore.fix.mask_kinds import mask_of
from restore.fix.mask_pairing import masks_among
from restore.fix.options import Dilate, MaskMissing
from restore.images import MAX_PIXELS, DecodedImage, NotAnImage, read_image
from restore.images.read import check_mask_size
from restore.packed import Packed
from restore.video.sequence import files_of, is_sequence

FloatArray = npt.NDArray[np.float32]

_FAINT = 0.1  # a mask with a lower maximum probably stores 0 and 1 instead of 0 and 255
#: `--mask-dilate scan` is the smaller side divided by this: edges of damage rise over 1 to 3 pixels at 600.
SCAN_PART = 450
_NEARLY_ALL = 0.9  # above this coverage black and white are probably swapped


def _hint_for_masks(path: Path) -> str:
    """The hint for masks that do not exist: the name that was meant, or what to name."""
    near = difflib.get_close_matches(os.fspath(path), ("auto", "alpha", "infrared", "none"), n=1)
    meant = near[0] if near else similar_path(path)
    return f"did you mean {meant}?" if meant else "name a folder or a file, or use --masks auto to detect the damage"


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
            raise RestoreError("there is no such folder or file of masks", where=path, hint=_hint_for_masks(path))
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
        dilate_px: dilate holes by this many pixels in all directions; `auto`: see `widen_holes`; `scan`: see
            `prepare_mask`.
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
    return [f"the mask covers {coverage:.0%} of the image; --mask-invert swaps what is repaired and what is kept"]


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
    over rims that the damage has changed in another way, such as halos of sharpening. `scan` dilates in proportion to
    the image (`SCAN_PART`), by at least one pixel."""
    if dilate_px == "auto" and mask.any():
        pixels = image()
        mask = over_dirty_rims(mask, widen_holes(mask, pixels), pixels)
    if isinstance(dilate_px, int):
        radius_px = dilate_px
    else:
        radius_px = 0 if dilate_px == "auto" else max(1, round(min(mask.shape) / SCAN_PART))
    return dilate_and_feather(mask, dilate_px=radius_px, feather_px=feather_px)


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
