"""The generator of CUT with what compares its features (Park et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore.models.base import RestorationNetwork

_WIDTH = 256  # of the compared vectors (appendix C.1)


class ContrastiveGenerator(RestorationNetwork):
    """A generator from A to B, `a`, and an MLP of two layers for each of its `features`, which training alone needs."""

    def __init__(self, a: RestorationNetwork, channels: int) -> None:
        super().__init__()
        self.a = a
        self.multiple, self.minimum, self.tileable, self.takes_mask = a.multiple, a.minimum, a.tileable, a.takes_mask
        with torch.no_grad():
            found = a.features(torch.zeros(1, channels, a.smallest_side, a.smallest_side))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(x.shape[1], _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH)) for x in found
        )

    def init_for_training(self) -> None:
        """Draw the generator's weights as it does, those of the MLPs as the published code does."""
        self.a.init_for_training()
        for layer in self.mlps.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight, gain=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """See `RestorationNetwork.forward`."""
        out: Tensor = self.a(image, mask, filled)
        return out

    def embedded(self, features: list[Tensor], places: list[Tensor]) -> list[Tensor]:
        """The vectors of some places of an image's `features`, float32, B×N×256 of unit length for each layer.

        `places` are numbers of pixels in rows, int64, B×N for each layer.
        """
        found = []
        for mlp, x, at in zip(self.mlps, features, places):
            pixels = x.flatten(2).transpose(1, 2)
            vectors = mlp(pixels.gather(1, at[..., None].expand(-1, -1, pixels.shape[2]))).float()
            found.append(vectors / (vectors.norm(dim=2, keepdim=True) + 1e-7))
        return found
