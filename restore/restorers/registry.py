"""A name or a path -> a restorer."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch

from restore.checkpoints import (
    find_weights,
    is_described,
    read_description,
    read_tensors,
    read_torch_file,
    shipped_weights,
    weights_dir,
)
from restore.devices import pick_device, pick_devices, pick_precision
from restore.errors import RestoreError
from restore.models.pix2pix import looks_like_pix2pix
from restore.restorers.base import Restorer
from restore.restorers.classical import CLASSICAL
from restore.restorers.network import TORCH_SUFFIXES, open_trained, sha256_of
from restore.restorers.spandrel import open_foreign


@dataclass(frozen=True)
class ModelInfo:
    """A line of `restore models`: `size_mb` is None for methods without weights; what `finds` repairs nothing."""

    name: str
    purpose: str
    needs_mask: bool
    size_mb: float | None
    finds: bool = False


def open_restorer(name_or_path: str, *, device: str = "auto", precision: str = "auto") -> Restorer:
    """Open whatever repairs pictures: a shipped model, a classical method, or a weights file.

    Args:
        name_or_path: a name of `restore models`, or a path: `.safetensors` of this package, a pix2pix `.pth`, or with
            spandrel installed any state dict it knows (`.safetensors`, `.pth`, `.pt`, `.ckpt`).
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        RestoreError: no such model, device or precision, a file that cannot be read, or a detector.
    """
    place = pick_device(device)
    exactness = pick_precision(precision, place)
    if name_or_path in CLASSICAL:
        return CLASSICAL[name_or_path]()
    is_name = "/" not in name_or_path and "\\" not in name_or_path and "." not in name_or_path
    if is_name and name_or_path not in shipped_weights():
        known = [info.name for info in list_restorers() if not info.finds]
        raise _no_such_model(name_or_path, known, "; a file is given with its path")
    return _open_file(name_or_path, find_weights(name_or_path), place, exactness)


def open_restorers(name_or_path: str, *, device: str = "auto", precision: str = "auto") -> list[Restorer]:
    """`open_restorer` once for every device, for a batch of pictures that they share.

    Args:
        name_or_path, precision: as for `open_restorer`.
        device: likewise, or several: `cuda:0,cuda:1`, `cuda:all` (see `pick_devices`).

    Raises:
        RestoreError: as `open_restorer` and `pick_devices` do; devices that would compute in different precisions.
    """
    places = pick_devices(device)
    chosen = {pick_precision(precision, place) for place in places}
    if len(chosen) > 1:
        raise RestoreError(
            f"these devices are fastest in different precisions ({', '.join(sorted(chosen))})",
            where=f"device {device}",
            hint="choose one with --precision",
        )
    return [open_restorer(name_or_path, device=str(place), precision=precision) for place in places]


def list_restorers() -> list[ModelInfo]:
    """Everything that has a name: shipped weights first, detectors among them, then the classical methods."""
    infos = []
    for name, path in shipped_weights().items():
        description = read_description(path)
        size_mb, finds = path.stat().st_size / 1e6, description.finds is not None
        infos.append(ModelInfo(name, description.purpose, description.needs_mask, size_mb, finds))
    for name, method in CLASSICAL.items():
        infos.append(ModelInfo(name, method.purpose, method.needs.needs_mask, None))
    return infos


def model_card(name: str) -> str:
    """What there is to know of a shipped model, in Markdown: its card, or the purpose of a method without weights.

    Raises:
        RestoreError: no such model.
    """
    if name in CLASSICAL:
        return f"# {name}\n\nA method that {CLASSICAL[name].purpose}. It has no weights: nothing was trained.\n"
    card = weights_dir() / f"{name}.md"
    if name not in shipped_weights() or not card.is_file():
        raise _no_such_model(name, [info.name for info in list_restorers()])
    return card.read_text(encoding="utf-8")


def _no_such_model(name: str, known: list[str], further: str = "") -> RestoreError:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return RestoreError(f"no model is called {name!r}", hint=f"{meant}known: {', '.join(known)}{further}")


def _open_file(name: str, path: Path, device: torch.device, precision: str) -> Restorer:
    """By what is inside: a description of this package's, pix2pix's names, or else whatever spandrel makes of it."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise RestoreError(
            f"weights end with .safetensors, {', '.join(TORCH_SUFFIXES)}, not {path.suffix!r}",
            where=path,
            hint="other formats can hold code, or are not known",
        )
    if suffix == ".safetensors":
        state = None if is_described(path) else read_tensors(path)
    else:
        state = read_torch_file(path)
        state = None if looks_like_pix2pix(state) else state
    if state is None:
        return open_trained(name, path, device, precision)
    return open_foreign(name, path, state, device, precision, sha256_of(path))
