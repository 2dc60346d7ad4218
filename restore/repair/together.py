"""Small pictures of one size through the network at once, where launches cost more than pixels: on GPUs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from restore.repair.grain import with_grain
from restore.restorers.base import Restorer
from restore.restorers.regions import crops

FloatArray = npt.NDArray[np.float32]


def places(restorer: Restorer, height: int, width: int, tile_px: int) -> int:
    """How many pictures of a size the restorer takes at once; 1: each goes alone.

    It is a matter of the size alone, never of what else is there: kernels are chosen by shape, and round differently.
    """
    if 0 < tile_px < max(height, width) and restorer.needs.tileable:
        return 1
    return max(1, restorer.group_px // (height * width))


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
        grain_keys: of each; see `restore.repair.apply.repair`.
        count: of the places (see `places`); those that stay empty are filled with the last picture.

    Returns:
        As `restore.repair.apply.repair` of each; None for one whose result holds values that are no numbers.
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
