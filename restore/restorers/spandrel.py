"""Networks of other projects behind the contract: whatever the spandrel library recognises by its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.devices import autocast, free_memory
from restore.errors import RestoreError
from restore.models.receptive_field import measure_reach_px
from restore.restorers.base import ModelRequirements, Restorer

INSTALL = 'pip install "restore-toolkit[zoo]"'
INSTALL_MORE = 'pip install "restore-toolkit[zoo-noncommercial]"'

#: Architectures whose output depends on the surroundings alone (no pooling or norm over the picture, no attention
#: beyond a window), with what their windows and strides multiply to where spandrel does not say. How far they look is
#: measured with the weights at hand. All others are taken to look at the whole picture.
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
_LOOKS_AT_ALL = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
#: What tiles of a network that looks at the whole picture share, when memory leaves no choice but tiles.
_OVERLAP_IN_NEED_PX = 64
#: The picture that the overlap is measured on. Sight beyond three quarters of its width is "everywhere".
_PROBE_HEIGHT_PX, _PROBE_WIDTH_PX = 48, 288
_WORDS = {"SR": "enlarges {scale} times", "Restoration": "restores", "Inpainting": "fills holes"}
_CHANNELS = ((1, 1), (1, 3), (3, 3), (4, 3), (4, 4))
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class SpandrelRestorer(Restorer):
    """A network that spandrel recognised, and how it is run.

    One with one channel in and out gets red, green and blue apart (once, where they are alike: gray pictures). Noise
    that a network draws is the same for every picture.

    Args:
        name: how the user calls it.
        descriptor: spandrel's, in eval mode, its weights float32.
        requirements: what it asks of its input.
        device: where it runs.
        precision: `fp32`, `bf16` or `fp16`, by autocast; see `supports_precision`.
        sha256: of the weights' file.
    """

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
            wanted = height * width * self.bytes_per_pixel
            if wanted > free_memory(self.device):  # where a GPU would say so, Linux would end the process
                raise MemoryError(f"about {wanted / 1e9:.0f} GB are wanted")
        shown = image.to(self.device)
        hidden = None
        if mask is not None:
            hidden = (mask > 0).float().to(self.device)
            shown = shown * (1 - hidden)
        parts = [self._one(shown[i : i + 1], None if hidden is None else hidden[i : i + 1]) for i in range(len(shown))]
        return torch.cat(parts).to(image.device)

    def _one(self, image: Tensor, hidden: Tensor | None) -> Tensor:
        """1×3×H×W to 1×3×(H·scale)×(W·scale), float32, whatever channels the network has."""
        takes, gives = self._descriptor.input_channels, self._descriptor.output_channels
        if takes == gives == 1:
            if torch.equal(image[:, :1].expand_as(image), image):
                return self._run(image[:, :1], hidden).expand(-1, 3, -1, -1)
            return torch.cat([self._run(channel, hidden) for channel in image.split(1, dim=1)], dim=1)
        if takes == 1:
            image = (image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif takes == 4:  # made for pictures with alpha; alpha is none of a network's business here
            image = torch.cat([image, torch.ones_like(image[:, :1])], dim=1)
        return self._run(image, hidden)[:, :3]

    @torch.inference_mode()
    def _run(self, image: Tensor, hidden: Tensor | None) -> Tensor:
        with _same_noise(), autocast(self.device, self.precision):
            # Beyond multiple and minimum, which the contract sees to, some want squares: spandrel pads those.
            return (self._descriptor(image) if hidden is None else self._descriptor(image, hidden)).float()

    @property
    def network(self) -> nn.Module:
        """As its own project wrote it."""
        return self._descriptor.model

    def supports_precision(self, precision: str) -> bool:
        """Whether it can be run in a precision: spandrel says so, and a small picture comes through in numbers."""
        flags = {"bf16": self._descriptor.supports_bfloat16, "fp16": self._descriptor.supports_half}
        if not flags.get(precision, True):
            return False
        one = SpandrelRestorer(self.name, self._descriptor, self.requirements, self.device, precision, self.sha256)
        side = max(_PROBE_HEIGHT_PX, self.requirements.minimum)
        picture = _octaves(side, side)
        try:
            return bool(one(picture, torch.zeros_like(picture[:, :1])).isfinite().all())
        except (RuntimeError, TypeError, NotImplementedError):  # types that do not match, or no such kernel
            return False

    def in_precision(self, precision: str) -> SpandrelRestorer:
        """The same network run in another precision (it is shared, not copied), or in fp32 where it cannot be."""
        bearable = precision if precision in ("fp32", self.precision) or self.supports_precision(precision) else "fp32"
        return SpandrelRestorer(self.name, self._descriptor, self.requirements, self.device, bearable, self.sha256)

    def measured_overlap_px(self) -> int | None:
        """How far it looks, in input pixels, with a margin; None: everywhere. Costs what 0.06 megapixels cost."""
        multiple = self.requirements.multiple
        height = -(-max(_PROBE_HEIGHT_PX, self.requirements.minimum) // multiple) * multiple
        picture = _octaves(height, -(-_PROBE_WIDTH_PX // multiple) * multiple).to(self.device)
        overlap = measure_reach_px(
            lambda image, mask: F.pixel_unshuffle(self._one(image, mask), self.requirements.scale), picture, None
        )
        return None if overlap >= picture.shape[-1] else overlap + max(8, overlap // 4)


def open_foreign(
    name: str, path: Path, state: Mapping[str, Any], device: torch.device, precision: str, sha256: str | None
) -> SpandrelRestorer:
    """A restorer around weights of an architecture that spandrel knows.

    Args:
        name: how the user calls it.
        path: where the weights came from, for errors.
        state: a state dict, or what training code wraps around one (`params_ema`, `state_dict`, ...).
        device: where it is to run.
        precision: `fp32`, `bf16` or `fp16`; fp32 is taken where the network does not bear another.
        sha256: of the file.

    Raises:
        RestoreError: spandrel is not installed, or does not know these weights; they do not fit; they are for cut-out
            faces, or for other than pictures.
    """
    descriptor = _recognised(path, state)
    architecture = descriptor.architecture.name
    if descriptor.purpose == "FaceSR":
        raise RestoreError(f"{architecture} repairs single faces, cut out and aligned, not pictures", where=path)
    takes, gives = descriptor.input_channels, descriptor.output_channels
    if (takes, gives) not in _CHANNELS:
        raise RestoreError(f"{architecture} turns {takes} channels into {gives}: not made for pictures", where=path)
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
        overlap_px=_OVERLAP_IN_NEED_PX,
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


def _recognised(path: Path, state: Mapping[str, Any]) -> Any:
    """spandrel's descriptor of a network with these weights, on the CPU."""
    try:
        from spandrel import MAIN_REGISTRY, canonicalize_state_dict
    except ImportError as error:
        raise RestoreError(
            "weights of neither this package nor pix2pix", where=path, hint=f"other architectures open after {INSTALL}"
        ) from error
    registry, more = MAIN_REGISTRY.copy(), f"; some more, for non-commercial use, after {INSTALL_MORE}"
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
    except Exception as error:  # keys that are no strings, nothing inside: no state dict at all
        raise RestoreError("this file holds no state dict", where=path) from error
    if known is None:
        first = ", ".join(str(key)[:40] for key in list(weights)[:3])
        raise RestoreError(
            f"weights of an architecture that is not known (first: {first or 'none'})",
            where=path,
            hint=f"what opens: this package's own, pix2pix's U-Net, and the {len(registry)} of spandrel{more}",
        )
    try:
        with _same_noise():
            return known.architecture.load(weights)
    except Exception as error:  # whatever the shapes lead to
        reason = " ".join(str(error).split())[:160]
        raise RestoreError(f"looks like {known.architecture.name}, but does not load: {reason}", where=path) from error


def _grid(descriptor: Any) -> int:
    """What a tile's start must divide by for a local network to see the same windows as in the whole picture."""
    window, unshuffle = (getattr(descriptor.model, key, 1) for key in ("window_size", "start_unshuffle"))
    swin = int(window) * int(unshuffle or 1) if descriptor.architecture.id in ("SwinIR", "Swin2SR") else 1
    return math.lcm(_LOCAL[descriptor.architecture.id], swin)


def _is_global(module: nn.Module) -> bool:
    """A norm or pooling over the whole picture."""
    untracked = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    return untracked or isinstance(module, _LOOKS_AT_ALL)


def _infinite_to_nan(module: nn.Module, args: object, out: Any) -> Any:
    """A hook: what overflowed stays visible, where spandrel's clamp would make it white."""
    if isinstance(out, Tensor):
        return out.masked_fill(~out.isfinite(), torch.nan)
    return type(out)(_infinite_to_nan(module, args, one) for one in out) if type(out) in (tuple, list) else out


@contextmanager
def _same_noise() -> Iterator[None]:
    """Random numbers in here are the same every time (MAT, HAT and others draw some), and nobody else's change."""
    drawn = np.random.get_state()  # noqa: NPY002 - it is theirs
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(drawn)  # noqa: NPY002


def _octaves(height: int, width: int) -> Tensor:
    """1×3×H×W in [0, 1]: noise of every size, which is what photographs are to a network more than white noise is."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(max(height >> k, 1), max(width >> k, 1)) for k in range(7)]
    layers = [F.interpolate(torch.rand(1, 3, *s, generator=generator), (height, width), mode="bilinear") for s in sizes]
    picture = sum(layer * 2**k for k, layer in enumerate(layers)) / 2 ** len(layers)
    return ((picture - picture.min()) / (picture.max() - picture.min())).float()
