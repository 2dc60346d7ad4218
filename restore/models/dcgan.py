"""Networks that draw images from noise, and their discriminators: DCGAN and the dense GAN of 2014.

Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs", 2015 (DCGAN);
Goodfellow et al., "Generative Adversarial Nets", 2014; Miyato, Koyama, "cGANs with Projection Discriminator", 2018.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from restore.models.base import RestorationNetwork
from restore.models.patchgan import Discriminator, init_weights

SIDES = {28: 7, 32: 4, 64: 4, 128: 4}
"""Sides of images, and the side that the first layer makes, which then doubles."""


def _widths(side: int, channels: int) -> list[int]:
    """Channels before each doubling, deep to shallow: 8, 4, 2, 1 times `channels` for 64 px."""
    if side not in SIDES:
        raise ValueError(f"side is {', '.join(map(str, SIDES))}, not {side}")
    doublings = (side // SIDES[side]).bit_length() - 1
    return [channels * 2**depth for depth in reversed(range(doublings))]


def _one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    # PyTorch's own one looks at the values, which a CUDA graph cannot record.
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(like.dtype)


class SampleNetwork(RestorationNetwork):
    """A generator of images: noise, and for some a class, to an image.

    `latents` numbers of noise give an image; of `classes` kinds of images, one is asked for (0: it draws any).
    """

    tileable = False
    draws: ClassVar[bool] = True

    def __init__(self, side: int, channels: int, latents: int, classes: int) -> None:
        super().__init__()
        if channels not in (1, 3) or latents < 1 or classes < 0:
            raise ValueError(f"channels is 1 or 3, and latents at least 1, not {channels} and {latents}")
        self.channels, self.latents, self.classes = channels, latents, classes
        self.multiple = self.minimum = side

    def forward(self, noise: Tensor, labels: Tensor | None = None, filled: bool = False) -> Tensor:
        """Draw B×channels×side×side in [0, 1] from normal noise, B×latents, and with classes from int64[B] labels."""
        if self.classes:
            assert labels is not None
            noise = torch.cat([noise, _one_hot(labels, self.classes, noise)], 1)
        return self._draw(noise) * 0.5 + 0.5

    def _draw(self, x: Tensor) -> Tensor:
        """Images in [-1, 1] from noise and classes, B×(latents + classes)."""
        raise NotImplementedError

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        return {"channels": channels}

    def init_for_training(self) -> None:
        """N(0, 0.02) for convolutions, as in the paper of DCGAN."""
        init_weights(self)


class DCGenerator(SampleNetwork):
    """The generator of DCGAN: transposed convolutions of stride 2, batch norm, ReLU, and tanh.

    Args:
        side, channels: of the images: 28, 32, 64 or 128; 3, or 1 for gray.
        latents, classes: see `SampleNetwork`.
        ngf: channels of the last hidden layer; they double towards the first. 128 in the paper, at 64 px.
    """

    def __init__(self, side: int = 64, channels: int = 3, latents: int = 100, classes: int = 0, ngf: int = 64) -> None:
        widths = _widths(side, ngf)
        super().__init__(side, channels, latents, classes)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latents + classes, widths[0], SIDES[side], bias=False)]
        for width, narrower in pairwise(widths):
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(width, narrower, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
        self.model = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())

    def _draw(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x[:, :, None, None])
        return out


class DenseGenerator(SampleNetwork):
    """A generator of dense layers, as the first GANs had for digits; with LeakyReLU in place of ReLU.

    Args:
        side: of the images, 4 to 64.
        channels, latents, classes: as for `DCGenerator`.
        width: of the first hidden layer; the two others have two and four times that.
    """

    def __init__(
        self, side: int = 28, channels: int = 1, latents: int = 100, classes: int = 0, width: int = 256
    ) -> None:
        if not 4 <= side <= 64:
            raise ValueError(f"side is 4 to 64, not {side}")
        super().__init__(side, channels, latents, classes)
        sizes = [latents + classes, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Linear(sizes[-1], channels * side**2), nn.Tanh())
        self._shape = (channels, side, side)

    def _draw(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out.reshape(-1, *self._shape)


class SampleDiscriminator(Discriminator):
    """Judges whole images, and with classes whether an image is of its class, by projection.

    `width` is that of the features before the last layer; `normalized` applies spectral norm to that.
    """

    def __init__(self, width: int, classes: int, normalized: bool) -> None:
        super().__init__()
        self.features: nn.Module = nn.Identity()
        self.last = nn.Linear(width, 1)
        self.of_class = nn.Linear(classes, width, bias=False) if classes else None
        for layer in (self.last, self.of_class):
            if layer is not None:
                nn.init.normal_(layer.weight, 0.0, 0.02)  # as convolutions: logits start near 0
                if normalized:
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits, B×1, high where an image of B×channels×side×side in [-1, 1] looks real; labels as for a generator."""
        features: Tensor = self.features(x).flatten(1)
        logits: Tensor = self.last(features)
        if self.of_class is not None:  # Miyato and Koyama 2018, eq. 3
            assert labels is not None
            one_hot = _one_hot(labels, self.of_class.in_features, features)
            logits = logits + (self.of_class(one_hot) * features).sum(1, keepdim=True)
        return logits


class DCDiscriminator(SampleDiscriminator):
    """The discriminator of DCGAN: convolutions of stride 2, batch norm but in the first layer, LeakyReLU.

    Args:
        in_channels, side, classes: of the images, as for `DCGenerator`.
        ndf: channels of the first layer; they double with each.
        norm: "batch", or "none", which wgan-gp needs.
        spectral_norm: as for `PatchGAN`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        side: int = 64,
        classes: int = 0,
        ndf: int = 64,
        norm: str = "batch",
        spectral_norm: bool = False,
    ) -> None:
        if norm not in ("batch", "none"):
            raise ValueError(f'norm is "batch" or "none", not {norm!r}')
        widths = [in_channels, *reversed(_widths(side, ndf))]
        super().__init__(widths[-1] * SIDES[side] ** 2, classes, spectral_norm)
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise(widths)):
            normed = norm == "batch" and depth > 0
            convolution = nn.Conv2d(before, after, 4, 2, 1, bias=not normed)
            layers.append(parametrizations.spectral_norm(convolution) if spectral_norm else convolution)
            layers += [*([nn.BatchNorm2d(after)] if normed else []), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)


class DenseDiscriminator(SampleDiscriminator):
    """A discriminator of dense layers, with LeakyReLU in place of the paper's maxout.

    Args:
        in_channels, side, classes, spectral_norm: as for `DCDiscriminator`.
        width: of the last hidden layer; the first has twice that.
        dropout: of hidden values, as in the paper.
    """

    def __init__(
        self,
        in_channels: int = 1,
        side: int = 28,
        classes: int = 0,
        width: int = 256,
        dropout: float = 0.3,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(width, classes, spectral_norm)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in ((in_channels * side**2, 2 * width), (2 * width, width)):
            dense = nn.Linear(before, after)
            layers.append(parametrizations.spectral_norm(dense) if spectral_norm else dense)
            layers += [nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.features = nn.Sequential(*layers)
