"""How a run's network is examined every so many steps, whatever it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.datasets.batch import Batch
from restore.errors import RestoreError
from restore.metrics.perceptual import Lpips, open_lpips
from restore.train.config import TrainConfig
from restore.train.finding import mask_row, validate_masks
from restore.train.validation import picture_row, validate_pictures


@dataclass(frozen=True)
class Exam:
    """What is scored, and what is shown.

    Attributes:
        scores: (model in eval mode, the whole validation set, who shares the work) -> scores by name.
        row: (model, one validation picture) -> damaged | output | truth, 1×3×H×W each, for a grid.
    """

    scores: Callable[[nn.Module, list[Batch], Fabric], dict[str, float]]
    row: Callable[[nn.Module, Batch], list[Tensor]]


def open_exam(config: TrainConfig, precision: str, device: torch.device, say: Callable[[str], None]) -> Exam:
    """The examination that a config's target asks for.

    Args:
        config: of the run.
        precision: `fp32`, `bf16` or `fp16`.
        device: where LPIPS computes.
        say: told where there is no LPIPS, and why.

    Raises:
        RestoreError: LPIPS' backbone cannot be had, and `best_by` rests on it.
    """
    if config.target == "mask":
        return Exam(partial(validate_masks, precision=precision), partial(mask_row, precision=precision))
    lpips = _open_lpips(config, device, say)
    scores = partial(validate_pictures, lpips=lpips, precision=precision)
    return Exam(scores, partial(picture_row, precision=precision))


def _open_lpips(config: TrainConfig, device: torch.device, say: Callable[[str], None]) -> Lpips | None:
    """LPIPS where its backbone can be had; otherwise None, and said (unless `best_by` rests on it)."""
    if config.lpips_net == "none":
        return None
    try:
        return open_lpips(config.lpips_net, weights=config.lpips_weights, device=device)
    except RestoreError as error:
        if config.best_by == "lpips" or config.lpips_weights is not None:
            raise
        say(f"validating without LPIPS: {error}")
        return None
