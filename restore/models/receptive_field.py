"""How far a network sees, measured rather than derived: what a tile must overlap its neighbour by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from restore.models.unet import UNet

QUARTER_STEP = 0.25 / 255


@torch.no_grad()
def measure_overlap_px(
    model: Callable[[Tensor, Tensor | None], Tensor],
    image: Tensor,
    mask: Tensor | None,
    tolerance: float = QUARTER_STEP,
) -> int:
    """The distance from a changed region beyond which the output stays the same.

    The left quarter of the picture (and of the mask) is replaced by its mirror image turned upside down; the output
    is compared column by column, both ways round.

    Args:
        model: an eval-mode generator, or a function that gives B×C×H×W for the same; called in float32.
        image: float32, B×3×H×W, [0, 1], real content, H and W multiples of what the model needs; W ≥ 256 to see far.
        mask: float32, B×1×H×W or None.
        tolerance: the largest difference that counts as none, by default a quarter of an 8-bit step.

    Returns:
        Pixels. Where the change is seen up to the far edge, the width of the picture: do not tile.
    """
    run: Callable[..., Tensor] = model
    if mask is not None and isinstance(model, UNet):
        # The filling is done on the whole picture before it is tiled.
        image, run = model.fill(image, mask), partial(model, filled=True)
    cut = image.shape[-1] // 4
    reach = 0
    for flip in (False, True):
        a = image.flip(-1) if flip else image
        m = mask.flip(-1) if flip and mask is not None else mask
        b = torch.cat([a[..., -cut:].flip(-2), a[..., cut:]], dim=-1)
        n = None if m is None else torch.cat([m[..., -cut:].flip(-2), m[..., cut:]], dim=-1)
        difference = (run(a, m) - run(b, n)).abs().float()[..., cut:].amax(dim=(0, 1, 2))
        seen = (difference > tolerance).nonzero()
        if len(seen):
            reach = max(reach, int(seen[-1]) + 1)
    return image.shape[-1] if reach >= image.shape[-1] - cut else reach
