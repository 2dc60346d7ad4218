"""How close a restored picture is to the clean one, by many measures; per image, each under its convention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from restore.metrics.ciede2000 import delta_e
from restore.metrics.conventions import CONVENTIONS, Convention, find_convention
from restore.metrics.psnr import psnr
from restore.metrics.seam import seam, seam_ratio
from restore.metrics.ssim import MS_SSIM_MINIMUM_PX, SSIM_MINIMUM_PX, ms_ssim, ssim

if TYPE_CHECKING:
    from restore.metrics.lpips import Lpips

__all__ = [
    "CONVENTIONS",
    "FID",
    "METRICS",
    "MS_SSIM_MINIMUM_PX",
    "SSIM_MINIMUM_PX",
    "Convention",
    "Metric",
    "delta_e",
    "find_convention",
    "ms_ssim",
    "psnr",
    "score_batch",
    "seam",
    "ssim",
]


@dataclass(frozen=True)
class Metric:
    """What a report must know of a metric.

    Attributes:
        title: at the head of its column, with the unit.
        decimals: how many are shown.
        better: which values are the good ones.
        masked: it is of the hole or its edge, and has no value without a mask.
    """

    title: str
    decimals: int
    better: Literal["higher", "lower"]
    masked: bool = False


METRICS = {
    "psnr": Metric("PSNR (dB)", 2, "higher"),
    "ssim": Metric("SSIM", 4, "higher"),
    "ms_ssim": Metric("MS-SSIM", 4, "higher"),
    "lpips": Metric("LPIPS", 4, "lower"),
    "delta_e": Metric("ΔE2000", 2, "lower"),
    "psnr_hole": Metric("PSNR in the hole (dB)", 2, "higher", masked=True),
    "lpips_hole": Metric("LPIPS in the hole", 4, "lower", masked=True),
    "seam": Metric("seam", 4, "lower", masked=True),
    "seam_ratio": Metric("seam / true gradient", 2, "lower", masked=True),
}
"""Every metric of one picture by the name it has in reports, in the order of the columns."""

FID = "fid"
"""What can be asked for beside them: one number for a set of pictures, from `restore.metrics.fid`."""


def score_batch(
    restored: Tensor,
    clean: Tensor,
    mask: Tensor | None = None,
    lpips: Lpips | None = None,
    *,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    convention: Convention = CONVENTIONS["skimage"],
) -> dict[str, Tensor]:
    """All scores of a batch, per image; used by `eval`, `bench` and the validation of training alike.

    Args:
        restored: float32, B×3×H×W, sRGB, [0, 1].
        clean: the same shape, on the same device.
        mask: float32, B×1×H×W, 1 = missing (a pixel is in the hole from 0.5 on). With it `psnr_hole` comes with
            `psnr`, `lpips_hole` with `lpips`.
        lpips: from `perceptual.open_lpips`; None leaves LPIPS out, else it is there whether asked for or not.
        metrics: names of `METRICS`; those of the hole have no score without a mask.
        convention: how the scores of pixels are computed.

    Returns:
        float64[B] under the names of `METRICS`. Infinite PSNR: identical. NaN: has no value (too small for the window
        or the network, nothing within the border, no hole in the mask, no edge, or a flat one for `seam_ratio`).
    """
    scores: dict[str, Tensor] = {}
    if "psnr" in metrics:
        scores["psnr"] = psnr(restored, clean, convention=convention)
    if mask is not None and {"psnr", "psnr_hole"} & set(metrics):
        scores["psnr_hole"] = psnr(restored, clean, mask=mask, convention=convention)
    for name, measure in (("ssim", ssim), ("ms_ssim", ms_ssim), ("delta_e", delta_e)):
        if name in metrics:
            scores[name] = measure(restored, clean, convention=convention)
    if lpips is not None:
        scores["lpips"], hole = lpips.scores(restored, clean, mask)
        if hole is not None:
            scores["lpips_hole"] = hole
    if mask is not None and {"seam", "seam_ratio"} & set(metrics):
        mismatch, gradient = seam(restored, clean, mask)
        scores |= {"seam": mismatch, "seam_ratio": seam_ratio(mismatch, gradient)}
    return scores
