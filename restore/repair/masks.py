"""Which mask belongs to which picture, and what it says once read, inverted, grown and softened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.images import MAX_PIXELS, NotAPicture, Picture, find_pictures, read_mask, stem_key

MaskMissing = Literal["fail", "skip", "clean"]
Dilate = int | Literal["auto"]
FloatArray = npt.NDArray[np.float32]

_ENDING = "_mask"
_FAINT = 0.1  # a mask of zeros and ones, of 255, is a mistake
_NEARLY_ALL = 0.9  # so is, mostly, one that leaves hardly anything to go by


class Missing(TypedDict):
    """What becomes of a job whose picture has no mask."""

    action: Literal["fail", "skip", "unmasked"]
    reason: str


@dataclass(frozen=True)
class MaskSource:
    """Where masks come from.

    Attributes:
        path: a folder of masks, or one file for all pictures; None: each picture's own alpha, or what is found.
        folder: `path` is a folder.
        invert: black (with alpha: opaque) means repair.
        missing: what a picture without a mask is.
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
            RestoreError: exit code 2; they are missing or unreadable; or found, and inverted or missing.
        """
        if missing not in ("fail", "skip", "clean"):
            raise RestoreError(f"cannot be {missing!r}", where="--mask-missing", hint="one of fail, skip, clean")
        if masks == "auto":
            for option, given in (("--mask-invert", invert), ("--mask-missing", missing != "fail")):
                if given:
                    raise RestoreError("is for masks that are given; these are found", where=option)
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
        """Each picture's own alpha is its mask."""
        return self.path is None and not self.found

    @property
    def named(self) -> str:
        """As the user gave them."""
        return "auto" if self.found else "alpha" if self.path is None else os.fspath(self.path)

    def without_masks(self, folder: Path, names: Iterable[Path], everything: Sequence[Path]) -> list[Path]:
        """`names` less those that are masks themselves, where masks lie among the pictures.

        Args:
            folder: the folder of the pictures.
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
        """What becomes of a picture that has no mask."""
        if self.missing == "skip":
            return Missing(action="skip", reason="has no mask")
        if self.missing == "clean":
            return Missing(action="unmasked", reason="")
        if self.alpha:
            return Missing(action="fail", reason="has no transparency to take a mask from")
        return Missing(
            action="fail",
            reason="has no mask; name it after the picture (NAME.png or NAME_mask.png), "
            "or choose --mask-missing skip or clean",
        )


def pair_masks(
    source: MaskSource, folder: Path, pictures: Sequence[Path], everything: Sequence[Path]
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Find each picture's mask by relative stem: `x.png` or `x_mask.png`, with any picture's suffix.

    Args:
        source: where masks come from.
        folder: of the pictures.
        pictures: relative paths of the pictures to repair.
        everything: these and those that the user has excluded: their masks are no strangers.

    Returns:
        Per picture its masks (none, one, or several that contradict each other), and the masks of no picture.
    """
    if source.path is None or not source.folder:
        return {name: [] if source.path is None else [source.path] for name in pictures}, []
    # Where masks lie beside the pictures only `x_mask.png` is one.
    beside = os.path.realpath(source.path) == os.path.realpath(folder)
    stems = {stem_key(name) for name in everything}
    masks_of: dict[str, list[Path]] = {}
    unmatched = []
    for name in find_pictures(source.path):
        own, plain = stem_key(name), _stem_without_ending(name)
        if own in stems and not beside:
            masks_of.setdefault(own, []).append(source.path / name)
        elif plain in stems:
            masks_of.setdefault(plain, []).append(source.path / name)
        elif own not in stems:
            unmatched.append(source.path / name)
    return {name: masks_of.get(stem_key(name), []) for name in pictures}, unmatched


def effective_mask(
    picture: Picture,
    mask: Path | None,
    *,
    invert: bool,
    dilate_px: Dilate,
    feather_px: int,
    max_pixels: int = MAX_PIXELS,
) -> FloatArray:
    """The mask that decides: read, inverted, grown, softened.

    Args:
        picture: upright.
        mask: its file, or None for the picture's own alpha (which it must have; transparent = repair).
        invert: black (with alpha: opaque) means repair.
        dilate_px: grow the hole by so many pixels in all directions; `auto`: see `restore.repair.widen`.
        feather_px: let the repair fade out over so many pixels around the hole.
        max_pixels: as in `read_picture`, for the mask's file.

    Returns:
        H×W in [0, 1]: 1 = repaired, 0 = known, between = blended.

    Raises:
        RestoreError: the file cannot be read, or is of another size than the picture.
    """
    if mask is not None:
        try:
            weight = read_mask(mask, size=picture.size, invert=invert, max_pixels=max_pixels)
        except NotAPicture as error:  # the mask is none: the picture is not to be passed over
            raise RestoreError(error.what, where=mask, exit_code=1) from error
    else:
        weight = transparency(picture)
        weight = 1 - weight if invert else weight
    return fitted(weight, dilate_px=dilate_px, feather_px=feather_px, shown=picture.shown)


def transparency(picture: Picture) -> FloatArray:
    """A picture's alpha as a mask: H×W in [0, 1], 1 = transparent.

    Raises:
        RestoreError: it has none.
    """
    if picture.alpha is None:
        raise RestoreError("has no transparency to take a mask from", exit_code=1)
    opaque = np.divide(picture.alpha, np.float32(picture.white), dtype=np.float32)
    return np.clip(1 - np.nan_to_num(opaque, nan=1.0), 0, 1)


def doubts(weights: Sequence[FloatArray]) -> list[str]:
    """What is odd about a picture's masks, one for each page: that they mark hardly anything, or nearly all."""
    strongest = max(float(weight.max(initial=0)) for weight in weights)
    marked = sum(int(np.count_nonzero(weight)) for weight in weights)
    faint = f"hardly anything is repaired: the mask is nowhere whiter than {strongest:.1%} (white = repair)"
    return [faint] * (0 < strongest < _FAINT) + doubts_of_share(marked / max(1, sum(weight.size for weight in weights)))


def doubts_of_share(marked: float) -> list[str]:
    """As `doubts`, of the share of all pixels that are marked."""
    if marked <= _NEARLY_ALL:
        return []
    return [f"the mask marks {marked:.0%} of the picture; if black means repair there, give --mask-invert"]


def reach_px(dilate_px: int, feather_px: int) -> int:
    """How far `shaped` looks."""
    return dilate_px + 2 * feather_px + 2


def shaped(weight: FloatArray, *, dilate_px: int, feather_px: int) -> FloatArray:
    """A mask (H×W in [0, 1]) grown and softened; see `effective_mask`."""
    if not (dilate_px or feather_px) or not weight.any():
        return weight
    return _grown(weight, dilate_px, feather_px)


def fitted(weight: FloatArray, *, dilate_px: Dilate, feather_px: int, shown: Callable[[], FloatArray]) -> FloatArray:
    """As `shaped`, or first widened to where the damage ends; `shown` gives the picture, H×W×3, sRGB, [0, 1]."""
    if dilate_px == "auto":
        from restore.repair.widen import widened

        weight, dilate_px = widened(weight, shown()) if weight.any() else weight, 0
    return shaped(weight, dilate_px=dilate_px, feather_px=feather_px)


def _grown(weight: FloatArray, dilate_px: int, feather_px: int) -> FloatArray:
    """Dilation by a disc, then a ramp; in 16-bit integers, so that what is known stays exactly zero."""
    import cv2

    reach = reach_px(dilate_px, feather_px)
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    top, left = max(rows[0] - reach, 0), max(columns[0] - reach, 0)
    part = np.s_[top : rows[-1] + 1 + reach, left : columns[-1] + 1 + reach]
    levels: np.ndarray = np.rint(weight[part] * 65535).astype(np.uint16)
    if dilate_px:
        across = np.arange(-dilate_px, dilate_px + 1)
        disc = (across[:, None] ** 2 + across[None, :] ** 2 <= dilate_px**2).astype(np.uint8)
        levels = cv2.dilate(levels, disc)
    if feather_px:
        # A square grown by r and averaged over r is 1 on all of the hole and falls to 0 at 2 r.
        side = 2 * max(1, round(feather_px / 2)) + 1
        levels = cv2.blur(cv2.dilate(levels, np.ones((side, side), np.uint8)), (side, side))
    grown = weight.copy()
    grown[part] = np.maximum(weight[part], levels.astype(np.float32) / np.float32(65535))
    return grown


def _stem_without_ending(name: Path) -> str | None:
    """`a/x` for `a/x_mask.png`, None for what does not end that way."""
    stem = stem_key(name)
    return stem.removesuffix(_ENDING) if stem.endswith(_ENDING) else None
