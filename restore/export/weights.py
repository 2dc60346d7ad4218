"""Safetensors: with this package's description, or as plain weights for spandrel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from restore.checkpoints import save_weights
from restore.errors import RestoreError
from restore.export.parity import IMAGE_TOLERANCE
from restore.export.source import Source
from restore.files import write_atomically

#: Parameters by which spandrel knows a DRUNet.
_DRUNET = ("m_head.weight", "m_down1.0.res.0.weight", "m_body.0.res.0.weight", "m_up1.2.res.0.weight", "m_tail.weight")


def write_safetensors(source: Source, out: Path) -> list[str]:
    """Write the weights with their description, as `restore train` does."""
    save_weights(out, source.g, source.description, half=source.half)
    return []


def write_spandrel(source: Source, out: Path) -> list[str]:
    """Write plain weights in float32 for programs that open networks with spandrel (chaiNNer, ComfyUI).

    A network with DRUNet's parameters opens in spandrel itself; its output is compared. All others need the module
    `spandrel_restore`, which knows them by their parameters.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: exit code 1: spandrel opens the weights, but gives another output. Nothing is written.
    """
    plain = {key: value.float() if value.is_floating_point() else value for key, value in source.g.items()}
    plain = {key: value.detach().cpu().contiguous() for key, value in plain.items()}
    if all(key in plain for key in _DRUNET):
        note = _checked_in_spandrel(source, plain)
    else:
        note = (
            f"a {source.description.builder} opens in programs with spandrel only beside the module spandrel_restore "
            "(integrations/spandrel_restore), which knows it by its parameters"
        )
    write_atomically(out, save(plain))
    return [note]


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
