"""Missing margins: what has to be made up so that a picture becomes larger than it was."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.degrade.device import to_device
from restore.degrade.holes import BlankHoles
from restore.degrade.random import between, integers, uniform
from restore.degrade.step import Params, Range, Share, within

_FAR = 1e6


class Border(BlankHoles):
    """Margins of one to four sides are missing, to be continued from what is inside (outpainting).

    Attributes:
        sides: how many are missing.
        depth: of a margin, in pixels.
        frame: share of the pictures whose margins are all equally deep.
        tilt: how far a margin's inner edge may lean, in degrees: a sheet that lay askew and was turned upright.
        with_picture: depths are for a picture whose smaller side is 512 pixels, and scale with it. Without, they are
            pixels of this picture, which is a crop at the picture's edge.
    """

    name: Literal["border"] = "border"
    sides: Annotated[Range, within(1, 4, whole=True)] = (1, 4)
    depth: Annotated[Range, within(1, 400)] = (16, 140)
    frame: Share = 0.3
    tilt: Annotated[float, Field(ge=0, le=20)] = 3

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`planes`: float64[B, 4, 3] as (a, b, c): hidden is where a·x + b·y > c in pixels; c is far off for none."""
        return {"planes": self._redrawn(keys, size, self._planes)}

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Cut the margins off; see `Step.apply`."""
        y = torch.arange(image.shape[-2], device=image.device)
        x = torch.arange(image.shape[-1], device=image.device)
        return self._painted(image, _beyond(to_device(params["planes"].to(torch.float32), image.device), y, x))

    def _planes(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        order = uniform(keys, 0, 4).argsort(1).argsort(1)
        gone = order < integers(keys, 1, int(self.sides[0]), int(self.sides[1]), 1)
        depth = between(keys, 2, (math.log(self.depth[0]), math.log(self.depth[1])), 4).exp() * self.scale(size)
        depth = torch.where(uniform(keys, 3, 1) < self.frame, depth[:, :1], depth)
        # half of the pictures lie straight
        lean = math.radians(self.tilt) * (2 * uniform(keys, 4, 4) - 1) * (uniform(keys, 5, 1) < 0.5)
        # left, top, right, bottom: outward normals, and the middles of the edges, around which the margins lean
        outward = torch.tensor([math.pi, -math.pi / 2, 0, math.pi / 2], dtype=torch.float64) + lean
        a, b = outward.cos(), outward.sin()
        middle_x = torch.tensor([0, width / 2, width, width / 2], dtype=torch.float64) - 0.5
        middle_y = torch.tensor([height / 2, 0, height / 2, height], dtype=torch.float64) - 0.5
        at = a * middle_x + b * middle_y - depth
        return torch.stack([a, b, torch.where(gone, at, _FAR)], 2)

    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        y, x = (torch.arange(0, side, max(1, side // 64)) for side in size)
        return _beyond(table, y, x).mean((1, 2, 3), dtype=torch.float64)


def _beyond(planes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Where any of the planes is passed, at the given rows and columns: float32 B×1×len(y)×len(x)."""
    a, b, c = planes[..., None, None].unbind(2)
    return (a * x + b * y[:, None] > c).any(1, keepdim=True).to(torch.float32)
