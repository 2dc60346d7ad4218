"""FID: the distance of two sets of images in the feature space of Inception v3; through torchmetrics.

Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
Nash Equilibrium", NIPS 2017, eq. 6; with the weights that the authors used.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.metrics.preprocessing import exact
from restore.metrics.pretrained import downloaded, full_precision, read_tensors

_FEATURES = 2048


class Inception:
    """The network whose features FID compares. Made by `open_inception`.

    Attributes:
        weights: the weights file.
        module: torchmetrics' `NoTrainInceptionV3`.
    """

    def __init__(self, weights: Path, module: nn.Module) -> None:
        self.weights = weights
        self.module = module

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The features that FID compares.

        Args:
            images: float, B×3×H×W, sRGB, [0, 1]; rounded to 8 bits and resized to 299×299, the training size of the
                network.

        Returns:
            float64, B×2048, on the CPU.
        """
        device = next(self.module.parameters()).device
        with full_precision(device):
            return exact(self.module((images.to(device) * 255).round().clamp(0, 255).byte())).cpu()

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Logits of its classes, without bias, as the Inception Score takes them.

        Args:
            features: B×2048, from `features`.
        """
        module: Any = self.module
        out: Tensor = features @ module.fc.weight.double().cpu().T
        return out

    def describe(self) -> dict[str, object]:
        """The convention as plain values, for reports."""
        from importlib.metadata import version

        return {
            "features": f"Inception v3 of 2015-12-05, {_FEATURES} after the last pooling",
            "weights": self.weights.name,
            "library": f"torchmetrics {version('torchmetrics')}, torch-fidelity {version('torch-fidelity')}",
            "colour": "sRGB, rounded to 8 bits",
            "resize": "299x299, bilinear as TensorFlow 1",
            "sets": "the images that were scored, and their references",
        }


class FrechetDistance:
    """The Fréchet distance between two sets of features, added batch by batch, in constant memory.

    Args:
        features: number of features per image.
    """

    def __init__(self, features: int = _FEATURES) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        # The features are computed elsewhere, so torchmetrics gets the identity as its network.
        identity = nn.Identity()
        identity.num_features = features  # type: ignore[assignment]
        self._metric: Any = FrechetInceptionDistance(feature=identity)
        self.count = 0

    def add(self, restored: Tensor, reference: Tensor) -> None:
        """Add the features of more images, float64, B×features each."""
        self._metric.update(restored, real=False)
        self._metric.update(reference, real=True)
        self.count += len(restored)

    def value(self) -> float:
        """FID, 0 for sets of equal mean and covariance; NaN for fewer than two images."""
        return math.nan if self.count < 2 else float(self._metric.compute())


def open_inception(weights: Path | None = None, device: torch.device | str = "cpu") -> Inception:
    """Open Inception v3 for feature extraction.

    Args:
        weights: torch-fidelity's file as safetensors or as a PyTorch state dict. None: torch.hub's cached file,
            downloaded if missing.
        device: device of the network.

    Raises:
        RestoreError: exit code 2; the file is unusable, or the extra `fid` is not installed. Exit code 1; the weights
            are missing and the download failed, after a short timeout at the latest.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise RestoreError(
            "FID needs torchmetrics and torch-fidelity", hint='pip install "restore-toolkit[fid]"'
        ) from error
    path = downloaded(URL_INCEPTION_V3, "Inception v3 for FID", "--fid-weights") if weights is None else Path(weights)
    hint = "delete it to download it again" if weights is None else f"name {URL_INCEPTION_V3.rpartition('/')[2]}"
    # The library unpickles its input, so it gets a fresh copy that contains only tensors.
    copy: Any = io.BytesIO()
    torch.save(read_tensors(path, hint), copy)
    copy.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            module = NoTrainInceptionV3("inception-v3-compat", [str(_FEATURES)], copy, antialias=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RestoreError(f"these are not the weights of Inception v3: {reason}", where=path, hint=hint) from error
    return Inception(path, module.to(device))
