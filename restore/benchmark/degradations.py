"""The degradations of `restore bench`: those of the literature by name, and those of `configs/damage`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from restore.config import config_names
from restore.degradations import key, load_degradation
from restore.degradations.jpeg import libjpeg
from restore.degradations.resize import downscaled, round_to_8_bits, scaled
from restore.errors import RestoreError, did_you_mean

#: Degradations of the literature. `restore.cli.options` repeats the names because it must not import this module.
LITERATURE = (
    "none", "awgn-15", "awgn-25", "awgn-50", "jpeg-10", "jpeg-20", "jpeg-30", "jpeg-40", "bicubic-x2", "bicubic-x4",
)  # fmt: skip


@dataclass(frozen=True)
class BenchSample:
    """One degraded image.

    Attributes:
        image: the model's input, float32, 1×3×h×w, sRGB. Noise is not clipped, so values may leave [0, 1].
        mask: float32, 1×1×h×w, 1 = hole; None for degradations without holes.
        clean: float32, 1×3×H×W, multiples of 1/255.
        degraded: the degraded image at the size of `clean`, in [0, 1], which is scored as the input.
        small: for degradations that downscale s times: 1×3×(H/s)×(W/s), the input of models that upscale.
    """

    image: Tensor
    mask: Tensor | None
    clean: Tensor
    degraded: Tensor
    small: Tensor | None = None


@dataclass(frozen=True)
class BenchDegradation:
    """A degradation of clean images.

    Attributes:
        label: its name in tables.
        description: what it does, as a sentence part.
        make: (clean float32 1×3×H×W, name of the image without suffix) -> degraded sample.
        has_mask: it makes holes, with masks.
        only_holes: it makes only holes.
        scale: downscaling factor; 1 for none.
    """

    label: str
    description: str
    make: Callable[[Tensor, str], BenchSample]
    has_mask: bool = False
    only_holes: bool = False
    scale: int = 1

    def degrade(self, clean: np.ndarray, name: str) -> BenchSample:
        """Degrade one image.

        Args:
            clean: uint8, H×W×3.
            name: relative POSIX path without the suffix; random degradations derive their random numbers from it.

        Raises:
            RestoreError: exit code 1; the image is too small to be downscaled.
        """
        height, width = (side // self.scale * self.scale for side in clean.shape[:2])
        if not height or not width:
            raise RestoreError(f"too small to be downscaled {self.scale} times", where=name, exit_code=1)
        image = torch.tensor(clean[:height, :width]).permute(2, 0, 1)[None].float() / 255
        return self.make(image, name)


def find_degradations(names: list[str], seed: int) -> list[BenchDegradation]:
    """Look up degradations by name, each once, in the order of the names.

    Args:
        names: of `LITERATURE` or `configs/damage`, or YAML files.
        seed: of all random numbers. Noise of the literature uses it for every image (0 in papers); other degradations
            combine it with the name of the image.

    Raises:
        RestoreError: exit code 2; no name, an unknown name, or two degradations with the same label.
    """
    if not names:
        raise RestoreError("no damage was named", hint=f"give --damage NAME; known: {', '.join(_known())}")
    degradations: dict[str, BenchDegradation] = {}
    for name in dict.fromkeys(names):
        degradation = _from_literature(name, seed) if name in LITERATURE else _from_config(name, seed)
        if degradation.label in degradations:
            raise RestoreError(f"two damages are called {degradation.label!r}", where=name, hint="rename the file")
        degradations[degradation.label] = degradation
    return list(degradations.values())


def _known() -> list[str]:
    return [*LITERATURE, *config_names("damage")]


def _from_literature(name: str, seed: int) -> BenchDegradation:
    kind, _, number = name.rpartition("-")
    if name == "none":
        return BenchDegradation(name, "the clean image itself", lambda clean, _: _sample(clean, clean))
    if kind == "awgn":
        description = (
            f"white Gaussian noise, sigma {number} of 255, not clipped, by numpy's RandomState({seed}) for every image"
        )
        return BenchDegradation(name, description, lambda clean, _: _sample(clean, awgn(clean, float(number), seed)))
    if kind == "jpeg":
        description = f"JPEG compression by libjpeg, quality {number}, 4:2:0"
        return BenchDegradation(
            name, description, lambda clean, _: _sample(clean, libjpeg(clean[0], int(number), subsampled=True)[None])
        )
    scale = int(number.removeprefix("x"))
    description = (
        f"downscaled {scale} times by bicubic interpolation with antialiasing (a = -0.5, as MATLAB's imresize and "
        "Pillow; computed by torch) and rounded to 8 bits, after cropping to a multiple. Models that do not upscale "
        "receive the image upscaled again by bicubic interpolation"
    )
    return BenchDegradation(name, description, lambda clean, _: bicubic(clean, scale), scale=scale)


def _from_config(name: str, seed: int) -> BenchDegradation:
    try:
        damage = load_degradation(name)
    except RestoreError as error:
        if error.where is not None:
            raise
        raise RestoreError(f"no damage is called {name!r}", hint=did_you_mean(name, _known())) from error

    def make(clean: Tensor, image: str) -> BenchSample:
        degraded, mask = damage(clean, torch.tensor([key(seed, image)], dtype=torch.int64), [image])
        return replace(_sample(clean, degraded), mask=(mask > 0).float() if damage.has_mask else None)

    description = f"`restore degrade --damage {damage.name} --seed {seed}`, random numbers from the image's name"
    return BenchDegradation(damage.name, description, make, damage.has_mask, damage.only_holes)


def _sample(clean: Tensor, degraded: Tensor) -> BenchSample:
    return BenchSample(degraded, None, clean, round_to_8_bits(degraded))


def awgn(clean: Tensor, sigma: float, seed: int) -> Tensor:
    """Add white Gaussian noise as the test scripts of papers do: H×W×3 numbers from a fresh `RandomState` per image.

    Args:
        clean: float32, 1×3×H×W.
        sigma: standard deviation on the scale of 255.
        seed: 0 in the literature.

    Returns:
        float32, neither clipped nor rounded.
    """
    height, width = clean.shape[-2:]
    noise = np.random.RandomState(seed).normal(0, sigma / 255, (height, width, 3))
    return clean + torch.from_numpy(noise).float().permute(2, 0, 1)[None]


def bicubic(clean: Tensor, scale: int) -> BenchSample:
    """Downscale, and upscale again for models that do not upscale themselves; both are rounded to 8 bits."""
    height, width = clean.shape[-2:]
    small = downscaled(clean, scale)
    upscaled = round_to_8_bits(scaled(small, (height, width), "bicubic"))
    return BenchSample(upscaled, None, clean, upscaled, small)
