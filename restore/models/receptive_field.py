"""Measures the effective receptive field of a network, which determines the overlap of tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

#: Differences below a quarter of an 8-bit step vanish when the image is rounded. The theoretical receptive field of a
#: deep network is several times as wide as what is visible at this bound, and tiles would cost accordingly.
QUARTER_STEP = 0.25 / 255


@torch.no_grad()
def measure_reach_px(
    f: Callable[[Tensor, Tensor | None], Tensor],
    image: Tensor,
    mask: Tensor | None,
    tolerance: float = QUARTER_STEP,
) -> int:
    """The distance from a changed region beyond which the output stays the same: the effective receptive field.

    The left quarter of the image (and of the mask) is replaced by its own content upside down; the two outputs are
    compared column by column. The same is done with the right quarter, because strides make a network asymmetric.

    Args:
        f: (image, mask) -> B×C×H×W, such as a network in eval mode; called in float32.
        image: float32, B×3×H×W, [0, 1], real content, H and W multiples of what `f` needs; W ≥ 256 to see far.
        mask: float32, B×1×H×W or None.
        tolerance: the largest difference that counts as none.

    Returns:
        Pixels. If the change reaches the far edge, the width of the image: the network must not be tiled.
    """
    cut = image.shape[-1] // 4
    reach = 0
    for mirrored in (False, True):
        before = image.flip(-1) if mirrored else image
        mask_before = mask.flip(-1) if mirrored and mask is not None else mask
        after = torch.cat([before[..., -cut:].flip(-2), before[..., cut:]], dim=-1)
        mask_after = None
        if mask_before is not None:
            mask_after = torch.cat([mask_before[..., -cut:].flip(-2), mask_before[..., cut:]], dim=-1)
        difference = (f(before, mask_before) - f(after, mask_after)).abs().float()[..., cut:].amax(dim=(0, 1, 2))
        visible = (difference > tolerance).nonzero()
        if len(visible):
            reach = max(reach, int(visible[-1]) + 1)
    return image.shape[-1] if reach >= image.shape[-1] - cut else reach


def octaves(height: int, width: int) -> Tensor:
    """1×3×H×W in [0, 1]: noise of every scale, which is closer to photographs than white noise."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(max(height >> k, 1), max(width >> k, 1)) for k in range(7)]
    layers = [F.interpolate(torch.rand(1, 3, *s, generator=generator), (height, width), mode="bilinear") for s in sizes]
    image = sum(layer * 2**k for k, layer in enumerate(layers)) / 2 ** len(layers)
    scaled: Tensor = (image - image.min()) / (image.max() - image.min())
    return scaled.float()
