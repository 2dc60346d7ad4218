"""A picture through a restorer, in tiles where it may be, and in fp32 where half precision is not enough."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.restorers.base import Restorer
from restore.tiling import run_tiled


def run(restorer: Restorer, image: Tensor, hole: Tensor | None, tile_px: int, say: Callable[[str], None]) -> Tensor:
    """C×H×W (and 1×H×W) through the restorer, tiled where it may be; tiles without a hole pass by."""
    needs = restorer.needs
    whole, left = restorer.prepare(image[None], None if hole is None else hole[None])
    return run_tiled(
        tile_by_tile(restorer, say),
        (whole[0], None if left is None else left[0]),
        tile_px=tile_px if needs.tileable else 0,
        overlap_px=needs.overlap_px,
        scale=needs.scale,
        multiple=needs.multiple,
        on_smaller=told_of_smaller_tiles(say),
    )


def tile_by_tile(restorer: Restorer, say: Callable[[str], None]) -> Callable[..., Tensor]:
    """(prepared tile, mask or None) -> its repair; in fp32 where half precision gives values that are no numbers."""

    def restored(tile: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None and not bool(mask.any()):
            return tile
        out = restorer(tile, mask, prepared=True)
        if restorer.precision != "fp32" and not bool(torch.isfinite(out).all()):
            say(f"{restorer.precision} gave values that are no numbers; that part was repeated in fp32")
            out = restorer.in_precision("fp32")(tile, mask, prepared=True)
        return out

    return restored


def told_of_smaller_tiles(say: Callable[[str], None]) -> Callable[[int], None]:
    """What `run_tiled` calls where memory did not suffice."""
    return lambda tile: say(f"memory did not suffice; went on with tiles of {tile} pixels")


def check_numbers(repaired: Tensor) -> None:
    """That a repair holds numbers.

    Raises:
        RestoreError: exit code 1; it does not.
    """
    if not bool(torch.isfinite(repaired).all()):
        raise RestoreError("the model gave values that are no numbers", hint="try --precision fp32", exit_code=1)
