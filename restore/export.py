"""Convert weights between pix2pix's `.pth` files and this package's `.safetensors`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from restore.checkpoints import (
    Description,
    best_weights,
    find_weights,
    read_description,
    read_state,
    read_state_facts,
    read_tensors,
    read_torch_state,
    read_weights,
    save_weights,
)
from restore.errors import RestoreError
from restore.files import write_atomically
from restore.models.pix2pix import infer_args, pix2pix_from_state_dict

Format = Literal["pix2pix", "safetensors"]
G_ENDING, D_ENDING = "_net_G.pth", "_net_D.pth"


@dataclass(frozen=True)
class Exported:
    """The files written, and notes: what they hold, and what was left out for which reason."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """Weights of a generator with their description, and of the discriminator `d` if the source holds them.

    `half`: a safetensors file gets them in float16. Published weights stay in float32, so that they open unchanged.
    `notes`: what a reader of float32 files should know.
    """

    path: Path
    description: Description
    g: Mapping[str, Tensor]
    d: Mapping[str, Tensor] | None = None
    half: bool = True
    notes: tuple[str, ...] = ()


def export(source: Path | str, out: Path, format: Format, *, overwrite: bool = False) -> Exported:
    """Write weights in another format.

    Args:
        source: a run's folder; a state of a run (`last/state.safetensors` or one of `checkpoints/`: the averaged
            weights, and D); a weights file or a shipped model's name; or a published pix2pix `*_net_G.pth`. Of a
            folder, `safetensors` takes `best.safetensors`. `pix2pix` takes G and D from one state, in full precision:
            that of the best step if it is kept in `last/` or `checkpoints/`, else the last one.
        out: for `pix2pix` a folder, which gets `latest_net_G.pth` and `latest_net_D.pth` as the reference code looks
            for them, or a file `NAME_net_G.pth`; for `safetensors` a file.
        format: `pix2pix` (state dicts in the reference code's names) or `safetensors` (with a description).
        overwrite: replace files that exist.

    Raises:
        RestoreError: no such source; the architecture is not pix2pix; a file exists already or cannot be written.
    """
    opened = _open(Path(source), str(source), both=format == "pix2pix")
    if format == "pix2pix":
        return _write_pix2pix(opened, out, overwrite)
    if out.suffix != ".safetensors":
        raise RestoreError("a weights file must end with .safetensors", where=out)
    _refuse_existing([out], overwrite)
    save_weights(out, opened.g, opened.description, half=opened.half)
    return Exported((out,))


def _open(path: Path, name: str, both: bool) -> _Source:
    if path.is_dir():
        return _open_run(path, both)
    if path.suffix.lower() in (".pth", ".pt"):
        return _open_published(path)
    run = path.parent.parent
    if path.suffix == ".safetensors" and path.parent.name in ("last", "checkpoints") and (run / "config.yaml").exists():
        return _open_state(path, best_weights(run))
    weights = find_weights(name)
    return _Source(weights, *read_weights(weights), notes=_rounded(weights))


def _open_run(folder: Path, both: bool) -> _Source:
    best = best_weights(folder)
    last = folder / "last" / "state.safetensors"
    if not both or not last.exists():
        return _Source(best, *read_weights(best), notes=_rounded(best))
    # G and D have trained each other, so both come from the same state.
    facts = read_state_facts(last)
    best_step = facts.get("best", {}).get("step", facts["step"])
    kept = folder / "checkpoints" / f"step_{best_step:07d}.safetensors"
    if best_step == facts["step"]:
        return _open_state(last, best)
    if kept.exists():
        return _open_state(kept, best)
    opened = _open_state(last, best)
    lost = (
        f"the best step was {best_step}, but its state is not kept (see keep_checkpoints); {best.name} holds its G "
        "alone, rounded to half precision"
    )
    return replace(opened, notes=(*opened.notes, lost))


def _open_state(path: Path, best: Path) -> _Source:
    tensors, facts = read_state(path)
    note = f"the weights are those of step {facts['step']}, in full precision, from {path.parent.name}/{path.name}"
    return _Source(path, read_description(best), _part(tensors, "ema"), _part(tensors, "d") or None, notes=(note,))


def _rounded(weights: Path) -> tuple[str, ...]:
    """A note if the weights are stored in half precision."""
    if any(tensor.dtype == torch.float16 for tensor in read_tensors(weights).values()):
        return (f"{weights.name} holds weights rounded to half precision",)
    return ()


def _open_published(path: Path) -> _Source:
    network = pix2pix_from_state_dict(read_torch_state(path), path)
    state = network.state_dict()
    description = Description(
        builder="pix2pix",
        args=infer_args(state),
        purpose="published pix2pix generator",
        needs_mask=False,
        multiple=network.multiple,
        minimum=network.minimum,
        adds_color=True,  # as `restore.restorers` opens the file itself: nothing is known of its training
    )
    return _Source(path, description, state, half=False)


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _write_pix2pix(source: _Source, out: Path, overwrite: bool) -> Exported:
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
    _refuse_existing(files, overwrite)
    write_atomically(g_file, _torch_bytes(source.g))
    if reason:
        return Exported((g_file,), (*source.notes, f"no {d_file.name}: {reason}"))
    assert source.d is not None
    write_atomically(d_file, _torch_bytes(source.d))
    return Exported((g_file, d_file), source.notes)


def _reason_against_d(source: _Source) -> str | None:
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


def _refuse_existing(files: list[Path], overwrite: bool) -> None:
    for file in files:
        if file.exists() and not overwrite:
            raise RestoreError("exists already", where=file, hint="choose another name, or add --overwrite")


def _torch_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as `torch.save` writes it: float32 tensors by name, nothing else."""
    plain = {k: (v.float() if v.is_floating_point() else v).detach().cpu().clone() for k, v in state.items()}
    file = io.BytesIO()
    torch.save(plain, file)
    return file.getvalue()
