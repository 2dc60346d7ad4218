"""Methods without weights: three that fill holes, two that remove noise, one that removes motion blur.

Those that enlarge are in `enlarging`. All here run on the CPU in NumPy arrays; the result returns to the device that
the image came from. None is tileable: a filler carries colors across a hole of any width, and the others estimate
noise or blur in the whole image first. scikit-image is imported where it is called, because it takes seconds to load.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.deblurring import deconvolve, find_motion
from restore.restorers.enlarging import INTERPOLATIONS
from restore.restorers.hybrid_inpainting import halve
from restore.restorers.noise_level import estimate_noise

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

#: How much of the image around its holes a filler sees.
CONTEXT_PX = 32

# Highest mean PSNR on four of scikit-image's photographs with noise of 10, 25 and 50 levels, among steps of 0.1 and
# 0.15. OpenCV's fastNlMeansDenoisingColored, given the true noise, stays 2.5 to 3 dB below its scikit-image namesake.
NL_MEANS_STRENGTH = 0.6
TV_STRENGTH = 0.8


class HoleFiller(Restorer):
    """Fills holes (mask above 0) from their surroundings; an image that is all hole becomes mid-gray."""

    requirements = ModelRequirements(needs_mask=True, tileable=False, overlap_px=CONTEXT_PX)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return image
        filled = [self._fill_crop(_to_array(one), hole[0].cpu().numpy() > 0) for one, hole in zip(image, mask)]
        return _to_batch(filled, image)

    def _fill_crop(self, image: FloatArray, hole: BoolArray) -> FloatArray:
        if not hole.any():
            return image
        if hole.all():
            return np.full_like(image, 0.5)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        crop = (
            slice(max(rows[0] - CONTEXT_PX, 0), rows[-1] + 1 + CONTEXT_PX),
            slice(max(columns[0] - CONTEXT_PX, 0), columns[-1] + 1 + CONTEXT_PX),
        )
        filled = image.copy()
        filled[crop] = self.fill(image[crop], hole[crop])
        return filled

    @abstractmethod
    def fill(self, image: FloatArray, hole: BoolArray) -> FloatArray:
        """Fill one crop: float32 H×W×3 and bool H×W, neither all hole nor without one. Pixels outside it may change."""


class Telea(HoleFiller):
    """Weighted averages marching in from the hole's edge (Telea 2004), OpenCV's, radius 3, in 8 bits."""

    name = "telea"
    purpose = "fills holes by fast marching (OpenCV)"

    def fill(self, image: FloatArray, hole: BoolArray) -> FloatArray:
        """See `HoleFiller.fill`."""
        return _opencv_inpaint(image, hole, cv2.INPAINT_TELEA)


class NavierStokes(HoleFiller):
    """Lines of equal color continued into the hole as a fluid flows (Bertalmío et al. 2001), OpenCV's, in 8 bits."""

    name = "navier-stokes"
    purpose = "fills holes along lines of equal color (OpenCV)"

    def fill(self, image: FloatArray, hole: BoolArray) -> FloatArray:
        """See `HoleFiller.fill`."""
        return _opencv_inpaint(image, hole, cv2.INPAINT_NS)


class Biharmonic(HoleFiller):
    """The smoothest surface through the hole's edge (Chui & Mhaskar 2010), scikit-image's.

    An exact solution takes time that grows faster than the hole, and overshoots in the middle of wide holes. In holes
    of more than `EXACT_PIXELS` pixels, those deeper than `EXACT_DEPTH_PX` therefore come from the same method at half
    the size, enlarged (a stroke of 23,000 pixels on the astronaut: PSNR in the hole 14.9 dB, exact 13.5 dB).
    """

    name = "biharmonic"
    purpose = "fills holes with the smoothest surface (scikit-image)"

    EXACT_PIXELS = 1000
    EXACT_DEPTH_PX = 6

    def fill(self, image: FloatArray, hole: BoolArray) -> FloatArray:
        """See `HoleFiller.fill`."""
        if hole.sum() > self.EXACT_PIXELS:
            depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            deep = depth > self.EXACT_DEPTH_PX
            if deep.any():
                size = (image.shape[1], image.shape[0])
                coarse = cv2.resize(self.fill(*halve(image, hole)), size, interpolation=cv2.INTER_LINEAR)
                image = np.where(deep[..., None], coarse, image)
                hole = hole & ~deep
        from skimage.restoration import inpaint_biharmonic

        filled: FloatArray = inpaint_biharmonic(image, hole, split_into_regions=True, channel_axis=-1)
        return filled


class Denoiser(Restorer):
    """Removes noise of the strength that it estimates in the image; an image without noise is returned as it is."""

    requirements = ModelRequirements(needs_mask=False, tileable=False)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        cleaned = []
        for one in map(_to_array, image):
            sigma = estimate_noise(one)
            cleaned.append(self.clean(one, sigma) if sigma > 1e-4 else one)
        return _to_batch(cleaned, image)

    @abstractmethod
    def clean(self, image: FloatArray, sigma: float) -> FloatArray:
        """Remove noise of standard deviation `sigma` above 0 from one image, float32 H×W×3."""


class NLMeans(Denoiser):
    """Averages of pixels whose surroundings look alike (Buades et al. 2005), scikit-image's fast mode."""

    name = "nlmeans"
    purpose = "removes noise by averaging similar patches (scikit-image)"

    def clean(self, image: FloatArray, sigma: float) -> FloatArray:
        """See `Denoiser.clean`."""
        from skimage.restoration import denoise_nl_means

        cleaned: FloatArray = denoise_nl_means(
            image,
            patch_size=5,
            patch_distance=6,
            h=NL_MEANS_STRENGTH * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )
        return cleaned


class TotalVariation(Denoiser):
    """Total variation denoising (Chambolle 2004), scikit-image's."""

    name = "tv"
    purpose = "removes noise by flattening what varies little (scikit-image)"

    def clean(self, image: FloatArray, sigma: float) -> FloatArray:
        """See `Denoiser.clean`."""
        from skimage.restoration import denoise_tv_chambolle

        denoise: Callable[..., FloatArray] = denoise_tv_chambolle
        return denoise(image, weight=TV_STRENGTH * sigma, channel_axis=-1)


class Deblurrer(Restorer):
    """Removes motion blur along a straight line. An image in which none is found is returned as it is.

    See `restore.restorers.deblurring` for the method, and for what it needs.
    """

    name = "deblur"
    purpose = "removes motion blur along a straight line, which it finds"
    requirements = ModelRequirements(needs_mask=False, tileable=False)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        sharp = []
        for one in map(_to_array, image):
            motion = find_motion(one)
            sharp.append(one if motion is None else deconvolve(one, motion))
        return _to_batch(sharp, image)


CLASSICAL: dict[str, type[Restorer]] = {
    "telea": Telea,
    "navier-stokes": NavierStokes,
    "biharmonic": Biharmonic,
    "nlmeans": NLMeans,
    "tv": TotalVariation,
    "deblur": Deblurrer,
    **INTERPOLATIONS,
}


def _opencv_inpaint(image: FloatArray, hole: BoolArray, method: int) -> FloatArray:
    levels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    filled = cv2.inpaint(levels, hole.astype(np.uint8), inpaintRadius=3, flags=method)
    return filled.astype(np.float32) / np.float32(255)


def _to_array(image: Tensor) -> FloatArray:
    return image.detach().float().cpu().permute(1, 2, 0).contiguous().numpy()


def _to_batch(images: list[FloatArray], like: Tensor) -> Tensor:
    batch = np.stack(images).astype(np.float32, copy=False).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(batch)).to(like.device)
