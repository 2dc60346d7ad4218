"""The contract that `fix`, `eval`, `bench` and everything else rests on: a restorer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.tiling import run_tiled


@dataclass(frozen=True)
class ModelRequirements:
    """What a restorer asks of its input.

    Attributes:
        needs_mask: it fills holes; without a mask there is nothing for it to do.
        multiple: height and width must divide by it (the contract pads; callers need not).
        minimum: smallest height and width in pixels (likewise).
        scale: output side / input side.
        tileable: an output pixel depends only on input pixels within `overlap_px` of it. What is not tileable
            runs on crops around the holes with generous context.
        overlap_px: measured: how far, in input pixels, a change at a tile's edge is seen.
    """

    needs_mask: bool
    multiple: int = 1
    minimum: int = 1
    scale: int = 1
    tileable: bool = True
    overlap_px: int = 0


class Restorer(ABC):
    """`restorer(image, mask) -> image`, whatever is behind it.

    Attributes:
        name: how the user calls it (`photo`, `telea`, or the file's path).
        purpose: one line for `restore models`.
        needs: what it asks of its input.
        device: where it computes; inputs may lie elsewhere.
        precision: `fp32`, `bf16` or `fp16`.
        sha256: of its weights' file, in hex; None for methods without weights.
        bytes_per_pixel: about the most memory that it takes per input pixel, to choose tiles by.
        group_px: equal pictures of less than half this many pixels are repaired together, always so many at once as
            fit into it (places that stay empty are filled up), so that no result depends on a picture's company;
            0: one by one.
    """

    name: str
    purpose: str
    needs: ModelRequirements
    device: torch.device = torch.device("cpu")
    precision: str = "fp32"
    sha256: str | None = None
    bytes_per_pixel: int = 4096
    max_batch_pixels: int = 0

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What has to look at the whole picture before it may be cut into tiles.

        Args as in `__call__`.

        Returns:
            A picture whose hidden pixels are 0.5 or a first guess, and the mask, less what has been filled already.
        """
        return image if mask is None else torch.where(mask > 0, 0.5, image), mask

    @torch.inference_mode()
    def __call__(self, image: Tensor, mask: Tensor | None = None, *, prepared: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: float32, B×3×H×W, sRGB, nominally [0, 1] (unclipped noise may leave it), any H and W ≥ 1.
                Values under the mask are ignored.
            mask: float32, B×1×H×W, 1 = missing, 0 = known; or None. A restorer that needs none sees 0.5 there.
            prepared: `image` and `mask` are cut from what `prepare` returned.

        Returns:
            float32, B×3×(H·scale)×(W·scale), [0, 1] or NaN, on the device of `image`. With a mask and scale 1, pixels
            where the mask is 0 are those of `image`, and a soft mask blends.
        """
        height, width = image.shape[-2:]
        if self.needs.needs_mask and mask is None:
            mask = image.new_zeros(image.shape[0], 1, height, width)
        shown, hidden = (image, mask) if prepared else self.prepare(image, mask)
        if self.needs.needs_mask and self.needs.scale == 1 and hidden is not None and not bool((hidden > 0).any()):
            out = shown.float()  # all that there was to fill has been filled
        else:
            padded, padded_mask = self._pad(shown, hidden if self.needs.needs_mask else None)
            out = self._restore(padded, padded_mask)[..., : height * self.needs.scale, : width * self.needs.scale]
            # What is not a number any more (half precision overflows) stays visible: a clamp would turn inf into white.
            out = torch.where(out.isfinite(), out.float().clamp(0, 1), torch.nan)
        if self.needs.needs_mask and mask is not None and self.needs.scale == 1:
            if hidden is not None:
                out = torch.where(hidden > 0, out, shown)  # what has been filled already
            # `where` keeps known pixels exact, and non-finite values under the mask out of the sum
            return torch.where(mask > 0, mask * out + (1 - mask) * torch.where(mask < 1, image, out), image).clamp(0, 1)
        return out

    @abstractmethod
    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """As `__call__`, of what `prepare` returned, with H and W already allowed; the range is not yet clamped."""

    def in_precision(self, precision: str) -> Restorer:
        """The same restorer computing in `fp32`, `bf16` or `fp16`; what has one precision only returns itself."""
        return self

    @property
    def network(self) -> nn.Module | None:
        """What its parameters are counted in; None for methods without any."""
        return None

    def _pad(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        height, width = image.shape[-2:]
        multiple = self.needs.multiple
        bottom = -(-max(height, self.needs.minimum) // multiple) * multiple - height
        right = -(-max(width, self.needs.minimum) // multiple) * multiple - width
        if not bottom and not right:
            return image, mask
        # Reflection is what trained networks like best; it cannot reach further than the picture is large.
        mode = "reflect" if bottom < height and right < width else "replicate"
        image = F.pad(image, (0, right, 0, bottom), mode=mode)
        return image, None if mask is None else F.pad(mask, (0, right, 0, bottom), mode=mode)


# A picture through a restorer, in tiles where it may be, and in fp32 where half precision is not enough.


def run(
    restorer: Restorer, image: Tensor, hole: Tensor | None, tile_px: int, on_event: Callable[[str], None]
) -> Tensor:
    """C×H×W (and 1×H×W) through the restorer, tiled where it may be; tiles without a hole pass by."""
    needs = restorer.needs
    whole, left = restorer.prepare(image[None], None if hole is None else hole[None])
    return run_tiled(
        tile_by_tile(restorer, on_event),
        (whole[0], None if left is None else left[0]),
        tile_px=tile_px if needs.tileable else 0,
        overlap_px=needs.overlap_px,
        scale=needs.scale,
        multiple=needs.multiple,
        on_smaller=told_of_smaller_tiles(on_event),
    )


def tile_by_tile(restorer: Restorer, on_event: Callable[[str], None]) -> Callable[..., Tensor]:
    """(prepared tile, mask or None) -> its repair; in fp32 where half precision gives values that are no numbers."""

    def restored(tile: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None and not bool(mask.any()):
            return tile
        out = restorer(tile, mask, prepared=True)
        if restorer.precision != "fp32" and not bool(torch.isfinite(out).all()):
            on_event(f"{restorer.precision} gave values that are no numbers; that part was repeated in fp32")
            out = restorer.in_precision("fp32")(tile, mask, prepared=True)
        return out

    return restored


def told_of_smaller_tiles(on_event: Callable[[str], None]) -> Callable[[int], None]:
    """What `run_tiled` calls where memory did not suffice."""
    return lambda tile: on_event(f"memory did not suffice; went on with tiles of {tile} pixels")


def check_numbers(repaired: Tensor) -> None:
    """That a repair holds numbers.

    Raises:
        RestoreError: exit code 1; it does not.
    """
    if not bool(torch.isfinite(repaired).all()):
        raise RestoreError("the model gave values that are no numbers", hint="try --precision fp32", exit_code=1)
