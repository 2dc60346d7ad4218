"""sRGB's transfer curve (IEC 61966-2-1), on tensors: between the values of files and linear light."""

from __future__ import annotations

import torch
from torch import Tensor

#: Where the curve changes from a line to a power, encoded and in linear light.
_KNEE, _LINEAR_KNEE = 0.04045, 0.0031308


def to_linear(image: Tensor) -> Tensor:
    """sRGB to linear light, of any shape; values below 0 continue the line."""
    power = ((image.clamp(min=_KNEE) + 0.055) / 1.055) ** 2.4
    return torch.where(image <= _KNEE, image / 12.92, power)


def from_linear(image: Tensor) -> Tensor:
    """Linear light to sRGB, of any shape; values below 0 continue the line."""
    # The clamp also keeps the gradient of the power finite where the line is taken.
    power = 1.055 * image.clamp(min=_LINEAR_KNEE) ** (1 / 2.4) - 0.055
    return torch.where(image <= _LINEAR_KNEE, image * 12.92, power)
