"""The game between generator and discriminator, on logits of any shape."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ADVERSARIAL = ("vanilla", "lsgan", "hinge")


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises, given its logits for true and for repaired pictures.

    `vanilla`: binary cross-entropy (Goodfellow et al. 2014), halved as in pix2pix; `lsgan`: least squares (Mao et al.
    2017), halved likewise; `hinge` (Lim and Ye 2017).
    """
    if kind == "vanilla":
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "lsgan":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """What G minimises, given D's logits for repaired pictures; `vanilla` is the non-saturating form."""
    if kind == "vanilla":
        return F.softplus(-fake).mean()
    if kind == "lsgan":
        return (fake - 1).square().mean()
    return -fake.mean()
