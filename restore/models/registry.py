"""The networks by name: two literal dicts, no scanning of folders."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.models.dcgan import DCDiscriminator, DCGenerator, DenseDiscriminator, DenseGenerator
from restore.models.drunet import DRUNet
from restore.models.enlarge import Enlarge
from restore.models.patchgan import PatchGAN
from restore.models.pix2pix import Pix2Pix
from restore.models.pyramid_unet import PyramidUNet
from restore.models.resnet import ResNet
from restore.models.unet import UNet

GENERATORS: dict[str, type[RestorationNetwork]] = {
    "unet": UNet,
    "drunet": DRUNet,
    "pyramid-unet": PyramidUNet,
    "enlarge": Enlarge,
    "pix2pix": Pix2Pix,
    "resnet": ResNet,
    "dcgan": DCGenerator,
    "dense-gan": DenseGenerator,
}
DISCRIMINATORS: dict[str, type[nn.Module]] = {
    "patchgan": PatchGAN,
    "dcgan": DCDiscriminator,
    "dense-gan": DenseDiscriminator,
}

#: The most values that a network may have (2 GB in float32): a description of a few bytes could ask for any number.
MAX_PARAMETERS = 1 << 29

Network = TypeVar("Network", bound=nn.Module)


class SkippedInit(TorchFunctionMode):
    """Build networks without drawing random weights, which would take as long as loading the real ones."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def build_generator(builder: str, args: Mapping[str, Any], *, where: str | None = None) -> RestorationNetwork:
    """A generator from its builder's name and arguments, as configs and weights files write them.

    Args:
        builder: a key of `GENERATORS`.
        args: keyword arguments of the builder.
        where: the config or file that they come from, for the error message.

    Raises:
        RestoreError: an unknown builder or argument (the nearest known one is named), or a value out of range.
    """
    return _build(GENERATORS, builder, args, where)


def build_discriminator(builder: str, args: Mapping[str, Any], *, where: str | None = None) -> nn.Module:
    """A discriminator; arguments and errors as for `build_generator`, with the names of `DISCRIMINATORS`."""
    return _build(DISCRIMINATORS, builder, args, where)


def count_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters())


def _build(builders: Mapping[str, type[Network]], builder: str, args: Mapping[str, Any], where: str | None) -> Network:
    if builder not in builders:
        raise RestoreError(f"unknown model builder {builder!r}", where=where, hint=f"known: {', '.join(builders)}")
    known = list(inspect.signature(builders[builder]).parameters)
    for name in args:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise RestoreError(f"{builder} has no argument {name!r}", where=where, hint=hint)
    try:
        with torch.device("meta"), SkippedInit():  # takes no memory
            count = count_parameters(builders[builder](**args))
        if count > MAX_PARAMETERS:
            raise ValueError(f"it would have {count:,} parameters, more than {MAX_PARAMETERS:,}")
        return builders[builder](**args)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # PyTorch's own, of sizes beyond its numbers
        reason = str(error).partition("\n")[0]
        raise RestoreError(f"{builder} cannot be built: {reason}", where=where) from error
