"""One training step: an update of D, then of G; or of G alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.data.layout import as_rgb
from restore.data.loader import Batch, enlarged
from restore.devices import autocast
from restore.hashed_random import normal, uniform
from restore.linear_light import from_linear
from restore.losses.adversarial import (
    CountedPatches,
    accuracy,
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
    patch_mean,
    r1_penalty,
    sensitivity,
)
from restore.losses.diffaugment import diff_augment
from restore.losses.reconstruction import pixel_loss
from restore.losses.segmentation import soft_dice, weighted_cross_entropy
from restore.losses.structure import frequency_loss, gradient_loss, ms_ssim_loss
from restore.training.config import LossConfig
from restore.training.contrastive import contrastive_loss
from restore.training.trainable_network import TrainableNetwork, buffers_unless_skipped

_STRUCTURE_LOSSES = {"gradient": gradient_loss, "frequency": frequency_loss, "ms_ssim": ms_ssim_loss}
_NOISE = 2103  # stream of the hash for the noise that images are drawn from
_MIX = 2101  # stream of the hash for the position of the gradient penalty


@dataclass(frozen=True)
class StepContext:
    """What stays the same from step to step.

    Attributes:
        fabric: runs the backward passes, on one or several devices.
        loss: the loss section of the config.
        precision: `fp32`, `bf16` or `fp16`, for autocast.
        with_mask: G gets the mask. D then gets it, too, and sees G's output in the hole alone, as a user does. Without
            it, both see the whole damaged image.
        augment: kinds of augmentation of D's inputs.
        perceptual: the perceptual loss, or None.
        linear: images are in linear light.
        task: `restoration`; `detection`: G's outputs are logits of the mask; `unpaired` (see `unpaired.py`) and
            `one-sided`: `damaged` images are of A, and `clean` ones of B; or `generation`: G gets noise, and the class
            of the clean image if it has one.
    """

    fabric: Fabric
    loss: LossConfig
    precision: str
    with_mask: bool
    augment: tuple[str, ...] = ()
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    task: str = "restoration"
    linear: bool = False


def train_step(
    g: TrainableNetwork,
    d: TrainableNetwork | None,
    batches: list[Batch],
    context: StepContext,
    *,
    d_batches: Sequence[list[Batch]] = (),
    apply_r1: bool = True,
) -> dict[str, Tensor]:
    """Update D, then G: the step of all tasks but `unpaired` (see `restore.training.steps.Step`)."""
    terms: dict[str, Tensor] = {}
    with buffers_unless_skipped([g] if d is None else [g, d]):
        _update(g, d, batches, context, d_batches, apply_r1, terms)
    return terms


def _update(
    g: TrainableNetwork,
    d: TrainableNetwork | None,
    batches: list[Batch],
    context: StepContext,
    d_batches: Sequence[list[Batch]],
    apply_r1: bool,
    terms: dict[str, Tensor],
) -> None:
    share = 1 / len(batches)
    updates = list(d_batches) or [batches]
    counted = None if d is None else count_patches(d, [*d_batches, batches], context)
    # One forward pass of G serves both updates. With accumulation there are two, so that one part is held at a time.
    shared_output = _forward(g, batches[0], context) if len(batches) == 1 and not d_batches else None

    sensitivities: list[Tensor] = []
    d_skipped_before = None if d is None else d.skipped.clone()

    # Update D: tell clean images from restored ones.
    for update, parts in enumerate(updates if d is not None else ()):
        assert d is not None
        assert counted is not None
        d.network.requires_grad_(True)
        d.network.update_spectral_norm()  # type: ignore[operator]
        for i, batch in enumerate(parts):
            with torch.no_grad():
                output = _forward(g, batch, context) if shared_output is None else shared_output.detach()
            with context.fabric.no_backward_sync(d.forward, enabled=i < len(parts) - 1):
                loss, found = d_loss(d, batch, output, counted[update][i], context, apply_r1)
                context.fabric.backward(d.scaler.scale(loss * share))
            sensitivities.append(found.pop("d_sensitivity").detach())
            add_terms(terms, found, share / len(updates))
        add_terms(terms, {"d_norm": d.step()}, 1 / len(updates))

    if d is not None and d_skipped_before is not None and len(updates) > 1:
        d.count_as_one_step(d_skipped_before)
    if sensitivities:  # NaN for a part without holes, which says nothing
        terms["d_sensitivity"] = torch.stack(sensitivities).nanmean()

    # Update G: restore images, and make D take them for clean ones; or detect damage.
    if d is not None:
        d.network.requires_grad_(False)  # saves the backward pass to D's weights
    for i, batch in enumerate(batches):
        with context.fabric.no_backward_sync(g.forward, enabled=i < len(batches) - 1):
            output = _forward(g, batch, context) if shared_output is None else shared_output
            if context.task == "detection":
                loss, found = detection_loss(output, batch, context)
            elif context.task == "generation":
                loss, found = generation_loss(output, d, batch, context)
            elif context.task == "one-sided":
                loss, found = one_sided_loss(g, output, d, batch, context)
            else:
                loss, found = restoration_loss(output, d, batch, None if counted is None else counted[-1][i], context)
            context.fabric.backward(g.scaler.scale(loss * share))
        add_terms(terms, found, share)
    terms["g_norm"] = g.step()


def _forward(g: TrainableNetwork, batch: Batch, context: StepContext) -> Tensor:
    """G's output, float32. A generator without a mask sees the damaged image, as it does in use."""
    inputs = generator_input(g.network, batch, context)
    with autocast(batch.clean.device, context.precision):
        output: Tensor = g.forward(*inputs)
    # Losses are computed in float32: bf16's step near 1 is 1/256, as large as one of an 8-bit image.
    return output.float()


def generator_input(network: nn.Module, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor | None]:
    """What G takes: image and mask; or noise and labels."""
    if context.task != "generation":
        return batch.seen, batch.mask if context.with_mask else None
    latents: Any = network.latents
    return normal(batch.keys, _NOISE, latents).to(batch.clean.device), labels_of(batch)


def labels_of(batch: Batch) -> Tensor | None:
    """The classes of images, int64[B], which are stored as a channel; None without."""
    return None if batch.condition is None else (batch.condition[:, 0, 0, 0] * 255).round().long()


def count_patches(
    d: TrainableNetwork, batches: Sequence[list[Batch]], context: StepContext
) -> list[list[CountedPatches | None]]:
    """Which of D's patches count: those that see a hole; None: all, without a mask.

    Args:
        d: the discriminator.
        batches: of each update, in parts.
        context: see there.

    Returns:
        One for each part.
    """
    if not context.with_mask:
        return [[None] * len(parts) for parts in batches]
    masks: list[list[Tensor]] = [
        [d.network.sees(_augmented_mask(batch, context) > 0) for batch in parts]  # type: ignore[operator]
        for parts in batches
    ]
    totals = torch.stack([torch.stack([mask.sum() for mask in parts]).sum() for parts in masks])
    processes = context.fabric.world_size
    if processes > 1:  # one exchange for all updates
        reduced = context.fabric.all_reduce(totals, reduce_op="sum")
        assert isinstance(reduced, Tensor)
        totals = reduced
    # At least 1 in all: without any hole, the losses are 0.
    means = [total.clamp(min=1) / (len(parts) * processes) for total, parts in zip(totals, masks)]
    return [[CountedPatches(mask, mean) for mask in parts] for parts, mean in zip(masks, means)]


def _augmented_mask(batch: Batch, context: StepContext) -> Tensor:
    """The mask in D's input, B×1×H×W in [-1, 1]."""
    mask = batch.mask * 2 - 1
    return diff_augment(mask, batch.keys, context.augment, rgb_at=()) if context.augment else mask


def d_loss(
    d: TrainableNetwork,
    batch: Batch,
    output: Tensor,
    counted: CountedPatches | None,
    context: StepContext,
    apply_r1: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """D's loss for one batch, and its terms."""
    real_input = discriminator_input(batch, batch.clean, context)
    fake_input = discriminator_input(batch, composite(batch, output, context), context)
    labels = _labels(batch, context)
    forward, network = partial(d.forward, **labels), partial(d.network, **labels)
    return adversary_loss(forward, network, real_input, fake_input, batch, counted, context, apply_r1)


def adversary_loss(
    forward: Callable[[Tensor], Tensor],
    network: Callable[[Tensor], Tensor],
    real_input: Tensor,
    fake_input: Tensor,
    batch: Batch,
    counted: CountedPatches | None,
    context: StepContext,
    apply_r1: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a discriminator, and its terms, for inputs in [-1, 1] whose last channels are the image.

    `forward` gives gradients to its parameters, and `network` is the same for passes that are differentiated twice.
    """
    kind = context.loss.adversarial
    with autocast(real_input.device, context.precision):
        # Fake before real, as in pix2pix: running statistics of batch norm depend on the order.
        fake, real = forward(fake_input).float(), forward(real_input).float()
    loss = discriminator_loss(kind, real, fake, counted)
    accuracy_real, accuracy_fake = accuracy(kind, real.detach(), fake.detach(), counted)
    terms = {
        "d": loss,
        "d_real": patch_mean(real, counted),
        "d_fake": patch_mean(fake, counted),
        "d_accuracy_real": accuracy_real,
        "d_accuracy_fake": accuracy_fake,
        "d_sensitivity": sensitivity(
            real.detach(), fake.detach(), *(x[:, -batch.clean.shape[1] :] for x in (real_input, fake_input))
        ),
    }
    if kind == "wgan-gp":
        mix = uniform(batch.keys, _MIX, 1).float().reshape(-1, 1, 1, 1).to(real_input.device)
        terms["d_gradient_penalty"] = gradient_penalty(network, real_input, fake_input, mix)
        loss = loss + context.loss.gradient_penalty * terms["d_gradient_penalty"]
    if context.loss.r1 > 0 and apply_r1:
        terms["d_r1"] = r1_penalty(network, real_input)
        # Lazy regularization (Karras et al. 2020, section 3.1): every N steps, scaled by N.
        loss = loss + context.loss.r1 * context.loss.r1_interval * terms["d_r1"]
    return loss, terms


def restoration_loss(
    output: Tensor,
    d: TrainableNetwork | None,
    batch: Batch,
    counted: CountedPatches | None,
    context: StepContext,
) -> tuple[Tensor, dict[str, Tensor]]:
    """G's loss for one batch, and its terms."""
    config = context.loss
    terms = {"pixel": pixel_loss(config.pixel, output, batch.clean, batch.mask, config.hole_weight)}
    loss = config.pixel_weight * terms["pixel"]
    restored = composite(batch, output, context)
    for name, structure_loss in _STRUCTURE_LOSSES.items():
        weight = getattr(config, name)
        if weight > 0:
            terms[name] = structure_loss(restored, batch.clean)
            loss = loss + weight * terms[name]
    if d is not None:
        fake_input = discriminator_input(batch, restored, context)
        with autocast(batch.clean.device, context.precision):
            if config.feature_matching > 0:
                fake, fake_features = d.compiled(fake_input, features=True)
                with torch.no_grad():
                    real_input = discriminator_input(batch, batch.clean, context)
                    _, real_features = d.compiled(real_input, features=True)
                terms["g_features"] = feature_matching(real_features, fake_features).float()
                loss = loss + config.feature_matching * terms["g_features"]
            else:
                fake = d.compiled(fake_input)
        terms["g_adversarial"] = generator_loss(config.adversarial, fake.float(), counted)
        loss = loss + config.adversarial_weight * terms["g_adversarial"]
    if context.perceptual is not None:
        with autocast(batch.clean.device, context.precision):
            # Its backbone has learned from sRGB.
            images = [from_linear(x) if context.linear else x for x in (restored, batch.clean)]
            terms["g_perceptual"] = context.perceptual(*map(as_rgb, images)).float()
        loss = loss + config.perceptual_weight * terms["g_perceptual"]
    terms |= thumbnails(restored, batch.clean)
    return loss, terms


def thumbnails(output: Tensor, clean: Tensor, count: int = 1) -> dict[str, Tensor]:
    """Of the first image, or `count`: the collapse monitor compares images of different steps."""
    shown = {"output_thumbnail": output.detach(), "clean_thumbnail": clean}
    return {name: nn.functional.adaptive_avg_pool2d(image[:count], 8) for name, image in shown.items()}


def _labels(batch: Batch, context: StepContext) -> dict[str, Tensor | None]:
    """What D takes beside its input."""
    return {"labels": labels_of(batch)} if context.task == "generation" else {}


def one_sided_loss(
    g: TrainableNetwork, output: Tensor, d: TrainableNetwork | None, batch: Batch, context: StepContext
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a G that translates one way, and its terms: D's judgement, and the contrast of patches."""
    network: Any = g.network
    same = None
    if context.loss.contrastive_identity > 0:
        with autocast(batch.clean.device, context.precision):
            same = g.forward(batch.clean).float()
    loss, terms = contrastive_loss(network, output, same, batch, context.loss, context.precision)
    if d is None:
        return loss, terms | thumbnails(output, batch.clean)
    adversarial, judged = generation_loss(output, d, batch, context)
    return loss + adversarial, terms | judged


def generation_loss(
    output: Tensor, d: TrainableNetwork | None, batch: Batch, context: StepContext
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a G that no clean twin teaches, and its terms: D's judgement alone."""
    assert d is not None
    with autocast(batch.clean.device, context.precision):
        fake = d.compiled(discriminator_input(batch, output, context), **_labels(batch, context))
    terms = {"g_adversarial": generator_loss(context.loss.adversarial, fake.float())}
    terms |= deviations(output, batch.clean, labels_of(batch))
    return context.loss.adversarial_weight * terms["g_adversarial"], terms


def deviations(output: Tensor, clean: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """As `thumbnails`, but less the mean of the images of the same class in the batch.

    The thumbnails themselves would look diverse if G drew one image of each class, or another one at each step. It is
    an image of the class that has the most.
    """
    small = thumbnails(output, clean, len(output))
    if len(output) == 1:
        return small
    alike = output.new_ones(len(output), len(output))
    if labels is not None:
        alike = (labels[:, None] == labels).to(output.dtype)
        alike = torch.where(alike.sum() > len(output), alike, 1.0)  # all of different classes: all are compared
    at = alike.sum(1).argmax(keepdim=True)
    same = alike.index_select(0, at)[0, :, None, None, None]
    return {
        name: images.index_select(0, at) - (same * images).sum(0, keepdim=True) / same.sum()
        for name, images in small.items()
    }


def detection_loss(logits: Tensor, batch: Batch, context: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
    """A detector's loss for one batch, and its terms."""
    config = context.loss
    terms = {
        "cross_entropy": weighted_cross_entropy(logits, batch.mask, config.positive_weight),
        "dice": soft_dice(logits, batch.mask),
    }
    return terms["cross_entropy"] + config.dice_weight * terms["dice"], terms


def composite(batch: Batch, output: Tensor, context: StepContext) -> Tensor:
    """The restored image as a user gets it: with a mask, G's output in the hole and the input elsewhere."""
    return torch.where(batch.mask > 0, output, batch.damaged) if context.with_mask else output


def discriminator_input(batch: Batch, image: Tensor, context: StepContext) -> Tensor:
    """D's input in [-1, 1]: the damaged image, condition images, the mask if G gets it, and the image to judge.

    With a mask, the damaged image is gray in the hole, as G sees it. B×7×H×W; without, B×6×H×W. Of gray images, B×3×H×W
    and B×2×H×W. Condition images add their channels. An image that G enlarges is enlarged here, too. Without pairs
    (all tasks but `restoration`), the image alone.
    """
    channels = image.shape[1]
    if context.task != "restoration":
        x = image * 2 - 1
        return diff_augment(x, batch.keys, context.augment, rgb_at=(0,), channels=channels) if context.augment else x
    condition = [] if batch.condition is None else [batch.condition]
    damaged = enlarged(batch.damaged, image)
    parts = [damaged, *condition, image]
    if context.with_mask:
        parts = [torch.where(batch.mask > 0, 0.5, damaged), *condition, batch.mask, image]
    x = torch.cat(parts, dim=1) * 2 - 1
    if not context.augment:
        return x
    return diff_augment(x, batch.keys, context.augment, rgb_at=(0, x.shape[1] - channels), channels=channels)


def add_terms(terms: dict[str, Tensor], found: dict[str, Tensor], share: float) -> None:
    """Add a share of the scalars of a part; tensors with dimensions are taken as they are."""
    for name, value in found.items():
        value = value.detach()
        if value.ndim:
            terms[name] = value
        else:
            terms[name] = terms.get(name, torch.zeros_like(value)) + share * value
