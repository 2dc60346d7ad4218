"""What every degradation is: its settings, `sample` for the parameters, `apply` for the pixels."""

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
Share = Annotated[float, Field(ge=0, le=1)]


def within(lowest: float, highest: float, *, whole: bool = False) -> BeforeValidator:
    """Pydantic check of a range `[low, high]` (or one number for both) that must lie in lowest … highest."""
    return BeforeValidator(_range_check(lowest, highest, whole))


def _range_check(lowest: float, highest: float, whole: bool) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        pair = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in pair):
            raise ValueError("a range is [low, high], or one number")
        if not lowest <= pair[0] <= pair[1] <= highest:
            raise ValueError(f"a range must rise, and stay within {lowest:g} and {highest:g}")
        if whole and any(v != int(v) for v in pair):
            raise ValueError("only whole numbers make sense here")
        return tuple(pair)

    return check


class Step(Settings):
    """One degradation with its ranges. Subclasses name themselves in `name` and state units at each range.

    Attributes:
        probability: share of the pictures it happens to.
        weight: how often it is taken, relative to the others of its `one_of`; no meaning elsewhere.
        marks: it hides pixels, and returns a mask of them.
    """

    model_config = ConfigDict(use_attribute_docstrings=False)  # nobody asks for a step's schema

    name: str
    probability: Share = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0

    marks: ClassVar[bool] = False

    @abstractmethod
    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """Draw parameters.

        Args:
            keys: int64[B] on the CPU.
            size: (height, width) of the pictures.

        Returns:
            Small CPU tensors by name, the first dimension of each is B.
        """

    @abstractmethod
    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor | None]:
        """Damage pictures; each from its own parameters only.

        Args:
            image: float32, B×3×H×W, sRGB, nominally [0, 1] (a step before may have left it), any device.
            params: as `sample` returned them for this size.

        Returns:
            The damaged pictures, same shape, dtype and device; and a mask B×1×H×W, 1 = hidden, or None.
        """


# Lengths in settings are pixels of a picture whose smaller side is this.
REFERENCE_SIDE = 512


class ScaledStep(Step):
    """A step whose lengths are in pixels of a picture whose smaller side is 512, and scale with the picture.

    Attributes:
        with_picture: false: lengths are pixels of this picture as it is (for crops in training).
    """

    with_picture: bool = True

    def scale(self, size: tuple[int, int]) -> float:
        """What lengths are multiplied by for pictures of (height, width)."""
        return min(size) / REFERENCE_SIDE if self.with_picture else 1.0


def column(values: Tensor, image: Tensor) -> Tensor:
    """One number per picture as B×1×1×1, in the dtype and on the device of `image`."""
    return to_device(values.to(torch.float32), image.device).to(image.dtype).reshape(-1, 1, 1, 1)
