"""Restorers made of trained networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.checkpoints import Description
from restore.engines.runner import Runner, TorchRunner
from restore.errors import RestoreError
from restore.images.conditions import Condition
from restore.linear_light import from_linear, to_linear
from restore.models.base import RestorationNetwork
from restore.restorers.base import ModelRequirements, Restorer

#: Images of up to half this size share a batch on a GPU: launches then take more time than pixels (estimated from
#: the number of launches, not measured).
GPU_BATCH_PX = 1 << 18


class NetworkRestorer(Restorer):
    """A generator and how it is run.

    Args:
        name: how the user calls it.
        model: the generator; it is put into eval mode and moved to the device.
        requirements: what it requires of its input.
        purpose: one line.
        device: where it runs; images may come from elsewhere and return there.
        precision: `fp32`, `bf16` or `fp16`.
        sha256: of the weights' file.
        runner: runs it on the device in this precision; None: PyTorch does.
    """

    def __init__(
        self,
        name: str,
        model: RestorationNetwork,
        requirements: ModelRequirements,
        purpose: str,
        device: torch.device,
        precision: str,
        sha256: str | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.name, self.requirements, self.purpose, self.sha256 = name, requirements, purpose, sha256
        self.device, self.precision = device, precision
        self.max_batch_pixels = GPU_BATCH_PX if device.type == "cuda" else 0
        self.model = model
        self._run = TorchRunner(model, device, precision) if runner is None else runner
        self.engine = self._run.engine

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Fill holes as the network saw them filled in training; see `Restorer.prepare`.

        Raises:
            RestoreError: the image has no condition images.
        """
        conditions = self.requirements.conditions
        if image.shape[1] != 3 + sum(condition.channels for condition in conditions):
            raise RestoreError(
                f"{self.name} sees more than the image: {', '.join(map(str, conditions))}",
                hint="only `restore fix --condition` gives it what it was trained with",
            )
        if mask is None:
            return image, None
        if not self.requirements.linear:
            return self.model.fill(image, mask), mask
        filled = _on_colors(from_linear, self.model.fill(_on_colors(to_linear, image), mask))
        return torch.where(mask > 0, filled, image), mask

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if self.requirements.linear:
            return from_linear(self._on_channels(_on_colors(to_linear, image), mask))
        return self._on_channels(image, mask)

    def _on_channels(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The network's output, of three channels, for an image in its own light."""
        if not self.requirements.gray:
            return self._run(image, mask)
        channels, condition = image[:, :3].split(1, dim=1), image[:, 3:]
        if all(torch.equal(channel, channels[0]) for channel in channels[1:]):
            channels = channels[:1]
        out = torch.cat([self._run(torch.cat([channel, condition], 1), mask) for channel in channels], dim=1)
        return out.expand(-1, 3, -1, -1)

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.model

    def in_precision(self, precision: str) -> NetworkRestorer:
        """The same network run in another precision (it is shared, not copied), by PyTorch."""
        return NetworkRestorer(
            self.name, self.model, self.requirements, self.purpose, self.device, precision, self.sha256
        )


def _on_colors(curve: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Apply a curve to the image, but not to the condition images behind it."""
    colors = curve(image[:, :3].float())
    return colors if image.shape[1] == 3 else torch.cat([colors, image[:, 3:]], 1)


def requirements_of(description: Description, model: RestorationNetwork) -> ModelRequirements:
    """The requirements of a network with its weights file's description."""
    return ModelRequirements(
        needs_mask=description.needs_mask,
        multiple=description.multiple,
        minimum=description.minimum,
        scale=description.scale,
        tileable=model.tileable,
        overlap_px=description.overlap_px,
        gray=description.channels == 1,
        linear=description.transfer == "linear",
        float_range=description.float_range,
        adds_color=bool(description.adds_color),
        conditions=tuple(
            Condition(found.name, found.channels, found.value_range) for found in description.conditions or ()
        ),
    )


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file in hex; None if it cannot be read (opening it reports why)."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
