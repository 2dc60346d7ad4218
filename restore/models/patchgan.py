"""The discriminator of pix2pix, and the initialization that it and its generator are trained from."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": nn.Identity,
}


class Discriminator(nn.Module):
    """What all discriminators have."""

    @torch.no_grad()
    def update_spectral_norm(self) -> None:
        """One power iteration for every weight with spectral norm, as Miyato et al. 2018 make one per update of D.

        From then on, forward passes leave the singular vectors as they are, in training mode, too. So it makes no
        difference how many passes an update takes, and how the batch is split between them.
        """
        for layer in self.modules():
            if parametrize.is_parametrized(layer, "weight"):
                chain = layer.get_submodule("parametrizations.weight")
                chain.train()
                _ = layer.weight  # computing it in training mode makes the iteration
                chain.eval()


class PatchGAN(Discriminator):
    """Classifies every patch as real or fake, given the degraded image (Isola et al. 2017, section 3.2.2).

    With three layers a logit sees 70×70 pixels: 256² gives 30×30 logits, 128² gives 14×14; the smallest input
    is 24². Parameter names are the reference's (`model.0.weight`, …), with and without norm; `spectral_norm`
    renames weights as `torch.nn.utils.parametrizations` does.

    Args:
        in_channels: channels of condition and image together (6 beside `pix2pix`; 7 with a mask).
        ndf: channels of the first layer; they double up to eight times that.
        n_layers: layers of stride 2 (3 is the 70×70 one).
        spectral_norm: divide every weight by its largest singular value (Miyato et al. 2018).
        norm: "batch" as pix2pix; "instance" (non-affine) as CycleGAN; or "none". With the last two, an image's logits
            do not depend on the rest of its batch.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        in_channels: int = 6,
        ndf: int = 64,
        n_layers: int = 3,
        spectral_norm: bool = False,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"norm must be {', '.join(_NORMS)}, not {norm!r}")
        if min(in_channels, ndf, n_layers) < 1:
            raise ValueError("in_channels, ndf and n_layers must be at least 1")

        def convolution(inside: int, outside: int, stride: int, bias: bool) -> nn.Module:
            layer = nn.Conv2d(inside, outside, kernel_size=4, stride=stride, padding=1, bias=bias)
            return parametrizations.spectral_norm(layer) if spectral_norm else layer

        layers = [convolution(in_channels, ndf, stride=2, bias=True), nn.LeakyReLU(0.2, inplace=True)]
        width = ndf
        for depth in range(1, n_layers + 1):
            wider = ndf * min(2**depth, 8)
            layers += [
                convolution(width, wider, stride=2 if depth < n_layers else 1, bias=norm != "batch"),
                _NORMS[norm](wider),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            width = wider
        layers.append(convolution(width, 1, stride=1, bias=True))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Judge a batch.

        Args:
            x: float, B×in_channels×H×W in [-1, 1], condition first, image last; H and W ≥ 24 with 3 layers.
            features: also return the activations of every hidden layer, for feature matching (pix2pixHD, eq. 4).

        Returns:
            Logits B×1×H'×W' (no sigmoid), high where the patch looks real; with `features` also the list of
            activations, shallow to deep, each after its LeakyReLU.
        """
        activations: list[Tensor] = []
        for layer in self.model:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                activations.append(x)
        return (x, activations) if features else x

    @torch.no_grad()
    def sees(self, hole: Tensor) -> Tensor:
        """Which logits see something of a hole.

        Args:
            hole: bool, B×1×H×W, true in the hole.

        Returns:
            float32, B×1×H'×W' as the logits: 1 where the patch of a logit holds a pixel of the hole, else 0.
        """
        touched = hole.to(torch.float32)
        for layer in self.model:
            # A convolution spreads a pixel exactly as far as max pooling of the same geometry.
            if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
                touched = F.max_pool2d(touched, layer.kernel_size, layer.stride, layer.padding)
        return touched


@torch.no_grad()
def init_weights(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights as pix2pix does: convolutions N(0, 0.02), batch norms N(1, 0.02), biases 0. In place.

    Args:
        module: on the CPU where `generator` is a CPU generator (move it to its device afterwards).
        generator: makes the draw repeatable; None uses torch's global one.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            if parametrize.is_parametrized(layer, "weight"):
                _init_spectral(layer, generator)
            else:
                layer.weight.normal_(0.0, 0.02, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.normal_(1.0, 0.02, generator=generator)
        else:
            continue
        if layer.bias is not None:
            layer.bias.zero_()


def _init_spectral(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weight behind a spectral norm, and let the norm's singular vectors converge."""
    chain = layer.get_submodule("parametrizations.weight")
    chain.get_parameter("original").normal_(0.0, 0.02, generator=generator)
    for buffer in chain.buffers():
        vector = torch.empty_like(buffer).normal_(generator=generator)
        buffer.copy_(vector / vector.norm())
    _settle(layer)


@torch.no_grad()
def settle_spectral_norm(network: nn.Module) -> None:
    """Let the singular vectors of spectral norms converge to those of weights that were just loaded."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and parametrize.is_parametrized(layer, "weight"):
            _settle(layer)


def _settle(layer: nn.Module) -> None:
    was_training = layer.training
    layer.train()
    for _ in range(15):  # every read in training mode is one power iteration; torch starts with 15
        _ = layer.weight
    layer.train(was_training)
