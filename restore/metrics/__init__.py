"""Metrics of restored images against clean ones: one score per image, under a named convention."""

from restore.metrics.ciede2000 import delta_e
from restore.metrics.conventions import CONVENTIONS, Convention, find_convention
from restore.metrics.psnr import psnr
from restore.metrics.registry import FID, METRICS, Metric, score_batch
from restore.metrics.seam import seam
from restore.metrics.ssim import MS_SSIM_MINIMUM_PX, SSIM_MINIMUM_PX, ms_ssim, ssim

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
