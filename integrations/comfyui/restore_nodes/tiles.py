"""Runs a network on tiles of a large image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def run_tiled(
    network: Callable[[Tensor, Tensor | None], Tensor],
    image: Tensor,
    mask: Tensor | None,
    tile_px: int,
    overlap_px: int,
    multiple: int,
    on_tile: Callable[[], None] = lambda: None,
) -> Tensor:
    """Run a network on tiles, each with `overlap_px` of context around it, which its output is cut from.

    Args:
        network: (image, mask) -> B×C×H×W, of the size of its input.
        image: B×C×H×W.
        mask: B×1×H×W or None; tiles without any of it keep the image.
        tile_px: side of a tile without its context; 0: the whole image at once.
        overlap_px: how far the output depends on its surroundings.
        multiple: tiles start at multiples of it, so that the network halves the same pixels as in the whole image.
        on_tile: called after each tile.
    """
    height, width = image.shape[-2:]
    if not tile_px or max(height, width) <= tile_px + 2 * overlap_px:
        out = network(image, mask)
        on_tile()
        return out
    tile_px, overlap_px = (-(-one // multiple) * multiple for one in (tile_px, overlap_px))
    out = image.clone()
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            rows, columns = (slice(start, start + tile_px) for start in (top, left))
            around = (
                ...,
                slice(max(top - overlap_px, 0), top + tile_px + overlap_px),
                slice(max(left - overlap_px, 0), left + tile_px + overlap_px),
            )
            if mask is None or bool((mask[..., rows, columns] > 0).any()):
                part = network(image[around], None if mask is None else mask[around])
                inner = part[..., top - around[1].start :, left - around[2].start :]
                target = out[..., rows, columns]
                target.copy_(inner[..., : target.shape[-2], : target.shape[-1]])
            on_tile()
    return out


def count_tiles(height: int, width: int, tile_px: int, overlap_px: int, multiple: int) -> int:
    """How many tiles `run_tiled` makes."""
    if not tile_px or max(height, width) <= tile_px + 2 * overlap_px:
        return 1
    tile_px = -(-tile_px // multiple) * multiple
    return -(-height // tile_px) * -(-width // tile_px)


def dilate(mask: Tensor, margin_px: int) -> Tensor:
    """Extend a mask of 0 and 1, B×1×H×W, by all pixels within a distance of it."""
    if not margin_px:
        return mask
    offsets = torch.arange(-margin_px, margin_px + 1, device=mask.device)
    disc = (offsets[:, None] ** 2 + offsets**2 <= margin_px**2).to(mask.dtype)
    return (torch.nn.functional.conv2d(mask, disc[None, None], padding=margin_px) > 0.5).to(mask.dtype)
