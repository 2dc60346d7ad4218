"""Methods without weights, as baselines and fallbacks: three that fill holes, two that remove noise.

All run on the CPU in NumPy arrays; the result comes back on the device it came from. None is tileable: a filler
carries colours across a hole of any width, and the denoisers measure the noise of the whole picture first.
"""

from __future__ import annotations

from abc import abstractmethod

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, inpaint_biharmonic
from torch import Tensor

from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.hybrid_inpainting import halve

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

CONTEXT_PX = 32
"""How much of the picture around its holes a filler is shown."""

# Highest mean PSNR on four of scikit-image's photographs with noise of 10, 25 and 50 levels, among steps of 0.1 and
# 0.15. OpenCV's fastNlMeansDenoisingColored, told the true noise, stays 2.5 to 3 dB below its scikit-image namesake.
NL_MEANS_STRENGTH = 0.6
TV_STRENGTH = 0.8


class HoleFiller(Restorer):
    """Fills what the mask hides (anything above 0) from what surrounds it; with nothing known, with mid-gray."""

    requirements = ModelRequirements(needs_mask=True, tileable=False, overlap_px=CONTEXT_PX)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return image
        filled = [
            self._fill_crop(_to_array(picture), hidden[0].cpu().numpy() > 0) for picture, hidden in zip(image, mask)
        ]
        return _to_batch(filled, image)

    def _fill_crop(self, picture: Array, hidden: Mask) -> Array:
        if not hidden.any():
            return picture
        if hidden.all():
            return np.full_like(picture, 0.5)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        crop = (
            slice(max(rows[0] - CONTEXT_PX, 0), rows[-1] + 1 + CONTEXT_PX),
            slice(max(columns[0] - CONTEXT_PX, 0), columns[-1] + 1 + CONTEXT_PX),
        )
        filled = picture.copy()
        filled[crop] = self.fill(picture[crop], hidden[crop])
        return filled

    @abstractmethod
    def fill(self, picture: Array, hidden: Mask) -> Array:
        """Fill one crop: float32 H×W×3 and bool H×W, some pixels hidden and some not. Known pixels may change."""


class Telea(HoleFiller):
    """Weighted averages marching in from the hole's edge (Telea 2004), OpenCV's, radius 3, in 8 bits."""

    name = "telea"
    purpose = "fills holes by fast marching (OpenCV)"

    def fill(self, picture: Array, hidden: Mask) -> Array:
        """See `HoleFiller.fill`."""
        return _opencv_inpaint(picture, hidden, cv2.INPAINT_TELEA)


class NavierStokes(HoleFiller):
    """Lines of equal colour continued into the hole as a fluid flows (Bertalmío et al. 2001), OpenCV's, in 8 bits."""

    name = "navier-stokes"
    purpose = "fills holes along lines of equal colour (OpenCV)"

    def fill(self, picture: Array, hidden: Mask) -> Array:
        """See `HoleFiller.fill`."""
        return _opencv_inpaint(picture, hidden, cv2.INPAINT_NS)


class Biharmonic(HoleFiller):
    """The smoothest surface through the hole's edge (Chui & Mhaskar 2010), scikit-image's.

    Solved exactly, time grows faster than the hole, and the surface overshoots in the middle of wide ones. Above
    `EXACT_PIXELS` hidden pixels, what lies deeper than `EXACT_DEPTH_PX` therefore comes from the same method at half
    the size, enlarged (a stroke of 23,000 pixels on the astronaut: PSNR in the hole 14.9 dB, exact 13.5 dB).
    """

    name = "biharmonic"
    purpose = "fills holes with the smoothest surface (scikit-image)"

    EXACT_PIXELS = 1000
    EXACT_DEPTH_PX = 6

    def fill(self, picture: Array, hidden: Mask) -> Array:
        """See `HoleFiller.fill`."""
        if hidden.sum() > self.EXACT_PIXELS:
            depth = cv2.distanceTransform(hidden.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            deep = depth > self.EXACT_DEPTH_PX
            if deep.any():
                size = (picture.shape[1], picture.shape[0])
                coarse = cv2.resize(self.fill(*halve(picture, hidden)), size, interpolation=cv2.INTER_LINEAR)
                picture = np.where(deep[..., None], coarse, picture)
                hidden = hidden & ~deep
        return inpaint_biharmonic(picture, hidden, split_into_regions=True, channel_axis=-1)


class Denoiser(Restorer):
    """Removes noise as strong as it finds in the picture; a picture without noise comes back as it is."""

    requirements = ModelRequirements(needs_mask=False, tileable=False)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        cleaned = []
        for picture in map(_to_array, image):
            sigma = estimate_noise(picture)
            cleaned.append(self.clean(picture, sigma) if sigma > 1e-4 else picture)
        return _to_batch(cleaned, image)

    @abstractmethod
    def clean(self, picture: Array, sigma: float) -> Array:
        """Clean one picture: float32 H×W×3, with noise of standard deviation `sigma` above 0."""


class NLMeans(Denoiser):
    """Averages of pixels whose surroundings look alike (Buades et al. 2005), scikit-image's fast mode."""

    name = "nlmeans"
    purpose = "removes noise by averaging look-alike patches (scikit-image)"

    def clean(self, picture: Array, sigma: float) -> Array:
        """See `Denoiser.clean`."""
        return denoise_nl_means(
            picture,
            patch_size=5,
            patch_distance=6,
            h=NL_MEANS_STRENGTH * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )


class TotalVariation(Denoiser):
    """The nearest picture with little total variation (Chambolle 2004), scikit-image's."""

    name = "tv"
    purpose = "removes noise by flattening what varies little (scikit-image)"

    def clean(self, picture: Array, sigma: float) -> Array:
        """See `Denoiser.clean`."""
        return denoise_tv_chambolle(picture, weight=TV_STRENGTH * sigma, channel_axis=-1)


CLASSICAL: dict[str, type[Restorer]] = {
    "telea": Telea,
    "navier-stokes": NavierStokes,
    "biharmonic": Biharmonic,
    "nlmeans": NLMeans,
    "tv": TotalVariation,
}


def estimate_noise(picture: Array) -> float:
    """The standard deviation of white noise in a picture, from its finest diagonal details.

    The median of the Haar wavelet's diagonal band over 0.6745 (Donoho & Johnstone 1994), averaged over channels.

    Args:
        picture: float H×W×C.

    Returns:
        In the units of the picture; 0 where it is less than two pixels wide or high.
    """
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    if not height or not width:
        return 0.0
    a, b = picture[0:height:2, 0:width:2], picture[0:height:2, 1:width:2]
    c, d = picture[1:height:2, 0:width:2], picture[1:height:2, 1:width:2]
    diagonal = np.abs(a - b - c + d) / 2
    return float(np.median(diagonal, axis=(0, 1)).mean() / 0.6745)


def _opencv_inpaint(picture: Array, hidden: Mask, method: int) -> Array:
    levels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
    filled = cv2.inpaint(levels, hidden.astype(np.uint8), inpaintRadius=3, flags=method)
    return filled.astype(np.float32) / np.float32(255)


def _to_array(picture: Tensor) -> Array:
    return picture.detach().float().cpu().permute(1, 2, 0).contiguous().numpy()


def _to_batch(pictures: list[Array], like: Tensor) -> Tensor:
    batch = np.stack(pictures).astype(np.float32, copy=False).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(batch)).to(like.device)
