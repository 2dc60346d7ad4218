"""The colours are gone: one value per pixel, as film without colour recorded it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from restore.degrade.device import to_device
from restore.degrade.random import between, uniform
from restore.degrade.step import Params, Range, Step, within

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and most converters have it


class Grayscale(Step):
    """A weighted mean of red, green and blue, the same in all three channels.

    Attributes:
        lean: from 0, the weights of ITU-R BT.601, to 1, weights drawn anew for each picture: films and filters saw
            colours each in their own way (early film was blind to red).
    """

    name: Literal["grayscale"] = "grayscale"
    lean: Annotated[Range, within(0, 1)] = (0.0, 0.0)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`weights` [B, 3], each row of sum 1."""
        lean = between(keys, 0, self.lean)[:, None]
        # Logarithms of uniform numbers, scaled to sum 1, are spread evenly over all weightings (a flat Dirichlet).
        drawn = -uniform(keys, 1, 3).clamp(min=1e-12).log()
        drawn = drawn / drawn.sum(1, keepdim=True)
        return {"weights": (1 - lean) * torch.tensor(LUMA, dtype=drawn.dtype) + lean * drawn}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Take the colours away; see `Step.apply`."""
        weights = to_device(params["weights"].to(torch.float32), image.device).to(image.dtype)[:, :, None, None]
        return (image * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous(), None
