"""What every generator answers for itself, so that nothing else asks which network it holds; guesses for holes."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.receptive_field import measure_reach_px

#: Jacobi sweeps per scale. The coarser scales have carried colors across the hole already, so a few are enough.
SWEEPS = 6

#: Pixels that are smoothed at once on a CPU, so that a band of rows stays in the processor's cache during all sweeps.
_BAND_PX = 1 << 18


class RestorationNetwork(nn.Module):
    """A generator: an image, and for some a mask, to an image of the same size.

    Attributes:
        multiple: height and width must divide by it.
        minimum: smallest height and width, in pixels.
        takes_mask: it is trained with the mask, and fills holes.
        tileable: an output pixel depends only on input pixels near it, so tiles give what the whole image gives.
        can_detect: of the class; it can be built to output the logits of a mask (`out_channels=1`).
    """

    multiple: int = 1
    minimum: int = 1
    takes_mask: bool = False
    tileable: bool = True
    can_detect: ClassVar[bool] = False

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: B×3×H×W, sRGB, nominally [0, 1]; H and W divide by `multiple`. Values under the mask are ignored.
            mask: B×1×H×W, 1 = repair; None: there are no holes.
            filled: `image` comes from `fill`.

        Returns:
            B×3×H×W, not clamped; or logits of a mask, B×1×H×W.
        """
        raise NotImplementedError

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """The image that the network starts from: its holes hold a first guess, here mid-gray; see also
        `harmonic_fill`.

        A guess may depend on the whole image, so it is made before the image is cut into tiles.

        Args:
            image: B×3×H×W, [0, 1].
            mask: B×1×H×W; above 0 is a hole.

        Returns:
            B×3×H×W.
        """
        return torch.where(mask > 0, 0.5, image)

    def init_for_training(self) -> None:
        """Draw the weights that training starts from; by default the constructor's stay."""

    @property
    def smallest_side(self) -> int:
        """The smallest side, in pixels, that needs no padding."""
        return -(-self.minimum // self.multiple) * self.multiple

    def measure_overlap_px(self, image: Tensor, mask: Tensor | None) -> int:
        """Measure the overlap that neighboring tiles need: the effective receptive field (`measure_reach_px`).

        Args:
            image: 1×3×H×W, [0, 1], real content.
            mask: 1×1×H×W or None. Its holes are filled first, as they are before an image is cut into tiles.
        """
        if mask is not None:
            image = self.fill(image, mask)
        return measure_reach_px(partial(self, filled=True), image, mask)


def harmonic_fill(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes by harmonic interpolation (Laplace's equation), from coarse to fine.

    Averages of the pixels outside the mask on ever coarser grids give the start (the "pull" of Gortler et al. 1996,
    "The Lumigraph", section 3.4). On the way back, every grid is smoothed by a few Jacobi sweeps wherever less than a
    quarter of a cell lies outside the mask. It costs a few per cent of one convolution of a network, whatever the size
    of the hole.

    Args:
        image: float32, B×C×H×W; values under the mask are ignored (they must be finite).
        mask: B×1×H×W; above 0 is a hole.

    Returns:
        B×C×H×W: `image` outside the mask, smooth inside holes; 0.5 where an image is all hole.
    """
    outside = (mask <= 0).to(image.dtype)
    colors, weights = [image * outside], [outside]
    while max(weights[-1].shape[-2:]) > 1:
        colors.append(F.avg_pool2d(colors[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    guess = torch.zeros_like(colors[-1])
    for color, weight in zip(reversed(colors), reversed(weights)):
        average = color / weight.clamp(min=1e-8)
        if weight.shape[-2:] == (1, 1):
            guess = torch.where(weight > 0, average, 0.5)
            continue
        # A cell that is mostly outside the mask keeps its own average, which is closer than that of its neighbors.
        free = weight < 0.25
        guess = F.interpolate(guess, size=color.shape[-2:], mode="bilinear", align_corners=False)
        guess = _smooth(torch.where(free, guess, average), average, free)
    return torch.where(mask <= 0, image, guess)


def _smooth(guess: Tensor, average: Tensor, free: Tensor) -> Tensor:
    """Jacobi sweeps: every free cell becomes the mean of its four neighbors, the others keep their average.

    Beyond the border a cell is its own neighbor.
    """
    before, after = (F.pad(guess, (1, 1, 1, 1), mode="replicate") for _ in range(2))
    height, width = guess.shape[-2:]
    band = max(1, _BAND_PX // (width * guess.shape[0])) if guess.device.type == "cpu" else height
    for _ in range(SWEEPS):
        for top in range(0, height, band):
            rows = slice(top, min(top + band, height))
            around = before[..., rows.start : rows.stop + 2, :]
            mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1]
            mean += around[..., 1:-1, :-2]
            mean += around[..., 1:-1, 2:]
            mean /= 4
            inner = after[..., rows.start + 1 : rows.stop + 1, 1:-1]
            inner.copy_(torch.where(free[..., rows, :], mean, average[..., rows, :]))
        # The padding follows the sweep: the border's replicas become those of the new values.
        for edge, nearest in ((0, 1), (-1, -2)):
            after[..., edge, :] = after[..., nearest, :]
            after[..., edge] = after[..., nearest]
        before, after = after, before
    return before[..., 1:-1, 1:-1]
