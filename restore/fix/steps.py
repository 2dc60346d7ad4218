"""What a picture goes through, model by model: damage is found, holes are filled, the whole is cleaned up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from restore.fix.grain import with_grain
from restore.fix.masks import FloatArray, prepare_mask
from restore.fix.options import Dilate
from restore.restorers.base import Restorer, check_numbers, run
from restore.restorers.hole_crops import crops

if TYPE_CHECKING:
    from restore.restorers.base import Restorer


Say = Callable[[str], None]

CLEAN_LEVELS = 2.55
"""Root mean square, of 255, of what cleaning up changes of a picture; below it the picture counts as clean. It is a
PSNR of 40 dB between the two, which few people see. On 37 photographs set aside `photo` changed 95 % of the clean ones
by less, those with noise of σ = 2 by 1.7 in the median, σ = 3 by 2.65, σ = 5 by 4.5, JPEG of quality 90 by 1.7, 80 by
2.45, 60 by 3.1. It is the mean over the picture: noise in a corner alone does not count for much."""

_MARKED = 0.5  # what a finder is surer of than this is a hole, wholly: half a scratch is still a scratch


class Finder(Protocol):
    """What marks damage where nobody has drawn a mask: the detector.

    Attributes:
        name, sha256: as of a `Restorer`.
    """

    name: str
    sha256: str | None

    def find(self, shown: FloatArray, *, tile_px: int, on_event: Say) -> FloatArray:
        """H×W×3, sRGB, [0, 1] -> H×W in [0, 1], 1 = damaged."""


@dataclass(frozen=True)
class Models:
    """What repairs, on one device.

    Attributes:
        restorer: fills what masks say; without masks repairs whole pictures.
        clean_up: goes over whole pictures when their holes are filled; None: nothing does.
        finder: makes the masks; None: they are given, or there are none.
    """

    restorer: Restorer
    clean_up: Restorer | None = None
    finder: Finder | None = None


@dataclass(frozen=True)
class Steps:
    """What is done to one picture, in this order; none of it: the picture is copied.

    Attributes:
        fade: fading is undone, before any model sees the picture.
        find: damage is found, and is the mask from there on.
        repair: holes are filled; without a mask the whole picture is repaired.
        clean_up: the whole picture is cleaned up.
        masked: a mask, given or found, says where to repair.
        spare_clean: no `clean_up` where it would change less than `CLEAN_LEVELS`.
    """

    fade: bool = False
    find: bool = False
    repair: bool = False
    clean_up: bool = False
    masked: bool = False
    spare_clean: bool = False

    def __bool__(self) -> bool:
        return self.fade or self.find or self.repair or self.clean_up

    @property
    def everywhere(self) -> bool:
        """Known pixels change, too, or may do so."""
        return self.fade or self.clean_up or not self.masked

    def only_model(self, models: Models) -> Restorer | None:
        """The model, where no other takes part."""
        if self.find or self.repair == self.clean_up:
            return None
        return models.restorer if self.repair else models.clean_up


@dataclass(frozen=True)
class RepairResult:
    """What came of one page.

    Attributes:
        repaired: H×W×3, sRGB, [0, 1]; None: there was nothing to repair.
        weight: H×W in [0, 1], the mask, given or found; None without.
        filled: the restorer ran.
        cleaned: `clean_up` had a part in it.
        everywhere: known pixels changed, too.
    """

    repaired: FloatArray | None
    weight: FloatArray | None
    filled: bool
    cleaned: bool
    everywhere: bool


def carry_out(
    models: Models,
    steps: Steps,
    shown: FloatArray,
    weight: FloatArray | None,
    *,
    tile_of: Callable[[Restorer | Finder], int],
    dilate_px: Dilate,
    feather_px: int,
    grain_key: int | None = None,
    on_event: Say,
) -> RepairResult:
    """Take a page through its steps, from the finder on.

    The filler sees the picture as it is, damage hidden; what cleans up sees it filled.

    Args:
        models: of the device to run on.
        steps: what is to be done.
        shown: H×W×3, sRGB, [0, 1], its fading undone.
        weight: where to repair, if that is known already.
        tile_of: a model's largest tile, see `run_tiled`.
        dilate_px, feather_px: shape a mask that is found; see `effective_mask`.
        grain_key: what is filled gets the grain of its surroundings; see `restore.fix.grain`. None: it does not.
        say: told what goes another way than planned.

    Raises:
        RestoreError: exit code 1; see `restore.fix.steps.repair`.
    """

    if steps.find:
        assert models.finder is not None
        found = models.finder.find(shown, tile_px=tile_of(models.finder), on_event=on_event)
        marked = (found >= _MARKED).astype(np.float32)
        weight = prepare_mask(marked, dilate_px=dilate_px, feather_px=feather_px, shown=lambda: shown)
    repaired = shown if steps.fade else None
    filled = steps.repair and (weight is None or bool(weight.any()))
    if filled:
        tile_px = tile_of(models.restorer)
        repaired = repair(models.restorer, shown, weight, tile_px=tile_px, grain_key=grain_key, on_event=on_event)
    everywhere = steps.fade or not steps.masked
    blended = repaired
    if filled and weight is not None and steps.everywhere:
        assert repaired is not None
        blended = mixed(shown, repaired, weight)
    if steps.clean_up:
        assert models.clean_up is not None
        before = shown if blended is None else blended
        after = repair(models.clean_up, before, None, tile_px=tile_of(models.clean_up), on_event=on_event)
        if not steps.spare_clean or levels_between(before, after) >= CLEAN_LEVELS:
            return RepairResult(after, weight, filled, cleaned=True, everywhere=True)
    return RepairResult(blended if everywhere else repaired, weight, filled, cleaned=False, everywhere=everywhere)


def levels_between(before: FloatArray, after: FloatArray) -> float:
    """The root mean square difference of two pictures, in levels of 255."""
    import cv2

    return 255 * float(cv2.norm(before, after, cv2.NORM_L2)) / before.size**0.5


def mixed(shown: FloatArray, repaired: FloatArray, weight: FloatArray) -> FloatArray:
    """H×W×3 both, and H×W in [0, 1]: the repair where the weight is 1, what was shown where it is 0."""
    if not ((weight > 0) & (weight < 1)).any():
        return repaired  # which is what was shown where the weight is 0
    share = weight[:, :, None]
    return np.where(share == 1, repaired, shown + share * (repaired - shown))


def model_provenance(models: Models, steps: Steps, *, filled: bool, cleaned: bool) -> dict[str, Any]:
    """What a record tells of the models that had a part in a picture: all, in order, and the one that did most."""
    hashes = {models.finder.name: models.finder.sha256} if steps.find and models.finder is not None else {}
    repairing = [models.restorer] if filled else []
    if cleaned and models.clean_up is not None:
        repairing.append(models.clean_up)
    hashes |= {model.name: model.sha256 for model in repairing}
    most = repairing[0].name if repairing else "fade" if steps.fade else None
    return {"model": most, "model_sha256": hashes.get(most or ""), "models": hashes}


def tiles_of(models: Sequence[Models], tile: str | int) -> dict[int, int]:
    """The largest side of a tile by the id of each model, the same for one and its twins on other devices.

    Args:
        models: the same on every device.
        tile: `auto`, 0 (never), or that side in pixels.
    """
    twins = ([getattr(one, role) for one in models] for role in ("restorer", "clean_up", "finder"))
    sides: dict[int, int] = {}
    for same in twins:
        if same[0] is None:
            continue
        side = min(map(_auto_tile, same)) if str(tile) == "auto" else int(tile)
        sides |= {id(one): side for one in same}
    return sides


def _auto_tile(model: Restorer | Finder) -> int:
    from restore.restorers.base import Restorer
    from restore.tiling import auto_tile

    if not isinstance(model, Restorer):
        return 0  # a finder that is no network
    return auto_tile(
        1 << 20,
        1 << 20,
        device=model.device,
        overlap_px=model.needs.overlap_px,
        bytes_per_pixel=model.bytes_per_pixel,
    )


# One picture through a restorer: whole, in tiles, or in crops around its holes.


@torch.inference_mode()
def repair(
    restorer: Restorer,
    shown: FloatArray,
    weight: FloatArray | None,
    *,
    tile_px: int = 0,
    grain_key: int | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> FloatArray:
    """What the restorer makes of a picture. The result depends on nothing but the arguments.

    Args:
        restorer: of any kind.
        shown: H×W×3, sRGB, [0, 1].
        weight: H×W in [0, 1], where to repair; None everywhere (for restorers that need no mask).
        tile_px: largest side of a tile, 0 never tiles.
        grain_key: what is filled gets the grain of its surroundings; see `restore.fix.grain`. None: it does not.
        say: gets a line when something goes another way than planned, such as smaller tiles.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]. Where `weight` is above 0 it is fully repaired (blending is the
        caller's); elsewhere it is `shown`.

    Raises:
        RestoreError: exit code 1; out of memory, or the result holds values that are no numbers.
    """
    image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
    if weight is None:
        out = run(restorer, image, None, tile_px, on_event)
    else:
        hole = weight > 0
        mask = torch.from_numpy(hole[None].astype(np.float32))
        out = image.clone()
        for region in crops(hole, restorer.needs):
            part = (slice(None), region.rows, region.columns)
            own = region.own(hole[part[1:]])
            repaired = run(restorer, image[part], mask[part], tile_px, on_event)
            if grain_key is not None:
                repaired = with_grain(repaired, image[part], own, hole[part[1:]], region.origin, grain_key)
            out[part] = torch.where(torch.from_numpy(own), repaired, out[part])
    check_numbers(out)
    return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))


# Small pictures of one size through the network at once, where launches cost more than pixels: on GPUs.


def places(restorer: Restorer, height: int, width: int, tile_px: int) -> int:
    """How many pictures of a size the restorer takes at once; 1: each goes alone.

    It is a matter of the size alone, never of what else is there: kernels are chosen by shape, and round differently.
    """
    if 0 < tile_px < max(height, width) and restorer.needs.tileable:
        return 1
    return max(1, restorer.max_batch_pixels // (height * width))


def goes_whole(restorer: Restorer, weight: FloatArray | None) -> bool:
    """Whether a picture with these holes is shown to the restorer as a whole, and not by a crop for each hole."""
    if weight is None:
        return True
    return [region.size for region in crops(weight > 0, restorer.needs)] == [weight.shape]


@torch.inference_mode()
def repair_together(
    restorer: Restorer,
    shown: Sequence[FloatArray],
    weights: Sequence[FloatArray] | None,
    count: int,
    grain_keys: Sequence[int | None],
) -> list[FloatArray | None]:
    """What the restorer makes of pictures of one size; for each the same as in any other company.

    Args:
        restorer: of any kind.
        shown: 1 to `count` pictures, H×W×3, sRGB, [0, 1].
        weights: their holes, H×W in [0, 1]; None everywhere. Each is such that the picture `goes_whole`.
        grain_keys: of each; see `restore.fix.steps.repair`.
        count: of the places (see `places`); those that stay empty are filled with the last picture.

    Returns:
        As `restore.fix.steps.repair` of each; None for one whose result holds values that are no numbers.
    """
    taken = [min(place, len(shown) - 1) for place in range(count)]
    images = [torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)))[None] for one in shown]
    holes = None
    if weights is not None:
        holes = [torch.from_numpy((one > 0)[None, None].astype(np.float32)) for one in weights]
    prepared = [restorer.prepare(image, None if holes is None else holes[i]) for i, image in enumerate(images)]
    pictures, left = zip(*(prepared[i] for i in taken))
    out = restorer(torch.cat(pictures), None if holes is None else torch.cat(left), prepared=True)
    results: list[FloatArray | None] = []
    for number, image in enumerate(images):
        one = out[number : number + 1]
        if holes is not None:
            key = grain_keys[number]
            if key is not None:
                hole = holes[number][0, 0].numpy() > 0
                one = with_grain(one[0], image[0], hole, hole, (0, 0), key)[None]
            one = torch.where(holes[number] > 0, one, image)
        whole = bool(torch.isfinite(one).all())
        results.append(np.ascontiguousarray(one[0].numpy().transpose(1, 2, 0)) if whole else None)
    return results
