"""What every step that cuts holes shares: how much of the picture they hide, and what stands in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from restore.degrade.random import derived
from restore.degrade.step import ScaledStep, Share

_REDRAWS = 20


class Holes(ScaledStep):
    """Holes that hide at least `min_share` and at most `max_share` of the picture; known pixels are as they were.

    Attributes:
        max_share: a mask that hides more of the picture than this is drawn again.
        min_share: a mask that hides less than this is drawn again; at most 0.9 of `max_share`. A picture of a few
            pixels may have less.
    """

    max_share: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    min_share: Annotated[float, Field(ge=0, le=0.81)] = 0

    marks = True

    @model_validator(mode="after")
    def _room_between(self) -> Holes:
        if self.min_share > 0.9 * self.max_share:
            raise ValueError(f"min_share {self.min_share:g} leaves no room below max_share {self.max_share:g}")
        return self

    def _redrawn(
        self, keys: Tensor, size: tuple[int, int], draft: Callable[[Tensor, tuple[int, int]], Tensor]
    ) -> Tensor:
        """Tables by `draft(keys, size)`, each drafted anew until it hides neither more nor less than it may."""
        # a little less and more, as the share is estimated on a coarse grid
        least, most = 1.03 * self.min_share, 0.97 * self.max_share

        def amiss(table: Tensor) -> Tensor:
            share = self._share(table, size, least or most)
            return (share > most) | (share < least)

        table = draft(derived(keys, 0), size)
        wrong = amiss(table).nonzero()[:, 0]
        for attempt in range(1, _REDRAWS):
            if not len(wrong):
                break
            again = draft(derived(keys[wrong], attempt), size)
            table[wrong] = again
            wrong = wrong[amiss(again)]
        return table

    @abstractmethod
    def _share(self, table: Tensor, size: tuple[int, int], enough: float) -> Tensor:
        """Share hidden by each picture's part of `table`, float64[B]; need not be right below `enough`."""

    def _limited(self, mask: Tensor) -> Tensor:
        """A mask, B×1×H×W of 0 and 1, within the shares: drawing anew goes by an estimate, and ends some time.

        Where it is over the limit all the same it loses its right part; where it is under, whole columns are hidden,
        the rightmost first, as many as it takes and the limit allows.
        """
        height, width = mask.shape[-2:]
        pixels, columns = height * width, torch.arange(width, device=mask.device)
        over = mask.mean((1, 2, 3), keepdim=True) > self.max_share
        mask = torch.where(over, mask * (columns < int(width * self.max_share)), mask)
        if self.min_share == 0:
            return mask
        free = (height - mask.sum((1, 2))).to(torch.int64)  # pixels of each column that are known
        hidden = pixels - free.sum(1, keepdim=True) + (free.flip(1).cumsum(1) - free.flip(1))  # before it is hidden too
        needed = (hidden < self.min_share * pixels) & (hidden + free.flip(1) <= self.max_share * pixels)
        return torch.maximum(mask, needed.flip(1)[:, None, None].to(mask.dtype))


class BlankHoles(Holes):
    """Holes in which nothing is left.

    Attributes:
        fill: what stands under the mask, in [0, 1]; restorers must not look at it.
    """

    fill: Share = 0.5

    def _painted(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = self._limited(mask)
        return image.masked_fill(mask > 0, self.fill), mask
