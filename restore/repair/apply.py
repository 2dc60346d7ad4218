"""One picture through a restorer: whole, in tiles, or in crops around its holes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from restore.repair.grain import with_grain
from restore.restorers.base import Restorer
from restore.restorers.regions import crops
from restore.restorers.tiled import check_numbers, run

FloatArray = npt.NDArray[np.float32]


@torch.inference_mode()
def repair(
    restorer: Restorer,
    shown: FloatArray,
    weight: FloatArray | None,
    *,
    tile_px: int = 0,
    grain_key: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FloatArray:
    """What the restorer makes of a picture. The result depends on nothing but the arguments.

    Args:
        restorer: of any kind.
        shown: H×W×3, sRGB, [0, 1].
        weight: H×W in [0, 1], where to repair; None everywhere (for restorers that need no mask).
        tile_px: largest side of a tile, 0 never tiles.
        grain_key: what is filled gets the grain of its surroundings; see `restore.repair.grain`. None: it does not.
        say: gets a line when something goes another way than planned, such as smaller tiles.

    Returns:
        (H·scale)×(W·scale)×3, sRGB, [0, 1]. Where `weight` is above 0 it is fully repaired (blending is the
        caller's); elsewhere it is `shown`.

    Raises:
        RestoreError: exit code 1; out of memory, or the result holds values that are no numbers.
    """
    image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))
    if weight is None:
        out = run(restorer, image, None, tile_px, say)
    else:
        hole = weight > 0
        mask = torch.from_numpy(hole[None].astype(np.float32))
        out = image.clone()
        for region in crops(hole, restorer.needs):
            part = (slice(None), region.rows, region.columns)
            own = region.own(hole[part[1:]])
            repaired = run(restorer, image[part], mask[part], tile_px, say)
            if grain_key is not None:
                repaired = with_grain(repaired, image[part], own, hole[part[1:]], region.origin, grain_key)
            out[part] = torch.where(torch.from_numpy(own), repaired, out[part])
    check_numbers(out)
    return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))
