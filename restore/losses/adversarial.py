"""Adversarial losses, penalties and statistics, on logits of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("vanilla", "lsgan", "hinge", "wgan-gp")


@dataclass(frozen=True)
class CountedPatches:
    """Which of D's patches count, in one part of a batch.

    In inpainting, a patch that sees no hole equals the clean one. It must not count as fake (after Suvorov et al. 2022,
    "LaMa", section 2.3.2). It does not count as real either: D would learn how rare holes are, not what they look like.

    Attributes:
        mask: 0 or 1, of the shape of D's logits.
        per_part: a scalar: how many patches count in a part of the whole batch, on average over all its parts and all
            processes; at least a fraction above 0. Sums are divided by it instead of the part's own count, so that
            every patch has the same weight however a batch is split.
    """

    mask: Tensor
    per_part: Tensor


def discriminator_loss(kind: str, real: Tensor, fake: Tensor, counted: CountedPatches | None = None) -> Tensor:
    """The loss of D.

    `vanilla`: binary cross-entropy (Goodfellow et al. 2014), halved as in pix2pix; `lsgan`: least squares (Mao et al.
    2017), halved likewise; `hinge` (Lim and Ye 2017); `wgan-gp`: the Wasserstein critic (Arjovsky et al. 2017), which
    needs `gradient_penalty` in addition.

    Args:
        kind: one of `ADVERSARIAL`.
        real: D's logits for clean images.
        fake: D's logits for restored images, of the same shape.
        counted: which patches count, of clean images as of restored ones. None: all do.
    """
    if kind == "vanilla":  # softplus(-x) is binary cross-entropy of a logit against 1, softplus(x) against 0
        return 0.5 * (patch_mean(F.softplus(-real), counted) + patch_mean(F.softplus(fake), counted))
    if kind == "lsgan":
        return 0.5 * (patch_mean((real - 1).square(), counted) + patch_mean(fake.square(), counted))
    if kind == "hinge":
        return patch_mean(F.relu(1 - real), counted) + patch_mean(F.relu(1 + fake), counted)
    return patch_mean(fake, counted) - patch_mean(real, counted)


def generator_loss(kind: str, fake: Tensor, counted: CountedPatches | None = None) -> Tensor:
    """The adversarial loss of G; `vanilla` is the non-saturating form. Arguments as for `discriminator_loss`."""
    if kind == "vanilla":
        return patch_mean(F.softplus(-fake), counted)
    if kind == "lsgan":
        return patch_mean((fake - 1).square(), counted)
    return -patch_mean(fake, counted)


def patch_mean(values: Tensor, counted: CountedPatches | None) -> Tensor:
    """The part's share in the mean over the patches that count: averaged over all parts, it is that mean."""
    return values.mean() if counted is None else (values * counted.mask).sum() / counted.per_part


def accuracy(kind: str, real: Tensor, fake: Tensor, counted: CountedPatches | None = None) -> tuple[Tensor, Tensor]:
    """D's accuracy on clean patches and on fake ones, each in [0, 1]. Arguments as for `discriminator_loss`."""
    if kind == "lsgan":
        threshold = torch.full_like(real.mean(), 0.5)
    elif kind == "wgan-gp":  # a critic's outputs have no zero, so the threshold is halfway between the means
        mask = torch.ones_like(real) if counted is None else counted.mask
        threshold = ((real + fake) * mask).sum() / (2 * mask.sum().clamp(min=1))
    else:
        threshold = torch.zeros_like(real.mean())
    return patch_mean((real > threshold).float(), counted), patch_mean((fake < threshold).float(), counted)


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
    """Mean L1 distance between D's activations for both, averaged over its layers.

    Wang et al. 2018, "pix2pixHD", eq. 4, sums over the layers instead: its λ of 10 is 10 × the number of layers here.
    """
    # Detached: the features of clean images are the target, so they must not move towards G's.
    return torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(real, fake)]).mean()
