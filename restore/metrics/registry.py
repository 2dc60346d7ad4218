"""All metrics by the name they have in reports. To add one: its file, a line in `METRICS`, a line in `score_batch`."""

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
    """How a report shows a metric.

    Attributes:
        title: column header, with the unit.
        decimals: number of decimals.
        better: which values are better.
        masked: it scores the hole or its edge, and has no value without a mask.
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
"""The metrics of one image, in the order of the columns."""

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
        mask: float32, B×1×H×W, 1 = missing (a pixel is in the hole from 0.5 on). With a mask, `psnr` and `lpips` bring
            `psnr_hole` and `lpips_hole` along.
        lpips: from `lpips.open_lpips`. If it is there, LPIPS is computed whether `metrics` names it or not.
        metrics: names from `METRICS`; the masked ones need a mask.
        convention: how the metrics of pixels are computed.

    Returns:
        float64[B] under the names of `METRICS`. Infinite PSNR: identical. NaN: no value (the image is too small for the
        window or the network, nothing is inside the border, the mask has no hole, the hole has no edge, or the edge is
        flat for `seam_ratio`).
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
    if lpips is not None:  # one pass of the network for both
        scores["lpips"], in_hole = lpips.scores(restored, clean, mask)
        if in_hole is not None:
            scores["lpips_hole"] = in_hole
    if mask is not None and {"seam", "seam_ratio"} & set(metrics):
        scores["seam"], true_gradient = seam(restored, clean, mask)
        scores["seam_ratio"] = seam_ratio(scores["seam"], true_gradient)
    return scores
