"""What every generator answers for itself, so that nothing else asks which network it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from restore.models.receptive_field import measure_reach_px


class RestorationNetwork(nn.Module):
    """A generator: an image, and for some a mask, to an image of the same size, or `scale` times as large.

    Attributes:
        conditions: channels of condition images, which follow those of the image in its input.
        multiple: height and width must divide by it.
        minimum: smallest height and width, in pixels.
        scale: output side / input side.
        enlarges: of the class; its `scale` is above 1, and it learns from clean images and smaller ones made of them.
        takes_mask: it is trained with the mask, and fills holes.
        sees_mask: the mask is an input channel (otherwise the network only has its holes filled).
        prefill: holes are first filled smoothly (`restore.models.unet.harmonic_fill`), not with 0.5.
        tileable: an output pixel depends only on input pixels near it, so tiles give what the whole image gives.
        can_detect: of the class; it can be built to output the logits of a mask (`out_channels=1`).
        draws: of the class; it makes images from noise, and restores none (see `restore.models.dcgan.SampleNetwork`).
        has_features: of the class; it has `features`.
        can_change: of the class; how it computes can be changed after it is opened, so no engine may compile it.
        coarsest_px: a detector also searches an image at half its size if the smaller side is then at least this.
        joins_levels: it detects on the levels of an image pyramid, and takes the logits of the level above in place of
            a mask (see `PyramidUNet`).
    """

    conditions: int = 0
    multiple: int = 1
    minimum: int = 1
    scale: int = 1
    takes_mask: bool = False
    prefill: bool = False
    tileable: bool = True
    can_detect: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    enlarges: ClassVar[bool] = False
    has_features: ClassVar[bool] = False
    can_change: ClassVar[bool] = False
    joins_levels: ClassVar[bool] = False
    coarsest_px: int = 192

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: B×3×H×W (gray: B×1×H×W), sRGB, nominally [0, 1], and behind it the `conditions`; H and W divide by
                `multiple`. Values of the image under the mask are ignored.
            mask: B×1×H×W, 1 = repair; None: there are no holes.
            filled: `image` comes from `fill`.

        Returns:
            The shape of the image without conditions, `scale` times as high and as wide, not clamped; or logits of a
            mask, B×1×H×W.
        """
        raise NotImplementedError

    def features(self, image: Tensor) -> list[Tensor]:
        """What the encoder finds in images, B×C×H×W in [0, 1], from fine to coarse, for contrastive learning.

        Returns:
            The pixels, and activations of some layers, B×channels×h×w each.
        """
        raise NotImplementedError

    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """The image that the network starts from: its holes hold a first guess, here mid-gray.

        A guess may depend on the whole image, so it is made before the image is cut into tiles.

        Args:
            image: B×3×H×W, [0, 1]; gray: B×1×H×W; with the `conditions`, which stay as they are.
            mask: B×1×H×W; above 0 is a hole.

        Returns:
            The same shape.
        """
        if not self.conditions:
            return self._fill(image, mask)
        colors, condition = image[:, : -self.conditions], image[:, -self.conditions :]
        return torch.cat([self._fill(colors, mask), condition], 1)

    def _fill(self, image: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask > 0, 0.5, image)

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """Arguments of the constructor that follow from the training images; none for color images alone.

        Args:
            channels: of the images: 3, or 1 for gray.
            conditions: channels of condition images.

        Raises:
            ValueError: there is no such network.
        """
        if channels != 3 or conditions:
            raise ValueError("it takes color images alone")
        return {}

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network of this kind with other arguments, as a start for this one, where that makes sense."""
        return dict(state)

    def init_for_training(self) -> None:
        """Draw the weights that training starts from; by default the constructor's stay."""

    @property
    def sees_mask(self) -> bool:
        """See `RestorationNetwork`."""
        return self.takes_mask

    @property
    def smallest_side(self) -> int:
        """The smallest side, in pixels, that needs no padding."""
        return -(-self.minimum // self.multiple) * self.multiple

    def measure_overlap_px(
        self, image: Tensor, mask: Tensor | None, shown: Callable[[Tensor], Tensor] = lambda output: output
    ) -> int:
        """Measure the overlap that neighboring tiles need: the effective receptive field (`measure_reach_px`).

        Args:
            image: 1×3×H×W, [0, 1], real content; gray: 1×1×H×W.
            mask: 1×1×H×W or None. Its holes are filled first, as they are before an image is cut into tiles.
            shown: the output as a user sees it: differences are measured there.
        """
        if mask is not None:
            image = self.fill(image, mask)
        return measure_reach_px(lambda image, mask: shown(self(image, mask, filled=True)), image, mask)
