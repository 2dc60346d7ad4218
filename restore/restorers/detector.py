"""A network that marks damage: scratches, dust, hairs, cracks, tears, folds, stains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.checkpoints import DetectorSettings, find_weights, load_generator, read_description
from restore.devices import pick_device, pick_precision
from restore.errors import RestoreError
from restore.models.self_ensemble import mean_over_flips
from restore.restorers.base import check_numbers, run
from restore.restorers.network import NetworkRestorer, needs_of, sha256_of
from restore.tiling import auto_tile

FloatArray = npt.NDArray[np.float32]

LOOKED_AT_PX = 512
"""Pictures are looked at in half size as long as their smaller side is then at least this. On photographs set aside,
with `scratch` drawn at their size and the weights before these: 1500 pixels across, F1 is 0.90 by the full size alone
and 0.93 with the half; 3000 pixels across with some grain it is 0.34 by the full size alone, 0.81 with the half, 0.94
with the quarter, too."""

IN_THE_MIRROR_PX = 1 << 21
"""The smallest of these is looked at in the mirror, too, unless it has more pixels than this."""


class Detector(NetworkRestorer):
    """Run like a restorer, `detector(image) -> probability`: B×3×H×W -> B×1×H×W in [0, 1], and no picture.

    Args:
        finds: how probabilities become a mask.
        args, options: as for `NetworkRestorer`.

    Attributes:
        threshold: from this probability on a pixel is damage.
        margin_px: how far around it the mask reaches.
    """

    def __init__(self, finds: DetectorSettings, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.threshold, self.margin_px = finds.threshold, finds.margin_px

    def detect(
        self,
        shown: FloatArray,
        *,
        tile_px: int | None = None,
        on_event: Callable[[str], None] = lambda line: None,
    ) -> FloatArray:
        """Where a picture is damaged.

        Large pictures are looked at in half and quarter size, too, as long as the smaller side has `LOOKED_AT_PX`: what
        is wide in pixels is thin there, as in the pictures that the network was trained on. What is found on any scale
        is marked. The smallest is looked at in the mirror, too (`mean_over_flips`), where that costs little.

        Args:
            shown: H×W×3, sRGB, [0, 1].
            tile_px: largest side of a tile, 0 never tiles; None: as memory allows.
            say: gets a line when something goes another way than planned, such as smaller tiles.

        Returns:
            H×W of 0 and 1, 1 = damaged.

        Raises:
            RestoreError: exit code 1; out of memory, or the network gives values that are no numbers.
        """
        height, width = shown.shape[:2]
        large = min(height, width) // 2 >= LOOKED_AT_PX
        marked = self._found(shown, tile_px, on_event, flips=not large and height * width <= IN_THE_MIRROR_PX)
        if large:
            half = cv2.resize(shown, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.float32)
            found = self.detect(half, tile_px=tile_px, on_event=on_event)
            marked = np.maximum(marked, cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST))
        return marked

    def _found(
        self, shown: FloatArray, tile_px: int | None, on_event: Callable[[str], None], *, flips: bool
    ) -> FloatArray:
        """The same on one scale."""
        image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
        if tile_px is None:
            height, width = shown.shape[:2]
            overlap_px = self.needs.overlap_px
            tile_px = auto_tile(
                height, width, device=self.device, overlap_px=overlap_px, bytes_per_pixel=self.bytes_per_pixel
            )
        sides = tile_px

        def look(picture: Tensor) -> Tensor:
            return run(self, picture, None, sides, on_event)

        found = mean_over_flips(look, image) if flips else look(image)
        check_numbers(found)
        return self.mask_of(found[0].numpy())

    def mask_of(self, probability: FloatArray) -> FloatArray:
        """H×W probabilities -> H×W of 0 and 1: what reaches the threshold, and all within `margin_px` of it."""
        damaged = probability >= self.threshold
        if self.margin_px and damaged.any():
            distance = cv2.distanceTransform((~damaged).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            damaged = distance <= self.margin_px
        return damaged.astype(np.float32)

    def adjusted(self, *, threshold: float | None = None, margin_px: int | None = None) -> Detector:
        """The same network with another threshold or margin; None leaves it."""
        other = copy.copy(self)
        other.threshold = self.threshold if threshold is None else threshold
        other.margin_px = self.margin_px if margin_px is None else margin_px
        return other

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return super()._restore(image, None).sigmoid()

    def in_precision(self, precision: str) -> Detector:
        """See `NetworkRestorer.in_precision`."""
        finds = DetectorSettings(threshold=self.threshold, margin_px=self.margin_px)
        return Detector(finds, self.name, self.model, self.needs, self.purpose, self.device, precision, self.sha256)


def open_detector(name_or_path: str = "detector", *, device: str = "auto", precision: str = "auto") -> Detector:
    """Open a detector: a shipped one, or a weights file that was trained with `task: detection`.

    Args:
        name_or_path: a name of `restore models`, or the path of a `.safetensors`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        RestoreError: no such model, device or precision, a file that cannot be read, or one that holds no detector.
    """
    place = pick_device(device)
    exactness = pick_precision(precision, place)
    path = find_weights(name_or_path)
    if read_description(path).finds is None:
        raise RestoreError(
            f"{name_or_path} repairs pictures, and finds no damage",
            hint="a detector is trained by `restore train` with task=detection",
        )
    model, description = load_generator(path)
    assert description.finds is not None
    return Detector(
        description.finds,
        name_or_path,
        model,
        needs_of(description, model),
        description.purpose,
        place,
        exactness,
        sha256_of(path),
    )
