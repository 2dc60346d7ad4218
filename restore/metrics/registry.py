"""All metrics by their names in reports. To add one, write its file and add lines to `METRICS` and `score_batch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from restore.metrics.ciede2000 import delta_e
from restore.metrics.conventions import CONVENTIONS, Convention
from restore.metrics.psnr import psnr
from restore.metrics.seam import seam, seam_ratio
from restore.metrics.ssim import ms_ssim, ssim

if TYPE_CHECKING:
    from restore.metrics.lpips import Lpips


@dataclass(frozen=True)
class Metric:
    """The presentation of a metric in reports.

    Attributes:
        title: column header, with the unit.
        decimals: number of decimals.
        better: whether higher or lower values are better.
        masked: the metric scores the hole or its edge, and needs a mask.
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
"""The metrics of one image, in column order."""

FID = "fid"
"""The metric of a set of images, from `restore.metrics.fid`."""


def score_batch(
    restored: Tensor,
    clean: Tensor,
    mask: Tensor | None = None,
    lpips: Lpips | None = None,
    *,
    metrics: tuple[str, ...] = ("psnr", "ssim"),
    convention: Convention = CONVENTIONS["skimage"],
) -> dict[str, Tensor]:
    """Score every image of a batch; `eval`, `bench` and the validation of training all use it.

    Args:
        restored: float32, B×3×H×W, sRGB, [0, 1].
        clean: the same shape, on the same device.
        mask: float32, B×1×H×W; a pixel is in the hole if its value is at least 0.5. With a mask, `psnr` and `lpips`
            also give `psnr_hole` and `lpips_hole`.
        lpips: from `lpips.open_lpips`. If set, LPIPS is computed even if `metrics` does not name it.
        metrics: names from `METRICS`; masked metrics need a mask.
        convention: convention of the pixel metrics.

    Returns:
        float64[B] by names of `METRICS`. PSNR is infinite for identical images. NaN means no value: the image is too
        small for the window or the network, the border leaves nothing, the mask has no hole, the hole has no edge, or
        (for `seam_ratio`) the clean image is flat across the edge.
    """
    scores: dict[str, Tensor] = {}
    if "psnr" in metrics:
        scores["psnr"] = psnr(restored, clean, convention=convention)
    if mask is not None and {"psnr", "psnr_hole"} & set(metrics):
        scores["psnr_hole"] = psnr(restored, clean, mask=mask, convention=convention)
    if "ssim" in metrics:
        scores["ssim"] = ssim(restored, clean, convention=convention)
    if "ms_ssim" in metrics:
        scores["ms_ssim"] = ms_ssim(restored, clean, convention=convention)
    if "delta_e" in metrics:
        scores["delta_e"] = delta_e(restored, clean, convention=convention)
    if lpips is not None:  # one pass of the network gives both scores
        scores["lpips"], in_hole = lpips.scores(restored, clean, mask)
        if in_hole is not None:
            scores["lpips_hole"] = in_hole
    if mask is not None and {"seam", "seam_ratio"} & set(metrics):
        scores["seam"], true_gradient = seam(restored, clean, mask)
        scores["seam_ratio"] = seam_ratio(scores["seam"], true_gradient)
    return scores
