"""Fill deep holes with a network and with texture from the image itself; other holes with the network alone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from restore import progress
from restore.models.unet import harmonic_fill
from restore.restorers.base import Restorer, run_restorer
from restore.restorers.hole_crops import crops
from restore.restorers.hole_rims import dirty_rims
from restore.restorers.network import NetworkRestorer
from restore.restorers.patchmatch import RADIUS, NoSourcePatches, PatchMatchInpainter

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: The network alone fills holes that are at most this deep (distance to their edge). The limit grows in proportion to
#: the image above 512 pixels, because a hole looks thin relative to the image.
DEEP_PX = 2

#: The share of texture in the mix with the network's output, up to the first depth and from the second depth on. The
#: errors of the two are almost independent, so their mean has a smaller error than either. Far from the edge, the
#: network knows least.
TEXTURE_SHARE = (0.3, 0.6)
TEXTURE_DEPTH_PX = (8, 32)

#: Fine detail, removed by a Gaussian of this many pixels, is a mix of both up to the first depth, and comes from the
#: texture alone from the second one on: farther inside, the network draws a lattice with a period of 8 pixels.
DETAIL_PX = 3.0
DETAIL_DEPTH_PX = (8, 20)

#: The coarsest scale is the first below the full one on which no pixel of a hole is deeper than this. There the
#: network's output is the first guess. With twice as much, more patches that fit the edge badly were found.
START_DEPTH_PX = 16
#: On the coarsest scale, the smaller side is also at most this: most of the search is done there.
START_SIDE_PX = 750

#: More scales than any image has, so that no two scales of any two seeds search alike.
_SCALES = 64

#: Tiles of the network; a constant, so that no result depends on the machine's memory.
TILE_PX = 512

#: How long parts of the work take, roughly: filling deep holes before the network runs, the search for texture in it,
#: and all coarser scales of a search.
_PREPARED, _TEXTURED, _COARSER = 0.95, 0.8, 0.6


@dataclass(frozen=True)
class _Effort:
    """The search effort on one scale: rounds, and search distances; see `PatchMatchInpainter.improve`."""

    rounds: int
    jumps: tuple[int, ...]
    radii: tuple[float, ...]


_NEAR = (16, 4, 1)
_FAR = (64, 32, 16, 8, 4, 2, 1)
#: From the full scale down. Searching small images is cheap and has the largest effect on the result.
_EFFORTS = (
    _Effort(0, (), ()),
    _Effort(2, (2, 1), _NEAR),
    _Effort(4, (4, 2, 1), _FAR),
    _Effort(8, (4, 2, 1), _FAR),
)
_START_ROUNDS = 20


class HybridInpainter(Restorer):
    """A network that fills holes, and patch-based texture synthesis for the deep ones.

    Neither continues the rim of a hole that the damage has changed (`dirty_rims`): both fill it as part of the hole.
    Then the rim gets its own pixels back.

    The network continues structures, but cannot predict every detail. Patches from around the hole
    (`PatchMatchInpainter`) are sharp, but sometimes wrong. The search starts on a small image that the network has
    filled, and continues scale by scale up to full size. The patches' colors are shifted to match those at the hole's
    edge (`_match_colors_at_edge`), and the result is mixed with the network's.

    The network never starts from its own enlarged output. It was trained to add detail to a smooth filling, and would
    add contrast to any other filling on every scale (a trial gave streaks from edge to edge of 600 pixels).

    Args:
        filler: fills holes of any kind; its name, device and precision are also the hybrid's.
        seed: of the search for texture, which starts at random; another one fills deep holes with other patches.
    """

    def __init__(self, filler: NetworkRestorer, seed: int = 0) -> None:
        self.filler, self.seed = filler, seed
        self.name, self.purpose, self.sha256 = filler.name, filler.purpose, filler.sha256
        self.requirements, self.device, self.precision = filler.requirements, filler.device, filler.precision
        self.engine = filler.engine
        self.bytes_per_pixel, self.max_batch_pixels = filler.bytes_per_pixel, filler.max_batch_pixels

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Fill the images with deep holes or dirty rims; the other images as the network prepares them."""
        if mask is None:
            return image, None
        image, mask = self.fill_deep_holes(image, mask)
        return self.filler.prepare(image, mask) if bool((mask > 0).any()) else (image, mask)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return self.filler._restore(image, mask)

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.filler.network

    def in_precision(self, precision: str) -> HybridInpainter:
        """The same with its network run in another precision."""
        return HybridInpainter(self.filler.in_precision(precision), self.seed)

    def with_seed(self, seed: int) -> HybridInpainter:
        """The same with other random choices in the search for texture; thin holes are filled alike."""
        return HybridInpainter(self.filler, seed)

    def fill_deep_holes(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fill all holes of the images that have deep ones, or dirty rims around them.

        Args:
            image: float32, B×3×H×W, sRGB, finite outside the mask.
            mask: float32, B×1×H×W; above 0 is a hole.

        Returns:
            The images, and the masks without the filled holes; the input tensors themselves if no image needs it. An
            image that is all hole is unchanged. The network alone fills a hole without a whole patch around it.
        """
        images, masks, any_filled = list(image), list(mask), False
        for number, (one, one_mask) in enumerate(zip(image, mask)):
            holes = one_mask[0].cpu().numpy() > 0
            pixels = one.float().cpu().permute(1, 2, 0).numpy()
            rims = dirty_rims(pixels, holes)
            wide = holes | rims
            deep = _deep_holes(wide)
            if not (deep.any() or rims.any()):
                continue
            known = np.where(wide[..., None], np.float32(0.5), pixels)
            with progress.part(number / len(image), _PREPARED / len(image)):
                filled = self._fill(known, wide, deep) if deep.any() else None
                if filled is None:
                    if not rims.any():
                        continue
                    filled = self._fill_by_network(known, wide)
            filled[rims] = pixels[rims]
            images[number] = torch.from_numpy(np.ascontiguousarray(filled.transpose(2, 0, 1))).to(one)
            masks[number] = torch.zeros_like(one_mask)
            any_filled = True
        return (torch.stack(images), torch.stack(masks)) if any_filled else (image, mask)

    def _fill(self, image: FloatArray, holes: BoolArray, deep: BoolArray) -> FloatArray | None:
        """H×W×3 without holes; None if there are no patches for any of the deep ones."""
        textured, found = image.copy(), np.zeros_like(deep)
        found_crops = crops(deep, self.requirements)
        sizes = [region.size[0] * region.size[1] for region in found_crops]
        for region, (start, size) in zip(found_crops, progress.shares(sizes)):
            part = (region.rows, region.columns)
            own = region.own(deep[part])
            with progress.part(_TEXTURED * start, _TEXTURED * size):
                texture = self._synthesize(image[part], holes[part], own, 0)
            if texture is not None:
                textured[part][own] = _match_colors_at_edge(texture, image[part], holes[part])[own]
                found[part] |= own
        if not found.any():
            return None
        with progress.part(_TEXTURED, 1 - _TEXTURED):
            filled = self._fill_by_network(image, holes)
        depth = _depth(holes)[found]
        share = np.interp(depth, TEXTURE_DEPTH_PX, TEXTURE_SHARE).astype(np.float32)[:, None]
        more_detail = np.interp(depth, DETAIL_DEPTH_PX, (0, 1)).astype(np.float32)[:, None] * (1 - share)
        difference = np.where(found[..., None], textured - filled, np.float32(0))
        detail = difference - cv2.GaussianBlur(difference, (0, 0), DETAIL_PX)
        filled[found] += share * difference[found] + more_detail * detail[found]
        return filled.clip(0, 1)

    def _synthesize(
        self, image: FloatArray, holes: BoolArray, deep: BoolArray, scale: int
    ) -> PatchMatchInpainter | None:
        """Fill deep holes of an image that has been halved `scale` times; None if there are no source patches."""
        coarser: PatchMatchInpainter | None = None
        guess: FloatArray
        if scale == 0 or min(deep.shape) > START_SIDE_PX or _depth(deep).max() > START_DEPTH_PX:
            half, half_holes = halve(image, holes)
            even = np.pad(deep, [(0, side % 2) for side in deep.shape])
            half_deep = half_holes & (even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2])
            with progress.part(0, _COARSER):
                coarser = self._synthesize(half, half_holes, half_deep, scale + 1) if half_deep.any() else None
        if coarser is None:
            with progress.part(0, _COARSER):
                guess = self._fill_by_network(image, holes)
            effort = _Effort(_START_ROUNDS, (8, 4, 2, 1), tuple(max(deep.shape) / 2**k for k in range(7)))
        else:
            size = (2 * half.shape[1], 2 * half.shape[0])
            larger = cv2.resize(coarser.image, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
            guess = larger[: deep.shape[0], : deep.shape[1]]
            effort = _EFFORTS[min(scale, 3)]
        try:
            texture = PatchMatchInpainter(
                np.where(holes[..., None], guess, image),
                deep,
                holes,
                self.seed * _SCALES + scale,
                coarser.matches if coarser is not None else None,
            )
        except NoSourcePatches:
            return None
        if coarser is not None:
            # Matches of the coarser scale vote for sharper pixels than its own image, enlarged.
            texture.improve((), ())
        for number in range(effort.rounds):
            texture.improve(effort.jumps, effort.radii)
            progress.done(_COARSER + (1 - _COARSER) * (number + 1) / effort.rounds)
        if scale == 0:
            texture.vote(focused=True)
        return texture

    def _fill_by_network(self, image: FloatArray, holes: BoolArray) -> FloatArray:
        """H×W×3 with holes, and where they are -> without, by the network alone."""
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        mask = torch.from_numpy(holes[None].astype(np.float32))
        filled = run_restorer(self.filler, tensor, mask, TILE_PX, lambda line: None)
        return filled.permute(1, 2, 0).numpy()


def halve(image: FloatArray, holes: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Half the size: the mean of the pixels outside holes in each 2×2 block; a hole where all four are in holes."""
    odd = (0, image.shape[0] % 2, 0, image.shape[1] % 2)
    size = ((image.shape[1] + 1) // 2, (image.shape[0] + 1) // 2)
    outside, values = (
        np.asarray(cv2.copyMakeBorder(whole.astype(np.float32), *odd, cv2.BORDER_REPLICATE), np.float32)
        for whole in (~holes, image)
    )
    values *= outside[..., None]
    share, mean = (
        np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.float32) for whole in (outside, values)
    )
    mean /= np.maximum(share, 0.25)[..., None]
    return mean, share == 0


def _deep_holes(holes: BoolArray) -> BoolArray:
    """The holes that are somewhere deeper than `DEEP_PX`; none if the image is all hole."""
    deep = _depth(holes) > DEEP_PX * max(1.0, min(holes.shape) / 512)
    if holes.all() or not deep.any():
        return np.zeros_like(holes)
    count, labels = cv2.connectedComponents(holes.astype(np.uint8))
    is_deep = np.zeros(count, bool)
    is_deep[labels[deep]] = True
    return np.asarray(is_deep[labels])


def _depth(holes: BoolArray) -> FloatArray:
    """The distance of each pixel of a hole to the hole's edge, in pixels; the image's border is no edge."""
    depth = cv2.distanceTransform(holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return depth.astype(np.float32)


def _match_colors_at_edge(texture: PatchMatchInpainter, image: FloatArray, holes: BoolArray) -> FloatArray:
    """Shift the texture's colors smoothly, so that they match the image at the edge of the hole.

    Patches at the edge vote for pixels outside the hole, too. Their error there is spread into the hole by harmonic
    interpolation, as in Pérez, Gangnet and Blake, "Poisson Image Editing", SIGGRAPH 2003, eq. 6.
    """
    rows, columns = (
        slice(max(int(inside[0]) - RADIUS, 0), int(inside[-1]) + 1 + RADIUS)
        for inside in (np.flatnonzero(texture.hole.any(axis=dim)) for dim in (1, 0))
    )
    part = (rows, columns)
    voted, has_votes = texture.voted(part)
    edge = has_votes & ~holes[part]
    error = np.where(edge[..., None], image[part] - voted, np.float32(0))
    shift = harmonic_fill(
        torch.from_numpy(np.ascontiguousarray(error.transpose(2, 0, 1)))[None],
        torch.from_numpy((~edge)[None, None].astype(np.float32)),
    )
    shifted = image.copy()
    hole = texture.hole[part]
    shifted[part][hole] = (voted[hole] + shift[0].permute(1, 2, 0).numpy()[hole]).clip(0, 1)
    return shifted
