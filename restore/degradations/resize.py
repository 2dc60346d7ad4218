"""Downscaling and upscaling, as in an image that was stored small and then enlarged."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from restore.degradations.base import Params, Range, Step, within
from restore.hashed_random import integers, uniform_range

Mode = Literal["bicubic", "bilinear", "area"]


class Downscale(Step):
    """Scale down (with antialiasing) and back up to the same size.

    Attributes:
        factor: downscaling factor; the small sides are rounded to at least 1 pixel.
        down: interpolation modes for scaling down; one is drawn per image.
        up: interpolation modes for scaling up; one is drawn per image.
    """

    name: Literal["downscale"] = "downscale"
    factor: Annotated[Range, within(1, 16)] = (2, 4)
    down: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("bicubic",)
    up: Annotated[tuple[Literal["bicubic", "bilinear"], ...], Field(min_length=1)] = ("bicubic",)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`factor`; `down` and `up` as indices into the settings."""
        return {
            "factor": uniform_range(keys, 0, self.factor),
            "down": integers(keys, 1, 0, len(self.down) - 1),
            "up": integers(keys, 2, 0, len(self.up) - 1),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Scale down and up; bicubic overshoot is clipped to [0, 1]. See `Step.apply`."""
        size = image.shape[-2:]
        out = []
        # Images are processed one at a time, because their small sizes differ.
        for one, factor, down, up in zip(
            image.split(1), params["factor"].tolist(), params["down"].tolist(), params["up"].tolist()
        ):
            small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
            reduced = scaled(one, small, self.down[down]).clamp_(0, 1)
            out.append(scaled(reduced, (size[0], size[1]), self.up[up]))
        return torch.cat(out).clamp_(0, 1), None


def downscaled(image: Tensor, factor: int) -> Tensor:
    """Images made smaller as Pillow and MATLAB's imresize do it: antialiased bicubic filtering, a = -0.5.

    Args:
        image: float32, B×C×H×W, [0, 1]; H and W divide by `factor`.
        factor: how many times.

    Returns:
        float32, B×C×(H/factor)×(W/factor), rounded to multiples of 1/255. Pillow also rounds between its two passes, so
        some values differ from its own by one level.
    """
    height, width = image.shape[-2:]
    # One by one on the CPU, where the last bits of an image depend on its position in the batch.
    parts = image.split(1) if image.device.type == "cpu" else [image]
    small = [scaled(part, (height // factor, width // factor), "bicubic") for part in parts]
    return round_to_8_bits(torch.cat(small) if len(small) > 1 else small[0])


def round_to_8_bits(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255; float32."""
    return image.clamp(0, 1).mul(255).round().div(255)


def scaled(image: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    """Resize images, with antialiasing when downscaling; returns a new tensor, B×C×size."""
    if mode == "area":
        return F.interpolate(image, size, mode="area")
    return F.interpolate(image, size, mode=mode, align_corners=False, antialias=True)
