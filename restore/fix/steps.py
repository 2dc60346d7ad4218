"""The steps of a repair: one list for all images, in memory or out of core.

    detect damage -> correct fading -> fill holes, or restore everywhere -> clean up -> blend -> enlarge

`run_steps` is that list up to blending, and `enlarged` is the rest. It works on a `Page`, which hides where the pixels
are stored: `restore.fix.pages.MemoryPage` holds an array, `restore.fix.out_of_core.SpooledPage` reads and writes rows
of files on disk. Decoding is in `restore.fix.reader`, encoding and the note in the metadata in `restore.fix.writer`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore import progress
from restore.errors import RestoreError
from restore.fix.pages import MemoryPage, Page, to_tensor
from restore.restorers.base import Restorer, check_finite, run_restorer, run_restorer_banded

if TYPE_CHECKING:
    from restore.fix.options import Dilate
    from restore.images import DecodedImage

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

#: How long the steps take, roughly: detection, fading, filling holes or restoring, cleaning up.
_STEP_WEIGHTS = (1.0, 0.1, 1.0, 1.0)

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
        enlarger: enlarges images after everything else. None: they keep their size, unless the restorer changes it.
    """

    restorer: Restorer | None = None
    clean_up: Restorer | None = None
    detector: Detector | None = None
    enlarger: Restorer | None = None

    @property
    def main(self) -> Restorer | None:
        """The model that a run is named after."""
        return self.restorer or self.enlarger


@dataclass(frozen=True)
class Steps:
    """The steps of an image. Without any step the file is copied.

    Attributes:
        detect: detect damage; the result replaces the mask.
        correct_fading: correct fading before any model repairs the image.
        restore: fill holes, or restore the whole image if there is no mask.
        clean_up: restore the whole image afterwards.
        masked: the repair is limited to a mask, read or detected.
        spare_clean: discard a clean-up that changes the image by less than `CLEAN_LEVELS`.
        enlarge: enlarge the result of all other steps.
    """

    detect: bool = False
    correct_fading: bool = False
    restore: bool = False
    clean_up: bool = False
    masked: bool = False
    spare_clean: bool = False
    enlarge: bool = False

    def __bool__(self) -> bool:
        return self.repair or self.enlarge

    @property
    def repair(self) -> bool:
        """Whether there are steps before the image is enlarged."""
        return self.correct_fading or self.detect or self.restore or self.clean_up

    @property
    def may_change_nothing(self) -> bool:
        """Whether an image may come out as it was: not faded, without damage, clean."""
        if self.enlarge:
            return False
        return not (self.restore and not self.detect) and not (self.clean_up and not self.spare_clean)

    def only_model(self, models: Models) -> Restorer | None:
        """The model of an image that needs exactly one repairing model; None otherwise."""
        if self.detect or self.enlarge or self.restore == self.clean_up:
            return None
        return models.restorer if self.restore else models.clean_up

    def work_in_parts(self, models: Models) -> bool:
        """Whether the steps can run on parts of an image: in bands, on crops around holes, or by copying the file."""
        if not self:
            return True
        if self.enlarge and not self.repair and not self.masked and models.enlarger is not None:
            return models.enlarger.requirements.tileable and not models.enlarger.requirements.adds_color
        model = self.only_model(models)
        if model is None or model.requirements.scale != 1 or model.requirements.adds_color:
            return False
        requirements = model.requirements
        if self.restore and self.masked:
            return requirements.tileable or requirements.needs_mask
        return requirements.tileable and not requirements.needs_mask


# The pages that the steps work on.

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
    # In the order of the steps below; the shares are rough.
    asked = (steps.detect, steps.correct_fading, steps.restore, steps.clean_up)
    share = progress.shares([weight * on for weight, on in zip(_STEP_WEIGHTS, asked)])
    if steps.detect:
        # Before fading is corrected: detectors learn damage on faded images, and miss more of it in contrasty ones.
        assert models.detector is not None
        with progress.part(*share[0]):
            detect(page, models.detector, tile_of(models.detector), dilate_px, feather_px, on_event)
    if steps.correct_fading:
        with progress.part(*share[1]):
            correct_fading(page)
    page.everywhere = page.deflickered or page.fading_corrected or not steps.masked
    if steps.restore:
        assert models.restorer is not None
        with progress.part(*share[2]):
            if page.has_mask:
                fill_holes(page, models.restorer, tile_of(models.restorer), grain_key, on_event)
            else:
                restore_everywhere(page, models.restorer, tile_of(models.restorer), on_event)
                page.filled = True
    if steps.clean_up:
        assert models.clean_up is not None
        with progress.part(*share[3]):
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
    """Set the mask of the page to the detected damage, wide marks up to their edges, dilated and feathered."""
    from restore.fix.wide_marks import complete_wide_marks

    assert isinstance(page, MemoryPage), "a detector sees whole images"
    image = page.image
    detected = detector.detect(image, tile_px=tile_px, on_event=on_event)
    page.mask = complete_wide_marks((detected >= _DETECTED).astype(np.float32), image)
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
    for crop, share in zip(crops, progress.shares([math.prod(crop.size) for crop in crops])):
        image = to_tensor(page.read(crop.rows, crop.columns))
        hole = page.read_mask(crop.rows, crop.columns) > 0
        seen = with_condition(image, page, restorer, crop.rows, crop.columns)
        with progress.part(*share):
            filled = run_restorer(restorer, seen, torch.from_numpy(hole[None].astype(np.float32)), tile_px, on_event)
        own = crop.own(hole)  # a crop may contain parts of holes that belong to other crops
        if key is not None:
            from restore.fix.grain import with_grain

            filled = with_grain(filled, image, own, hole, crop.origin, key)
        check_finite(filled[:, torch.from_numpy(own)])
        page.write_hole(crop, own, filled)
    if crops:
        page.end_holes()
        page.filled = True
        page.in_color |= restorer.requirements.adds_color


def restore_everywhere(page: Page, restorer: Restorer, tile_px: int, on_event: OnEvent) -> None:
    """Run a restorer over the whole page, in tiles if it supports them."""

    def write(top: int, band: Tensor) -> None:
        check_finite(band)
        page.write_rows(top, band[0])

    run_restorer_banded(
        restorer,
        lambda rows, columns: [
            with_condition(to_tensor(page.read(rows, columns)), page, restorer, rows, columns)[None],
            None,
        ],
        write,
        size=page.size,
        tile_px=tile_px,
        on_event=on_event,
    )
    page.end_rows()
    page.in_color |= restorer.requirements.adds_color


def enlarged(
    page: MemoryPage, source: DecodedImage, restorer: Restorer, tile_px: int, on_event: OnEvent
) -> DecodedImage:
    """A page of an image, with all other steps done and blended into `source`, enlarged.

    Args:
        page: is told that it was.
        source: the page with its repair, of its first size.
        restorer: enlarges, and needs no mask.
        tile_px, on_event: see `run_steps`.
    """
    bigger = MemoryPage(source.to_srgb)
    restore_everywhere(bigger, restorer, tile_px, on_event)
    page.enlarged = True
    return (source.in_color() if bigger.in_color else source).blend(bigger.image)


def with_condition(image: Tensor, page: Page, restorer: Restorer, rows: slice, columns: slice) -> Tensor:
    """A part of a page, 3×h×w, with the condition images behind it if the restorer takes any."""
    if not restorer.requirements.conditions or page.condition is None:
        return image
    return torch.cat([image, to_tensor(page.condition[rows, columns])])


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


def notes_on_colors(models: Models, steps: Steps, is_gray: Callable[[], bool]) -> list[str]:
    """What the user should know about the models that see an image's colors.

    Args:
        models: of the run.
        steps: of the image.
        is_gray: whether the image is gray; only called if a model is for gray images.
    """
    used = [
        models.restorer if steps.restore else None,
        models.clean_up if steps.clean_up else None,
        models.enlarger if steps.enlarge else None,
    ]
    of_gray = [model.name for model in used if model is not None and model.requirements.gray]
    if not of_gray or is_gray():
        return []
    return [
        f"{name} was trained on gray images: it repairs each channel of this color image by itself" for name in of_gray
    ]


def in_range_of(models: Models, image: DecodedImage, name: str | os.PathLike[str]) -> DecodedImage:
    """A float image with the values of black and white that the first model was trained with; others as they are.

    Raises:
        RestoreError: exit code 1; the image has alpha.
    """
    repairing = (models.restorer, models.clean_up, models.enlarger)
    used = [model.requirements.float_range for model in repairing if model is not None]
    declared = next((found for found in used if found is not None), None)
    pages = [page for page in (image, *image.extra_pages) if page.pixels.dtype == np.float32]
    if declared is None or not pages:
        return image
    if any(page.alpha is not None for page in pages):
        raise RestoreError(
            f"the model was trained on float images from {declared[0]:g} to {declared[1]:g}, without alpha",
            where=name,
            hint="remove the alpha channel",
            exit_code=1,
        )
    return image.with_range(*declared)


def tiles_of(models: Sequence[Models], tile: str | int) -> dict[int, int]:
    """The largest tile side by the id of each model. Copies of a model on other devices get the same side.

    Args:
        models: the same models on every device.
        tile: `auto`, 0 (never tile), or the side in pixels.
    """
    twins = ([getattr(one, role) for one in models] for role in ("restorer", "clean_up", "detector", "enlarger"))
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
        "deflicker": any(page.deflickered for page in pages),
        "detect": steps.detect,
        "correct_fading": any(page.fading_corrected for page in pages),
        "fill_holes": filled and steps.masked,
        "restore": filled and not steps.masked,
        "clean_up": any(page.cleaned for page in pages),
        "enlarge": any(page.enlarged for page in pages),
    }
    return [name for name, was in done.items() if was]


def model_provenance(models: Models, steps: Steps, done: Sequence[str]) -> dict[str, Any]:
    """The models that took part in an image, for its record: all, in order, and the main one.

    Args:
        models: of the run.
        steps: the steps that were to run.
        done: those that did, see `steps_done`.
    """
    roles = {
        "fill_holes": models.restorer,
        "restore": models.restorer,
        "clean_up": models.clean_up,
        "enlarge": models.enlarger,
    }
    detectors = (models.detector, getattr(models.detector, "second", None)) if steps.detect else ()
    hashes = {model.name: model.sha256 for model in detectors if model is not None}
    repairing = [model for name in done if (model := roles.get(name)) is not None]
    hashes |= {model.name: model.sha256 for model in repairing}
    alone = {"correct_fading": "fade", "deflicker": "deflicker"}  # steps that need no model
    most = repairing[0].name if repairing else next((alone[name] for name in done if name in alone), None)
    if most is None and not steps.restore:
        most = next(iter(hashes), None)  # detection alone
    return {"model": most, "model_sha256": hashes.get(most or ""), "models": hashes}


# Batches of small images of one size, for GPUs, where kernel launches cost more than pixels.
