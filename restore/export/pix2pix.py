"""State dicts for the reference code of pix2pix and CycleGAN."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.errors import RestoreError
from restore.export.source import Source
from restore.export.targets import refuse_existing
from restore.files import write_atomically

G_ENDING, D_ENDING = "_net_G.pth", "_net_D.pth"


def write_pix2pix(source: Source, out: Path, overwrite: bool) -> tuple[list[Path], list[str]]:
    """Write G, and D if there is one, as the reference code looks for them.

    Args:
        source: the weights.
        out: a folder, or a file `NAME_net_G.pth`.
        overwrite: replace files that exist.

    Returns:
        The files, and notes.

    Raises:
        RestoreError: the network is not pix2pix's; a file exists already or cannot be written.
    """
    if any(name.startswith("b.") for name in source.g):
        raise RestoreError("has networks for both directions", where=source.path, hint="use --format cyclegan")
    if source.description.builder != "pix2pix":
        raise RestoreError(
            f"is a {source.description.builder}, which pix2pix's code cannot load",
            where=source.path,
            hint="only models with builder: pix2pix can be exported in this format",
        )
    if source.description.args.get("upsampling", "transposed") != "transposed":
        raise RestoreError(
            "was trained with model.args.upsampling=resize, which pix2pix's code does not have", where=source.path
        )
    if out.suffix == ".pth" and not out.name.endswith(G_ENDING):
        raise RestoreError(f"a file for pix2pix's code must end with {G_ENDING}", where=out, hint="or name a folder")
    if source.description.transfer is not None:
        note = "the network works in linear light, which pix2pix's code does not know: decode its inputs from sRGB"
        source = replace(source, notes=(*source.notes, note))
    g_file = out if out.suffix == ".pth" else out / f"latest{G_ENDING}"
    d_file = g_file.with_name(g_file.name.removesuffix(G_ENDING) + D_ENDING)
    reason = _reason_against_d(source)
    files = [g_file] if reason else [g_file, d_file]
    refuse_existing(files, overwrite, source.path)
    write_atomically(g_file, _torch_bytes(source.g))
    if reason:
        return [g_file], [*source.notes, f"no {d_file.name}: {reason}"]
    assert source.d is not None
    write_atomically(d_file, _torch_bytes(source.d))
    return [g_file, d_file], [*source.notes]


def write_cyclegan(source: Source, out: Path, overwrite: bool) -> tuple[list[Path], list[str]]:
    """As `write_pix2pix`: both generators, and both discriminators if there are any, into a folder."""
    if not any(name.startswith("b.") for name in source.g):
        raise RestoreError(
            "holds no networks for both directions", where=source.path, hint="name the folder of an unpaired run"
        )
    if out.suffix == ".pth":
        raise RestoreError("several files are written", where=out, hint="name a folder")
    if source.description.args.get("upsampling", "transposed") != "transposed":
        raise RestoreError("CycleGAN's code has no model.args.upsampling=resize", where=source.path)
    networks = {f"latest_net_G_{side.upper()}.pth": _part(source.g, side) for side in "ab"}
    d = source.d or {}
    reason = None if d else "the source has none"
    if any("parametrizations" in name for name in d):
        reason = "CycleGAN's code has no spectral norm"
    elif d and not any(name.endswith((".running_mean", "model.2.bias")) for name in d):
        reason = "CycleGAN's have norms"
    if reason is None:
        networks |= {f"latest_net_D_{side.upper()}.pth": _part(d, side) for side in "ab"}
    files = [out / name for name in networks]
    refuse_existing(files, overwrite, source.path)
    for file, state in zip(files, networks.values()):
        write_atomically(file, _torch_bytes(state))
    return files, [*source.notes, *([] if reason is None else [f"no discriminators: {reason}"])]


def _part(state: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {name[2:]: value for name, value in state.items() if name.startswith(f"{side}.")}


def _reason_against_d(source: Source) -> str | None:
    """Why the discriminator cannot be exported; None if it can."""
    if source.d is None:
        return "the source has no discriminator"
    if any("parametrizations" in name for name in source.d):
        return "pix2pix's code has no spectral norm"
    if "model.2.bias" in source.d:
        return "pix2pix's discriminator has batch norms, this one has none"
    args: dict[str, Any] = source.description.args
    channels = args.get("input_nc", 3) + args.get("conditions", 0) + args.get("output_nc", 3)
    if source.d["model.0.weight"].shape[1] != channels:
        return f"pix2pix's discriminator takes {channels} channels, this one {source.d['model.0.weight'].shape[1]}"
    return None


def _torch_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as `torch.save` writes it: float32 tensors by name, nothing else."""
    plain = {k: (v.float() if v.is_floating_point() else v).detach().cpu().clone() for k, v in state.items()}
    file = io.BytesIO()
    torch.save(plain, file)
    return file.getvalue()
