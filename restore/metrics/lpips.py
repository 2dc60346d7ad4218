"""LPIPS through the `lpips` package, which contains the linear heads; the backbone comes from a file or a download.

Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018; version 0.1 of the weights.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.errors import RestoreError
from restore.metrics.preprocessing import HOLE_THRESHOLD, exact
from restore.metrics.pretrained import cache_of, downloaded, full_precision, read_tensors

LPIPS_NETS = ("alex", "vgg", "squeeze")

# torchvision's name of each backbone, the name of its published weights, and the smallest side that its pooling allows.
_ARCHITECTURE = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
_PUBLISHED = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
_MINIMUM_PX = {"alex": 31, "vgg": 16, "squeeze": 17}


@dataclass(frozen=True)
class Backbone:
    """A backbone network of LPIPS.

    Attributes:
        net: `alex`, `vgg` or `squeeze`.
        url: torchvision's address of the weights.
        cache: the file that a download creates and later runs reuse.
        in_cache: the file exists.
    """

    net: str
    url: str
    cache: Path
    in_cache: bool


class Lpips:
    """Perceptual distance of image pairs: 0 for identical images, larger is worse. Made by `open_lpips`.

    Attributes:
        net: the backbone: `alex`, `vgg` or `squeeze`.
        weights: weights file of the backbone.
        minimum_px: images with a smaller side have no value.
        module: the `lpips.LPIPS` network, frozen, in eval mode.
    """

    def __init__(self, net: str, weights: Path, module: Any) -> None:
        self.net = net
        self.weights = weights
        self.minimum_px = _MINIMUM_PX[net]
        self.module = module

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS per image: float64, B; NaN where a side is shorter than `minimum_px`. See `scores`."""
        return self.scores(a, b)[0]

    @torch.no_grad()
    def scores(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """LPIPS of the whole image, and inside the hole.

        Args:
            a: float, B×3×H×W (or B×1×H×W, gray), sRGB, [0, 1].
            b: the same shape.
            mask: float, B×1×H×W; a pixel is in the hole if its value is at least 0.5.

        Returns:
            The score of the whole image, and the score in the hole, or None without a mask; each float64, B. The latter
            averages the spatial map over the hole: the maps of all layers, resized to H×W bilinearly and summed. NaN
            for images that are too small, and for masks without a hole.
        """
        if a.shape != b.shape or a.ndim != 4:
            raise ValueError(f"the two batches must be B×C×H×W of equal shape: {tuple(a.shape)}, {tuple(b.shape)}")
        if min(a.shape[-2:]) < self.minimum_px:
            nothing = torch.full((len(a),), math.nan, dtype=torch.float64)
            return nothing, None if mask is None else nothing
        device = next(self.module.parameters()).device
        with full_precision(device):
            layers = self.layers(a.to(device).float(), b.to(device).float())
            whole = torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).sum(dim=0)
            if mask is None:
                return exact(whole), None
            size = (a.shape[-2], a.shape[-1])
            spatial = sum(F.interpolate(layer, size=size, mode="bilinear", align_corners=False) for layer in layers)
            hole = (mask.to(device) >= HOLE_THRESHOLD).float()
            inside = (spatial * hole).sum(dim=(1, 2, 3)) / hole.sum(dim=(1, 2, 3))
            return exact(whole), exact(inside)

    def to(self, device: torch.device | str) -> Lpips:
        """Move to a device. Returns itself."""
        self.module.to(device)
        return self

    def describe(self) -> dict[str, object]:
        """The convention as plain values, for reports."""
        from importlib.metadata import version

        return {
            "backbone": self.net,
            "architecture": f"torchvision {_ARCHITECTURE[self.net]}, ImageNet",
            "weights": self.weights.name,
            "heads": f"lpips {version('lpips')}, version 0.1",
            "colour": "sRGB, all channels",
            "input_range": "[-1, 1], from [0, 1]",
            "region": "whole picture",
            "minimum_px": self.minimum_px,
        }

    def layers(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Weighted differences of every layer, B×1×h×w: eq. 1 of the paper before the mean over positions."""
        if a.shape[1] == 1:
            a, b = a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)
        features = [self.module.net(self.module.scaling_layer(2 * x - 1)) for x in (a, b)]
        return [
            head((_normalised(left) - _normalised(right)).square())
            for head, left, right in zip(self.module.lins, *features)
        ]


def open_lpips(net: str = "alex", weights: Path | None = None, device: torch.device | str = "cpu") -> Lpips:
    """Open LPIPS.

    Args:
        net: `alex`, `vgg` or `squeeze`.
        weights: torchvision's backbone as safetensors or as a PyTorch state dict, of any float type, with or
            without its classifier. None: torch.hub's cached file, downloaded if missing.
        device: device of the network.

    Raises:
        RestoreError: exit code 2; unknown net or unusable file. Exit code 1; the backbone is missing and the download
            failed, after a short timeout at the latest.
    """
    if net not in LPIPS_NETS:
        raise RestoreError(f"no LPIPS network is called {net!r}", hint=f"known: {', '.join(LPIPS_NETS)}")
    if weights is None:
        url = next(backbone.url for backbone in lpips_status() if backbone.net == net)
        path = downloaded(url, f"the LPIPS backbone {net!r}", "--lpips-weights")
    else:
        path = Path(weights)
    hint = "delete it to download it again" if weights is None else f"name torchvision's {_ARCHITECTURE[net]}"
    features = _features(net, read_tensors(path, hint), path, hint)
    return Lpips(net, path, _module(net, features)).to(device)


def open_lpips_if_available(
    net: str, weights: Path | None, device: torch.device | str, *, download: bool = True
) -> tuple[Lpips | None, str]:
    """Open LPIPS, or return None and the reason why it is unavailable. Arguments as for `open_lpips`.

    Args:
        download: False: do not download the backbone.

    Raises:
        RestoreError: exit code 2; unknown net, or `weights` is set and unusable.
    """
    in_cache = {backbone.net: backbone.in_cache for backbone in lpips_status()}
    if weights is None and not download and not in_cache.get(net, True):
        return None, (
            f"the backbone {net!r} is not on this machine; name a file with --lpips-weights, or let `restore eval` "
            "download it"
        )
    try:
        return open_lpips(net, weights, device), ""
    except RestoreError as error:
        if weights is not None or net not in LPIPS_NETS:
            raise
        return None, str(error)


def lpips_status() -> list[Backbone]:
    """The backbones and whether they are on this machine, in the order of `LPIPS_NETS`. Downloads nothing."""
    import torchvision

    backbones = []
    for net in LPIPS_NETS:
        url = getattr(torchvision.models, _PUBLISHED[net]).IMAGENET1K_V1.url
        cache = cache_of(url)
        backbones.append(Backbone(net, url, cache, cache.is_file()))
    return backbones


def _features(net: str, state: dict[str, Tensor], path: Path, hint: str) -> dict[str, Tensor]:
    """The convolutions of torchvision's network in float32. Names and shapes must match.

    LPIPS does not use the classifier, so a file may lack it.
    """
    import torchvision

    with torch.device("meta"):
        expected = getattr(torchvision.models, _ARCHITECTURE[net])(weights=None).state_dict()
    missing = [name for name in expected if name not in state and not name.startswith("classifier.")]
    unknown = [name for name in state if name not in expected]
    misshapen = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    for what, names in (("lacks", missing), ("holds unknown", unknown), ("has another shape of", misshapen)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise RestoreError(
                f"these are not the weights of {_ARCHITECTURE[net]}: the file {what} {names[0]!r}{more}",
                where=path,
                hint=hint,
            )
    return {name: value.float() for name, value in state.items() if name.startswith("features.")}


def _module(net: str, features: dict[str, Tensor]) -> Any:
    # The package initializes its backbone at random, which must not advance the caller's random state.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # The package names `features.3.weight` `slice2.3.weight`.
    module.net.load_state_dict({k: features[f"features.{k.partition('.')[2]}"] for k in module.net.state_dict()})
    return module.eval().requires_grad_(False)


def _normalised(features: Tensor) -> Tensor:
    """Scale features to unit length over the channels at every position."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
