"""Validation: fixed images, scored as `restore eval` scores them, and shown in a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.data.layout import as_rgb
from restore.data.loader import Batch, enlarged, in_srgb
from restore.devices import autocast
from restore.hashed_random import fold_in, normal
from restore.images import write_png
from restore.linear_light import from_linear
from restore.metrics import score_batch
from restore.metrics.conventions import CONVENTIONS, Convention
from restore.metrics.fid import Inception, open_inception
from restore.metrics.lpips import Lpips, open_lpips, open_lpips_if_available
from restore.metrics.sample_scores import sample_scores
from restore.metrics.segmentation import grown, precision_recall_f1, tolerant_counts
from restore.models.base import RestorationNetwork
from restore.models.cycle import GeneratorPair
from restore.restorers.detector import self_ensemble, views_of
from restore.restorers.sampler import SAMPLE_NOISE
from restore.training.config import TrainConfig
from restore.training.step import labels_of


@dataclass(frozen=True)
class Validator:
    """How a network is scored and shown.

    Attributes:
        scores: (model in eval mode, the whole validation set, fabric) -> scores by name.
        row: (model, one validation image) -> the images of a row of the grid, 1×3×H×W each.
    """

    scores: Callable[[RestorationNetwork, list[Batch], Fabric], dict[str, float]]
    row: Callable[[RestorationNetwork, Batch], list[Tensor]]


def open_validator(
    config: TrainConfig, precision: str, device: torch.device, on_event: Callable[[str], None], scale: int = 1
) -> Validator:
    """The validation of the config's task.

    Args:
        config: of the run.
        precision: `fp32`, `bf16` or `fp16`.
        device: where LPIPS runs.
        on_event: called if LPIPS is left out.
        scale: of the generator: output side / input side.

    Raises:
        RestoreError: the weights of LPIPS cannot be read or downloaded, and `best_by` needs them.
    """
    if config.task == "detection":
        return Validator(partial(score_masks, precision=precision), partial(mask_row, precision=precision))
    if config.data.is_unpaired:
        has_truth = config.data.validation.input is not None
        lpips = _open_lpips(config, device, on_event) if has_truth else None
        scored = partial(score_unpaired, lpips=lpips, precision=precision, has_truth=has_truth)
        return Validator(scored, partial(unpaired_row, precision=precision))
    if config.task == "generation":
        inception = open_inception(config.fid_weights, device) if config.sample_scores else None
        lpips = _open_lpips(config, device, on_event) if config.sample_scores else None
        scored = partial(score_drawn, inception=inception, lpips=lpips, precision=precision)
        return Validator(scored, partial(drawn_row, precision=precision))
    lpips = _open_lpips(config, device, on_event)
    linear = config.data.is_linear
    convention = CONVENTIONS["skimage"]
    if scale > 1:  # as papers on enlarging score: the luma alone, without a border as wide as the factor
        convention = replace(CONVENTIONS["y-channel"], border_px=scale)
    scores = partial(score_images, lpips=lpips, precision=precision, linear=linear, convention=convention)
    return Validator(scores, partial(image_row, precision=precision, linear=linear))


def _open_lpips(config: TrainConfig, device: torch.device, on_event: Callable[[str], None]) -> Lpips | None:
    """LPIPS; None, with an event, if its weights cannot be downloaded and `best_by` does not need them."""
    if config.lpips_net == "none":
        return None
    if config.best_by == "lpips":
        return open_lpips(config.lpips_net, config.lpips_weights, device)
    lpips, reason = open_lpips_if_available(config.lpips_net, config.lpips_weights, device)
    if lpips is None:
        on_event(f"validating without LPIPS: {reason}")
    return lpips


def is_better(scores: dict[str, float], best: dict[str, float], by: str) -> bool:
    """Whether scores are better than the best so far: always for `by="last"` and the first scores, never with NaN."""
    # `last` still needs a score, to refuse weights that give NaN.
    main = next(iter(scores), by)
    now, before = scores.get(main if by == "last" else by, math.nan), best.get(by)
    if math.isnan(now):
        return False
    if before is None or by == "last":
        return True
    return now < before if by in ("lpips", "fid", "kid") else now > before


_GAP_PX = 4


def save_grid(path: Path, rows: list[list[Tensor]]) -> None:
    """Save images of 1×3×H×W in rows, on white, as a PNG."""
    height = max(image.shape[-2] for row in rows for image in row) + _GAP_PX
    width = max(image.shape[-1] for row in rows for image in row) + _GAP_PX
    grid = np.full((height * len(rows), width * len(rows[0]), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            pixels = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            grid[y * height : y * height + pixels.shape[0], x * width : x * width + pixels.shape[1]] = pixels
    write_png(path, grid)


def _sum_over_processes(sums: Tensor, fabric: Fabric) -> Tensor:
    if fabric.world_size == 1:
        return sums
    total = fabric.all_reduce(sums, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


# Restoration


def score_images(
    model: RestorationNetwork,
    batches: list[Batch],
    fabric: Fabric,
    *,
    lpips: Lpips | None,
    precision: str,
    linear: bool = False,
    convention: Convention = CONVENTIONS["skimage"],
) -> dict[str, float]:
    """Mean scores per image. Each image counts once, however many processes share the work.

    Args:
        model: in eval mode.
        batches: the whole validation set, the same in each process.
        fabric: of the run.
        lpips: None: no LPIPS.
        precision: `fp32`, `bf16` or `fp16`.
        linear: batches are in linear light; they are scored in sRGB.
        convention: of PSNR and SSIM.

    Returns:
        `psnr`, `ssim`, and `lpips`. Infinite PSNR (equal images) is left out of the mean; it is infinite if all are.
        NaN if an output contains NaN.
    """
    names = ["psnr", "ssim"] + (["lpips"] if lpips is not None else [])
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=fabric.device)
    for batch in batches[fabric.global_rank :: fabric.world_size]:
        restored, shown = restore_batch(model, batch, precision, linear=linear)
        scores = score_batch(as_rgb(restored), as_rgb(shown.clean), lpips=lpips, convention=convention)
        for i, name in enumerate(names):
            # LPIPS is NaN for an image that is too small. NaN of other metrics comes from the weights, and must stay.
            unscored = scores[name].isnan() if name == "lpips" else scores[name].isinf()
            counted = scores[name][~unscored]
            sums[0, i] += counted.sum().to(sums.device)
            sums[1, i] += len(counted)
    totals, counts = _sum_over_processes(sums, fabric).tolist()
    empty = {"psnr": math.inf, "ssim": math.nan, "lpips": math.nan}
    return {name: total / count if count else empty[name] for name, total, count in zip(names, totals, counts)}


@torch.no_grad()
def restore_batch(
    model: RestorationNetwork, batch: Batch, precision: str, *, linear: bool = False
) -> tuple[Tensor, Batch]:
    """The restored images as a user gets them: sRGB in [0, 1], with a mask equal to the input outside.

    They are rounded to 8 bits, unless the clean images have more: `restore fix` keeps the depth of a file.

    Returns:
        The images, and the batch in sRGB.
    """
    with autocast(batch.clean.device, precision):
        output: Tensor = model(batch.seen, batch.mask if model.takes_mask else None)
    output = output.float()
    if linear:
        output, batch = from_linear(output), in_srgb(batch)
    output = output.clamp(0, 1)
    if model.takes_mask:
        output = torch.where(batch.mask > 0, output, batch.damaged)
    steps = batch.clean * 255
    deep = bool((steps - steps.round()).abs().max() > 1e-3)
    return (output if deep else (output * 255).round() / 255), batch


def image_row(model: RestorationNetwork, batch: Batch, *, precision: str, linear: bool = False) -> list[Tensor]:
    """Damaged | restored | clean, 1×3×H×W each."""
    restored, shown = restore_batch(model, batch, precision, linear=linear)
    return [as_rgb(image) for image in (enlarged(shown.damaged, restored), restored, shown.clean)]


# Unpaired images


@torch.no_grad()
def _translated(model: RestorationNetwork, batch: Batch, precision: str) -> list[list[Tensor]]:
    """An image of A, and what it becomes; likewise of B. With a way back, also what comes back from each."""
    both = isinstance(model, GeneratorPair)
    shown = []
    for image, back in ((batch.damaged, False), (batch.clean, both)):
        chain = [image]
        for direction in (back, not back) if both else (False,):
            with autocast(image.device, precision):
                image = model(image, **({"back": True} if direction else {}))
            image = image.float().clamp(0, 1)
            chain.append(image)
        shown.append(chain)
    return shown


def score_unpaired(
    model: RestorationNetwork,
    batches: list[Batch],
    fabric: Fabric,
    *,
    lpips: Lpips | None,
    precision: str,
    has_truth: bool,
) -> dict[str, float]:
    """Mean scores of a `GeneratorPair` or a `ContrastiveGenerator`.

    Returns:
        `cycle`: PSNR of images that went to the other kind and back, for both kinds; without a way back `identity`:
        PSNR of images of B, which should stay as they are. If the clean images are the truth of the damaged ones
        (`has_truth`), also what `score_images` gives for the translation from A to B.
    """
    scores = score_images(model, batches, fabric, lpips=lpips, precision=precision) if has_truth else {}
    found = []
    for batch in batches:
        chains = _translated(model, batch, precision)
        for first, *_, last in chains if isinstance(model, GeneratorPair) else chains[1:]:
            found.append(score_batch(as_rgb(last), as_rgb(first), metrics=("psnr",))["psnr"].mean())
    return {**scores, "cycle" if isinstance(model, GeneratorPair) else "identity": float(torch.stack(found).mean())}


def unpaired_row(model: RestorationNetwork, batch: Batch, *, precision: str) -> list[Tensor]:
    """A | to B | back to A | B | to A | back to B, 1×3×H×W each; without a way back A | to B | B | likewise."""
    return [as_rgb(image) for chain in _translated(model, batch, precision) for image in chain]


# Images from noise


@torch.no_grad()
def _drawn(model: RestorationNetwork, batch: Batch, precision: str, count: int) -> Tensor:
    """Images of the class of an image, from noise that follows from its key."""
    latents: Any = model.latents
    keys = torch.cat([fold_in(batch.keys, number) for number in range(count)])
    labels = labels_of(batch)
    with autocast(batch.clean.device, precision):
        noise = normal(keys, SAMPLE_NOISE, latents).to(batch.clean.device)
        out: Tensor = model(noise, None if labels is None else labels.expand(count))
    return out.float().clamp(0, 1)


def score_drawn(
    model: RestorationNetwork,
    batches: list[Batch],
    fabric: Fabric,
    *,
    inception: Inception | None,
    lpips: Lpips | None,
    precision: str,
) -> dict[str, float]:
    """Scores of as many samples as there are validation images, of their classes.

    Returns:
        `diversity`: how much samples differ within their classes, relative to how much the images do; and those of
        `restore.metrics.sample_scores.sample_scores`.
    """
    drawn = torch.cat([_drawn(model, batch, precision, 1) for batch in batches])
    real = torch.cat([batch.clean for batch in batches])
    labels = [label for batch in batches if (label := labels_of(batch)) is not None]
    classes = torch.cat(labels) if labels else torch.zeros(len(drawn))
    spread = [0.0, 0.0]
    for kind in classes.unique():
        for number, images in enumerate((drawn, real)):
            one = images[classes == kind]
            spread[number] += len(one) * one.std(dim=0, correction=0).mean().item()
    scores = {"diversity": spread[0] / spread[1] if spread[1] else math.nan}
    if inception is not None:
        scores |= sample_scores(as_rgb(drawn), as_rgb(real), inception, lpips)
    return scores


def drawn_row(model: RestorationNetwork, batch: Batch, *, precision: str) -> list[Tensor]:
    """Samples, 1×3×H×W each, the same at each validation up to the weights."""
    return [as_rgb(image) for image in _drawn(model, batch, precision, 8).split(1)]


# Detection


MARGIN_PX = 0
"""Dilation of detected masks, in pixels. Dilating by one pixel costs a third of the gain from filling: on ten held-out
photographs with scratches, true masks gain 11.0 dB, and 6.8 dB if dilated by one pixel. If the scratched image was
blurred (σ 0.5 to 0.7) and compressed (quality 80 to 92), detected masks gain the same with and without dilation (2.95
and 2.89 dB)."""
MAX_FALSE_SHARE = 0.001
"""Largest share of the pixels of clean images that a threshold may detect, if any threshold detects that few."""
F1_TOLERANCE = 0.005
"""The chosen threshold is the highest whose F1 is within this of the best. High thresholds are preferred because missed
damage only stays as it is, but intact pixels that are detected are overwritten."""
THRESHOLDS = (*(step / 20 for step in range(1, 20)), 0.97, 0.98, 0.99)


def score_masks(model: nn.Module, batches: list[Batch], fabric: Fabric, *, precision: str) -> dict[str, float]:
    """Precision, recall and F1 over the pixels of all images (see `restore.metrics.segmentation`).

    Args:
        model: in eval mode.
        batches: the whole validation set, the same in each process.
        fabric: of the run.
        precision: `fp32`, `bf16` or `fp16`.

    Returns:
        `f1`, `precision`, `recall` on the damaged images; `marked_clean`, the share of pixels detected in the clean
        ones; and the `threshold` of all these: of the thresholds that detect at most `MAX_FALSE_SHARE` of the clean
        images, the highest whose F1 is within `F1_TOLERANCE` of the best; if there is none, the highest of all. `f1`
        is NaN if an output contains NaN.
    """
    levels = torch.tensor(THRESHOLDS, device=fabric.device).reshape(-1, 1, 1, 1)
    sums = torch.zeros(len(THRESHOLDS), 6, dtype=torch.float64, device=fabric.device)
    for batch in batches[fabric.global_rank :: fabric.world_size]:
        damaged, clean = (damage_probability(model, image, precision) for image in (batch.damaged, batch.clean))
        sums[:, :4] += tolerant_counts(grown(damaged >= levels, MARGIN_PX), batch.mask > 0)
        sums[:, 4] += grown(clean >= levels, MARGIN_PX).sum((1, 2, 3)) + 0 * (damaged + clean).sum()  # keeps NaN
        sums[:, 5] += clean.numel()
    sums = _sum_over_processes(sums, fabric)
    precisions, recalls, f1 = precision_recall_f1(sums[:, :4])
    false_share = sums[:, 4] / sums[:, 5]
    allowed = false_share <= MAX_FALSE_SHARE
    allowed_f1 = torch.where(allowed, f1, -1.0)
    good = (allowed & (allowed_f1 >= allowed_f1.max() - F1_TOLERANCE)).nonzero()
    at = int(good.max()) if len(good) else len(THRESHOLDS) - 1
    return {
        "f1": float(f1[at] + 0 * false_share[at]),
        "precision": float(precisions[at]),
        "recall": float(recalls[at]),
        "marked_clean": float(false_share[at]),
        "threshold": THRESHOLDS[at],
    }


@torch.no_grad()
def damage_probability(model: nn.Module, image: Tensor, precision: str) -> Tensor:
    """The probability that a pixel is damaged, B×3×H×W -> B×1×H×W, float32; as a detector computes it in use."""
    with autocast(image.device, precision):
        found = self_ensemble(lambda seen, view: model(seen).float().sigmoid(), image, views_of(image))
        return torch.stack(found).mean(0)


def mask_row(model: nn.Module, batch: Batch, *, precision: str) -> list[Tensor]:
    """Damaged | probability | true mask, 1×3×H×W each."""
    found = damage_probability(model, batch.damaged, precision)
    return [batch.damaged, *(x.expand(-1, 3, -1, -1) for x in (found, batch.mask))]
