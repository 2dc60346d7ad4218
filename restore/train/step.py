"""One step of training: D, then G."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restore.datasets.batch import Batch
from restore.devices import autocast
from restore.losses.adversarial import discriminator_loss, generator_loss
from restore.losses.pixel import pixel_loss
from restore.train.config import LossConfig, OptimizerConfig


@dataclass
class Player:
    """A network with its optimizer, and with its gradient scaler where fp16 needs one."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def descend(self, loss: Tensor, clip_norm: float | None = None) -> Tensor:
        """Backward and one update; returns the norm of the gradient before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        limit = float("inf") if clip_norm is None else clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm


def shown_to_discriminator(batch: Batch, picture: Tensor, with_mask: bool) -> Tensor:
    """Condition first, picture last, in [-1, 1]: damaged (0.5 under the mask), the mask if there is one, picture."""
    condition = torch.where(batch.mask > 0, 0.5, batch.damaged)
    parts = [condition, batch.mask, picture] if with_mask else [condition, picture]
    return torch.cat(parts, dim=1) * 2 - 1


def train_step(
    generator: Player,
    discriminator: Player | None,
    batch: Batch,
    *,
    loss: LossConfig,
    optimizer: OptimizerConfig,
    precision: str,
    with_mask: bool,
) -> dict[str, Tensor]:
    """Update D (where it plays already), then G, on one batch.

    Args:
        generator: G, whose forward is (image, mask) -> image.
        discriminator: D; None before the adversary starts, or where there is none.
        batch: on the networks' device.
        loss, optimizer: of the config.
        precision: `fp32`, `bf16` or `fp16`, for autocast.
        with_mask: whether D is shown the mask.

    Returns:
        Scalars by name, detached: `pixel`, `g_norm`, and with D `g_adversarial`, `d`, `d_norm`, `d_real`, `d_fake`.
    """
    cast = autocast(batch.clean.device, precision)
    terms: dict[str, Tensor] = {}

    with cast:
        output = generator.model(batch.damaged, batch.mask)
    # D judges what a user would see: with a mask, known pixels are the source's.
    judged = torch.where(batch.mask > 0, output, batch.damaged) if with_mask else output

    if discriminator is not None:
        discriminator.model.requires_grad_(True)
        with cast:
            real = discriminator.model(shown_to_discriminator(batch, batch.clean, with_mask)).float()
            fake = discriminator.model(shown_to_discriminator(batch, judged.detach(), with_mask)).float()
        d_loss = discriminator_loss(loss.adversarial, real, fake)
        terms["d_norm"] = discriminator.descend(d_loss)
        terms |= {"d": d_loss, "d_real": real.mean(), "d_fake": fake.mean()}

    pixel = pixel_loss(loss.pixel, output.float(), batch.clean, batch.mask, loss.hole_weight)
    g_loss = loss.pixel_weight * pixel
    terms["pixel"] = pixel
    if discriminator is not None:
        discriminator.model.requires_grad_(False)
        with cast:
            fake = discriminator.model(shown_to_discriminator(batch, judged, with_mask)).float()
        adversarial = generator_loss(loss.adversarial, fake)
        g_loss = g_loss + loss.adversarial_weight * adversarial
        terms["g_adversarial"] = adversarial
    terms["g_norm"] = generator.descend(g_loss, optimizer.clip_norm)
    return {name: value.detach() for name, value in terms.items()}
