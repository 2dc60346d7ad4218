"""A detector that looks at an image from coarse to fine: one U-Net on every level of an image pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.base import RestorationNetwork
from restore.models.receptive_field import measure_reach_px
from restore.models.unet import Norm, UNet

#: The logit of the level above the coarsest one: no damage.
NOTHING = -8.0


class PyramidUNet(UNet):
    """A U-Net that detects damage on the levels of an image pyramid, from coarse to fine, with the same weights.

    A crack is 2 pixels wide in one scan and 20 in another. On some level of a pyramid, every mark is a few pixels wide,
    and on the coarsest, the network sees the whole print. A level gets the image and the logits p of the level above,
    enlarged. It outputs its own logits l and a weight v of the level above. The result is log(exp(l) + exp(p + v)): the
    union of both. With a low v, a fine level vetoes what a coarse one found, or narrows its outline.

    The weights of a `UNet` detector with one more input channel (zeros) and one more output channel (zeros) are a
    valid start: the union of its results over the levels.

    Args:
        widths, blocks, dilations, norm: see `UNet`.
        coarsest_px: smaller side below which the image is not halved again. 48 suits crops of 192 pixels and more.
        mask, out_channels: as a detector has them: False and 1.
    """

    can_detect = True
    has_features = False  # it gives no image
    joins_levels = True

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96, 192),
        blocks: Sequence[int] = (1, 1, 2, 4),
        dilations: Sequence[int] = (1, 2),
        norm: Norm = "batch",
        coarsest_px: int = 48,
        mask: bool = False,
        out_channels: int = 1,
    ) -> None:
        if mask or out_channels != 1:
            raise ValueError("it detects damage: it takes no mask and has one output channel")
        if coarsest_px < 1:
            raise ValueError("coarsest_px must be at least 1")
        super().__init__(widths, blocks, dilations, norm, mask=True, out_channels=2)
        self.takes_mask, self.coarsest_px = False, coarsest_px
        self.head.weight.data[:, 3:].zero_()
        self.tail.weight.data[1:].zero_()
        self.tail.get_parameter("bias").data[1:].zero_()

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`; it sees gray photographs in three channels."""
        return RestorationNetwork.args_for(channels, conditions)

    def train(self, mode: bool = True) -> PyramidUNet:
        """Set the training mode; batch normalization keeps its statistics.

        The levels have different statistics. Those of one batch would fit only the level that it came from, and their
        running means none.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """The logits of the damage on one level, or of the whole image.

        Args:
            image: B×3×H×W, sRGB, [0, 1], H and W divide by `multiple`.
            mask: the logits of the level above, enlarged to B×1×H×W: only this level is computed. None: all levels.
            filled: has no effect; there are no holes.

        Returns:
            float32, B×1×H×W.
        """
        if mask is None:
            mask = self._above(image)
        logits = self._convolve(torch.cat([image - 0.5, mask.sigmoid().to(image.dtype)], 1)).float()
        return torch.logaddexp(logits[:, :1], mask.float() + logits[:, 1:])

    def measure_overlap_px(
        self, image: Tensor, mask: Tensor | None, shown: Callable[[Tensor], Tensor] = lambda output: output
    ) -> int:
        """The effective receptive field of one level, of probabilities: levels are cut into tiles one by one."""
        above = torch.full_like(image[:, :1], NOTHING)
        # Differences between logits mean nothing if the probability is near 0 or 1.
        return measure_reach_px(lambda image, _: self(image, above).sigmoid(), image, None)

    def _above(self, image: Tensor) -> Tensor:
        """The enlarged logits of the level above, of all levels above it."""
        height, width = image.shape[-2:]
        if min(height, width) // 2 < self.coarsest_px:
            return torch.full_like(image[:, :1], NOTHING, dtype=torch.float32)
        half = F.interpolate(image, (height // 2, width // 2), mode="area")
        below, right = (-side % self.multiple for side in half.shape[-2:])
        # As `ModelRequirements.pad` does.
        mode = "reflect" if below < half.shape[-2] and right < half.shape[-1] else "replicate"
        padded, padded_above = (F.pad(x, (0, right, 0, below), mode=mode) for x in (half, self._above(half)))
        found = self(padded, padded_above)[..., : half.shape[-2], : half.shape[-1]]
        return F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
