"""The interface of restorers, which `fix`, `eval` and `bench` build on, and functions that run one on any image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.images.conditions import Condition
from restore.tiling import auto_tile, run_banded, run_tiled


@dataclass(frozen=True)
class ModelRequirements:
    """What a model requires of its input.

    Attributes:
        needs_mask: it fills holes, so it does nothing without a mask.
        gray: its network has one image channel, and repairs those of a color image one by one.
        linear: its network works in linear light; the restorer's input and output are sRGB all the same.
        float_range: (black, white) of float images, as in its training; None: as their files are read.
        conditions: the condition images that its network takes, in order; their channels follow the image's.
        multiple: height and width must be multiples of it (`Restorer.__call__` pads; callers need not).
        minimum: smallest height and width in pixels (likewise).
        scale: output side / input side.
        tileable: an output pixel depends only on input pixels within `overlap_px` of it. A restorer that is not
            tileable runs on crops around the holes with generous context.
        overlap_px: the measured radius of the receptive field, in input pixels.
        adds_color: it gives color to images without color, so its output for them stays in color.
    """

    needs_mask: bool
    multiple: int = 1
    minimum: int = 1
    scale: int = 1
    tileable: bool = True
    overlap_px: int = 0
    gray: bool = False
    linear: bool = False
    float_range: tuple[float, float] | None = None
    adds_color: bool = False
    conditions: tuple[Condition, ...] = ()

    def pad(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Image and mask (B×C×H×W), extended to the right and below until `multiple` and `minimum` are met."""
        height, width = image.shape[-2:]
        bottom = -(-max(height, self.minimum) // self.multiple) * self.multiple - height
        right = -(-max(width, self.minimum) // self.multiple) * self.multiple - width
        if not bottom and not right:
            return image, mask
        # Reflection continues textures, which networks handle best; it cannot reach further than the image is large.
        mode = "reflect" if bottom < height and right < width else "replicate"
        image = F.pad(image, (0, right, 0, bottom), mode=mode)
        return image, None if mask is None else F.pad(mask, (0, right, 0, bottom), mode=mode)


class Restorer(ABC):
    """A callable, `restorer(image, mask) -> image`: a trained network or a classical method.

    Attributes:
        name: the user's name for it (`photo`, `telea`, or the file's path).
        purpose: one line for `restore models`.
        requirements: what it requires of its input.
        device: where it computes; inputs may be on another device.
        precision: `fp32`, `bf16` or `fp16`.
        engine: `torch`, `openvino` or `onnx`; None for methods without a network.
        sha256: of its weights' file, in hex; None for methods without weights.
        bytes_per_pixel: approximate peak memory per input pixel, which determines the size of tiles.
        max_batch_pixels: images of one size, of at most half this many pixels each, are repaired together. The batch
            always has as many places as fit into it (empty ones are filled up), so no result depends on the other
            images; 0: one by one.
    """

    name: str
    purpose: str
    requirements: ModelRequirements
    device: torch.device = torch.device("cpu")
    precision: str = "fp32"
    engine: str | None = None
    sha256: str | None = None
    bytes_per_pixel: int = 4096
    max_batch_pixels: int = 0

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The steps that need the whole image, before it may be cut into tiles.

        Args:
            image, mask: as for `__call__`.

        Returns:
            An image whose holes hold 0.5 or a first guess, and the mask without the holes that are finished already.
        """
        return image if mask is None else torch.where(mask > 0, 0.5, image), mask

    @torch.inference_mode()
    def __call__(self, image: Tensor, mask: Tensor | None = None, *, prepared: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: float32, B×3×H×W, sRGB, nominally [0, 1] (unclipped noise may leave it), any H and W ≥ 1.
                Values under the mask are ignored. Behind it the channels of `requirements.conditions`.
            mask: float32, B×1×H×W, 1 = repair; or None. A restorer that needs no mask sees 0.5 under it.
            prepared: `image` and `mask` are cut from the output of `prepare`.

        Returns:
            float32, B×3×(H·scale)×(W·scale), [0, 1] or NaN, on the device of `image`. With a mask and scale 1, pixels
            where the mask is 0 are those of `image`, and a soft mask blends.
        """
        needs_mask, scale = self.requirements.needs_mask, self.requirements.scale
        height, width = image.shape[-2:]
        if needs_mask and mask is None:
            mask = image.new_zeros(image.shape[0], 1, height, width)
        start, holes = (image, mask) if prepared else self.prepare(image, mask)
        if needs_mask and scale == 1 and holes is not None and not bool((holes > 0).any()):
            out = start[:, :3].float()  # `prepare` has filled every hole
        else:
            padded, padded_mask = self.requirements.pad(start, holes if needs_mask else None)
            out = self._restore(padded, padded_mask)[..., : height * scale, : width * scale]
            # Half precision overflows to Inf. It becomes NaN, because a clamp would turn it into white.
            out = torch.where(out.isfinite(), out.float().clamp(0, 1), torch.nan)
        if needs_mask and mask is not None and scale == 1:
            image, start = image[:, :3], start[:, :3]  # without conditions
            if holes is not None:
                out = torch.where(holes > 0, out, start)
            # `where` keeps pixels outside the mask exact, and NaN or Inf under it out of the sum.
            return torch.where(mask > 0, mask * out + (1 - mask) * torch.where(mask < 1, image, out), image).clamp(0, 1)
        return out

    @abstractmethod
    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """Repair a batch from `prepare`, padded to a size that the model takes; the output is not yet clamped."""

    def in_precision(self, precision: str) -> Restorer:
        """The same restorer computing in `fp32`, `bf16` or `fp16`; itself if it has only one precision."""
        return self

    def with_seed(self, seed: int) -> Restorer:
        """The same restorer with other random choices; 0 are its usual ones.

        Raises:
            RestoreError: exit code 2; it makes none.
        """
        if seed:
            raise RestoreError(f"{self.name} makes no random choices", where="--seed", hint="leave it out")
        return self

    def auto_tile_px(self, height: int = 1 << 20, width: int = 1 << 20) -> int:
        """The side of a tile that suits its device's free memory; by default for an image that needs tiles.

        0 if an image of this size needs none.
        """
        overlap_px = self.requirements.overlap_px
        return auto_tile(height, width, device=self.device, overlap_px=overlap_px, bytes_per_pixel=self.bytes_per_pixel)

    @property
    def network(self) -> nn.Module | None:
        """The network whose parameters are counted; None for methods without weights."""
        return None


def run_restorer(
    restorer: Restorer, image: Tensor, mask: Tensor | None, tile_px: int, on_event: Callable[[str], None]
) -> Tensor:
    """Repair one image of any size, in tiles if the restorer is tileable; tiles without a hole are passed through.

    Args:
        restorer: of any kind.
        image: float32, 3×H×W, sRGB, [0, 1]; with the channels of `requirements.conditions` behind it.
        mask: float32, 1×H×W, 1 = repair; or None.
        tile_px: largest side of a tile; 0 never tiles.
        on_event: called with a line if a tile is repeated in fp32, or if memory runs out and tiles become smaller.

    Returns:
        float32, 3×(H·scale)×(W·scale), [0, 1] or NaN; see `check_finite`.

    Raises:
        RestoreError: exit code 1; out of memory even with the smallest tile.
    """
    requirements = restorer.requirements
    start, holes = restorer.prepare(image[None], None if mask is None else mask[None])
    return run_tiled(
        _on_tiles(restorer, on_event),
        (start[0], None if holes is None else holes[0]),
        tile_px=tile_px if requirements.tileable else 0,
        overlap_px=requirements.overlap_px,
        scale=requirements.scale,
        multiple=requirements.multiple,
        on_smaller_tile=_reporting(on_event),
    )


def run_restorer_banded(
    restorer: Restorer,
    read: Callable[[slice, slice], Sequence[Tensor | None]],
    write: Callable[[int, Tensor], None],
    *,
    size: tuple[int, int],
    tile_px: int,
    on_event: Callable[[str], None],
) -> None:
    """Restore an image that need not be in memory as a whole, by a restorer that needs no mask.

    Args:
        restorer: one that is not tileable reads the whole image at once.
        read, write, size: see `restore.tiling.run_banded`.
        tile_px, on_event: see `run_restorer`.
    """
    requirements = restorer.requirements
    run_banded(
        _on_tiles(restorer, on_event),
        read,
        write,
        size=size,
        tile_px=tile_px if requirements.tileable else 0,
        overlap_px=requirements.overlap_px,
        scale=requirements.scale,
        multiple=requirements.multiple,
        on_smaller_tile=_reporting(on_event),
    )


def check_finite(image: Tensor) -> None:
    """Refuse an output that contains NaN or Inf.

    Raises:
        RestoreError: exit code 1.
    """
    if not bool(torch.isfinite(image).all()):
        raise RestoreError("model output contains NaN or Inf", hint="try --precision fp32", exit_code=1)


def _on_tiles(restorer: Restorer, on_event: Callable[[str], None]) -> Callable[..., Tensor]:
    """(prepared tile, mask or None) -> its repair, in fp32 where half precision gives NaN or Inf."""

    def repair_tile(tile: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None and not bool(mask.any()):
            return tile[:, :3]
        out = restorer(tile, mask, prepared=True)
        if restorer.precision != "fp32" and not bool(torch.isfinite(out).all()):
            on_event(f"{restorer.precision} output contains NaN or Inf; repeated that part in fp32")
            out = restorer.in_precision("fp32")(tile, mask, prepared=True)
        return out

    return repair_tile


def _reporting(on_event: Callable[[str], None]) -> Callable[[int], None]:
    return lambda tile_px: on_event(f"out of memory; retried with {tile_px} px tiles")
