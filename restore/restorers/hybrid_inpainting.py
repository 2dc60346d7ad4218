"""Holes deeper than a few pixels: what the network makes of them, and texture from elsewhere in the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from restore.models.harmonic_fill import membrane
from restore.restorers.base import Restorer, tile_by_tile
from restore.restorers.hole_crops import crops
from restore.restorers.patchmatch import RADIUS, NoSourcePatches, PatchMatchInpainter
from restore.tiling import run_tiled

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DEEP_PX = 2
"""Holes that nowhere reach farther from their edge are the network's alone; in larger pictures than 512 pixels across
as much more: what is thin in them looks thin."""

TEXTURE = (0.6, 0.8)
DEEPENS_PX = (8, 32)
"""What texture counts for against the network, up to the first depth and from the second one on. Each errs in its own
way, and their mean errs less than either; far from the edge the network is smooth, and would fade the texture."""

START_PX = 16
"""The smallest scale is the first below the full one on which a hole is nowhere farther than this from its edge. There
the network's filling is the first guess; with twice as much, patches that fit the edge badly were found more often."""

START_SIDE_PX = 750
"""And the first one whose smaller side is at most this: most of the looking around is done there."""

TILE_PX = 512
"""Tiles of the network; a constant, so that no result depends on the machine's memory."""


@dataclass(frozen=True)
class _Effort:
    """How often, and how far around, better patches are looked for on a scale; see `PatchMatchInpainter.improve`."""

    rounds: int
    jumps: tuple[int, ...]
    throws: tuple[float, ...]


_NEAR = (16, 4, 1)
_FAR = (64, 32, 16, 8, 4, 2, 1)
_EFFORTS = (
    _Effort(0, (), ()),
    _Effort(2, (2, 1), _NEAR),
    _Effort(4, (4, 2, 1), _FAR),
    _Effort(8, (4, 2, 1), _FAR),
)
"""From the full scale down: what is found on small pictures costs little, and decides much."""
_START_ROUNDS = 20


def with_deep_holes_filled(
    restorer: Restorer, guess: Callable[[Tensor, Tensor], Tensor], image: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Fill the holes of pictures that have deep ones: the network and texture from the picture itself, mixed.

    The network knows what things look like and blurs what it cannot know; patches found around the hole
    (`PatchMatchInpainter`) are sharp and now and then wrong. They are found on a small picture first, filled by the
    network, then scale by scale up to the whole one, and their colours are made to meet those at the hole's edge
    (`_settled`).

    A network that is shown its own filling, enlarged, makes it worse from scale to scale: it was trained to add detail
    to a smooth filling, and adds to the contrast of one that is not (tried: streaks, in 600 pixels from edge to edge).

    Args:
        restorer: fills holes.
        guess: (image, mask) -> what the network starts from.
        image: float32, B×3×H×W, sRGB, finite where known.
        mask: float32, B×1×H×W, above 0 = missing.

    Returns:
        Image and mask, less what has been filled: the very tensors given, where no hole is deep. A picture that is all
        hole stays as it is; a hole whose surroundings show no whole patch is the network's alone.
    """
    images, masks, filled_any = list(image), list(mask), False
    for number, (picture, hidden) in enumerate(zip(image, mask)):
        unknown = hidden[0].cpu().numpy() > 0
        deep = _deep(unknown)
        if not deep.any():
            continue
        shown = np.where(unknown[..., None], np.float32(0.5), picture.float().cpu().permute(1, 2, 0).numpy())
        network = _Network(restorer, guess)
        textured, found = shown.copy(), np.zeros_like(deep)
        for region in crops(deep, restorer.needs):
            part = (region.rows, region.columns)
            own = region.own(deep[part])
            texture = _on_scale(network, shown[part], unknown[part], own, 0)
            if texture is not None:
                textured[part][own] = _settled(texture, shown[part], unknown[part])[own]
                found[part] |= own
        if not found.any():
            continue
        filled = network.filled(shown, unknown)
        share = np.interp(_depth(unknown)[found], DEEPENS_PX, TEXTURE).astype(np.float32)[:, None]
        filled[found] += share * (textured[found] - filled[found])
        images[number] = torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1))).to(picture)
        masks[number] = torch.zeros_like(hidden)
        filled_any = True
    return (torch.stack(images), torch.stack(masks)) if filled_any else (image, mask)


@dataclass(frozen=True)
class _Network:
    """The network over a whole picture of any size, without texture; see `with_deep_holes_filled`."""

    restorer: Restorer
    guess: Callable[[Tensor, Tensor], Tensor]

    def filled(self, picture: Array, unknown: Mask) -> Array:
        """H×W×3 with holes, and where they are -> without."""
        image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
        hole = torch.from_numpy(unknown[None, None].astype(np.float32))
        out = run_tiled(
            tile_by_tile(self.restorer, lambda line: None),
            (self.guess(image, hole)[0], hole[0]),
            tile_px=TILE_PX,
            overlap_px=self.restorer.needs.overlap_px,
            multiple=self.restorer.needs.multiple,
        )
        return out.permute(1, 2, 0).numpy()


def halved(picture: Array, hidden: Mask) -> tuple[Array, Mask]:
    """Half the size: means of the known pixels of every 2×2; hidden where all four are."""
    odd = (0, picture.shape[0] % 2, 0, picture.shape[1] % 2)
    size = ((picture.shape[1] + 1) // 2, (picture.shape[0] + 1) // 2)
    known, values = (
        np.asarray(cv2.copyMakeBorder(whole.astype(np.float32), *odd, cv2.BORDER_REPLICATE), np.float32)
        for whole in (~hidden, picture)
    )
    values *= known[..., None]
    share, mean = (
        np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.float32) for whole in (known, values)
    )
    mean /= np.maximum(share, 0.25)[..., None]
    return mean, share == 0


def _deep(unknown: Mask) -> Mask:
    """The holes that somewhere reach farther than `DEEP_PX` from their edge; none where nothing at all is known."""
    deep = _depth(unknown) > DEEP_PX * max(1.0, min(unknown.shape) / 512)
    if unknown.all() or not deep.any():
        return np.zeros_like(unknown)
    count, labels = cv2.connectedComponents(unknown.astype(np.uint8))
    is_deep = np.zeros(count, bool)
    is_deep[labels[deep]] = True
    return np.asarray(is_deep[labels])


def _depth(hole: Mask) -> Array:
    """How far each pixel of a hole is from what is known; beyond the picture's border nothing is."""
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return depth.astype(np.float32)


def _on_scale(network: _Network, picture: Array, unknown: Mask, deep: Mask, scale: int) -> PatchMatchInpainter | None:
    """Fill deep holes on a picture that has been halved `scale` times; None where there are no patches to take."""
    below: PatchMatchInpainter | None = None
    guess: Array
    if scale == 0 or min(deep.shape) > START_SIDE_PX or _depth(deep).max() > START_PX:
        half, half_unknown = halved(picture, unknown)
        even = np.pad(deep, [(0, side % 2) for side in deep.shape])
        half_deep = half_unknown & (even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2])
        below = _on_scale(network, half, half_unknown, half_deep, scale + 1) if half_deep.any() else None
    if below is None:
        guess = network.filled(picture, unknown)
        effort = _Effort(_START_ROUNDS, (8, 4, 2, 1), tuple(max(deep.shape) / 2**k for k in range(7)))
    else:
        size = (2 * half.shape[1], 2 * half.shape[0])
        larger = cv2.resize(below.picture, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        guess = larger[: deep.shape[0], : deep.shape[1]]
        effort = _EFFORTS[min(scale, 3)]
    try:
        texture = PatchMatchInpainter(
            np.where(unknown[..., None], guess, picture),
            deep,
            unknown,
            scale,
            below.matches if below is not None else None,
        )
    except NoSourcePatches:
        return None
    if below is not None:
        texture.improve((), ())  # the matches of the smaller scale vote for sharper pixels than its own, enlarged
    for _ in range(effort.rounds):
        texture.improve(effort.jumps, effort.throws)
    return texture


def _settled(texture: PatchMatchInpainter, picture: Array, unknown: Mask) -> Array:
    """What patches have voted for, its colours shifted smoothly so that they meet the known ones at the edge.

    Patches at the edge speak of known pixels, too: by how much they err there is spread into the hole by a membrane,
    as in Pérez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003, eq. 6.
    """
    rows, columns = (
        slice(max(int(inside[0]) - RADIUS, 0), int(inside[-1]) + 1 + RADIUS)
        for inside in (np.flatnonzero(texture.hole.any(axis=dim)) for dim in (1, 0))
    )
    part = (rows, columns)
    voted, reached = texture.voted(part)
    certain = reached & ~unknown[part]
    off = np.where(certain[..., None], picture[part] - voted, np.float32(0))
    shift = membrane(
        torch.from_numpy(np.ascontiguousarray(off.transpose(2, 0, 1)))[None],
        torch.from_numpy(certain[None, None].astype(np.float32)),
    )
    settled = picture.copy()
    hole = texture.hole[part]
    settled[part][hole] = (voted[hole] + shift[0].permute(1, 2, 0).numpy()[hole]).clip(0, 1)
    return settled
