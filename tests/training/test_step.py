"""What D and G are told of a repaired picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from restore.data.loader import Batch
from restore.losses.adversarial import discriminator_loss, generator_loss
from restore.models.patchgan import PatchGAN
from restore.training.config import LossConfig
from restore.training.step import StepContext, judge, repair, shown_to_discriminator

RULES: Any = {"fabric": None, "precision": "fp32", "loss": LossConfig(adversarial="hinge")}


def batch_with_a_hole() -> Batch:
    clean, mask = torch.rand(2, 3, 96, 96), torch.zeros(2, 1, 96, 96)
    mask[0, :, 10:20, 10:20] = 1
    return Batch(clean * (1 - mask), mask, clean, torch.arange(2))


def discriminator(channels: int) -> Any:
    network = PatchGAN(in_channels=channels, ndf=4, norm="none").eval()
    return SimpleNamespace(network=network, forward=network, bare=network)


def test_only_patches_that_see_the_hole_count_as_fake() -> None:
    batch, d, rules = batch_with_a_hole(), discriminator(7), StepContext(with_mask=True, **RULES)
    output = torch.rand(2, 3, 96, 96)
    made = shown_to_discriminator(batch, torch.where(batch.mask > 0, output, batch.clean), rules)
    real, fake = d.network(shown_to_discriminator(batch, batch.clean, rules)), d.network(made)
    counts = d.network.sees(batch.mask > 0)
    assert 0 < counts[0].mean() < 1
    assert counts[1].sum() == 0, "the second picture has no hole"
    torch.testing.assert_close(
        judge(d, batch, output, rules, False)[0], discriminator_loss("hinge", real, fake, counts)
    )
    terms = repair(output, d, batch, rules)[1]
    torch.testing.assert_close(terms["g_adversarial"], generator_loss("hinge", fake, counts))


def test_where_no_mask_is_told_every_patch_counts() -> None:
    batch, d, rules = batch_with_a_hole(), discriminator(6), StepContext(with_mask=False, **RULES)
    output = torch.rand(2, 3, 96, 96)
    fake = d.network(shown_to_discriminator(batch, output, rules))
    torch.testing.assert_close(repair(output, d, batch, rules)[1]["g_adversarial"], generator_loss("hinge", fake))
