"""The game between generator and discriminator, on logits of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("vanilla", "lsgan", "hinge", "wgan-gp")


def discriminator_loss(kind: str, real: Tensor, fake: Tensor, counts: Tensor | None = None) -> Tensor:
    """What D minimises, given its logits for true and for repaired pictures.

    `vanilla`: binary cross-entropy (Goodfellow et al. 2014), halved as in pix2pix; `lsgan`: least squares (Mao et al.
    2017), halved likewise; `hinge` (Lim and Ye 2017); `wgan-gp`: the Wasserstein critic (Arjovsky et al. 2017), which
    needs `gradient_penalty` beside it.

    Args:
        kind: of `ADVERSARIAL`.
        real, fake: of the same shape.
        counts: 0 or 1, of that shape: which patches of a repaired picture are fake at all. Where a hole is filled and
            the rest is the source's, a patch that sees nothing of the hole is as real as the true one (after Suvorov
            et al. 2022, "LaMa", section 2.3.2). None: all.
    """
    if kind == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + _mean(F.softplus(fake), counts))
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + _mean(fake.square(), counts))
    if kind == "hinge":
        return F.relu(1 - real).mean() + _mean(F.relu(1 + fake), counts)
    return _mean(fake, counts) - real.mean()


def generator_loss(kind: str, fake: Tensor, counts: Tensor | None = None) -> Tensor:
    """What G minimises, given D's logits for repaired pictures; `vanilla` is the non-saturating form.

    Args:
        kind, fake, counts: as for `discriminator_loss`.
    """
    if kind == "vanilla":
        return _mean(F.softplus(-fake), counts)
    if kind == "lsgan":
        return _mean((fake - 1).square(), counts)
    return -_mean(fake, counts)


def _mean(values: Tensor, counts: Tensor | None) -> Tensor:
    """Of those that count; 0 where none does."""
    return values.mean() if counts is None else (values * counts).sum() / counts.sum().clamp(min=1)


def accuracy(kind: str, real: Tensor, fake: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The share of patches that D tells right, of real ones and of those that count as fake; 0.5 each is a draw."""
    if kind == "lsgan":
        threshold = torch.full_like(real.mean(), 0.5)
    elif kind == "wgan-gp":  # a critic has no zero: halfway between the two means
        threshold = (real.mean() + _mean(fake, counts)) / 2
    else:
        threshold = torch.zeros_like(real.mean())
    return (real > threshold).float().mean(), _mean((fake < threshold).float(), counts)


def sensitivity(real: Tensor, fake: Tensor, clean: Tensor, repaired: Tensor) -> Tensor:
    """How much D looks at what it judges.

    The difference of its answers to the clean and the repaired version of the same patches, in units of how answers
    differ from place to place; over that of the pictures, in the same units.

    Args:
        real, fake: D's logits, of the same shape.
        clean, repaired: what they are about, B×3×H×W.

    Returns:
        A scalar. Around 1 for a D that learns, and not far below for one that has learned nothing yet; near 0 for one
        that gives the same answers whatever it sees. NaN where the pictures are the same.
    """
    answers = (real - fake).abs().mean() / real.std(correction=0).clamp(min=1e-12)
    pictures = (clean - repaired).abs().mean() / clean.std(correction=0).clamp(min=1e-12)
    return torch.where(pictures > 1e-5, answers / pictures, math.nan)


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """How far D's slope is from 1 between a real and a repaired picture (Gulrajani et al. 2017, eq. 3, without λ).

    Args:
        discriminator: B×C×H×W -> logits; must not normalise over the batch.
        real, fake: what D is shown, B×C×H×W.
        mix: B×1×1×1 in [0, 1], where between the two to look.
    """
    between = torch.lerp(fake.detach(), real.detach(), mix).requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½‖∇D‖² on real pictures (Mescheder et al. 2018, eq. 9, without γ): keeps D from growing without end."""
    shown = real.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(shown).sum(), shown, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(dim=1).mean()


def feature_matching(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean L1 distance of D's activations on both, over its layers (Wang et al. 2018, pix2pixHD, eq. 4)."""
    return torch.stack([F.l1_loss(f, r.detach()) for r, f in zip(real, fake)]).mean()
