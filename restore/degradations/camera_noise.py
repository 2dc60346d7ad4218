"""Noise of a camera's sensor as a developed photograph shows it: correlated, colored, stronger in mid-tones."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.base import Params, Range, Step, per_image, within
from restore.degradations.blur import filtered, gaussian_taps
from restore.degradations.painted import log_uniform
from restore.devices import to_device
from restore.hashed_random import field_normal, fold_in, integers, normal, uniform_range
from restore.linear_light import from_linear, to_linear

#: Read noise by shot noise, both as variances: log(read) is normal around slope · log(shot) + intercept, with a
#: standard deviation of `_READ_SPREAD`. From the code of Brooks et al. 2019 (`random_noise_levels` in `unprocess.py`).
_READ_SLOPE, _READ_INTERCEPT, _READ_SPREAD = 2.18, 1.20, 0.26

#: The gains of white balance for red and blue; green has 1. From the same code (`random_gains`).
_RED_GAIN, _BLUE_GAIN = (1.9, 2.4), (1.5, 1.9)

#: Weights of a bilinear demosaic: of a pixel's own site, of the four beside it, of the four diagonal ones.
_RED_BLUE_WEIGHTS, _GREEN_WEIGHTS = (1.0, 0.5, 0.25), (1.0, 0.25, 0.0)


class CameraNoise(Step):
    """Poissonian-Gaussian noise on the Bayer mosaic of a sensor, developed like the photograph.

    Noise is drawn in raw values and developed: bilinear demosaic, noise reduction, white balance, color matrix, sRGB's
    curve. Only the noise passes through these, so the photograph keeps its detail. Data sets of real noise are alike:
    their clean images are means of many shots, developed in the same way. The model and its figures are from Brooks et
    al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019. Unlike there, the color matrix is not a camera's
    own: it adds saturation. As there, a Gaussian replaces the Poisson part.

    Attributes:
        shot: variance of the shot noise of raw values at white, where white is 1; log-uniform. The default is the range
            of Brooks et al.
        smoothing: standard deviation in pixels of the Gaussian that noise reduction applies.
        saturation: how much the color matrix adds; 0: none.
    """

    name: Literal["camera-noise"] = "camera-noise"
    shot: Annotated[Range, within(1e-6, 0.1)] = (1e-4, 0.012)
    smoothing: Annotated[Range, within(0, 4)] = (0.0, 1.0)
    saturation: Annotated[Range, within(0, 2)] = (0.1, 0.8)

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`key` of the noise, variances `shot` and `read`, `smoothing` in pixels, `saturation`, `gains` [B, 3], `phase`
        [B] of the mosaic: 0 to 3."""
        shot = log_uniform(keys, 1, self.shot, 1)[:, 0]
        spread = _READ_SPREAD * normal(keys, 2, 1)[:, 0]
        gains = [uniform_range(keys, 5, _RED_GAIN), torch.ones_like(shot), uniform_range(keys, 6, _BLUE_GAIN)]
        return {
            "key": fold_in(keys, 0),
            "shot": shot,
            "read": (_READ_SLOPE * shot.log() + _READ_INTERCEPT + spread).exp(),
            "smoothing": uniform_range(keys, 3, self.smoothing),
            "saturation": uniform_range(keys, 4, self.saturation),
            "gains": torch.stack(gains, 1),
            "phase": integers(keys, 7, 0, 3, 1)[:, 0],
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Add the noise; the result is clipped to [0, 1]. See `Step.apply`."""
        taps = gaussian_taps(params["smoothing"], self.smoothing[1])
        radius = taps.shape[1] // 2
        margin = radius + 1
        gains = to_device(params["gains"].to(torch.float32), image.device)[..., None, None]
        saturation = 1 + per_image(params["saturation"], image)
        linear = to_linear(image.clamp(0, 1))
        raw = _saturated(F.pad(linear, (margin,) * 4, mode="replicate"), 1 / saturation).clamp(min=0) / gains
        mosaic = _mosaic(params["phase"], raw)
        # Red, green and blue sites are never the same, so one field of noise serves all three.
        field = field_normal(params["key"], 0, (1, *raw.shape[-2:]), image.device)
        variance = per_image(params["shot"], image) * raw + per_image(params["read"], image)
        noise = filtered(_demosaic(mosaic * field * variance.sqrt()), taps)
        return from_linear(linear + _saturated(noise * gains, saturation)).clamp_(0, 1), None


def _saturated(image: Tensor, factor: Tensor) -> Tensor:
    """Multiply the distance of each channel from the mean of the channels by `factor`."""
    gray = image.mean(1, keepdim=True)
    return gray + factor * (image - gray)


def _mosaic(phase: Tensor, image: Tensor) -> Tensor:
    """The sites of the Bayer mosaic that see red, green and blue: B×3×H×W of 0 and 1, in the size of `image`."""
    height, width = image.shape[-2:]
    number = to_device(phase.to(torch.int64), image.device).reshape(-1, 1, 1)
    odd_row = (torch.arange(height, device=image.device)[:, None] + number // 2) % 2 == 1
    odd_column = (torch.arange(width, device=image.device) + number % 2) % 2 == 1
    return torch.stack([~odd_row & ~odd_column, odd_row != odd_column, odd_row & odd_column], 1).to(image.dtype)


def _demosaic(mosaic: Tensor) -> Tensor:
    """Bilinear interpolation of the sites of each color: B×3×(H+2)×(W+2) -> B×3×H×W."""
    height, width = mosaic.shape[-2] - 2, mosaic.shape[-1] - 2

    def shifted(y: int, x: int) -> Tensor:
        return mosaic[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    beside = shifted(-1, 0) + shifted(1, 0) + shifted(0, -1) + shifted(0, 1)
    diagonal = shifted(-1, -1) + shifted(-1, 1) + shifted(1, -1) + shifted(1, 1)
    own, near, far = (
        torch.tensor([red_blue, green, red_blue], dtype=mosaic.dtype, device=mosaic.device)[:, None, None]
        for red_blue, green in zip(_RED_BLUE_WEIGHTS, _GREEN_WEIGHTS)
    )
    return own * shifted(0, 0) + near * beside + far * diagonal
