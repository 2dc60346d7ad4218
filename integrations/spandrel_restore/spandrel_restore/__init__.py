"""Opens the networks of the restore toolkit with spandrel.

import spandrel_restore
spandrel_restore.install()
model = spandrel.ModelLoader().load_from_file("photo.safetensors")
"""

from __future__ import annotations

import json
from os import PathLike

from safetensors import safe_open
from spandrel import MAIN_REGISTRY, ArchRegistry, ArchSupport, ModelDescriptor

from spandrel_restore.architectures import RestorePyramidUNetArch, RestoreUNetArch
from spandrel_restore.networks import RestorePyramidUNet, RestoreUNet

__all__ = [
    "RESTORE_REGISTRY",
    "RestorePyramidUNet",
    "RestorePyramidUNetArch",
    "RestoreUNet",
    "RestoreUNetArch",
    "install",
    "load",
]
__version__ = "0.1.0"

#: The architectures of this package alone.
RESTORE_REGISTRY = ArchRegistry()
RESTORE_REGISTRY.add(
    ArchSupport.from_architecture(RestoreUNetArch()),
    ArchSupport.from_architecture(RestorePyramidUNetArch()),
)


def install(*, ignore_duplicates: bool = True) -> list[ArchSupport]:
    """Add the architectures to spandrel's main registry, which `ModelLoader` uses.

    Args:
        ignore_duplicates: a second call does nothing; False: it raises `DuplicateArchitectureError`.

    Returns:
        The architectures that were added.
    """
    return MAIN_REGISTRY.add(*RESTORE_REGISTRY, ignore_duplicates=ignore_duplicates)


def load(path: str | PathLike[str]) -> ModelDescriptor:
    """Open a weights file with everything that its description says, as no shape of a tensor tells it.

    spandrel's `ModelLoader` sees tensors only. That is enough for the shipped networks and for any other with the
    default dilations and filling (see the README).

    Args:
        path: a `.safetensors` file of the restore toolkit, with or without its description.

    Raises:
        UnsupportedModelError: the tensors are those of another network.
        ValueError: the description cannot be read, or the network needs what spandrel has no place for: condition
            images, or linear light.
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        text = (file.metadata() or {}).get("restore")
    threshold, contrast = RestorePyramidUNet.threshold, RestorePyramidUNet.monochrome_contrast
    share = RestorePyramidUNet.expected_share
    if text is not None:
        try:
            description = dict(json.loads(text))
            args = dict(description.get("args", {}))
            finds = dict(description.get("finds") or {})
            threshold = float(finds.get("threshold", threshold))
            contrast = float(finds.get("monochrome_contrast", contrast))
            share = None if finds.get("expected_share") is None else float(finds["expected_share"])
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("the description inside this file cannot be read") from error
        for key, what in (("conditions", "condition images"), ("transfer", "linear light")):
            if description.get(key):
                raise ValueError(f"this network needs {what}, for which spandrel has no place")
        if description.get("builder") == "unet" and args.get("mask", True):
            args = {"prefill": False, **args}  # the toolkit's default; most networks that fill holes set it
        for architecture in (support.architecture for support in RESTORE_REGISTRY):
            state = architecture.with_hyperparameters(state, args)
    model = RESTORE_REGISTRY.load(state)
    if isinstance(model.model, RestorePyramidUNet):
        model.model.threshold, model.model.monochrome_contrast = threshold, contrast
        model.model.expected_share = share
    return model
