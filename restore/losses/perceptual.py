"""Losses in the feature space of a network that was trained to recognise things."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from restore.metrics.lpips import open_lpips


class PerceptualLoss(nn.Module):
    """LPIPS, or the plain distance of the same backbone's features, as something to descend.

    Args:
        kind: `lpips`: learned weights on unit-length features (Zhang et al. 2018, eq. 1); `features`: mean L1 distance
            of the features of every layer (Johnson et al. 2016, with L1 as in pix2pixHD).
        net: `alex`, `vgg` or `squeeze`. Score with another one than you train with.
        weights: the backbone as a file; None: as it was or is downloaded.
        device: where it computes.

    Raises:
        RestoreError: the backbone cannot be had.
    """

    def __init__(self, kind: str, net: str, weights: Path | None, device: torch.device) -> None:
        super().__init__()
        self.kind = kind
        self.lpips = open_lpips(net, weights, device)
        self.network = self.lpips.module

    def forward(self, output: Tensor, clean: Tensor) -> Tensor:
        """Mean over the batch.

        Args:
            output, clean: B×3×H×W in [0, 1], no side shorter than the backbone takes.
        """
        if self.kind == "lpips":
            return torch.stack([layer.mean() for layer in self.lpips.layers(output, clean)]).sum()
        theirs, ours = (self.network.net(self.network.scaling_layer(2 * x - 1)) for x in (clean, output))
        return torch.stack([(a - b.detach()).abs().mean() for a, b in zip(ours, theirs)]).mean()
