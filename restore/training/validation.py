"""Validation: the same pictures every time, scored as `restore eval` scores, and shown as a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.data.loader import Batch
from restore.devices import autocast
from restore.images import write_png
from restore.metrics import score_batch
from restore.metrics.lpips import Lpips, open_lpips, open_lpips_if_available
from restore.metrics.segmentation import grown, precision_recall_f1, tolerant_counts
from restore.models.self_ensemble import self_ensemble
from restore.training.config import TrainConfig

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
    write_png(path, sheet)


def better(scores: dict[str, float], best: dict[str, float], by: str) -> bool:
    """Whether these scores beat the best so far: the first do, `last` always does, a NaN never."""
    main = "f1" if "f1" in scores else "psnr"
    now, before = scores.get(main if by == "last" else by, math.nan), best.get(by)
    if math.isnan(now):
        return False
    if before is None or by == "last":
        return True
    return now < before if by == "lpips" else now > before


# Validation of a detector: what it marks as `restore detect` would mark it, and the threshold that is best there.


MARGIN_PX = 0
"""How far around what is found the mask reaches. A pixel more costs a third of what filling gains: on ten photographs
set aside, scratched, the true masks gain 11.0 dB, widened by a pixel 6.8. Where the scratched picture was blurred
(σ 0.5 to 0.7) and compressed (quality 80 to 92), what was found gains the same with and without (2.95 and 2.89 dB)."""
MOST_MARKED_CLEAN = 0.001
"""The share of a clean picture's pixels that a threshold may mark, where there is any that keeps to it."""
ALMOST_BEST = 0.005
"""Of thresholds whose F1 is as good to this much, the highest is taken: what is missed stays as it is, what is marked
wrongly is lost."""
THRESHOLDS = (*(step / 20 for step in range(1, 20)), 0.97, 0.98, 0.99)


@torch.no_grad()
def probability(model: nn.Module, picture: Tensor, precision: str) -> Tensor:
    """B×3×H×W -> B×1×H×W: how likely each pixel is damaged, float32; as `Detector.find` looks at small pictures."""
    with autocast(picture.device, precision):
        return self_ensemble(lambda seen: model(seen).float().sigmoid(), picture)


def validate_masks(model: nn.Module, batches: list[Batch], fabric: Fabric, *, precision: str) -> dict[str, float]:
    """Precision, recall and F1 over the pixels of all pictures (see `restore.metrics.segmentation`).

    Args:
        model: in eval mode.
        batches: the whole validation set, the same in every process.
        fabric: who shares the work.
        precision: `fp32`, `bf16` or `fp16`.

    Returns:
        `f1`, `precision`, `recall` of the damaged pictures; `marked_clean`, the share marked of the same pictures
        before they were damaged; and the `threshold` that all of these belong to: of those that mark at most
        `MOST_MARKED_CLEAN` of the clean pictures the highest whose F1 is at most `ALMOST_BEST` below the best; where
        there is none, the highest of all. NaN where an output is. `f1` is that threshold's, too.
    """
    levels = torch.tensor(THRESHOLDS, device=fabric.device).reshape(-1, 1, 1, 1)
    sums = torch.zeros(len(THRESHOLDS), 6, dtype=torch.float64, device=fabric.device)
    for batch in batches[fabric.global_rank :: fabric.world_size]:
        found, alarms = (probability(model, picture, precision) for picture in (batch.damaged, batch.clean))
        sums[:, :4] += tolerant_counts(grown(found >= levels, MARGIN_PX), batch.mask > 0)
        sums[:, 4] += grown(alarms >= levels, MARGIN_PX).sum((1, 2, 3)) + 0 * (found + alarms).sum()
        sums[:, 5] += alarms.numel()
    if fabric.world_size > 1:
        everywhere = fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(everywhere, Tensor)
        sums = everywhere
    precisions, recalls, f1 = precision_recall_f1(sums[:, :4])
    clean = sums[:, 4] / sums[:, 5]
    allowed = clean <= MOST_MARKED_CLEAN
    f1_allowed = torch.where(allowed, f1, -1.0)
    good = (allowed & (f1_allowed >= f1_allowed.max() - ALMOST_BEST)).nonzero()
    at = int(good.max()) if len(good) else len(THRESHOLDS) - 1
    return {
        "f1": float(f1[at] + 0 * clean[at]),
        "precision": float(precisions[at]),
        "recall": float(recalls[at]),
        "marked_clean": float(clean[at]),
        "threshold": THRESHOLDS[at],
    }


def mask_row(model: nn.Module, batch: Batch, *, precision: str) -> list[Tensor]:
    """Damaged | probability | true mask, 1×3×H×W each."""
    found = probability(model, batch.damaged, precision)
    return [batch.damaged, *(x.expand(-1, 3, -1, -1) for x in (found, batch.mask))]


# How a run's network is examined every so many steps, whatever it learns.


@dataclass(frozen=True)
class Validator:
    """What is scored, and what is shown.

    Attributes:
        scores: (model in eval mode, the whole validation set, who shares the work) -> scores by name.
        row: (model, one validation picture) -> damaged | output | truth, 1×3×H×W each, for a grid.
    """

    scores: Callable[[nn.Module, list[Batch], Fabric], dict[str, float]]
    row: Callable[[nn.Module, Batch], list[Tensor]]


def open_exam(config: TrainConfig, precision: str, device: torch.device, on_event: Callable[[str], None]) -> Validator:
    """The examination that a config's task asks for.

    Args:
        config: of the run.
        precision: `fp32`, `bf16` or `fp16`.
        device: where LPIPS computes.
        say: told where there is no LPIPS, and why.

    Raises:
        RestoreError: LPIPS' backbone cannot be had, and `best_by` rests on it.
    """
    if config.task == "detection":
        return Validator(partial(validate_masks, precision=precision), partial(mask_row, precision=precision))
    lpips = _open_lpips(config, device, on_event)
    scores = partial(validate_pictures, lpips=lpips, precision=precision)
    return Validator(scores, partial(picture_row, precision=precision))


def _open_lpips(config: TrainConfig, device: torch.device, on_event: Callable[[str], None]) -> Lpips | None:
    """LPIPS where its backbone can be had; otherwise None, and said (unless `best_by` rests on it)."""
    if config.lpips_net == "none":
        return None
    if config.best_by == "lpips":
        return open_lpips(config.lpips_net, config.lpips_weights, device)
    lpips, reason = open_lpips_if_available(config.lpips_net, config.lpips_weights, device)
    if lpips is None:
        on_event(f"validating without LPIPS: {reason}")
    return lpips
