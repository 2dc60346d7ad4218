"""Enlarging without a network: by fixed filters, as baselines, and as what a weaker enlargement is blended with."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.restorers.base import ModelRequirements, Restorer


def bicubic(distance: float) -> float:
    """Keys' cubic with a = -0.5, as Pillow and MATLAB's imresize have it; 0 from 2 pixels on."""
    x = abs(distance)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def lanczos(distance: float) -> float:
    """Lanczos' windowed sinc of three lobes, as Pillow has it; 0 from 3 pixels on."""
    x = abs(distance)
    if x >= 3:
        return 0.0
    return 1.0 if x == 0 else 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2


_FILTERS = {"bicubic": (bicubic, 2), "lanczos": (lanczos, 3)}


def interpolated(image: Tensor, scale: int, filter: str = "bicubic") -> Tensor:
    """Enlarge images by a filter, as Pillow's `resize` does, but for its rounding.

    Args:
        image: float32, B×C×H×W.
        scale: whole factor.
        filter: `bicubic` or `lanczos`.

    Returns:
        float32, B×C×(H·scale)×(W·scale); both filters overshoot at edges.
    """
    kernel, reach = _FILTERS[filter]
    # One row of weights for each of the `scale` pixels that an input pixel becomes.
    offsets = [(phase + 0.5) / scale - 0.5 for phase in range(scale)]
    rows = [[kernel(at - offset) for at in range(-reach, reach + 1)] for offset in offsets]
    weights = torch.tensor(rows, dtype=torch.float32, device=image.device)

    def along_last(x: Tensor) -> Tensor:
        lines = x.reshape(-1, 1, x.shape[-1])
        # Beyond the border there is nothing, and the other weights count for more.
        shares = F.conv1d(torch.ones_like(lines[:1]), weights[:, None], padding=reach)
        spread = F.conv1d(lines, weights[:, None], padding=reach) / shares
        return spread.transpose(1, 2).reshape(*x.shape[:-1], x.shape[-1] * scale)

    with torch.autocast(image.device.type, enabled=False):
        wide = along_last(image.float())
        return along_last(wide.transpose(-1, -2).contiguous()).transpose(-1, -2).contiguous()


class Interpolation(Restorer):
    """Enlarges by a fixed filter, on any device."""

    filter: ClassVar[str]

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return interpolated(image, self.requirements.scale, self.filter)


def _interpolation(filter: str, scale: int) -> type[Interpolation]:
    reach = _FILTERS[filter][1]
    values = {
        "__doc__": f"{filter}, {scale} times; see `Interpolation`.",
        "filter": filter,
        "name": f"{filter}-x{scale}",
        "purpose": f"enlarges {scale} times by {'Lanczos' if filter == 'lanczos' else filter} interpolation",
        "requirements": ModelRequirements(needs_mask=False, scale=scale, overlap_px=reach),
        "bytes_per_pixel": 256 * scale**2,
    }
    return type(f"{filter.capitalize()}X{scale}", (Interpolation,), values)


#: By name, as `restore.restorers.classical.CLASSICAL`.
INTERPOLATIONS: dict[str, type[Restorer]] = {
    f"{filter}-x{scale}": _interpolation(filter, scale) for filter in _FILTERS for scale in (2, 4)
}


class Softened(Restorer):
    """An enlargement that is blended with the bicubic one, in the same tiles.

    Args:
        inner: enlarges.
        strength: share of `inner`, in [0, 1].
    """

    def __init__(self, inner: Restorer, strength: float) -> None:
        self._inner, self._strength = inner, strength
        self.name, self.purpose, self.requirements = inner.name, inner.purpose, inner.requirements
        self.device, self.precision, self.engine = inner.device, inner.precision, inner.engine
        self.sha256, self.bytes_per_pixel = inner.sha256, inner.bytes_per_pixel

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `Restorer.prepare`."""
        return self._inner.prepare(image, mask)

    def in_precision(self, precision: str) -> Restorer:
        """See `Restorer.in_precision`."""
        return Softened(self._inner.in_precision(precision), self._strength)

    @property
    def network(self) -> nn.Module | None:
        """See `Restorer.network`."""
        return self._inner.network

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        plain = interpolated(image[:, :3], self.requirements.scale)
        if not self._strength:
            return plain
        own = self._inner._restore(image, mask).to(plain.device, torch.float32)
        return plain + self._strength * (own - plain)
