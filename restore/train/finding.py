"""Validation of a detector: what it marks as `restore detect` would mark it, and the threshold that is best there."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.datasets.batch import Batch
from restore.devices import autocast
from restore.metrics.detection import grown, precision_recall_f1, tolerant_counts
from restore.models.flips import mean_over_flips

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
        return mean_over_flips(lambda seen: model(seen).float().sigmoid(), picture)


def validate_masks(model: nn.Module, batches: list[Batch], fabric: Fabric, *, precision: str) -> dict[str, float]:
    """Precision, recall and F1 over the pixels of all pictures (see `restore.metrics.detection`).

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
