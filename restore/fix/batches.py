"""Batches of small images of one size, for GPUs, where kernel launches cost more than pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from restore.fix.pages import MemoryPage, to_tensor
from restore.restorers.base import Restorer

FloatArray = npt.NDArray[np.float32]


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
