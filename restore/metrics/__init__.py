"""How close a restored picture is to the clean one: PSNR, SSIM, LPIPS; per image, under a convention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from restore.metrics.fidelity import CONVENTIONS, SSIM_MINIMUM_PX, Convention, find_convention, psnr, ssim

if TYPE_CHECKING:
    from restore.metrics.perceptual import Lpips

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "SSIM_MINIMUM_PX",
    "Convention",
    "Metric",
    "find_convention",
    "psnr",
    "score_batch",
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
        mask: float32, B×1×H×W, 1 = missing (a pixel is in the hole from 0.5 on); with it come `psnr_hole` and
            `lpips_hole`.
        lpips: from `perceptual.open_lpips`; None leaves LPIPS out.
        metrics: which of `psnr` and `ssim`.
        convention: how PSNR and SSIM are computed.

    Returns:
        float64[B] under `psnr`, `ssim`, `lpips`, `psnr_hole`, `lpips_hole`, as asked for. Infinite PSNR:
        identical. NaN: has no value (too small for the window or the network, or no hole in the mask).
    """
    scores: dict[str, Tensor] = {}
    if "psnr" in metrics:
        scores["psnr"] = psnr(restored, clean, convention=convention)
        if mask is not None:
            scores["psnr_hole"] = psnr(restored, clean, mask=mask, convention=convention)
    if "ssim" in metrics:
        scores["ssim"] = ssim(restored, clean, convention=convention)
    if lpips is not None:
        scores["lpips"], hole = lpips.scores(restored, clean, mask)
        if hole is not None:
            scores["lpips_hole"] = hole
    return scores
