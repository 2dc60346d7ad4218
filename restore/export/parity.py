"""Whether an exported network computes what the network computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.engines.onnx_graph import input_names
from restore.errors import RestoreError
from restore.models.base import RestorationNetwork

#: The largest difference that passes: of images in units of their range, and of a detector's logits.
IMAGE_TOLERANCE, LOGIT_TOLERANCE = 1e-4, 2e-3

#: (batch, height, width) of the images that are compared, in units of about 24 pixels; the first is the smallest.
_SHAPES = ((1, 0, 0), (2, 3, 1), (1, 1, 5), (3, 1, 1), (1, 5, 3))
_UNIT_PX = 24


@dataclass(frozen=True)
class Parity:
    """The differences between an exported network and PyTorch's, in units of the image's range (or logits).

    Attributes:
        largest, mean: over all pixels of all images.
        shapes: batch, height and width of the images.
        unit: what the differences are of.
    """

    largest: float
    mean: float
    shapes: tuple[tuple[int, int, int], ...]
    unit: str

    def __str__(self) -> str:
        sizes = ", ".join(f"{batch}×{height}×{width}" for batch, height, width in self.shapes)
        return f"differs from PyTorch by {self.largest:.1e} at most, {self.mean:.1e} in the mean ({self.unit}; {sizes})"


def check_parity(
    model: RestorationNetwork,
    channels: int,
    run: Callable[[Sequence[Tensor]], Tensor],
    kind: str,
    *,
    fills: bool = False,
) -> Parity:
    """Compare a network with its export on images of five shapes.

    Args:
        model: in float32 and eval mode, on the CPU.
        channels: of the image, without conditions.
        run: the exported network: its inputs to its output.
        kind: its format, for the error.
        fills: it takes the mask, and fills holes itself.

    Raises:
        RestoreError: exit code 1; they differ, in shape or by more than the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    side, names = model.smallest_side, input_names(model)
    # An odd count of the multiple: an even one hides a network that halves once more.
    unit = side * (max(_UNIT_PX // side, 1) | 1)
    largest = total = pixels = 0.0
    shapes = []
    for batch, rows, columns in _SHAPES:
        height, width = rows * unit or side, columns * unit or side
        image = torch.rand(batch, channels + model.conditions, height, width, generator=generator)
        mask = (torch.rand(batch, 1, height, width, generator=generator) > 0.7).float()
        inputs = (image, mask * 16 - 8 if model.joins_levels else mask)[: 2 if fills else len(names)]
        with torch.inference_mode():
            expected = model(*inputs, filled=not fills)
        found = run(inputs)
        if found.shape != expected.shape:
            sizes = " and ".join("×".join(map(str, one.shape)) for one in (found, expected))
            raise RestoreError(f"the {kind} file gives another shape than PyTorch ({sizes})", exit_code=1)
        difference = (found.detach().float() - expected).abs().nan_to_num(nan=torch.inf)
        largest = max(largest, float(difference.max()))
        total, pixels = total + float(difference.double().sum()), pixels + difference.numel()
        shapes.append((batch, height, width))
    of_image = getattr(model, "gives_image", True)
    tolerance, words = (IMAGE_TOLERANCE, "of 1") if of_image else (LOGIT_TOLERANCE, "logits")
    if not largest <= tolerance:
        raise RestoreError(
            f"the {kind} file differs from PyTorch by {largest:.1e}, more than {tolerance:g}; nothing is written",
            exit_code=1,
        )
    return Parity(largest, total / pixels, tuple(shapes), words)
