"""The steps of a repair: one list for all images, in memory or out of core.

    correct fading -> detect damage -> fill holes, or restore everywhere -> clean up -> blend

`run_steps` is that list. It works on a `Page`, which hides where the pixels are stored: `MemoryPage` holds an array,
`restore.fix.out_of_core.SpooledPage` reads and writes rows of files on disk. Decoding, the note in the metadata and
encoding are in `restore.fix.stages`.
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
"""An image counts as clean if cleaning up changes it by less: root mean square, in levels of 255.

The limit corresponds to a PSNR of 40 dB, a difference that few people see. On 37 held-out photographs, `photo` changed
95 % of the clean ones by less. Median change of degraded ones: noise with σ = 2, 1.7; σ = 3, 2.65; σ = 5, 4.5; JPEG
quality 90, 1.7; quality 80, 2.45; quality 60, 3.1. The mean covers the whole image, so noise confined to a corner
counts little.
"""

UNFADED_LEVELS = 1.0
"""An image has not faded if its correction would change it by less: root mean square, in levels of 255. Nobody sees one
level, so the image keeps its exact pixels, and is copied if nothing else changes it."""

_DETECTED = 0.5  # detection threshold; the mask is binary, because blending would leave half of a scratch


class Detector(Protocol):
    """The interface of a detector; see `restore.restorers.detector`.

    Attributes:
        name, sha256: as for a `Restorer`.
        threshold: pixels of at least this probability are damage. Only `--sensitivity` reads it.
    """

    name: str
    sha256: str | None
    threshold: float

    def detect(self, image: FloatArray, *, tile_px: int, on_event: OnEvent) -> FloatArray:
        """H×W×3, sRGB, [0, 1] -> mask, H×W in [0, 1], 1 = damaged."""

    def adjusted(self, *, threshold: float) -> Detector:
        """The same detector with another threshold."""


@dataclass(frozen=True)
class Models:
    """The models of a run on one device.

    Attributes:
        restorer: fills holes, or restores whole images if there are no masks. None: no repair.
        clean_up: restores whole images after their holes are filled. None: no clean-up.
        detector: makes the masks. None: masks come from files, or there are none.
    """

    restorer: Restorer | None = None
    clean_up: Restorer | None = None
    detector: Detector | None = None


@dataclass(frozen=True)
class Steps:
    """The steps of an image. Without any step the file is copied.

    Attributes:
        correct_fading: correct fading before any model runs.
        detect: detect damage; the result replaces the mask.
        restore: fill holes, or restore the whole image if there is no mask.
        clean_up: restore the whole image afterwards.
        masked: the repair is limited to a mask, read or detected.
        spare_clean: discard a clean-up that changes the image by less than `CLEAN_LEVELS`.
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
    def may_change_nothing(self) -> bool:
        """Whether an image may come out as it was: not faded, without damage, clean."""
        return not (self.restore and not self.detect) and not (self.clean_up and not self.spare_clean)

    def only_model(self, models: Models) -> Restorer | None:
        """The model of an image that needs exactly one repairing model; None otherwise."""
        if self.detect or self.restore == self.clean_up:
            return None
        return models.restorer if self.restore else models.clean_up

    def work_in_parts(self, models: Models) -> bool:
        """Whether the steps can run on parts of an image: in bands, on crops around holes, or by copying the file."""
        if not self:
            return True
        model = self.only_model(models)
        if model is None or model.requirements.scale != 1:
            return False
        requirements = model.requirements
        if self.restore and self.masked:
            return requirements.tileable or requirements.needs_mask
        return requirements.tileable and not requirements.needs_mask


# The pages that the steps work on.


class Page(ABC):
    """One page of an image on its way through the steps.

    Rows and columns are slices of the upright page. Images are float32, h×w×3, sRGB, [0, 1].

    Attributes:
        has_mask: the page has a mask, read or detected.
        fading_corrected, filled, cleaned: which steps changed the page.
        fading_estimated: it is known whether the page has faded.
        everywhere: pixels outside the mask change, too.
        damaged_pixels: the number of pixels that the detector found damaged; None: it did not run.
    """

    has_mask = False
    fading_estimated = fading_corrected = filled = cleaned = False
    everywhere = False
    damaged_pixels: int | None = None

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
        return self.fading_corrected or self.filled or self.cleaned


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

    def put_into(self, source: DecodedImage, strength: float) -> DecodedImage:
        """Blend the repair into the source of the page with this strength, in [0, 1], and free the arrays."""
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

    Holes are filled before the image is cleaned up, so the inpainting model sees the original image and the clean-up
    model sees no damage.

    Args:
        page: modified in place.
        steps: the steps to run.
        models: the models on the device to use.
        tile_of: returns the largest tile side for a model, see `run_tiled`.
        on_event: called with a line about deviations from the plan, such as smaller tiles.
        dilate_px, feather_px: for detected masks; see `effective_mask`.
        grain_key: returns the key for adding grain to holes (see `restore.fix.grain`); None: no grain.

    Raises:
        RestoreError: exit code 1; out of memory, or a model's output contains NaN or Inf.
    """
    if steps.correct_fading:
        correct_fading(page)
    page.everywhere = page.fading_corrected or not steps.masked
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
    """Correct fading as estimated from a thumbnail of the page, if it has faded. Repeated calls have no effect."""
    from restore.fix.fade_correction import estimated, thumbnail

    if page.fading_estimated:
        return
    page.fading_estimated = True
    columns = slice(0, page.size[1])
    small = thumbnail(lambda rows: page.read(rows, columns), page.size)
    curves = estimated(small)
    if levels_between(small, curves(small)) >= UNFADED_LEVELS:
        page.correct(curves)
        page.fading_corrected = True


def detect(page: Page, detector: Detector, tile_px: int, dilate_px: Dilate, feather_px: int, on_event: OnEvent) -> None:
    """Set the mask of the page to the detected damage, dilated and feathered."""
    assert isinstance(page, MemoryPage), "a detector sees whole images"
    image = page.image
    detected = detector.detect(image, tile_px=tile_px, on_event=on_event)
    page.mask = (detected >= _DETECTED).astype(np.float32)
    page.damaged_pixels = int(np.count_nonzero(page.mask))
    if dilate_px or feather_px:
        from restore.fix.masks import prepare_mask

        page.mask = prepare_mask(page.mask, dilate_px=dilate_px, feather_px=feather_px, image=lambda: image)
    page.has_mask = True


def fill_holes(
    page: Page, restorer: Restorer, tile_px: int, grain_key: Callable[[], int] | None, on_event: OnEvent
) -> None:
    """Fill the holes of the mask, each in a crop with its surroundings."""
    crops = page.hole_crops(restorer.requirements)
    key = None if grain_key is None or not crops else grain_key()
    for crop in crops:
        image = to_tensor(page.read(crop.rows, crop.columns))
        hole = page.read_mask(crop.rows, crop.columns) > 0
        filled = run_restorer(restorer, image, torch.from_numpy(hole[None].astype(np.float32)), tile_px, on_event)
        own = crop.own(hole)  # a crop may contain parts of holes that belong to other crops
        if key is not None:
            from restore.fix.grain import with_grain

            filled = with_grain(filled, image, own, hole, crop.origin, key)
        check_finite(filled[:, torch.from_numpy(own)])
        page.write_hole(crop, own, filled)
    if crops:
        page.end_holes()
        page.filled = True


def restore_everywhere(page: Page, restorer: Restorer, tile_px: int, on_event: OnEvent) -> None:
    """Run a restorer over the whole page, in tiles if it supports them."""

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
    """Restore the whole page; with `spare_clean`, discard the result if the page was clean."""
    before = None
    if spare_clean:
        assert isinstance(page, MemoryPage), "spare_clean implies detection, which runs in memory"
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


def repair(
    restorer: Restorer,
    image: FloatArray,
    mask: FloatArray | None,
    *,
    tile_px: int = 0,
    grain_key: int | None = None,
    on_event: OnEvent = lambda line: None,
) -> FloatArray:
    """Run one restorer on an array. The result depends only on the arguments.

    Args:
        restorer: any restorer.
        image: H×W×3, sRGB, [0, 1].
        mask: H×W in [0, 1], 1 = repair; None: everywhere (for restorers that need no mask).
        tile_px: largest side of a tile; 0: never tile.
        grain_key, on_event: see `run_steps`.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]: fully repaired where `mask` is above 0, since blending is left to the
        caller; `image` elsewhere.

    Raises:
        RestoreError: as `run_steps`.
    """
    page = MemoryPage(lambda: image, mask)
    steps = Steps(restore=True, masked=mask is not None)
    key = None if grain_key is None else lambda: grain_key
    run_steps(page, steps, Models(restorer), tile_of=lambda model: tile_px, on_event=on_event, grain_key=key)
    return image if page.repaired is None else page.repaired


def tiles_of(models: Sequence[Models], tile: str | int) -> dict[int, int]:
    """The largest tile side by the id of each model. Copies of a model on other devices get the same side.

    Args:
        models: the same models on every device.
        tile: `auto`, 0 (never tile), or the side in pixels.
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


def steps_done(pages: Sequence[Page], steps: Steps) -> list[str]:
    """The steps that ran on an image and, but for `detect`, changed it: in order, as the log names them."""
    filled = any(page.filled for page in pages)
    done = {
        "correct_fading": any(page.fading_corrected for page in pages),
        "detect": steps.detect,
        "fill_holes": filled and steps.masked,
        "restore": filled and not steps.masked,
        "clean_up": any(page.cleaned for page in pages),
    }
    return [name for name, was in done.items() if was]


def model_provenance(models: Models, steps: Steps, done: Sequence[str]) -> dict[str, Any]:
    """The models that took part in an image, for its record: all, in order, and the main one.

    Args:
        models: of the run.
        steps: the steps that were to run.
        done: those that did, see `steps_done`.
    """
    roles = {"fill_holes": models.restorer, "restore": models.restorer, "clean_up": models.clean_up}
    hashes = {models.detector.name: models.detector.sha256} if steps.detect and models.detector is not None else {}
    repairing = [model for name in done if (model := roles.get(name)) is not None]
    hashes |= {model.name: model.sha256 for model in repairing}
    most = repairing[0].name if repairing else "fade" if "correct_fading" in done else None
    if most is None and not steps.restore:
        most = next(iter(hashes), None)  # detection alone
    return {"model": most, "model_sha256": hashes.get(most or ""), "models": hashes}


# Batches of small images of one size, for GPUs, where kernel launches cost more than pixels.


def places(restorer: Restorer, height: int, width: int, tile_px: int) -> int:
    """The batch size of a restorer for images of one size; 1: no batches.

    It depends only on the image size, never on the queue: kernels are chosen by shape and round differently, so a
    varying batch size would change results.
    """
    if 0 < tile_px < max(height, width) and restorer.requirements.tileable:
        return 1
    return max(1, restorer.max_batch_pixels // (height * width))


def goes_whole(restorer: Restorer, mask: FloatArray | None) -> bool:
    """Whether the restorer gets an image with these holes as a whole, rather than as one crop per hole."""
    if mask is None:
        return True
    from restore.restorers.hole_crops import crops

    return [crop.size for crop in crops(mask > 0, restorer.requirements)] == [mask.shape]


@torch.inference_mode()
def repair_together(
    restorer: Restorer, pages: Sequence[MemoryPage], count: int, grain_keys: Sequence[int | None]
) -> list[bool]:
    """Run a restorer on a batch of pages of one size. Each result equals that of the page alone.

    Args:
        restorer: any restorer.
        pages: 1 to `count` pages. Either all have a mask with which the page `goes_whole`, or none has a mask.
        count: batch size (see `places`); missing pages are padded with the last page.
        grain_keys: one per page; see `run_steps`.

    Returns:
        For each page, whether it is repaired; False if its output contains NaN or Inf.
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
