"""Validation: the same pictures every time, scored as `restore eval` scores, and shown as a grid."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.datasets.batch import Batch
from restore.devices import autocast
from restore.images import save_png
from restore.metrics import score_batch
from restore.metrics.perceptual import Lpips

_GAP_PX = 4


@torch.no_grad()
def repaired(model: nn.Module, batch: Batch, precision: str) -> Tensor:
    """What a user would get: clamped, rounded to 8 bits, known pixels the source's where a mask is seen."""
    told = bool(getattr(model, "mask", False))
    with autocast(batch.clean.device, precision):
        output = model(batch.damaged, batch.mask if told else None).float().clamp(0, 1)
    if told:
        output = torch.where(batch.mask > 0, output, batch.damaged)
    return (output * 255).round() / 255


def validate_pictures(
    model: nn.Module, batches: list[Batch], fabric: Fabric, *, lpips: Lpips | None, precision: str
) -> dict[str, float]:
    """Mean per-picture scores over all pictures, each counted once however many processes share them.

    Args:
        model: in eval mode.
        batches: the whole validation set, the same in every process.
        fabric: who shares the work.
        lpips: scores LPIPS too, or None.
        precision: `fp32`, `bf16` or `fp16`.

    Returns:
        `psnr`, `ssim`, with `lpips` where it can be had. Identical pictures (infinite PSNR) are left out of the mean
        (infinite where all are); NaN where an output is.
    """
    names = ["psnr", "ssim"] + (["lpips"] if lpips is not None else [])
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=fabric.device)
    for batch in batches[fabric.global_rank :: fabric.world_size]:
        scores = score_batch(repaired(model, batch, precision), batch.clean, lpips=lpips)
        for i, name in enumerate(names):
            # LPIPS is NaN where a picture is too small for it; elsewhere NaN means weights that are no good, and stays.
            unscored = scores[name].isnan() if name == "lpips" else scores[name].isinf()
            counted = scores[name][~unscored]
            sums[0, i] += counted.sum().to(sums.device)
            sums[1, i] += len(counted)
    if fabric.world_size > 1:
        everywhere = fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(everywhere, Tensor)
        sums = everywhere
    totals, counts = sums.tolist()
    empty = {"psnr": math.inf, "ssim": math.nan, "lpips": math.nan}
    return {name: total / count if count else empty[name] for name, total, count in zip(names, totals, counts)}


def picture_row(model: nn.Module, batch: Batch, *, precision: str) -> list[Tensor]:
    """Damaged | output | clean, 1×3×H×W each."""
    return [batch.damaged, repaired(model, batch, precision), batch.clean]


def save_grid(path: Path, rows: list[list[Tensor]]) -> None:
    """Pictures of 1×3×H×W in rows, on white, as a PNG."""
    height = max(p.shape[-2] for row in rows for p in row) + _GAP_PX
    width = max(p.shape[-1] for row in rows for p in row) + _GAP_PX
    sheet = np.full((height * len(rows), width * len(rows[0]), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            sheet[y * height : y * height + pixels.shape[0], x * width : x * width + pixels.shape[1]] = pixels
    save_png(path, sheet)


def better(scores: dict[str, float], best: dict[str, float], by: str) -> bool:
    """Whether these scores beat the best so far: the first do, `last` always does, a NaN never."""
    main = "f1" if "f1" in scores else "psnr"
    now, before = scores.get(main if by == "last" else by, math.nan), best.get(by)
    if math.isnan(now):
        return False
    if before is None or by == "last":
        return True
    return now < before if by == "lpips" else now > before
