"""Perceptual losses: distances between features of an image classifier."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from restore.metrics.lpips import open_lpips


class PerceptualLoss(nn.Module):
    """LPIPS, or the unweighted distance between features of the same backbone.

    Args:
        kind: `lpips`: learned weights on unit-length features (Zhang et al. 2018, eq. 1); `features`: mean L1 distance
            between the features of every layer (Johnson et al. 2016, with L1 as in pix2pixHD).
        net: `alex`, `vgg` or `squeeze`. Validate with a different one.
        weights: file with the weights of the backbone; None: downloaded, or cached from an earlier download.
        device: where it runs.

    Raises:
        RestoreError: the weights of the backbone cannot be read or downloaded.
    """

    def __init__(self, kind: str, net: str, weights: Path | None, device: torch.device) -> None:
        super().__init__()
        self.kind = kind
        self.lpips = open_lpips(net, weights, device)
        self.network = self.lpips.module

    def forward(self, output: Tensor, clean: Tensor) -> Tensor:
        """The loss, averaged over the batch.

        Args:
            output, clean: B×3×H×W in [0, 1], no side shorter than the backbone's minimum.
        """
        if self.kind == "lpips":
            return torch.stack([layer.mean() for layer in self.lpips.layers(output, clean)]).sum()
        # LPIPS' own scaling, because the backbone expects ImageNet's mean and deviation.
        of_clean, of_output = (self.network.net(self.network.scaling_layer(2 * x - 1)) for x in (clean, output))
        return torch.stack([(a - b.detach()).abs().mean() for a, b in zip(of_output, of_clean)]).mean()
