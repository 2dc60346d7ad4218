"""Which channels the training images have, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def as_rgb(image: Tensor) -> Tensor:
    """B×3×H×W as it is; B×1×H×W (gray) with three equal channels."""
    return image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Layout:
    """The channels of an image as it is stored: mask, condition, damaged image, clean image.

    Attributes:
        image: channels of the damaged and of the clean image: 3, or 1 for gray.
        condition: channels of the condition images together; 0: none.
        mask: there is a mask, of one channel.
        pair: there is a damaged image. Otherwise, clean images are degraded.
    """

    image: int = 3
    condition: int = 0
    mask: bool = False
    pair: bool = False

    def split(self, stored: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
        """The parts of a batch B×C×H×W: mask, condition, damaged, clean. Without a pair, damaged is clean.

        Raises:
            ValueError: it has another number of channels.
        """
        sizes = [int(self.mask), self.condition, self.image * self.pair, self.image]
        if stored.shape[1] != sum(sizes):
            raise ValueError(f"{sum(sizes)} channels expected, got {stored.shape[1]}")
        mask, condition, damaged, clean = stored.split(sizes, dim=1)
        return (
            mask if self.mask else None,
            condition if self.condition else None,
            damaged if self.pair else clean,
            clean,
        )
