"""The networks of CycleGAN in pairs: one for each direction (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from restore.models.base import RestorationNetwork


class GeneratorPair(RestorationNetwork):
    """Two generators of one kind: `a` from A to B, `b` back, as the reference names them (G_A, G_B)."""

    def __init__(self, a: RestorationNetwork, b: RestorationNetwork) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.multiple, self.minimum, self.tileable, self.takes_mask = a.multiple, a.minimum, a.tileable, a.takes_mask

    def init_for_training(self) -> None:
        """See `RestorationNetwork.init_for_training`."""
        self.a.init_for_training()
        self.b.init_for_training()

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False, back: bool = False) -> Tensor:
        """Translate from A to B, or `back`; otherwise see `RestorationNetwork.forward`."""
        out: Tensor = (self.b if back else self.a)(image, mask, filled)
        return out


class DiscriminatorPair(nn.Module):
    """Two discriminators of one kind: `a` judges images of B, `b` those of A (the reference's D_A, D_B); and pools.

    The pools are buffers, so that the state of a run has them, and a step that is skipped leaves them as they were.

    Each pool keeps `pool` images of the shape (channels, height, width).
    """

    def __init__(self, a: nn.Module, b: nn.Module, pool: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.pool_a, self.pool_b = ImagePool(pool, shape), ImagePool(pool, shape)

    def forward(self, x: Tensor, back: bool = False) -> Tensor:
        """Logits for images of B, or `back`, of A."""
        out: Tensor = (self.b if back else self.a)(x)
        return out

    def update_spectral_norm(self) -> None:
        """See `restore.models.patchgan.PatchGAN.update_spectral_norm`."""
        for network in (self.a, self.b):
            network.update_spectral_norm()  # type: ignore[operator]

    @staticmethod
    def without_pools(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict without the images of its run."""
        return {name: value for name, value in state.items() if not name.startswith("pool_")}


class ImagePool(nn.Module):
    """Earlier outputs of a generator, half of which its discriminator sees in place of new ones.

    Shrivastava et al. 2017, "SimGAN", section 2.3; drawn as in CycleGAN's code. It dampens oscillation.

    It keeps `size` images of the shape (channels, height, width).
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        # A float, because float buffers are what a skipped step leaves as it was.
        self.register_buffer("filled", torch.zeros(()))

    @torch.no_grad()
    def exchange(self, images: Tensor, chance: Tensor) -> Tensor:
        """What the discriminator sees in place of `images`, B×C×H×W.

        Until the pool is full, an image is added and returned. Then it is returned, or with a probability of one half
        takes the place of an image of the pool, which is returned. `chance`, B×2 in [0, 1), decides whether, and which.
        """
        size, filled = len(self.images), int(self.filled)
        shown = []
        for image, (exchanged, which) in zip(images, chance.tolist()):
            at = filled if filled < size else int(which * size)
            shown.append(image)
            if filled < size:
                filled += 1
            elif size and exchanged > 0.5:
                shown[-1] = self.images[at].clone()
            else:
                continue
            self.images[at] = image
        self.filled.fill_(filled)
        return torch.stack(shown)
