"""Adversarial losses, penalties and statistics, on logits of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("vanilla", "lsgan", "hinge", "wgan-gp")


def discriminator_loss(kind: str, real: Tensor, fake: Tensor, fake_mask: Tensor | None = None) -> Tensor:
    """The loss of D.

    `vanilla`: binary cross-entropy (Goodfellow et al. 2014), halved as in pix2pix; `lsgan`: least squares (Mao et al.
    2017), halved likewise; `hinge` (Lim and Ye 2017); `wgan-gp`: the Wasserstein critic (Arjovsky et al. 2017), which
    needs `gradient_penalty` in addition.

    Args:
        kind: one of `ADVERSARIAL`.
        real: D's logits for clean images.
        fake: D's logits for restored images, of the same shape.
        fake_mask: 0 or 1, of that shape: which patches of a restored image are fake. In inpainting, a patch that does
            not overlap the hole equals the clean one and must not count as fake (after Suvorov et al. 2022, "LaMa",
            section 2.3.2). None: all are.
    """
    if kind == "vanilla":  # softplus(-x) is binary cross-entropy of a logit against 1, softplus(x) against 0
        return 0.5 * (F.softplus(-real).mean() + _masked_mean(F.softplus(fake), fake_mask))
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + _masked_mean(fake.square(), fake_mask))
    if kind == "hinge":
        return F.relu(1 - real).mean() + _masked_mean(F.relu(1 + fake), fake_mask)
    return _masked_mean(fake, fake_mask) - real.mean()


def generator_loss(kind: str, fake: Tensor, fake_mask: Tensor | None = None) -> Tensor:
    """The adversarial loss of G; `vanilla` is the non-saturating form. Arguments as for `discriminator_loss`."""
    if kind == "vanilla":
        return _masked_mean(F.softplus(-fake), fake_mask)
    if kind == "lsgan":
        return _masked_mean((fake - 1).square(), fake_mask)
    return -_masked_mean(fake, fake_mask)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean where the mask is 1; 0 for an empty mask."""
    return values.mean() if mask is None else (values * mask).sum() / mask.sum().clamp(min=1)


def accuracy(kind: str, real: Tensor, fake: Tensor, fake_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """D's accuracy on clean patches and on fake ones, each in [0, 1]. Arguments as for `discriminator_loss`."""
    if kind == "lsgan":
        threshold = torch.full_like(real.mean(), 0.5)
    elif kind == "wgan-gp":  # a critic's outputs have no zero, so the threshold is halfway between the means
        threshold = (real.mean() + _masked_mean(fake, fake_mask)) / 2
    else:
        threshold = torch.zeros_like(real.mean())
    return (real > threshold).float().mean(), _masked_mean((fake < threshold).float(), fake_mask)


def sensitivity(real: Tensor, fake: Tensor, clean: Tensor, restored: Tensor) -> Tensor:
    """How strongly D's output depends on the image.

    The mean difference of D's logits between the clean and the restored version of the same patches, relative to the
    standard deviation of its logits; divided by the same ratio of the images themselves.

    Args:
        real: D's logits for the clean images.
        fake: D's logits for the restored images, of the same shape.
        clean: the images, B×3×H×W.
        restored: the images, B×3×H×W.

    Returns:
        A scalar. About 1 for a D that learns, and not much less for an untrained one; near 0 for a D that gives the
        same output for any image. NaN if the images are equal.
    """
    # Dividing by the spread of the logits makes logits of any scale comparable. Dividing by the same ratio of the
    # images makes easy and hard damage comparable.
    logits = (real - fake).abs().mean() / real.std(correction=0).clamp(min=1e-12)
    images = (clean - restored).abs().mean() / clean.std(correction=0).clamp(min=1e-12)
    return torch.where(images > 1e-5, logits / images, math.nan)


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """(‖∇D‖ - 1)² between a clean and a restored image (Gulrajani et al. 2017, eq. 3, without λ).

    Args:
        discriminator: B×C×H×W -> logits. It must not normalize over the batch.
        real, fake: D's inputs, B×C×H×W.
        mix: B×1×1×1 in [0, 1], the position between `fake` and `real`.
    """
    # Detached: the penalty trains D alone. `create_graph`: the gradient of a gradient is needed.
    between = torch.lerp(fake.detach(), real.detach(), mix).requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½‖∇D‖² at clean images (Mescheder et al. 2018, eq. 9, without γ), which keeps D's logits from growing."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(dim=1).mean()


def feature_matching(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean L1 distance between D's activations for both, over its layers (Wang et al. 2018, pix2pixHD, eq. 4)."""
    # Detached: the features of clean images are the target, so they must not move towards G's.
    return torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(real, fake)]).mean()
