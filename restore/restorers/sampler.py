"""Images from noise: opens networks that draw them, and draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.checkpoints import find_weights, is_described, load_generator
from restore.devices import pick_device
from restore.errors import RestoreError, did_you_mean
from restore.hashed_random import keys, normal
from restore.models.dcgan import SampleNetwork

SAMPLE_NOISE = 2104  # stream of the hash
_BATCH = 64


@dataclass(frozen=True)
class SampleOptions:
    """What is drawn.

    Attributes:
        count: images.
        seed: of the noise. Image number n is the same for each count.
        truncation: draw each number of the noise within ± this: more typical images, less different. None: all.
        interpolate: N images from one drawn point to another, then from the next two; 0: none.
        label: a class; None: each in turn.
    """

    count: int = 64
    seed: int = 0
    truncation: float | None = None
    interpolate: int = 0
    label: str | None = None


class Sampler:
    """A network that draws images, in float32, and the names of its classes."""

    def __init__(self, network: SampleNetwork, classes: list[str], device: torch.device) -> None:
        self.network, self.classes, self.device = network.to(device), classes, device

    @torch.no_grad()
    def draw(self, options: SampleOptions) -> list[np.ndarray]:
        """Draw images, uint8, H×W×3 each; gray: H×W×1.

        Raises:
            RestoreError: there is no such class.
        """
        noise = latents(options, self.network.latents)
        labels = self._labels(options)
        images = []
        for at in range(0, options.count, _BATCH):
            some = None if labels is None else labels[at : at + _BATCH].to(self.device)
            drawn = self.network(noise[at : at + _BATCH].to(self.device), some)
            images += list((drawn.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return images

    def _labels(self, options: SampleOptions) -> Tensor | None:
        if options.label is not None and options.label not in self.classes:
            hint = did_you_mean(options.label, self.classes) if self.classes else "leave it out: it has no classes"
            raise RestoreError(f"there is no class {options.label!r}", where="--label", hint=hint)
        if not self.classes:
            return None
        if options.label is not None:
            return torch.full((options.count,), self.classes.index(options.label))
        turn = torch.arange(options.count) // (options.interpolate or 1)
        return turn % len(self.classes)


def latents(options: SampleOptions, size: int) -> Tensor:
    """The noise of each image, count×size.

    Interpolated points lie on the great circle between two drawn ones (White 2016, "Sampling generative networks",
    section 2): straight between them, noise is shorter than what the network was trained on.
    """
    steps = options.interpolate
    points = -(-options.count // steps) * 2 if steps else options.count
    drawn = normal(keys(options.seed, last=range(points)), SAMPLE_NOISE, size, options.truncation)
    if not steps:
        return drawn
    first, last = drawn[::2, None], drawn[1::2, None]
    share = torch.linspace(0, 1, steps)[:, None]
    cosine = torch.cosine_similarity(first, last, dim=-1)[..., None].clamp(-1 + 1e-6, 1 - 1e-6)
    angle = cosine.arccos()
    between = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
    return between.flatten(0, 1)[: options.count]


def sheet(images: list[np.ndarray], columns: int = 0, gap_px: int = 2) -> np.ndarray:
    """Images of one size in rows, on white; with 0 columns, about as many as there are rows."""
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    grid = np.full((rows * (height + gap_px), columns * (width + gap_px), channels), 255, np.uint8)
    for at, image in enumerate(images):
        top, left = at // columns * (height + gap_px), at % columns * (width + gap_px)
        grid[top : top + height, left : left + width] = image
    return grid


def open_sampler(name_or_path: str, device: str = "auto") -> Sampler:
    """Open a network that draws images: a weights file or the folder of a run.

    Raises:
        RestoreError: there is no such file or device, or it is of another kind.
    """
    path: Path = find_weights(name_or_path)
    network, description = load_generator(path) if is_described(path) else (None, None)
    if not isinstance(network, SampleNetwork) or description is None:
        hint = "`restore train dcgan` trains one that does"
        raise RestoreError("this network draws no images from noise", where=path, hint=hint)
    return Sampler(network, description.draws or [], pick_device(device))
