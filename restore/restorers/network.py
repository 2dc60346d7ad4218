"""A trained network behind the contract."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.checkpoints import Description, load_generator, read_torch_state
from restore.devices import autocast
from restore.errors import RestoreError
from restore.models.pix2pix import Pix2Pix, pix2pix_from_state_dict
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.hybrid_inpainting import with_deep_holes_filled

#: What torch.save writes goes by these names.
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
#: Small enough that a GPU spends its time on launches, not on pixels (estimated from launches, not measured).
GPU_GROUP_PX = 1 << 18


class NetworkRestorer(Restorer):
    """A generator and how it is run.

    Args:
        name: how the user calls it.
        model: the generator, in eval mode.
        needs: what it asks of its input.
        purpose: one line.
        device: where it runs; pictures may come from elsewhere and go back there.
        precision: `fp32`, `bf16` or `fp16`, by autocast.
        sha256: of the weights' file.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        needs: ModelRequirements,
        purpose: str,
        device: torch.device,
        precision: str,
        sha256: str | None = None,
    ) -> None:
        self.sha256 = sha256
        self.name, self.needs, self.purpose = name, needs, purpose
        self.device, self.precision = device, precision
        self.max_batch_pixels = GPU_GROUP_PX if device.type == "cuda" else 0
        # channels_last is what half precision runs fastest in; in fp32 on a CPU it is slower
        self._format = torch.contiguous_format if precision == "fp32" and device.type == "cpu" else torch.channels_last
        self.model = model.eval().requires_grad_(False).to(device).to(memory_format=self._format)

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Fill deep holes, and others as the network was trained to see them; see `Restorer.prepare`."""
        if mask is None or not isinstance(self.model, UNet):
            return super().prepare(image, mask)
        if self.needs.needs_mask:
            image, mask = with_deep_holes_filled(self, self.model.fill, image, mask)
            if not bool((mask > 0).any()):
                return image, mask
        return self.model.fill(image, mask), mask

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        shown = image.to(self.device).contiguous(memory_format=self._format)
        hidden = None if mask is None else mask.to(self.device)
        with autocast(self.device, self.precision):
            if isinstance(self.model, UNet):
                return self.model(shown, hidden, filled=True).float().to(image.device)
            return self.model(shown, hidden).float().to(image.device)

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.model

    def in_precision(self, precision: str) -> NetworkRestorer:
        """The same network run in another precision (it is shared, not copied)."""
        return NetworkRestorer(self.name, self.model, self.needs, self.purpose, self.device, precision, self.sha256)


def open_trained(name: str, path: Path, device: torch.device, precision: str) -> NetworkRestorer:
    """A restorer from a weights file: this package's `.safetensors`, or a published pix2pix `*_net_G.pth`.

    Raises:
        RestoreError: it cannot be read, holds another architecture, or a detector.
    """
    digest = sha256_of(path)
    if path.suffix.lower() in TORCH_SUFFIXES:
        model = pix2pix_from_state_dict(read_torch_state(path), path)
        return NetworkRestorer(
            name, model, pix2pix_needs(model), "published pix2pix generator", device, precision, digest
        )
    generator, description = load_generator(path)
    if description.finds is not None:
        raise RestoreError(
            f"{name} finds damage, and repairs nothing",
            hint="`restore detect` writes what it finds, and `restore fix --masks` repairs that",
        )
    return NetworkRestorer(
        name, generator, needs_of(description, generator), description.purpose, device, precision, digest
    )


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file in hex; None where it cannot be read (opening it says why)."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def needs_of(description: Description, model: nn.Module | None = None) -> ModelRequirements:
    """What a weights file's description asks for; networks that normalise per picture are not tiled."""
    return ModelRequirements(
        needs_mask=description.needs_mask,
        multiple=description.multiple,
        minimum=description.minimum,
        scale=description.scale,
        tileable=bool(getattr(model, "tileable", True)),
        overlap_px=description.overlap_px,
    )


def pix2pix_needs(model: Pix2Pix) -> ModelRequirements:
    """What a published generator asks for; its field is the whole of its training size, hence no tiles."""
    return ModelRequirements(needs_mask=False, multiple=model.multiple, minimum=model.minimum, tileable=False)
