"""The steps of a repair, one list for every image, in memory or too large for it.

    correct fading -> detect damage -> fill holes, or restore everywhere -> clean up -> blend

`run_steps` is that list. It works on a `Page`, which hides where the pixels are: `MemoryPage` holds an array,
`restore.fix.out_of_core.SpooledPage` reads and writes rows of files on the disk. What comes before and after, decoding,
the note in the metadata and encoding, is in `restore.fix.stages`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.restorers.base import Restorer, check_finite, run_restorer, run_restorer_banded

if TYPE_CHECKING:
    from restore.fix.fade_correction import Curves
    from restore.fix.options import Dilate
    from restore.images import DecodedImage
    from restore.restorers.base import ModelRequirements
    from restore.restorers.hole_crops import Region

FloatArray = npt.NDArray[np.float32]
OnEvent = Callable[[str], None]

CLEAN_LEVELS = 2.55
"""An image that cleaning up changes by less is clean: the root mean square of the change, of 255. It is a PSNR of 40 dB
between the two, a difference that few people see. On 37 photographs set aside, `photo` changed 95 % of the clean ones
by less; those with noise of σ = 2 by 1.7 in the median, σ = 3 by 2.65, σ = 5 by 4.5; JPEG of quality 90 by 1.7, 80 by
2.45, 60 by 3.1. The mean is over the whole image, so noise in a corner alone counts for little."""

_DETECTED = 0.5  # masks are binary from here on: half a scratch is still a scratch


class Detector(Protocol):
    """What the step `detect` needs of a detector; see `restore.restorers.detector`.

    Attributes:
        name, sha256: as of a `Restorer`.
    """

    name: str
    sha256: str | None

    def detect(self, image: FloatArray, *, tile_px: int, on_event: OnEvent) -> FloatArray:
        """H×W×3, sRGB, [0, 1] -> mask, H×W in [0, 1], 1 = damaged."""


@dataclass(frozen=True)
class Models:
    """The models of a run on one device.

    Attributes:
        restorer: fills holes; without masks restores whole images. None if nothing is repaired.
        clean_up: restores whole images after their holes are filled. None: nothing does.
        detector: makes the masks. None: they come from files, or there are none.
    """

    restorer: Restorer | None = None
    clean_up: Restorer | None = None
    detector: Detector | None = None


@dataclass(frozen=True)
class Steps:
    """Which steps an image goes through. With none of them its file is copied.

    Attributes:
        correct_fading: fading is corrected, before any model sees the image.
        detect: damage is detected, and is the mask from there on.
        restore: holes are filled; without a mask the whole image is restored.
        clean_up: the whole image is restored after that.
        masked: a mask, read or detected, says where to repair.
        spare_clean: an image that `clean_up` would change by less than `CLEAN_LEVELS` is not cleaned up.
    """

    correct_fading: bool = False
    detect: bool = False
    restore: bool = False
    clean_up: bool = False
    masked: bool = False
    spare_clean: bool = False

    def __bool__(self) -> bool:
        return self.correct_fading or self.detect or self.restore or self.clean_up

    @property
    def everywhere(self) -> bool:
        """Whether pixels outside the mask change, or may change."""
        return self.correct_fading or self.clean_up or not self.masked

    def only_model(self, models: Models) -> Restorer | None:
        """The model of an image that goes through one alone; None for several, or none."""
        if self.detect or self.restore == self.clean_up:
            return None
        return models.restorer if self.restore else models.clean_up

    def work_in_parts(self, models: Models) -> bool:
        """Whether they can be run on parts of an image: in bands, around its holes, or as a copy of the file."""
        if not self:
            return True
        model = self.only_model(models)
        if model is None or model.requirements.scale != 1:
            return False
        requirements = model.requirements
        if self.restore and self.masked:
            return requirements.tileable or requirements.needs_mask
        return requirements.tileable and not requirements.needs_mask


# What the steps work on.


class Page(ABC):
    """One page of an image on its way through the steps.

    Rows and columns are slices of the upright page. Images are float32, h×w×3, sRGB, [0, 1].

    Attributes:
        has_mask: a mask, read or detected, says where to repair.
        fading_corrected, filled, cleaned: which steps changed the page.
        everywhere: pixels outside the mask change, too.
    """

    has_mask = False
    fading_corrected = filled = cleaned = False
    everywhere = False

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    @abstractmethod
    def read(self, rows: slice, columns: slice) -> FloatArray:
        """A part of the page as the next step sees it."""

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
        """Replace whole rows, 3×(h·scale)×(W·scale). They come from the top down; at 0 it begins (again)."""

    @abstractmethod
    def write_hole(self, crop: Region, own: npt.NDArray[np.bool_], filled: Tensor) -> None:
        """Replace the pixels `own` (h×w) of a crop by those of a filled one, 3×h×w. `read` still gives the old ones."""

    def end_rows(self) -> None:  # noqa: B027
        """All rows are written: from here on `read` gives the new ones."""

    def end_holes(self) -> None:  # noqa: B027
        """All holes are written: from here on `read` gives them blended with the page by the mask."""

    def finish(self) -> None:  # noqa: B027
        """The last step is done: free what only steps need."""

    @property
    def changed(self) -> bool:
        """Whether any step changed the page, or may have changed it."""
        return self.fading_corrected or self.filled or self.cleaned


class MemoryPage(Page):
    """A page in memory.

    Args:
        load: gives the image. It is called when the first step needs it, so that the pages of a file are not in memory
            as floats all at once.
        mask: H×W in [0, 1], 1 = repair; None without.
    """

    def __init__(self, load: Callable[[], FloatArray], mask: FloatArray | None = None) -> None:
        self._load, self.mask = load, mask
        self.has_mask = mask is not None
        self._image: FloatArray | None = None
        self._new: FloatArray | None = None
        self._unblended: FloatArray | None = None

    @property
    def image(self) -> FloatArray:
        """The page as the next step sees it."""
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
        """The page with its repair: of a page that changes in its holes alone not yet blended by the mask, since
        `DecodedImage.blend` does that in the image's own color space. None where no step changed anything.
        """
        if not self.changed:
            return None
        return self._image if self.everywhere else self._unblended

    def put_into(self, source: DecodedImage, strength: float) -> DecodedImage:
        """The source of the page with this much of its repair, in [0, 1]; the arrays are freed."""
        repaired, self._image, self._unblended = self.repaired, None, None
        if repaired is None:
            return source
        return source.blend(repaired, None if self.everywhere else self.mask, strength=strength)


# The steps.


@torch.inference_mode()
def run_steps(
    page: Page,
    steps: Steps,
    models: Models,
    *,
    tile_of: Callable[[Restorer | Detector], int],
    on_event: OnEvent,
    dilate_px: Dilate = 0,
    feather_px: int = 0,
    grain_key: Callable[[], int] | None = None,
) -> None:
    """Take a page through its steps.

    Holes are filled before the image is cleaned up: what fills them sees the image as it is, what cleans up sees no
    damage.

    Args:
        page: is changed.
        steps: which of them.
        models: of the device to run on.
        tile_of: a model's largest tile, see `run_tiled`.
        on_event: called with a line when something does not go as planned, such as smaller tiles.
        dilate_px, feather_px: for detected masks; see `effective_mask`.
        grain_key: holes get the grain of their surroundings, by this key (see `restore.fix.grain`); None: they do not.

    Raises:
        RestoreError: exit code 1; out of memory, or a model's output contains NaN or Inf.
    """
    page.everywhere = steps.correct_fading or not steps.masked
    if steps.correct_fading:
        correct_fading(page)
    if steps.detect:
        assert models.detector is not None
        detect(page, models.detector, tile_of(models.detector), dilate_px, feather_px, on_event)
    if steps.restore:
        assert models.restorer is not None
        if page.has_mask:
            fill_holes(page, models.restorer, tile_of(models.restorer), grain_key, on_event)
        else:
            restore_everywhere(page, models.restorer, tile_of(models.restorer), on_event)
            page.filled = True
    if steps.clean_up:
        assert models.clean_up is not None
        clean_up(page, models.clean_up, tile_of(models.clean_up), steps.spare_clean, on_event)
    page.finish()


def correct_fading(page: Page) -> None:
    """Undo fading, by curves that are estimated from a thumbnail of the page; at most once."""
    from restore.fix.fade_correction import estimated, thumbnail

    if page.fading_corrected:
        return
    columns = slice(0, page.size[1])
    page.correct(estimated(thumbnail(lambda rows: page.read(rows, columns), page.size)))
    page.fading_corrected = True


def detect(page: Page, detector: Detector, tile_px: int, dilate_px: Dilate, feather_px: int, on_event: OnEvent) -> None:
    """Make the page's mask: what the detector finds, dilated and feathered."""
    assert isinstance(page, MemoryPage), "a detector sees whole images"
    image = page.image
    detected = detector.detect(image, tile_px=tile_px, on_event=on_event)
    page.mask = (detected >= _DETECTED).astype(np.float32)
    if dilate_px or feather_px:
        from restore.fix.masks import prepare_mask

        page.mask = prepare_mask(page.mask, dilate_px=dilate_px, feather_px=feather_px, image=lambda: image)
    page.has_mask = True


def fill_holes(
    page: Page, restorer: Restorer, tile_px: int, grain_key: Callable[[], int] | None, on_event: OnEvent
) -> None:
    """Fill the holes of the mask, each on a crop that shows it with its surroundings."""
    crops = page.hole_crops(restorer.requirements)
    key = None if grain_key is None or not crops else grain_key()
    for crop in crops:
        image = to_tensor(page.read(crop.rows, crop.columns))
        hole = page.read_mask(crop.rows, crop.columns) > 0
        filled = run_restorer(restorer, image, torch.from_numpy(hole[None].astype(np.float32)), tile_px, on_event)
        own = crop.own(hole)  # a crop may show parts of other crops' holes
        if key is not None:
            from restore.fix.grain import with_grain

            filled = with_grain(filled, image, own, hole, crop.origin, key)
        check_finite(filled[:, torch.from_numpy(own)])
        page.write_hole(crop, own, filled)
    if crops:
        page.end_holes()
        page.filled = True


def restore_everywhere(page: Page, restorer: Restorer, tile_px: int, on_event: OnEvent) -> None:
    """Run a restorer over the whole page, in tiles where it allows them."""

    def write(top: int, band: Tensor) -> None:
        check_finite(band)
        page.write_rows(top, band[0])

    run_restorer_banded(
        restorer,
        lambda rows, columns: [to_tensor(page.read(rows, columns))[None], None],
        write,
        size=page.size,
        tile_px=tile_px,
        on_event=on_event,
    )
    page.end_rows()


def clean_up(page: Page, restorer: Restorer, tile_px: int, spare_clean: bool, on_event: OnEvent) -> None:
    """Restore the whole page, and keep the result unless the page was clean."""
    before = None
    if spare_clean:
        assert isinstance(page, MemoryPage), "clean images are told apart where masks are detected, in memory"
        before = page.image
    restore_everywhere(page, restorer, tile_px, on_event)
    if before is not None and isinstance(page, MemoryPage) and levels_between(before, page.image) < CLEAN_LEVELS:
        page.image = before
        return
    page.cleaned = page.everywhere = True


def levels_between(before: FloatArray, after: FloatArray) -> float:
    """The root mean square difference of two images, in levels of 255."""
    import cv2

    distance = float(cv2.norm(before, after, cv2.NORM_L2))
    return 255 * distance / math.sqrt(before.size)


def blend(image: FloatArray, repaired: FloatArray, mask: FloatArray) -> FloatArray:
    """H×W×3 both, and H×W in [0, 1]: `repaired` where the mask is 1, `image` where it is 0. Where it is 0, the two must
    be equal already.
    """
    if not ((mask > 0) & (mask < 1)).any():
        return repaired
    share = mask[:, :, None]
    return np.where(share == 1, repaired, image + share * (repaired - image))


def to_tensor(image: FloatArray) -> Tensor:
    """H×W×3 -> 3×H×W, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def repair(
    restorer: Restorer,
    image: FloatArray,
    mask: FloatArray | None,
    *,
    tile_px: int = 0,
    grain_key: int | None = None,
    on_event: OnEvent = lambda line: None,
) -> FloatArray:
    """Run one restorer on an array. The result depends on nothing but the arguments.

    Args:
        restorer: of any kind.
        image: H×W×3, sRGB, [0, 1].
        mask: H×W in [0, 1], where to repair; None everywhere (for restorers that need no mask).
        tile_px: largest side of a tile, 0 never tiles.
        grain_key, on_event: see `run_steps`.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]. Where `mask` is above 0 it is fully repaired (blending is the
        caller's); elsewhere it is `image`.

    Raises:
        RestoreError: as `run_steps`.
    """
    page = MemoryPage(lambda: image, mask)
    steps = Steps(restore=True, masked=mask is not None)
    key = None if grain_key is None else lambda: grain_key
    run_steps(page, steps, Models(restorer), tile_of=lambda model: tile_px, on_event=on_event, grain_key=key)
    return image if page.repaired is None else page.repaired


def tiles_of(models: Sequence[Models], tile: str | int) -> dict[int, int]:
    """The largest side of a tile by the id of each model, the same for one and its twins on other devices.

    Args:
        models: the same on every device.
        tile: `auto`, 0 (never), or that side in pixels.
    """
    twins = ([getattr(one, role) for one in models] for role in ("restorer", "clean_up", "detector"))
    sides: dict[int, int] = {}
    for same in twins:
        if same[0] is None:
            continue
        side = min(map(_auto_tile, same)) if str(tile) == "auto" else int(tile)
        sides |= {id(one): side for one in same}
    return sides


def _auto_tile(model: Any) -> int:
    return int(model.auto_tile_px()) if hasattr(model, "auto_tile_px") else 0  # a detector need not be a network


def model_provenance(models: Models, steps: Steps, *, filled: bool, cleaned: bool) -> dict[str, Any]:
    """Which models took part in an image, for its record: all, in order, and the one that did most."""
    hashes = {models.detector.name: models.detector.sha256} if steps.detect and models.detector is not None else {}
    repairing = [models.restorer] if filled and models.restorer is not None else []
    if cleaned and models.clean_up is not None:
        repairing.append(models.clean_up)
    hashes |= {model.name: model.sha256 for model in repairing}
    most = repairing[0].name if repairing else "fade" if steps.correct_fading else None
    if most is None and not steps.restore:
        most = next(iter(hashes), None)  # detection alone
    return {"model": most, "model_sha256": hashes.get(most or ""), "models": hashes}


# Small images of one size through the network at once, where launches cost more than pixels: on GPUs.


def places(restorer: Restorer, height: int, width: int, tile_px: int) -> int:
    """How many images of a size the restorer takes at once; 1: each goes alone.

    It depends on the size alone, never on what else waits: kernels are chosen by shape, and round differently.
    """
    if 0 < tile_px < max(height, width) and restorer.requirements.tileable:
        return 1
    return max(1, restorer.max_batch_pixels // (height * width))


def goes_whole(restorer: Restorer, mask: FloatArray | None) -> bool:
    """Whether the restorer sees an image with these holes as a whole, and not by a crop for each hole."""
    if mask is None:
        return True
    from restore.restorers.hole_crops import crops

    return [crop.size for crop in crops(mask > 0, restorer.requirements)] == [mask.shape]


@torch.inference_mode()
def repair_together(
    restorer: Restorer, pages: Sequence[MemoryPage], count: int, grain_keys: Sequence[int | None]
) -> list[bool]:
    """Run a restorer on pages of one size at once; each comes out as it would alone.

    Args:
        restorer: of any kind.
        pages: 1 to `count` pages of which all have a mask, with which the page `goes_whole`, or none has.
        count: the size of the batch (see `places`); it is filled up with the last page.
        grain_keys: of each page; see `run_steps`.

    Returns:
        For each page whether it is repaired; False where the output contains NaN or Inf.
    """
    images = [to_tensor(page.image)[None] for page in pages]
    where = [page.mask > 0 for page in pages if page.mask is not None]
    holes = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in where]
    prepared = [restorer.prepare(image, holes[i] if holes else None) for i, image in enumerate(images)]
    taken = [min(place, len(pages) - 1) for place in range(count)]
    batch, masks = zip(*(prepared[i] for i in taken))
    out = restorer(torch.cat(batch), torch.cat(masks) if holes else None, prepared=True)
    repaired = []
    for number, (page, image) in enumerate(zip(pages, images)):
        one = out[number]
        finite = bool(torch.isfinite(torch.where(holes[number][0] > 0, one, image[0]) if holes else one).all())
        repaired.append(finite)
        if finite and not holes:
            page.write_rows(0, one)
            page.end_rows()
        elif finite:
            from restore.restorers.hole_crops import Region

            hole = holes[number][0, 0].numpy() > 0
            key = grain_keys[number]
            if key is not None:
                from restore.fix.grain import with_grain

                one = with_grain(one, image[0], hole, hole, (0, 0), key)
            height, width = hole.shape
            page.write_hole(Region(slice(0, height), slice(0, width)), hole, one)
            page.end_holes()
    return repaired
