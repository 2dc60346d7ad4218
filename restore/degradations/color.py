"""Fading and color casts, by one smooth curve per channel, and conversion to gray."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from restore.degradations.base import Params, Range, Step, within
from restore.devices import to_device
from restore.hashed_random import uniform, uniform_range


class Fade(Step):
    """Loss of contrast, saturation and color balance as dyes fade: black lifts, white turns yellow.

    y = black + (white − black)·x^gamma in each channel, after x is desaturated by `saturation`. Each curve is strictly
    increasing, so it can be inverted.

    Attributes:
        black: new value of black (the fog of the paper).
        white: new value of white.
        gamma: exponent; above 1 it darkens the midtones.
        saturation: factor of the saturation.
        cast: maximum difference of a channel from the others at white; at black it is half as large, in gamma twice.
        warmth: hue of the cast, from −1 (blue) to 1 (yellow-red).
    """

    name: Literal["fade"] = "fade"
    black: Annotated[Range, within(0, 0.5)] = (0.02, 0.25)
    white: Annotated[Range, within(0.5, 1)] = (0.75, 1.0)
    gamma: Annotated[Range, within(0.3, 3)] = (0.75, 1.3)
    saturation: Annotated[Range, within(0, 1)] = (0.3, 0.9)
    cast: Annotated[Range, within(0, 0.3)] = (0.0, 0.1)
    warmth: Annotated[Range, within(-1, 1)] = (0.0, 1.0)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`black`, `white`, `gamma` per channel, [B, 3] each; `saturation` [B]."""
        cast = uniform_range(keys, 4, self.cast)[:, None]
        warmth = uniform_range(keys, 5, self.warmth)[:, None]
        direction = warmth.new_tensor([1.0, 0.2, -1.0]) * warmth + 0.4 * (2 * uniform(keys, 6, 3) - 1)
        shift = cast * direction.clamp(-1, 1)
        return {
            "black": (uniform_range(keys, 0, self.black)[:, None] + 0.5 * shift).clamp(0, 0.6),
            "white": (uniform_range(keys, 1, self.white)[:, None] + shift.clamp(max=0.0)).clamp(0.4, 1),
            "gamma": (uniform_range(keys, 2, self.gamma)[:, None] - 2 * shift).clamp(0.25, 3.5),
            "saturation": uniform_range(keys, 3, self.saturation),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Fade; the input is clipped to [0, 1] first. See `Step.apply`."""
        black, white, gamma = (
            to_device(params[name].to(image.dtype), image.device)[:, :, None, None]
            for name in ("black", "white", "gamma")
        )
        saturation = to_device(params["saturation"].to(image.dtype), image.device).reshape(-1, 1, 1, 1)
        image = image.clamp(0, 1)
        # ITU-R BT.601 luma, as in JPEG.
        gray = 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]
        image = gray + saturation * (image - gray)
        return black + (white - black) * image.clamp(0, 1) ** gamma, None


LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG and most converters


class Grayscale(Step):
    """Replace all three channels by a weighted mean of red, green and blue.

    Attributes:
        weight_jitter: 0: the weights of ITU-R BT.601; 1: random weights for each image; between: a mixture of both.
            Films and filters differ in their response to colors (early film was blind to red).
    """

    RENAMED: ClassVar[dict[str, str]] = {"lean": "weight_jitter"}

    name: Literal["grayscale"] = "grayscale"
    weight_jitter: Annotated[Range, within(0, 1)] = (0.0, 0.0)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`weights` [B, 3]; each row sums to 1."""
        jitter = uniform_range(keys, 0, self.weight_jitter)[:, None]
        # Logarithms of uniform numbers, normalized to sum 1, are uniform over all weightings (a flat Dirichlet).
        drawn = -uniform(keys, 1, 3).clamp(min=1e-12).log()
        drawn = drawn / drawn.sum(1, keepdim=True)
        return {"weights": (1 - jitter) * torch.tensor(LUMA, dtype=drawn.dtype) + jitter * drawn}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Remove the colors; see `Step.apply`."""
        weights = to_device(params["weights"].to(torch.float32), image.device).to(image.dtype)[:, :, None, None]
        return (image * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous(), None


class PaperTexture(Step):
    """The structure of the paper, or of a printing screen, in a scan: a lattice of small hills lit from one side.

    Silk and honeycomb papers have a hexagonal lattice, linen and halftone screens a square one.

    Attributes:
        period: distance of the hills in pixels.
        amplitude: change of brightness, in [0, 1].
    """

    name: Literal["paper-texture"] = "paper-texture"
    period: Annotated[Range, within(1.5, 100)] = (2.5, 9)
    amplitude: Annotated[Range, within(0, 0.5)] = (0.008, 0.05)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`waves` [B, 3, 3]: cycles per pixel in x and y, phase in radians; `amplitude` [B, 3] of each wave."""
        square = torch.tensor([0.0, math.pi / 2, 0.0])
        hexagonal = torch.tensor([0.0, math.pi / 3, 2 * math.pi / 3])
        is_square = uniform(keys, 1, 1) < 0.5
        angle = math.pi * uniform(keys, 0, 1) + torch.where(is_square, square, hexagonal)
        frequency = 1 / uniform_range(keys, 2, self.period)[:, None]
        phase = 2 * math.pi * uniform(keys, 3, 3)
        # Equally strong textures: of two waves, each is stronger.
        share = torch.where(is_square, torch.tensor([0.61, 0.61, 0.0]), torch.tensor([0.5, 0.5, 0.5]))
        strength = uniform_range(keys, 4, self.amplitude)[:, None] * share
        return {
            "waves": torch.stack([frequency * angle.cos(), frequency * angle.sin(), phase], 2),
            "amplitude": strength,
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Add the texture; the result is clipped to [0, 1]. See `Step.apply`."""
        height, width = image.shape[-2:]
        y = torch.arange(height, device=image.device, dtype=torch.float32)[:, None]
        x = torch.arange(width, device=image.device, dtype=torch.float32)
        waves, strength = (
            to_device(params[name].to(torch.float32), image.device)[..., None, None] for name in ("waves", "amplitude")
        )
        texture = strength * torch.cos(2 * math.pi * (waves[:, :, 0] * x + waves[:, :, 1] * y) + waves[:, :, 2])
        # Dark parts reflect less, so their structure is fainter.
        light = 0.25 + 0.75 * image.mean(1, keepdim=True)
        return (image + texture.sum(1, keepdim=True) * light).clamp(0, 1), None
