"""What D sees of a restored image, and which of its patches count as fake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from restore.data.loader import Batch
from restore.losses.adversarial import discriminator_loss, generator_loss
from restore.models.patchgan import PatchGAN
from restore.training.config import LossConfig
from restore.training.step import StepContext, d_loss, discriminator_input, restoration_loss

CONTEXT: Any = {"fabric": None, "precision": "fp32", "loss": LossConfig(adversarial="hinge")}


def batch_with_a_hole() -> Batch:
    clean, mask = torch.rand(2, 3, 96, 96), torch.zeros(2, 1, 96, 96)
    mask[0, :, 10:20, 10:20] = 1
    return Batch(clean * (1 - mask), mask, clean, torch.arange(2))


def discriminator(channels: int) -> Any:
    network = PatchGAN(in_channels=channels, ndf=4, norm="none").eval()
    return SimpleNamespace(network=network, forward=network, compiled=network)


def test_only_patches_that_see_the_hole_count_as_fake() -> None:
    batch, d, context = batch_with_a_hole(), discriminator(7), StepContext(with_mask=True, **CONTEXT)
    output = torch.rand(2, 3, 96, 96)
    made = discriminator_input(batch, torch.where(batch.mask > 0, output, batch.clean), context)
    real, fake = d.network(discriminator_input(batch, batch.clean, context)), d.network(made)
    counts = d.network.sees(batch.mask > 0)
    assert 0 < counts[0].mean() < 1
    assert counts[1].sum() == 0, "the second picture has no hole"
    torch.testing.assert_close(
        d_loss(d, batch, output, context, False)[0], discriminator_loss("hinge", real, fake, counts)
    )
    terms = restoration_loss(output, d, batch, context)[1]
    torch.testing.assert_close(terms["g_adversarial"], generator_loss("hinge", fake, counts))


def test_where_no_mask_is_told_every_patch_counts() -> None:
    batch, d, context = batch_with_a_hole(), discriminator(6), StepContext(with_mask=False, **CONTEXT)
    output = torch.rand(2, 3, 96, 96)
    fake = d.network(discriminator_input(batch, output, context))
    torch.testing.assert_close(
        restoration_loss(output, d, batch, context)[1]["g_adversarial"], generator_loss("hinge", fake)
    )
