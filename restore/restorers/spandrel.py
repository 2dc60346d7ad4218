"""Restorers made of other projects' networks: every architecture that the spandrel library recognizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.devices import autocast, free_memory
from restore.errors import RestoreError
from restore.models.receptive_field import measure_reach_px, octaves
from restore.restorers.base import ModelRequirements, Restorer

INSTALL = 'pip install "restore-toolkit[zoo]"'
INSTALL_MORE = 'pip install "restore-toolkit[zoo-noncommercial]"'

#: Architectures whose output depends on nearby pixels alone (no pooling or norm over the image, no attention beyond a
#: window), with the product of their windows and strides where spandrel does not state it. The receptive
#: field is measured with the weights. All others are assumed to see the whole image.
_LOCAL = {
    "Compact": 1,
    "DRUNet": 8,
    "DnCNN": 1,
    "ESRGAN": 1,
    "PLKSR": 1,
    "SCUNet": 64,
    "SPAN": 1,
    "SwiftSRGAN": 1,
    "Swin2SR": 1,
    "SwinIR": 1,
}
_GLOBAL_LAYERS = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
#: Overlap of tiles for a network that sees the whole image, used if the whole image does not fit in memory.
_FALLBACK_OVERLAP_PX = 64
#: The image that the overlap is measured on. A network that sees three quarters of its width is not tileable.
_PROBE_HEIGHT_PX, _PROBE_WIDTH_PX = 48, 288
_WORDS = {"SR": "enlarges {scale} times", "Restoration": "restores", "Inpainting": "fills holes"}
_CHANNELS = ((1, 1), (1, 3), (3, 3), (4, 3), (4, 4))
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class SpandrelRestorer(Restorer):
    """A network that spandrel recognized, and how it is run.

    One with one channel in and out gets red, green and blue separately (once if they are equal: gray images). Noise
    that a network draws is the same for every image.

    Args:
        name: how the user calls it.
        descriptor: spandrel's, in eval mode, its weights float32.
        requirements: what it requires of its input.
        device: where it runs.
        precision: `fp32`, `bf16` or `fp16`, by autocast; see `supports_precision`.
        sha256: of the weights' file.
    """

    engine = "torch"

    def __init__(
        self,
        name: str,
        descriptor: Any,
        requirements: ModelRequirements,
        device: torch.device,
        precision: str,
        sha256: str | None,
    ) -> None:
        self.name, self.requirements, self.sha256 = name, requirements, sha256
        self.device, self.precision = device, precision
        words = _WORDS[descriptor.purpose].format(scale=descriptor.scale)
        self.purpose = f"{descriptor.architecture.name}: {words}"
        # Measured on a CPU in fp32: NAFNet-32 2.7 kB, SCUNet 6.3 kB; to 4 times the size ESRGAN 11.3, SwinIR 12.2 kB.
        self.bytes_per_pixel = 6144 + 384 * descriptor.scale**2
        self._descriptor = descriptor.to(device)
        for key, value in vars(descriptor.model).items():  # MAT keeps its latent outside of its parameters
            if isinstance(value, Tensor):
                setattr(descriptor.model, key, value.to(device))

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if self.device.type == "cpu":
            height, width = image.shape[-2:]
            if self._descriptor.size_requirements.square:
                height = width = max(height, width)
            needed = height * width * self.bytes_per_pixel
            # A GPU's allocator would fail; Linux promises the memory and then kills the process.
            if needed > free_memory(self.device):
                raise MemoryError(f"about {needed / 1e9:.0f} GB are needed")
        on_device = image.to(self.device)
        hole = None
        if mask is not None:
            hole = (mask > 0).float().to(self.device)
            on_device = on_device * (1 - hole)  # as these networks are trained
        parts = [
            self._restore_one(on_device[i : i + 1], None if hole is None else hole[i : i + 1])
            for i in range(len(image))
        ]
        return torch.cat(parts).to(image.device)

    def _restore_one(self, image: Tensor, hole: Tensor | None) -> Tensor:
        """1×3×H×W to 1×3×(H·scale)×(W·scale), float32, for networks of 1, 3 or 4 channels."""
        takes, gives = self._descriptor.input_channels, self._descriptor.output_channels
        if takes == gives == 1:
            if torch.equal(image[:, :1].expand_as(image), image):
                return self._run(image[:, :1], hole).expand(-1, 3, -1, -1)
            return torch.cat([self._run(channel, hole) for channel in torch.split(image, 1, dim=1)], dim=1)
        if takes == 1:
            image = (image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif takes == 4:  # made for images with alpha, which is opaque here
            image = torch.cat([image, torch.ones_like(image[:, :1])], dim=1)
        return self._run(image, hole)[:, :3]

    @torch.inference_mode()
    def _run(self, image: Tensor, hole: Tensor | None) -> Tensor:
        with _same_noise(), autocast(self.device, self.precision):
            # Some networks take only squares, which the contract does not know: spandrel pads those.
            out: Tensor = self._descriptor(image) if hole is None else self._descriptor(image, hole)
            return out.float()

    @property
    def network(self) -> nn.Module:
        """The network, of its project's own class."""
        model: nn.Module = self._descriptor.model
        return model

    def supports_precision(self, precision: str) -> bool:
        """Whether it runs in a precision: spandrel allows it, and the output for a small image is finite."""
        flags = {"bf16": self._descriptor.supports_bfloat16, "fp16": self._descriptor.supports_half}
        if not flags.get(precision, True):
            return False
        one = SpandrelRestorer(self.name, self._descriptor, self.requirements, self.device, precision, self.sha256)
        side = max(_PROBE_HEIGHT_PX, self.requirements.minimum)
        image = octaves(side, side)
        try:
            return bool(one(image, torch.zeros_like(image[:, :1])).isfinite().all())
        except (RuntimeError, TypeError, NotImplementedError):  # mixed dtypes, or no kernel for one
            return False

    def in_precision(self, precision: str) -> SpandrelRestorer:
        """The same network, shared, run in another precision, or in fp32 if it does not support that one."""
        supported = precision if precision in ("fp32", self.precision) or self.supports_precision(precision) else "fp32"
        return SpandrelRestorer(self.name, self._descriptor, self.requirements, self.device, supported, self.sha256)

    def measured_overlap_px(self) -> int | None:
        """Radius of the receptive field in pixels, plus a margin; None: the whole image. Costs like 0.06 megapixels."""
        multiple = self.requirements.multiple
        height = -(-max(_PROBE_HEIGHT_PX, self.requirements.minimum) // multiple) * multiple
        image = octaves(height, -(-_PROBE_WIDTH_PX // multiple) * multiple).to(self.device)
        overlap = measure_reach_px(
            lambda image, mask: F.pixel_unshuffle(self._restore_one(image, mask), self.requirements.scale), image, None
        )
        return None if overlap >= image.shape[-1] else overlap + max(8, overlap // 4)


def open_foreign(
    name: str, path: Path, state: Mapping[str, Any], device: torch.device, precision: str, sha256: str | None
) -> SpandrelRestorer:
    """A restorer around weights of an architecture that spandrel knows.

    Args:
        name: how the user calls it.
        path: where the weights came from, for errors.
        state: a state dict, or what training code wraps around one (`params_ema`, `state_dict`, ...).
        device: where it is to run.
        precision: `fp32`, `bf16` or `fp16`; fp32 is used if the network does not support it.
        sha256: of the file.

    Raises:
        RestoreError: spandrel is not installed or does not know these weights; they do not fit; they are for cropped
            faces, or not for images.
    """
    descriptor = _recognize(path, state)
    architecture = descriptor.architecture.name
    if descriptor.purpose == "FaceSR":
        raise RestoreError(f"{architecture} restores single faces, cropped and aligned, not whole images", where=path)
    takes, gives = descriptor.input_channels, descriptor.output_channels
    if (takes, gives) not in _CHANNELS:
        raise RestoreError(f"{architecture} takes {takes} channels and gives {gives}; it is not for images", where=path)
    descriptor.model.eval().requires_grad_(False)
    descriptor.model.register_forward_hook(_infinite_to_nan)
    size = descriptor.size_requirements
    local = descriptor.architecture.id in _LOCAL and not any(_is_global(m) for m in descriptor.model.modules())
    multiple = math.lcm(size.multiple_of, _grid(descriptor)) if local else size.multiple_of
    requirements = ModelRequirements(
        needs_mask=descriptor.purpose == "Inpainting",
        multiple=multiple,
        minimum=max(size.minimum, 1),
        scale=descriptor.scale,
        tileable=False,
        overlap_px=_FALLBACK_OVERLAP_PX,
    )
    opened = SpandrelRestorer(name, descriptor, requirements, device, "fp32", sha256)
    if local and (overlap := opened.measured_overlap_px()) is not None:
        tiled = ModelRequirements(
            requirements.needs_mask,
            multiple,
            requirements.minimum,
            requirements.scale,
            tileable=True,
            overlap_px=overlap,
        )
        opened = SpandrelRestorer(name, descriptor, tiled, device, "fp32", sha256)
    return opened.in_precision(precision)


def _recognize(path: Path, state: Mapping[str, Any]) -> Any:
    """spandrel's descriptor of a network with these weights, on the CPU."""
    try:
        from spandrel import MAIN_REGISTRY, canonicalize_state_dict
    except ImportError as error:
        raise RestoreError(
            "these weights are neither this package's nor pix2pix's",
            where=path,
            hint=f"for other architectures: {INSTALL}",
        ) from error
    registry, more = MAIN_REGISTRY.copy(), f"; for more of them, for non-commercial use: {INSTALL_MORE}"
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        pass
    else:
        registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
        more = ""
    try:
        weights = canonicalize_state_dict(dict(state))
        known = next((a for a in registry.architectures("detection") if a.detect(weights)), None)
    except Exception as error:  # keys that are no strings, or nothing inside
        raise RestoreError("this file holds no state dict", where=path) from error
    if known is None:
        first = ", ".join(str(key)[:40] for key in list(weights)[:3])
        raise RestoreError(
            f"unknown architecture (first parameters: {first or 'none'})",
            where=path,
            hint=f"supported are this package's own, pix2pix's U-Net, and the {len(registry)} of spandrel{more}",
        )
    try:
        with _same_noise():
            return known.architecture.load(weights)
    except Exception as error:  # any error that wrong shapes can cause
        reason = " ".join(str(error).split())[:160]
        raise RestoreError(
            f"looks like {known.architecture.name}, but cannot be loaded: {reason}", where=path
        ) from error


def _grid(descriptor: Any) -> int:
    """The multiple at which a tile must start, so that a local network sees the same windows as in the whole image."""
    window, unshuffle = (getattr(descriptor.model, key, 1) for key in ("window_size", "start_unshuffle"))
    swin = int(window) * int(unshuffle or 1) if descriptor.architecture.id in ("SwinIR", "Swin2SR") else 1
    return math.lcm(_LOCAL[descriptor.architecture.id], swin)


def _is_global(module: nn.Module) -> bool:
    """Whether a layer normalizes or pools over the whole image."""
    untracked = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    return untracked or isinstance(module, _GLOBAL_LAYERS)


def _infinite_to_nan(module: nn.Module, args: object, out: Any) -> Any:
    """A hook that turns Inf into NaN, because spandrel's clamp would turn it into white."""
    if isinstance(out, Tensor):
        return out.masked_fill(~out.isfinite(), torch.nan)
    return type(out)(_infinite_to_nan(module, args, one) for one in out) if type(out) in (tuple, list) else out


@contextmanager
def _same_noise() -> Iterator[None]:
    """Seed the random numbers that MAT, HAT and others draw, and restore the global generators afterwards."""
    drawn = np.random.get_state()  # noqa: NPY002 - it is theirs
    is_initialized: Callable[[], bool] = torch.cuda.is_initialized
    devices = range(torch.cuda.device_count()) if is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(drawn)  # noqa: NPY002
