"""Noise: Gaussian, signal-dependent, correlated; and rounding to 8 bits."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, Step, per_image, within
from restore.degradations.blur import filtered, gaussian_taps
from restore.devices import to_device
from restore.hashed_random import bernoulli, field_normal, fold_in, uniform_range


class Noise(Step):
    """Gaussian noise, optionally signal-dependent and spatially correlated.

    The variance at a pixel of value x is sigma² + shot²·x, the camera noise model of Foi et al., "Practical
    Poissonian-Gaussian noise modeling", IEEE TIP 17 (2008), section II, with a = shot², b = sigma². As in the paper, a
    Gaussian of the same variance approximates the Poisson part. Demosaicing, in-camera smoothing and enlarging
    correlate neighbours, so the noise is smoothed by a Gaussian and scaled back to its standard deviation.

    Attributes:
        sigma: standard deviation at black, in 8-bit levels (25 is σ = 25/255).
        shot: additional standard deviation at white, in 8-bit levels; 0: none.
        correlation: standard deviation in pixels of the Gaussian that correlates neighbours; 0: white noise.
        gray: fraction of images with the same noise in all three channels (film grain).
        clip: clip the result to [0, 1]. The AWGN tests of the literature do not.
    """

    name: Literal["noise"] = "noise"
    sigma: Annotated[Range, within(0, 255)] = (0, 50)
    shot: Annotated[Range, within(0, 255)] = (0, 0)
    correlation: Annotated[Range, within(0, 4)] = (0, 0)
    gray: Probability = 0.0
    clip: bool = True

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`key` of the noise, `sigma` and `shot` in [0, 1] units, `correlation` in pixels, `gray` as bool."""
        return {
            "key": fold_in(keys, 0),
            "sigma": uniform_range(keys, 1, self.sigma) / 255,
            "shot": uniform_range(keys, 2, self.shot) / 255,
            "correlation": uniform_range(keys, 3, self.correlation),
            "gray": bernoulli(keys, 4, self.gray),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Add the noise; see `Step.apply`."""
        noise = self._field(image, params)
        if self.shot[1] > 0:
            sigma, shot = per_image(params["sigma"], image), per_image(params["shot"], image)
            noise = noise * (sigma * sigma + shot * shot * image.clamp(0, 1)).sqrt()
        else:
            noise = noise * per_image(params["sigma"], image)
        damaged = image + noise
        return damaged.clamp_(0, 1) if self.clip else damaged, None

    def _field(self, image: Tensor, params: Params) -> Tensor:
        height, width = image.shape[-2:]
        # The radius depends on the settings, not on the batch, so the noise of an image is independent of the others.
        taps = gaussian_taps(params["correlation"], self.correlation[1])
        radius = taps.shape[1] // 2
        shape = (3, height + 2 * radius, width + 2 * radius)
        field = field_normal(params["key"], 0, shape, image.device)
        if bool(params["gray"].any()):
            field = torch.where(to_device(params["gray"], image.device).reshape(-1, 1, 1, 1), field[:, :1], field)
        if radius:
            # Independent samples of variance 1, weighted by w, sum to variance Σw²; each pass is scaled back.
            field = filtered(field, (taps / taps.square().sum(1, keepdim=True).sqrt()))
        return field


class Quantize(Step):
    """Clip to [0, 1] and round to 8 bits, as an ordinary image file does."""

    name: Literal["quantize"] = "quantize"

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """No parameters."""
        return {}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Round; see `Step.apply`."""
        return image.clamp(0, 1).mul_(255).round_().div_(255), None
