"""The generator of pix2pix, layer by layer and name by name, so that published weights load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.models.patchgan import init_weights

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as the reference turns images gray for one input channel
_DROPOUT_DEPTH = 4  # from this depth on there is dropout, except in the innermost block


class Pix2Pix(RestorationNetwork):
    """The U-Net of Isola et al. 2017 (appendix 6.1.1): 8 downs for 256×256, 7 for 128×128.

    Every convolution is 4×4 with stride 2, down to 1×1 and up again, with skips. Parameter names are those of
    the reference's PyTorch code. An output pixel sees hundreds of pixels around it (the whole image with
    `norm="instance"`): not tileable.

    Args:
        num_downs: how often the side is halved (at least 5; 8 is U-Net-256, 7 is U-Net-128).
        ngf: channels of the outermost layer.
        input_nc: 3, or 1 (the image as luma), or 4 (image and mask).
        output_nc: 3, or 1 (repeated in the three channels, unless the image has one).
        norm: "batch", or "instance" (non-affine, no running statistics, every convolution with a bias).
        dropout: 0.5 after the up-norm of the blocks between the innermost and the fourth.
        upsampling: "transposed" convolutions as published; or "resize": nearest neighbor, then a 3×3 convolution, which
            leaves no checkerboard pattern (Odena et al. 2016, "Deconvolution and checkerboard artifacts"). Published
            weights do not fit.
        conditions: channels of condition images: input channels after all others.

    Raises:
        ValueError: an argument out of range.
    """

    tileable = False
    # `takes_mask` stays False even with four channels: the reference trains none with masks.

    can_change = True

    def __init__(
        self,
        num_downs: int = 8,
        ngf: int = 64,
        input_nc: int = 3,
        output_nc: int = 3,
        norm: str = "batch",
        dropout: bool = True,
        upsampling: str = "transposed",
        conditions: int = 0,
    ) -> None:
        super().__init__()
        if not 5 <= num_downs <= 12 or ngf < 1:
            raise ValueError(f"num_downs is 5 to 12 and ngf is 1 or more, not {num_downs} and {ngf}")
        if input_nc not in (1, 3, 4) or output_nc not in (1, 3):
            raise ValueError(f"input_nc is 1, 3 or 4, output_nc 1 or 3, not {input_nc} and {output_nc}")
        if norm not in ("batch", "instance"):
            raise ValueError(f'norm is "batch" or "instance", not {norm!r}')
        if upsampling not in ("transposed", "resize"):
            raise ValueError(f'upsampling is "transposed" or "resize", not {upsampling!r}')
        if conditions < 0:
            raise ValueError(f"conditions must be at least 0, not {conditions}")
        self.input_nc, self.conditions = input_nc, conditions
        self.multiple = self.minimum = 2**num_downs
        widths = [ngf * min(2**depth, 8) for depth in range(num_downs)]
        block = _Block(widths[-2], widths[-1], None, norm, upsampling)
        for depth in range(num_downs - 2, 0, -1):
            block = _Block(
                widths[depth - 1], widths[depth], block, norm, upsampling, dropout=dropout and depth >= _DROPOUT_DEPTH
            )
        self.model = _Outermost(input_nc + conditions, output_nc, ngf, block, norm == "instance", upsampling)

    @property
    def sees_mask(self) -> bool:
        """See `RestorationNetwork`."""
        return self.input_nc == 4

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        args = {"input_nc": channels, "output_nc": channels} if channels != 3 else {}
        return args | ({"conditions": conditions} if conditions else {})

    def init_for_training(self) -> None:
        """Draw the weights as the paper does; see `init_weights`."""
        init_weights(self)

    def use_image_statistics(self) -> bool:
        """From now on, normalize by the statistics of each image instead of those of training.

        This is what the reference code does when it tests, with a batch of one.

        Returns:
            False if the network has no batch norm; nothing changes then.
        """
        found = False
        for parent in list(self.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.BatchNorm2d):
                    by_image = nn.InstanceNorm2d(layer.num_features, eps=layer.eps, affine=True)
                    by_image.weight, by_image.bias = layer.weight, layer.bias
                    setattr(parent, name, by_image)
                    found = True
        return found

    def use_dropout(self, seed: int) -> None:
        """From now on, drop activations as in training, which is what the reference code does when it tests.

        Half of the values behind the transposed convolutions from depth 4 on become zero, all others twice as large.
        Which ones follows from the seed and the size of the image alone.
        """
        blocks = [module for module in self.modules() if isinstance(module, _Block)]
        for depth, block in enumerate(blocks[:-1], start=1):
            if depth >= _DROPOUT_DEPTH:
                layers = [layer for layer in block.model if not isinstance(layer, (nn.Dropout, _SeededDropout))]
                block.model = nn.Sequential(*layers, _SeededDropout(seed % (1 << 32) + (depth << 32)))

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """Repair a batch.

        Args:
            image: float, B×3×H×W, nominally [0, 1], sRGB; H and W divide by `multiple`. Or B×1×H×W: gray, where
                `input_nc` and `output_nc` are 1. Behind it the `conditions`.
            mask: float, B×1×H×W, 1 = repair; the network sees mid-gray where it is above 0.
            filled: `image` comes from `fill`.

        Returns:
            The shape of the image without conditions, in [0, 1] (the network's tanh).
        """
        if mask is not None and not filled:
            image = self.fill(image, mask)
        channels = image.shape[1] - self.conditions
        image, condition = image[:, :channels], image[:, channels:]
        if self.input_nc == 1 and channels == 3:
            image = (image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif self.input_nc == 4:
            image = torch.cat([image, image.new_zeros(image[:, :1].shape) if mask is None else mask], 1)
        if self.conditions:
            image = torch.cat([image, condition], 1)
        out: Tensor = self.model(image * 2 - 1) * 0.5 + 0.5  # the reference works in [-1, 1]
        return out.expand(-1, channels, -1, -1)


def pix2pix_from_state_dict(state: Mapping[str, Tensor], where: str | os.PathLike[str]) -> Pix2Pix:
    """Build the network from a published `*_net_G.pth`, and load it strictly.

    Args:
        state: parameter names and tensors, as the reference saves them, with or without the `module.` of
            `DataParallel`. Old files (running statistics beside instance norms, batch norms without their
            count of batches) are taken as the reference takes them.
        where: the file it came from, for the error.

    Returns:
        The network in eval mode, float32, on the CPU, without dropout.

    Raises:
        RestoreError: not a pix2pix U-Net, or parameters are missing, unexpected or of another shape; they are named.
    """
    weights = without_data_parallel(state)
    hint = "supported are `*_net_G.pth` files that pix2pix wrote with `--netG unet_256` or `unet_128`"
    for key in ("model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.weight"):
        if not isinstance(weights.get(key), Tensor) or weights[key].ndim != 4:
            raise RestoreError(f"not a pix2pix U-Net: no weights named {key}", where=where, hint=hint)
    args = infer_args(weights)
    try:
        network = Pix2Pix(**args, dropout=False)
    except ValueError as error:
        raise RestoreError(f"unsupported pix2pix U-Net: {error}", where=where) from error
    load_published(network, weights, "pix2pix U-Net", where, hint, without_statistics=args["norm"] == "instance")
    return network


def without_data_parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the `module.` of `DataParallel`."""
    prefix = "module." if state and all(str(key).startswith("module.") for key in state) else ""
    return {str(key)[len(prefix) :]: value for key, value in state.items()}


def load_published(
    network: nn.Module, weights: dict[str, Tensor], kind: str, where: Any, hint: str, *, without_statistics: bool
) -> None:
    """Load weights of the reference code strictly, and put the network into eval mode.

    Args:
        network, weights, kind, where, hint: to load into, what, and for the error; `weights` is changed.
        without_statistics: the norms have none; old files do.

    Raises:
        RestoreError: parameters are missing, unexpected or of another shape; they are named.
    """
    expected = network.state_dict()
    for key in [key for key in expected if key.endswith("num_batches_tracked")]:
        weights.setdefault(key, expected[key])
    if without_statistics:
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        weights = {key: value for key, value in weights.items() if not key.endswith(statistics)}
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [k for k in expected if k in weights and _shape(weights[k]) != _shape(expected[k])],
    }
    if any(problems.values()):
        named = "; ".join(f"{problem}: {_first_few(keys)}" for problem, keys in problems.items() if keys)
        raise RestoreError(f"not the weights of a {kind} ({named})", where=where, hint=hint)
    network.load_state_dict(weights, strict=True)
    network.eval()


def looks_like_pix2pix(state: Mapping[str, object]) -> bool:
    """Whether the parameter names are those of `Pix2Pix` (shapes may still not fit)."""
    return any(str(key).removeprefix("module.").startswith("model.model.1.model.1.") for key in state)


def infer_args(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments, read off the names and shapes."""
    num_downs, block = 2, "model.model.1.model"
    while f"{block}.5.weight" in weights:
        num_downs, block = num_downs + 1, f"{block}.3.model"
    return {
        "num_downs": num_downs,
        "ngf": weights["model.model.0.weight"].shape[0],
        "input_nc": weights["model.model.0.weight"].shape[1],
        "output_nc": weights["model.model.3.weight"].shape[1],
        "norm": "instance" if "model.model.1.model.1.bias" in weights else "batch",
    }


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _first_few(keys: list[str], count: int = 4) -> str:
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


class _SeededDropout(nn.Module):
    """Dropout of one half whose choice is the same for every image of a size."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(self.seed)).to(x.device)
        return x * (drawn < 0.5).to(x.dtype) * 2


class _Outermost(nn.Module):
    def __init__(self, input_nc: int, output_nc: int, ngf: int, inner: nn.Module, bias: bool, upsampling: str) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(input_nc, ngf, 4, 2, 1, bias=bias),
            inner,
            nn.ReLU(inplace=True),
            _up(upsampling, ngf * 2, output_nc, bias=True),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class _Block(nn.Module):
    """Down, the inner block, and up; the input is concatenated before the output (B×2·outer×H×W).

    The order of layers gives the parameter names of published weights: `model.{1,2,5,6}` with an inner block,
    `model.{1,3,4}` innermost.
    """

    def __init__(
        self, outer: int, inner: int, inside: nn.Module | None, norm: str, upsampling: str, dropout: bool = False
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        layers: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
        if inside is not None:
            layers += [_norm(norm, inner), inside]
        up = inner if inside is None else inner * 2
        layers += [
            nn.ReLU(inplace=True),
            _up(upsampling, up, outer, bias),
            _norm(norm, outer),
        ]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1)


def _norm(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


def _up(kind: str, inside: int, outside: int, bias: bool) -> nn.Module:
    """Twice the size."""
    if kind == "transposed":
        return nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inside, outside, 3, 1, 1, bias=bias))
