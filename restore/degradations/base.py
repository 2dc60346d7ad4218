"""The base of every degradation step: its settings, `sample` for the parameters, `apply` for the pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, ConfigDict, Field
from torch import Tensor

from restore.config import Settings
from restore.devices import to_device

Range = tuple[float, float]
Params = dict[str, Tensor]
Probability = Annotated[float, Field(ge=0, le=1)]

REFERENCE_SIDE = 512
"""Lengths in settings are pixels of an image whose smaller side has this length."""


def within(lowest: float, highest: float, *, whole: bool = False) -> BeforeValidator:
    """Pydantic validator of a range: `[low, high]`, or one number for both, between `lowest` and `highest`."""
    return BeforeValidator(_range_check(lowest, highest, whole))


def _range_check(lowest: float, highest: float, whole: bool) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        pair = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in pair):
            raise ValueError("must be a range [low, high], or one number")
        if not lowest <= pair[0] <= pair[1] <= highest:
            raise ValueError(f"must be a range [low, high] between {lowest:g} and {highest:g}")
        if whole and any(v != int(v) for v in pair):
            raise ValueError("must be whole numbers")
        return tuple(pair)

    return check


class Step(Settings):
    """One degradation and its parameter ranges. Subclasses set `name` and document the unit of each range.

    Attributes:
        probability: probability that the step applies to an image.
        weight: relative weight among the entries of a `one_of`; not allowed elsewhere.
        has_mask: the step covers pixels and returns a mask of them.
    """

    # Steps have no JSON schema, so their docstrings are not read.
    model_config = ConfigDict(use_attribute_docstrings=False)

    name: str
    probability: Probability = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0

    has_mask: ClassVar[bool] = False

    def files(self) -> list[str]:
        """The files that the step chooses from, in their order, relative to their folder."""
        return []

    @abstractmethod
    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """Draw parameters.

        Args:
            keys: int64[B] on the CPU.
            size: (height, width) of the images.

        Returns:
            Small CPU tensors by name; the first dimension of each is B.
        """

    @abstractmethod
    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor | None]:
        """Degrade images; each result depends on its own parameters only.

        Args:
            image: float32, B×3×H×W, sRGB, nominally [0, 1] (an earlier step may have left the range), any device.
            params: from `sample` for this size.

        Returns:
            The degraded images, same shape, dtype and device; and a mask B×1×H×W, 1 = covered, or None.
        """


class ScaledStep(Step):
    """A step whose lengths are for an image whose smaller side is 512 pixels, and scale with the image.

    Attributes:
        scale_with_image: false: lengths are pixels of the image itself (for crops in training).
    """

    RENAMED: ClassVar[dict[str, str]] = {"with_picture": "scale_with_image"}

    scale_with_image: bool = True

    def scale(self, size: tuple[int, int]) -> float:
        """The factor from lengths in settings to pixels of images of (height, width)."""
        return min(size) / REFERENCE_SIDE if self.scale_with_image else 1.0


def per_image(values: Tensor, image: Tensor) -> Tensor:
    """One number per image, [B], as B×1×1×1 in the dtype and on the device of `image`."""
    return to_device(values.to(torch.float32), image.device).to(image.dtype).reshape(-1, 1, 1, 1)
