"""Safetensors: with this package's description, or as plain weights for spandrel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from restore.checkpoints import Description, save_weights
from restore.errors import RestoreError
from restore.export.parity import IMAGE_TOLERANCE
from restore.export.source import Source
from restore.files import write_atomically

#: The tensor in which `spandrel_restore` reads what no parameter tells, as JSON; and what it assumes without it.
_STATED = "stated_hyperparameters"
_ASSUMED_DILATIONS = {"unet": [1], "pyramid-unet": [1, 2]}
_ASSUMED_COARSEST_PX = 48


def write_safetensors(source: Source, out: Path) -> list[str]:
    """Write the weights with their description, as `restore train` does."""
    save_weights(out, source.g, source.description, half=source.half)
    return []


def write_spandrel(source: Source, out: Path) -> list[str]:
    """Write plain weights in float32 for programs that open networks with spandrel (chaiNNer, ComfyUI).

    A `drunet` opens in spandrel itself; its output is compared if spandrel is installed. All others need the module
    `spandrel_restore`, which recognizes them by their parameters. Arguments that the parameters do not determine go
    into a tensor that the module reads.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: spandrel has no place for what the network needs. Exit code 1: spandrel opens the weights, but
            gives another output. Nothing is written.
    """
    plain = {key: value.float() if value.is_floating_point() else value for key, value in source.g.items()}
    plain = {key: value.detach().cpu().contiguous() for key, value in plain.items()}
    _check_that_spandrel_can(source)
    if source.description.builder == "drunet":
        note = _checked_in_spandrel(source, plain)
    else:
        stated = stated_hyperparameters(source.description)
        if stated:
            text = json.dumps(stated, sort_keys=True).encode()
            plain[_STATED] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        note = (
            f"a {source.description.builder} opens in programs with spandrel only beside the module spandrel_restore "
            "(integrations/spandrel_restore), which knows it by its parameters"
        )
    write_atomically(out, save(plain))
    return [note]


def stated_hyperparameters(description: Description) -> dict[str, Any]:
    """The arguments that no parameter tells, where they differ from what `spandrel_restore` assumes."""
    args = description.args
    found: dict[str, Any] = {}
    if "dilations" in args and list(args["dilations"]) != _ASSUMED_DILATIONS[description.builder]:
        found["dilations"] = list(args["dilations"])
    if description.builder == "unet" and args.get("mask", True) and not args.get("prefill", False):
        found["prefill"] = False
    if args.get("coarsest_px", _ASSUMED_COARSEST_PX) != _ASSUMED_COARSEST_PX:
        found["coarsest_px"] = args["coarsest_px"]
    return found


def _check_that_spandrel_can(source: Source) -> None:
    """Refuse a network that would not run as it was trained.

    Raises:
        RestoreError: it needs what spandrel has no place for.
    """
    description = source.description
    reasons = {
        f"a {description.builder}": description.builder not in ("drunet", *_ASSUMED_DILATIONS),
        "a detector that is no pyramid-unet": description.finds is not None and description.builder != "pyramid-unet",
        "a drunet that fills holes": description.builder == "drunet" and description.needs_mask,
        "condition images": bool(description.conditions),
        "linear light": description.transfer == "linear",
    }
    for reason, applies in reasons.items():
        if applies:
            raise RestoreError(f"spandrel has no place for {reason}", where=source.path, hint="export it as ONNX")


def _checked_in_spandrel(source: Source, plain: dict[str, Tensor]) -> str:
    try:
        from spandrel import ModelLoader
    except ImportError:
        return "spandrel opens it as a DRUNet (not checked: spandrel is not installed)"
    opened: Any = ModelLoader(device="cpu").load_from_state_dict(dict(plain))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        image = torch.rand(1, source.description.channels or 3, 40, 56, generator=generator)
        difference = float((opened(image) - source.network()(image).clamp(0, 1)).abs().max())
    if not difference <= IMAGE_TOLERANCE:
        raise RestoreError(
            f"spandrel opens these weights, but its output differs by {difference:.1e}; nothing is written", exit_code=1
        )
    return f"spandrel opens it as a {opened.architecture.name}; its output differs by {difference:.1e} at most"
