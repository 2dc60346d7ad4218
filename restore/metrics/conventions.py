"""Named conventions for computing pixel metrics: color, window, border."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from restore.errors import RestoreError

K1, K2 = 0.01, 0.03
"""Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13 (2004), section III.C."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment" (2003), section 3.2."""


@dataclass(frozen=True)
class Convention:
    """Settings of pixel metrics. Scores are comparable only under the same convention.

    Attributes:
        name: value of `--convention`.
        psnr_color: channels for PSNR: `rgb`, or `y-channel` (Y' of BT.601 in studio swing, not rounded).
        ssim_color: channels for SSIM and MS-SSIM, which average over channels; also `gray-8bit`, luma rounded to 8
            bits.
        window: `gaussian` is 11×11 with σ = 1.5; `uniform` is 7×7 with equal weights.
        reflected: true: at the coarsest scale of MS-SSIM, windows extend beyond the border into the reflected image,
            as in torchmetrics. False: windows lie inside at every scale, as in the paper. The two differ by up to 0.003
            in strong noise.
        sample_covariance: divide covariances by N − 1 instead of N.
        border_px: rows and columns to crop at every side, for PSNR (also in the hole), SSIM, MS-SSIM and ΔE.
    """

    name: str
    psnr_color: Literal["rgb", "y-channel"] = "rgb"
    ssim_color: Literal["rgb", "gray-8bit", "y-channel"] = "rgb"
    window: Literal["gaussian", "uniform"] = "gaussian"
    reflected: bool = False
    sample_covariance: bool = False
    border_px: int = 0

    def describe(self) -> dict[str, dict[str, object]]:
        """The conventions of `psnr`, `ssim`, `ms_ssim` and `delta_e` as plain values, for reports."""
        window = "11x11 Gaussian, sigma 1.5" if self.window == "gaussian" else "7x7 uniform"
        structure: dict[str, object] = {
            "colour": _COLOUR_WORDS[self.ssim_color],
            "data_range": 1.0,
            "window": window,
            "covariance": "sample" if self.sample_covariance else "population",
            "k1": K1,
            "k2": K2,
            "border_px": self.border_px,
            "region": "where the window lies inside the picture",
        }
        coarsest = "all of its pixels, onto the image's reflection" if self.reflected else "as at the others"
        scales = {
            "coarsest_region": coarsest,
            "scales": list(SCALE_WEIGHTS),
            "downsampling": "means of 2x2 pixels",
            "negative": "a scale's mean below 0 counts as 0",
        }
        return {
            "psnr": {
                "colour": _COLOUR_WORDS[self.psnr_color],
                "data_range": 1.0,
                "border_px": self.border_px,
                "region": "whole picture",
                "error": "mean over pixels and channels, per image",
            },
            "ssim": structure,
            "ms_ssim": structure | scales,
            "delta_e": {
                "formula": "CIEDE2000, kL = kC = kH = 1",
                "colour": "CIELAB of sRGB, D65, 2 degree observer",
                "border_px": self.border_px,
                "region": "whole picture",
                "error": "mean over pixels, per image",
            },
        }


CONVENTIONS = {
    "skimage": Convention("skimage", reflected=True),
    "matlab": Convention("matlab", ssim_color="gray-8bit"),
    "y-channel": Convention("y-channel", psnr_color="y-channel", ssim_color="y-channel"),
}
"""The conventions by name.

- `skimage`: RGB, as in scikit-image with the settings of Wang et al.; MS-SSIM as in torchmetrics.
- `matlab`: PSNR over RGB; SSIM and MS-SSIM on rounded gray, as in Wang's `ssim_index.m`.
- `y-channel`: all metrics on studio-swing luma, as in super-resolution papers.
"""

_COLOUR_WORDS = {
    "rgb": "sRGB, all channels",
    "gray-8bit": "BT.601 luma of sRGB, rounded to 8 bits",
    "y-channel": "Y of YCbCr BT.601, studio swing 16-235 of 255, not rounded",
}


def find_convention(name: str) -> Convention:
    """A convention by name.

    Raises:
        RestoreError: there is no such convention; the message lists them.
    """
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    near = difflib.get_close_matches(name, CONVENTIONS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RestoreError(f"unknown convention {name!r}", hint=f"{hint}known: {', '.join(CONVENTIONS)}")
