"""Where the weights of an export come from: a run, one of its states, a weights file, or pix2pix's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from restore.checkpoints import (
    Description,
    best_weights,
    find_weights,
    load_strictly,
    read_description,
    read_state,
    read_state_facts,
    read_tensors,
    read_torch_state,
    read_weights,
    shipped_weights,
)
from restore.hub.fetch import origin_of
from restore.models.base import RestorationNetwork
from restore.models.pix2pix import infer_args, pix2pix_from_state_dict
from restore.models.registry import build_generator
from restore.models.resnet import infer_resnet_args, looks_like_resnet, resnet_from_state_dict
from restore.restorers.network import sha256_of

#: The licence of the weights that the package ships.
SHIPPED_LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Source:
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

    @property
    def sha256(self) -> str | None:
        """Of the file that the weights come from."""
        return sha256_of(self.path)

    @property
    def license(self) -> str | None:
        """Of the weights, if it is known."""
        if self.path in shipped_weights().values():
            return SHIPPED_LICENSE
        origin = origin_of(self.path)
        return None if origin is None else origin.licence

    def network(self) -> RestorationNetwork:
        """The generator with its weights, in float32 and eval mode, on the CPU.

        Raises:
            RestoreError: the weights do not fit the network that they describe.
        """
        model = build_generator(self.description.builder, self.description.args, where=str(self.path))
        load_strictly(model, self.g, self.path)
        return model.float().eval().requires_grad_(False)


def open_source(path: Path, name: str, both: bool) -> Source:
    """Open the weights of an export.

    Args:
        path: what `export` was given.
        name: the same as the user wrote it.
        both: G and D from one state, in full precision.

    Raises:
        RestoreError: there are no such weights.
    """
    if path.is_dir():
        return _open_run(path, both)
    if path.suffix.lower() in (".pth", ".pt"):
        return _open_published(path)
    run = path.parent.parent
    if path.suffix == ".safetensors" and path.parent.name in ("last", "checkpoints") and (run / "config.yaml").exists():
        return _open_state(path, best_weights(run), both)
    weights = find_weights(name)
    return Source(weights, *read_weights(weights), notes=_rounded(weights))


def _open_run(folder: Path, both: bool) -> Source:
    best = best_weights(folder)
    last = folder / "last" / "state.safetensors"
    if not both or not last.exists():
        return Source(best, *read_weights(best), notes=_rounded(best))
    # G and D have trained each other, so both come from the same state.
    facts = read_state_facts(last)
    best_step = facts.get("best", {}).get("step", facts["step"])
    kept = folder / "checkpoints" / f"step_{best_step:07d}.safetensors"
    if best_step == facts["step"]:
        return _open_state(last, best, both)
    if kept.exists():
        return _open_state(kept, best, both)
    opened = _open_state(last, best, both)
    lost = (
        f"the best step was {best_step}, but its state is not kept (see keep_checkpoints); {best.name} holds its G "
        "alone, rounded to half precision"
    )
    return replace(opened, notes=(*opened.notes, lost))


def _open_state(path: Path, best: Path, both: bool) -> Source:
    tensors, facts = read_state(path)
    note = f"the weights are those of step {facts['step']}, in full precision, from {path.parent.name}/{path.name}"
    g = _part(tensors, "ema")
    if not both:  # of an unpaired run, the way from A to B
        g = _part(g, "a") or g
    return Source(path, read_description(best), g, _part(tensors, "d") or None, notes=(note,))


def _rounded(weights: Path) -> tuple[str, ...]:
    """A note if the weights are stored in half precision."""
    if any(tensor.dtype == torch.float16 for tensor in read_tensors(weights).values()):
        return (f"{weights.name} holds weights rounded to half precision",)
    return ()


def _open_published(path: Path) -> Source:
    state = read_torch_state(path)
    network: RestorationNetwork
    if looks_like_resnet(state):
        network, builder, infer = resnet_from_state_dict(state, path), "resnet", infer_resnet_args
    else:
        network, builder, infer = pix2pix_from_state_dict(state, path), "pix2pix", infer_args
    state = network.state_dict()
    description = Description(
        builder=builder,
        args=infer(state),
        purpose=f"published {'CycleGAN' if builder == 'resnet' else builder} generator",
        needs_mask=False,
        multiple=network.multiple,
        minimum=network.minimum,
        adds_color=True,  # as `restore.restorers` opens the file itself: nothing is known of its training
    )
    return Source(path, description, state, half=False)


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
