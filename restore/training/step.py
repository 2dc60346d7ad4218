"""One step of training: D, then G; or G alone, where it learns to mark damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.data.loader import Batch
from restore.devices import autocast
from restore.hashed_random import uniform
from restore.losses.adversarial import (
    accuracy,
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
    r1_penalty,
    sensitivity,
)
from restore.losses.diffaugment import augmented
from restore.losses.reconstruction import pixel_loss
from restore.losses.segmentation import soft_dice, weighted_cross_entropy
from restore.training.config import LossConfig

_MIX = 2101  # stream of the hash that says where the gradient penalty looks


@dataclass
class TrainableNetwork:
    """A network that plays: what is called, what is saved, and how it descends.

    Attributes:
        network: the network itself: what is saved and averaged; and for passes that are differentiated twice, which
            compiled code cannot be.
        bare: the same, perhaps compiled: for passes whose gradients are not its own.
        forward: the same, spread over devices: for passes whose gradients are.
        optimizer: AdamW of its parameters; fused where it can be: then the device skips a step whose gradient is no
            number, and nobody waits.
        scaler: of the loss; of use in fp16.
        clip_norm: largest gradient norm, or None.
        scales: whether the scaler is of use.
        skipped: int64[2] on the device: steps that did nothing, and how many of these in a row until now.
    """

    network: nn.Module
    bare: Callable[..., Any]
    forward: Any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    clip_norm: float | None = None
    scales: bool = False
    skipped: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    def step(self) -> Tensor:
        """Apply the gradients that have been collected; returns their norm before clipping."""
        if self.scales:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.clip_norm, norm, foreach=True)
        bad = (~norm.isfinite()).to(self.skipped.dtype)
        self.skipped.copy_(torch.stack([self.skipped[0] + bad, (self.skipped[1] + 1) * bad]))
        if self.scales:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.optimizer.defaults["fused"]:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def start_again(self) -> None:
        """Forget a step that broke off in the middle."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.scales:
            self.scaler.update(self.scaler.get_scale())

    def running(self) -> list[Tensor]:
        """What passes leave behind in the network itself: running statistics, singular vectors."""
        return [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]


@dataclass(frozen=True)
class StepContext:
    """What a step needs to know beside its batch.

    Attributes:
        fabric: spreads the backward passes over devices.
        loss: of the config.
        precision: `fp32`, `bf16` or `fp16`, for autocast.
        with_mask: G is told what is missing. Then D is shown the mask, too, and judges only what a user would see:
            known pixels are the source's. Without, both see the damage as it is.
        augment: kinds of augmentation of what D sees.
        perceptual: the perceptual loss, or None.
        task: `restoration`; or `detection`: G's output are logits of the mask, and nothing of a picture is compared.
    """

    fabric: Fabric
    loss: LossConfig
    precision: str
    with_mask: bool
    augment: tuple[str, ...] = ()
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    task: str = "restoration"


def shown_to_discriminator(batch: Batch, picture: Tensor, rules: StepContext) -> Tensor:
    """Condition first, picture last, in [-1, 1]: damaged (0.5 under a mask that is told), that mask, picture."""
    parts = [batch.damaged, picture]
    if rules.with_mask:
        parts = [torch.where(batch.mask > 0, 0.5, batch.damaged), batch.mask, picture]
    shown = torch.cat(parts, dim=1) * 2 - 1
    if not rules.augment:
        return shown
    return augmented(shown, batch.keys, rules.augment, pictures=(0, shown.shape[1] - 3))


def counted(d: TrainableNetwork, shown: Tensor, rules: StepContext) -> Tensor | None:
    """Which of D's logits on a repaired picture count as fake: those that see the hole; None: all, where none is told.

    Args:
        d: the discriminator.
        shown: what it is shown, as by `shown_to_discriminator`.
        rules: see there.
    """
    return d.network.sees(shown[:, 3:4] > 0) if rules.with_mask else None  # type: ignore[operator]


def train_step(
    g: TrainableNetwork,
    d: TrainableNetwork | None,
    batches: list[Batch],
    rules: StepContext,
    *,
    d_steps: int = 1,
    penalise: bool = True,
) -> dict[str, Tensor]:
    """Update D (where it plays already), then G.

    Args:
        g: the generator, whose forward is (image, mask) -> image, or logits.
        d: the discriminator; None before the adversary starts, or where there is none.
        batches: the step's images on this device, in as many parts as gradients are accumulated over.
        rules: see there.
        d_steps: how often D steps before G does.
        penalise: whether this step pays the R1 penalty.

    Returns:
        Scalars by name, detached, means over the parts: `pixel` (of masks `cross_entropy` and `dice`), `g_norm`; with D
        also `g_adversarial`, `d`, `d_norm`, `d_real`, `d_fake` (mean logits), `d_accuracy_real`, `d_accuracy_fake`,
        `d_sensitivity`; and every other term that is asked for.
    """
    terms: dict[str, Tensor] = {}
    share = 1 / len(batches)
    players = [g] if d is None else [g, d]
    running = [buffer for player in players for buffer in player.running()]
    before = _flat(running) if running else None
    # One forward pass serves D and G; where gradients are accumulated it is made twice, to hold one part at a time.
    once = [forward(g, batches[0], rules)] if len(batches) == 1 else None

    # D learns to tell true pictures from repaired ones.
    for _ in range(d_steps if d is not None else 0):
        assert d is not None
        d.network.requires_grad_(True)
        for i, batch in enumerate(batches):
            with torch.no_grad():
                output = once[i].detach() if once else forward(g, batch, rules)
            with rules.fabric.no_backward_sync(d.forward, enabled=i < len(batches) - 1):
                loss, found = judge(d, batch, output, rules, penalise)
                rules.fabric.backward(d.scaler.scale(loss * share))
            _add(terms, found, share)
        terms["d_norm"] = d.step()

    # G learns to repair, and to pass for true; or to find what there is to repair.
    if d is not None:
        d.network.requires_grad_(False)
    for i, batch in enumerate(batches):
        with rules.fabric.no_backward_sync(g.forward, enabled=i < len(batches) - 1):
            output = once[i] if once else forward(g, batch, rules)
            loss, found = find(output, batch, rules) if rules.task == "detection" else repair(output, d, batch, rules)
            rules.fabric.backward(g.scaler.scale(loss * share))
        _add(terms, found, share)
    terms["g_norm"] = g.step()

    # A step that was skipped leaves no trace: what is no number would stay in running statistics for good.
    if before is not None:
        skipped = torch.stack([player.skipped[1] for player in players]).amax() > 0
        kept = torch.where(skipped, before, _flat(running))
        parts = kept.split([buffer.numel() for buffer in running])
        torch._foreach_copy_(running, [part.view_as(buffer) for part, buffer in zip(parts, running)])
    return terms


def _flat(tensors: list[Tensor]) -> Tensor:
    """A copy of all values in one tensor."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def forward(g: TrainableNetwork, batch: Batch, rules: StepContext) -> Tensor:
    """G's output, float32. A generator that is told of no mask sees the damage, as it will when it is used."""
    with autocast(batch.clean.device, rules.precision):
        return g.forward(batch.damaged, batch.mask if rules.with_mask else None).float()


def judge(
    d: TrainableNetwork, batch: Batch, output: Tensor, rules: StepContext, penalise: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """D's loss on one batch, and its terms."""
    kind = rules.loss.adversarial
    true = shown_to_discriminator(batch, batch.clean, rules)
    made = shown_to_discriminator(batch, seen(batch, output, rules), rules)
    with autocast(batch.clean.device, rules.precision):
        real, fake = d.forward(true).float(), d.forward(made).float()
    counts = counted(d, made, rules)
    loss = discriminator_loss(kind, real, fake, counts)
    right = accuracy(kind, real.detach(), fake.detach(), counts)
    pictures = true[:, -3:], made[:, -3:]
    terms = {
        "d": loss,
        "d_real": real.mean(),
        "d_fake": fake.mean(),
        "d_accuracy_real": right[0],
        "d_accuracy_fake": right[1],
        "d_sensitivity": sensitivity(real.detach(), fake.detach(), *pictures),
    }
    if kind == "wgan-gp":
        mix = uniform(batch.keys, _MIX, 1).float().reshape(-1, 1, 1, 1).to(true.device)
        terms["d_gradient_penalty"] = gradient_penalty(d.network, true, made, mix)
        loss = loss + rules.loss.gradient_penalty * terms["d_gradient_penalty"]
    if rules.loss.r1 > 0 and penalise:
        terms["d_r1"] = r1_penalty(d.network, true)
        # Paid every so many steps, so many times as dearly (Karras et al. 2020, section 3.1, "lazy regularization").
        loss = loss + rules.loss.r1 * rules.loss.r1_interval * terms["d_r1"]
    return loss, terms


def repair(
    output: Tensor, d: TrainableNetwork | None, batch: Batch, rules: StepContext
) -> tuple[Tensor, dict[str, Tensor]]:
    """G's loss for its output on one batch, and its terms."""
    config = rules.loss
    terms = {"pixel": pixel_loss(config.pixel, output, batch.clean, batch.mask, config.hole_weight)}
    loss = config.pixel_weight * terms["pixel"]
    judged = seen(batch, output, rules)
    if d is not None:
        made = shown_to_discriminator(batch, judged, rules)
        with autocast(batch.clean.device, rules.precision):
            if config.feature_matching > 0:
                fake, ours = d.bare(made, features=True)
                with torch.no_grad():
                    _, theirs = d.bare(shown_to_discriminator(batch, batch.clean, rules), features=True)
                terms["g_features"] = feature_matching(theirs, ours).float()
                loss = loss + config.feature_matching * terms["g_features"]
            else:
                fake = d.bare(made)
        terms["g_adversarial"] = generator_loss(config.adversarial, fake.float(), counted(d, made, rules))
        loss = loss + config.adversarial_weight * terms["g_adversarial"]
    if rules.perceptual is not None:
        with autocast(batch.clean.device, rules.precision):
            terms["g_perceptual"] = rules.perceptual(judged, batch.clean).float()
        loss = loss + config.perceptual_weight * terms["g_perceptual"]
    terms["output_thumbnail"], terms["clean_thumbnail"] = (
        nn.functional.adaptive_avg_pool2d(x[:1], 8) for x in (judged.detach(), batch.clean)
    )
    return loss, terms


def find(logits: Tensor, batch: Batch, rules: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
    """G's loss where it marks damage, and its terms."""
    config = rules.loss
    terms = {
        "cross_entropy": weighted_cross_entropy(logits, batch.mask, config.positive_weight),
        "dice": soft_dice(logits, batch.mask),
    }
    return terms["cross_entropy"] + config.dice_weight * terms["dice"], terms


def seen(batch: Batch, output: Tensor, rules: StepContext) -> Tensor:
    """What a user would see of an output."""
    return torch.where(batch.mask > 0, output, batch.damaged) if rules.with_mask else output


def _add(terms: dict[str, Tensor], found: dict[str, Tensor], share: float) -> None:
    for name, value in found.items():
        value = value.detach()
        if value.ndim:
            terms[name] = value
        else:
            terms[name] = terms.get(name, torch.zeros_like(value)) + share * value
