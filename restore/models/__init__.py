"""The networks, by name: one literal dict, no scanning of folders."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from restore.errors import RestoreError
from restore.models.patchgan import PatchGAN
from restore.models.pix2pix import Pix2Pix
from restore.models.unet import UNet

GENERATORS: dict[str, Callable[..., nn.Module]] = {"unet": UNet, "pix2pix": Pix2Pix}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {"patchgan": PatchGAN}
BUILDERS: dict[str, Callable[..., nn.Module]] = {**GENERATORS, **DISCRIMINATORS}


def build(builder: str, args: Mapping[str, Any], *, where: str | None = None) -> nn.Module:
    """A network from its builder's name and arguments, as configs and checkpoints write them.

    Args:
        builder: a key of `BUILDERS`.
        args: keyword arguments of the builder.
        where: the config or file that asks, for the message.

    Raises:
        RestoreError: an unknown builder or argument (the nearest known one is named), or a value out of range.
    """
    if builder not in BUILDERS:
        raise RestoreError(f"unknown model builder {builder!r}", where=where, hint=f"known: {', '.join(BUILDERS)}")
    known = list(inspect.signature(BUILDERS[builder]).parameters)
    for name in args:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise RestoreError(f"{builder} has no argument {name!r}", where=where, hint=hint)
    try:
        return BUILDERS[builder](**args)
    except (ValueError, TypeError) as error:
        raise RestoreError(f"{builder} cannot be built: {error}", where=where) from error


def count_parameters(model: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in model.parameters())
