"""Blur: Gaussian (out of focus, soft lens) and motion (camera shake); and sharpening, which undoes some of it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.base import Params, Range, Step, per_image, within
from restore.devices import to_device
from restore.hashed_random import uniform_range


class Blur(Step):
    """Gaussian blur with a random width per image; edge pixels are repeated outside the image.

    Attributes:
        sigma: standard deviation in pixels.
    """

    name: Literal["blur"] = "blur"
    sigma: Annotated[Range, within(0, 20)] = (0.3, 2.0)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`sigma` in pixels."""
        return {"sigma": uniform_range(keys, 0, self.sigma)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Blur; see `Step.apply`."""
        taps = gaussian_taps(params["sigma"], self.sigma[1])
        radius = taps.shape[1] // 2
        return filtered(F.pad(image, (radius,) * 4, mode="replicate"), taps), None


class Sharpen(Step):
    """Unsharp masking, as scanners and editors apply it: the difference from a blurred copy is added.

    Attributes:
        sigma: standard deviation of the blur in pixels.
        amount: factor of the difference.
    """

    name: Literal["sharpen"] = "sharpen"
    sigma: Annotated[Range, within(0.1, 20)] = (0.6, 1.5)
    amount: Annotated[Range, within(0, 5)] = (0.3, 1.2)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`sigma` in pixels, `amount`."""
        return {"sigma": uniform_range(keys, 0, self.sigma), "amount": uniform_range(keys, 1, self.amount)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Sharpen; the result is clipped to [0, 1]. See `Step.apply`."""
        taps = gaussian_taps(params["sigma"], self.sigma[1])
        radius = taps.shape[1] // 2
        blurred = filtered(F.pad(image, (radius,) * 4, mode="replicate"), taps)
        return (image + per_image(params["amount"], image) * (image - blurred)).clamp(0, 1), None


class MotionBlur(Step):
    """Blur along a straight line: the mean of the image shifted along the line; edges as in `Blur`.

    Attributes:
        length: length of the line in pixels; up to 1 the blur is hardly visible.
        angle: angle of the line in degrees, counter-clockwise from horizontal.
    """

    name: Literal["motion-blur"] = "motion-blur"
    length: Annotated[Range, within(0, 63)] = (3, 9)
    angle: Annotated[Range, within(0, 180)] = (0, 180)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`length` in pixels, `angle` in radians."""
        return {
            "length": uniform_range(keys, 0, self.length),
            "angle": uniform_range(keys, 1, self.angle) * (math.pi / 180),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Blur; see `Step.apply`."""
        kernels = line_kernels(params["length"], params["angle"], self.length[1])
        radius = kernels.shape[-1] // 2
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        # One call per image, because the summation order of a grouped convolution may depend on the batch size.
        blurred = [
            F.conv2d(one[:, None], to_device(kernel, image.device)[None, None])[:, 0]
            for one, kernel in zip(padded, kernels)
        ]
        return torch.stack(blurred), None


def gaussian_taps(sigma: Tensor, largest: float) -> Tensor:
    """Normalized Gaussian weights for each σ, up to a distance of 3 × `largest`.

    Args:
        sigma: [B], in pixels, on the CPU; 0 gives a single 1 in the middle.
        largest: the largest possible σ, which sets the number of taps.

    Returns:
        float32, B×(2·radius+1).
    """
    radius = math.ceil(3 * largest)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (offsets / sigma.to(torch.float64).clamp(min=1e-3)[:, None]) ** 2)
    return (taps / taps.sum(1, keepdim=True)).to(torch.float32)


def filtered(padded: Tensor, taps: Tensor) -> Tensor:
    """Separable filter with different taps for every image, as sums of shifted copies.

    Unlike a convolution, it is elementwise, so the result for an image cannot depend on the rest of the batch. For the
    short filters used here it is as fast.

    Args:
        padded: float32, B×C×(H+2r)×(W+2r).
        taps: B×(2r+1).

    Returns:
        float32, B×C×H×W.
    """
    count = taps.shape[1]
    height, width = padded.shape[-2] - count + 1, padded.shape[-1] - count + 1
    weights = to_device(taps, padded.device).reshape(taps.shape[0], count, 1, 1, 1)
    rows = padded[..., :height, :] * weights[:, 0]
    for i in range(1, count):
        rows.addcmul_(padded[..., i : i + height, :], weights[:, i])
    out = rows[..., :width] * weights[:, 0]
    for i in range(1, count):
        out.addcmul_(rows[..., i : i + width], weights[:, i])
    return out


def line_kernels(length: Tensor, angle: Tensor, longest: float) -> Tensor:
    """Kernels of linear motion: points of a line, spread bilinearly over the pixels. Each kernel sums to 1.

    Args:
        length: [B] in pixels.
        angle: [B] in radians.
        longest: the largest possible length, which sets the size of the kernels.

    Returns:
        float32, B×k×k with odd k, on the CPU.
    """
    radius = math.ceil(longest / 2)
    steps = torch.linspace(-0.5, 0.5, 8 * radius + 1, dtype=torch.float64)
    along = steps * length.to(torch.float64)[:, None]
    x, y = along * angle.cos()[:, None], -along * angle.sin()[:, None]
    grid = torch.arange(-radius, radius + 1, dtype=torch.float64)
    near_x = (1 - (x[:, :, None] - grid).abs()).clamp(min=0)
    near_y = (1 - (y[:, :, None] - grid).abs()).clamp(min=0)
    kernels = torch.einsum("bsy,bsx->byx", near_y, near_x)
    return (kernels / kernels.sum((1, 2), keepdim=True)).to(torch.float32)
