"""The pages that the steps of a repair work on: where the pixels of an image are stored while it is repaired."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from restore.fix.fade_correction import Curves
    from restore.images import DecodedImage
    from restore.restorers.base import ModelRequirements
    from restore.restorers.hole_crops import Region

FloatArray = npt.NDArray[np.float32]


class Page(ABC):
    """One page of an image on its way through the steps.

    Rows and columns are slices of the upright page. Images are float32, h×w×3, sRGB, [0, 1].

    Attributes:
        has_mask: the page has a mask, read or detected.
        deflickered, fading_corrected, filled, cleaned, enlarged: which steps changed the page.
        fading_estimated: it is known whether the page has faded.
        everywhere: pixels outside the mask change, too.
        in_color: a model that adds color changed the page, so it is in color now.
        damaged_pixels: the number of pixels that the detector found damaged; None: it did not run.
        condition: h×w×K in [0, 1], the condition images of the whole page; None: there are none.
    """

    has_mask = False
    deflickered = fading_estimated = fading_corrected = filled = cleaned = enlarged = False
    everywhere = False
    in_color = False
    damaged_pixels: int | None = None
    condition: FloatArray | None = None

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> FloatArray:
        """A part of the page, as input of the next step."""

    @abstractmethod
    def read_mask(self, rows: slice, columns: slice) -> FloatArray:
        """A part of the mask, h×w in [0, 1], 1 = repair."""

    @abstractmethod
    def hole_crops(self, requirements: ModelRequirements) -> Sequence[Region]:
        """Crops that show every hole of the mask to a restorer; see `restore.restorers.hole_crops`."""

    @abstractmethod
    def correct(self, curves: Curves) -> None:
        """Apply tone curves to the whole page."""

    @abstractmethod
    def write_rows(self, top: int, band: Tensor) -> None:
        """Replace whole rows by 3×(h·scale)×(W·scale). Rows come from the top down; `top` = 0 starts over."""

    @abstractmethod
    def write_hole(self, crop: Region, own: npt.NDArray[np.bool_], filled: Tensor) -> None:
        """Replace the pixels `own` (h×w) of a crop by those of `filled`, 3×h×w. `read` still returns the old pixels, so
        every hole is filled from the original surroundings."""

    def end_rows(self) -> None:  # noqa: B027
        """End `write_rows`: `read` now returns the new rows."""

    def end_holes(self) -> None:  # noqa: B027
        """End `write_hole`: `read` now returns the filled holes, blended into the page by the mask."""

    def finish(self) -> None:  # noqa: B027
        """End the steps, and free memory that only they need."""

    @property
    def changed(self) -> bool:
        """Whether any step changed the page, or may have changed it."""
        return self.deflickered or self.fading_corrected or self.filled or self.cleaned or self.enlarged


class MemoryPage(Page):
    """A page in memory.

    Args:
        load: returns the image. It is called when the first step needs the pixels, so the pages of a file are not
            all in memory as floats at once.
        mask: H×W in [0, 1], 1 = repair; None: no mask.
    """

    def __init__(self, load: Callable[[], FloatArray], mask: FloatArray | None = None) -> None:
        self._load, self.mask = load, mask
        self.has_mask = mask is not None
        self._image: FloatArray | None = None
        self._new: FloatArray | None = None
        self._unblended: FloatArray | None = None

    @property
    def image(self) -> FloatArray:
        """The page, as input of the next step."""
        if self._image is None:
            self._image = self._load()
        return self._image

    @image.setter
    def image(self, image: FloatArray) -> None:
        self._image = image

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width, _ = self.image.shape
        return height, width

    def read(self, rows: slice, columns: slice) -> FloatArray:
        """See `Page.read`."""
        return self.image[rows, columns]

    def read_mask(self, rows: slice, columns: slice) -> FloatArray:
        """See `Page.read_mask`."""
        assert self.mask is not None
        return self.mask[rows, columns]

    def hole_crops(self, requirements: ModelRequirements) -> Sequence[Region]:
        """See `Page.hole_crops`."""
        from restore.restorers.hole_crops import crops

        assert self.mask is not None
        return crops(self.mask > 0, requirements)

    def correct(self, curves: Curves) -> None:
        """See `Page.correct`."""
        self.image = curves(self.image)

    def write_rows(self, top: int, band: Tensor) -> None:
        """See `Page.write_rows`."""
        rows = band.permute(1, 2, 0).numpy()
        if top == 0:
            height, width = self.size
            scale = rows.shape[1] // width
            self._new = np.empty((height * scale, width * scale, 3), np.float32)
        assert self._new is not None
        self._new[top : top + rows.shape[0]] = rows

    def end_rows(self) -> None:
        """See `Page.end_rows`."""
        assert self._new is not None
        self.image, self._new = self._new, None

    def write_hole(self, crop: Region, own: npt.NDArray[np.bool_], filled: Tensor) -> None:
        """See `Page.write_hole`."""
        if self._new is None:
            self._new = self.image.copy()
        self._new[crop.rows, crop.columns][own] = filled.permute(1, 2, 0).numpy()[own]

    def end_holes(self) -> None:
        """See `Page.end_holes`."""
        assert self._new is not None
        assert self.mask is not None
        self._unblended, self._new = self._new, None
        self.image = blend(self.image, self._unblended, self.mask)

    def finish(self) -> None:
        """See `Page.finish`."""
        if not self.changed:
            self._image = self._unblended = None
        elif self.everywhere:
            self._unblended = None
        else:
            self._image = None

    @property
    def repaired(self) -> FloatArray | None:
        """The repaired page; None if no step changed it.

        A page that changes only in its holes is not yet blended by the mask, because `DecodedImage.blend` does that in
        the color space of the image.
        """
        if not self.changed:
            return None
        return self._image if self.everywhere else self._unblended

    def add_filled(self, image: FloatArray, mask: npt.NDArray[np.bool_]) -> None:
        """Count what was filled before the steps began among their work.

        Args:
            image: the page as the steps began, H×W×3.
            mask: all damage, filled before or by the steps, H×W.
        """
        if self.repaired is None:
            self._unblended = image
        self.mask, self.has_mask = mask.astype(np.float32), True
        self.damaged_pixels = int(np.count_nonzero(mask))
        self.filled = self.filled or bool(mask.any())

    def put_into(self, source: DecodedImage, strength: float) -> DecodedImage:
        """Blend the repair into the source of the page with this strength, in [0, 1], and free the arrays."""
        repaired, self._image, self._unblended = self.repaired, None, None
        if repaired is None:
            return source
        mask = None if self.everywhere else self.mask
        if self.in_color:
            return source.in_color().blend(repaired, mask, strength=strength, neutral=False)
        return source.blend(repaired, mask, strength=strength)


def blend(image: FloatArray, repaired: FloatArray, mask: FloatArray) -> FloatArray:
    """Blend two images, H×W×3, by a mask, H×W in [0, 1]: `repaired` where it is 1, `image` where it is 0.

    Where the mask is 0, both images must already be equal; then a binary mask needs no blending.
    """
    if not ((mask > 0) & (mask < 1)).any():
        return repaired
    share = mask[:, :, None]
    return np.where(share == 1, repaired, image + share * (repaired - image))


def to_tensor(image: FloatArray) -> Tensor:
    """H×W×3 -> 3×H×W, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
