"""The generator of CycleGAN, layer by layer and name by name, so that published weights load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.models.patchgan import init_weights
from restore.models.pix2pix import load_published, without_data_parallel

_FIRST_BLOCK = 10  # its number among the layers, which is in the names of parameters


class ResNet(RestorationNetwork):
    """The network of Zhu et al. 2017, "CycleGAN" (section 4, after Johnson et al. 2016): 9 blocks for 256², 6 for 128².

    A 7×7 convolution, two of stride 2, residual blocks, two transposed convolutions, and a 7×7 convolution; paddings
    mirror the image. Parameter names are those of the reference's PyTorch code.

    Args:
        blocks: residual blocks (Johnson et al. 2016), of two 3×3 convolutions each.
        ngf: channels behind the first convolution; the blocks have four times that.
        input_nc, output_nc: both 3, or both 1 for gray.
        norm: "instance" (non-affine, no running statistics, every convolution with a bias), or "batch".
        dropout: 0.5 between the two convolutions of each block.

    Raises:
        ValueError: an argument out of range.
    """

    has_features = True
    multiple = 4
    minimum = 8  # the blocks mirror one pixel at a quarter of the size

    def __init__(
        self,
        blocks: int = 9,
        ngf: int = 64,
        input_nc: int = 3,
        output_nc: int = 3,
        norm: str = "instance",
        dropout: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 0 or ngf < 1:
            raise ValueError(f"blocks is 0 or more and ngf is 1 or more, not {blocks} and {ngf}")
        if input_nc not in (1, 3) or output_nc != input_nc:
            raise ValueError(f"input_nc and output_nc are both 3 or both 1, not {input_nc} and {output_nc}")
        if norm not in ("batch", "instance"):
            raise ValueError(f'norm is "batch" or "instance", not {norm!r}')
        self.tileable = norm == "batch"  # the other depends on the whole image
        bias = norm == "instance"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, ngf, 7, bias=bias), *_rest(norm, ngf)]
        for width in (ngf, 2 * ngf):
            layers += [nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), *_rest(norm, 2 * width)]
        layers += [_Block(4 * ngf, norm, dropout) for _ in range(blocks)]
        for width in (2 * ngf, ngf):
            up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, *_rest(norm, width)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        if conditions:
            raise ValueError("it takes no condition images")
        return {} if channels == 3 else {"input_nc": channels, "output_nc": channels}

    def init_for_training(self) -> None:
        """Draw the weights as the paper does; see `init_weights`."""
        init_weights(self)

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Translate a batch.

        Args:
            image: float, B×3×H×W, nominally [0, 1], sRGB; H and W divide by 4. Gray: B×1×H×W.
            mask: float, B×1×H×W, 1 = repair; the network sees mid-gray where it is above 0.
            filled: `image` comes from `fill`.

        Returns:
            The shape of the image, in [0, 1] (the network's tanh).
        """
        if mask is not None and not filled:
            image = self.fill(image, mask)
        out: Tensor = self.model(image * 2 - 1) * 0.5 + 0.5  # the reference works in [-1, 1]
        return out

    def features(self, image: Tensor) -> list[Tensor]:
        """See `RestorationNetwork.features`: the layers that CUT compares (Park et al. 2020, appendix C.1).

        The pixels, both convolutions of stride 2, and the first and the fifth block (the last, if there are fewer).
        """
        x = image * 2 - 1
        found = [x]
        blocks = sum(isinstance(layer, _Block) for layer in self.model)
        wanted = {4, 7, _FIRST_BLOCK, _FIRST_BLOCK + min(blocks, 5) - 1}
        for number, layer in enumerate(self.model[: max(wanted) + 1]):
            x = layer(x)
            if number in wanted:
                found.append(x)
        return found


def resnet_from_state_dict(state: Mapping[str, Tensor], where: str | os.PathLike[str]) -> ResNet:
    """Build the network from a published `*_net_G_A.pth`; as `restore.models.pix2pix.pix2pix_from_state_dict`."""
    weights = without_data_parallel(state)
    kind = "ResNet of CycleGAN"
    hint = "supported are `*_net_G*.pth` files that CycleGAN wrote with `--netG resnet_9blocks` or `resnet_6blocks`"
    if weights["model.1.weight"].ndim != 4:
        raise RestoreError(f"not a {kind}: model.1.weight is no kernel", where=where, hint=hint)
    args = infer_resnet_args(weights)
    try:
        network = ResNet(**args)
    except ValueError as error:
        raise RestoreError(f"unsupported {kind}: {error}", where=where) from error
    load_published(network, weights, kind, where, hint, without_statistics=args["norm"] == "instance")
    return network


def looks_like_resnet(state: Mapping[str, object]) -> bool:
    """Whether the parameter names are those of `ResNet` (shapes may still not fit)."""
    names = {str(key).removeprefix("module.") for key in state}
    return {"model.1.weight", f"model.{_FIRST_BLOCK}.conv_block.1.weight"} <= names


def infer_resnet_args(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments, read off the names and shapes."""
    every = range(_FIRST_BLOCK, _FIRST_BLOCK + len(weights))
    blocks = len(list(takewhile(lambda number: f"model.{number}.conv_block.1.weight" in weights, every)))
    ngf, channels = weights["model.1.weight"].shape[:2]
    norm = "instance" if "model.1.bias" in weights else "batch"
    dropout = f"model.{_FIRST_BLOCK}.conv_block.6.weight" in weights
    sizes = {"blocks": blocks, "ngf": ngf, "input_nc": channels, "output_nc": channels}
    return {**sizes, "norm": norm, "dropout": dropout}


class _Block(nn.Module):
    def __init__(self, width: int, norm: str, dropout: bool) -> None:
        super().__init__()
        bias = norm == "instance"
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            *_rest(norm, width),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            _norm(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


def _rest(norm: str, channels: int) -> list[nn.Module]:
    """What follows a convolution."""
    return [_norm(norm, channels), nn.ReLU(inplace=True)]
