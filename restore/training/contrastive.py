"""What keeps the content of an image in one-sided unpaired training: contrast of patches (CUT, Park et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.data.loader import Batch
from restore.devices import autocast, to_device
from restore.hashed_random import uniform
from restore.losses.contrastive import PATCHES, patch_nce
from restore.models.contrastive import ContrastiveGenerator
from restore.training.config import LossConfig

_PLACES = 2110  # streams of the hash for the patches: one for each layer, on from here
_MIRROR = 2104  # and for whether an image is mirrored


def contrastive_loss(
    network: ContrastiveGenerator, output: Tensor, same: Tensor | None, batch: Batch, config: LossConfig, precision: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The contrastive part of the loss, and its terms.

    Args:
        network: whose features are compared; gradients reach it through the output alone.
        output: what became of the batch's images of A (`damaged`), float32, B×C×H×W in [0, 1].
        same: likewise of B (`clean`), which should stay as they are; None: they do not count.
        batch, config, precision: of the step.

    Returns:
        The weighted sum, and `contrastive` and `contrastive_identity`: means over images, layers and patches.
    """
    mirrored = (uniform(batch.keys, _MIRROR, 1) < 0.5) & config.contrastive_flip
    mirrored = to_device(mirrored, output.device)[..., None, None]
    terms = {"contrastive": _contrast(network, batch.damaged, output, batch.keys, mirrored, precision)}
    loss = config.contrastive * terms["contrastive"]
    if same is not None:
        terms["contrastive_identity"] = _contrast(network, batch.clean, same, batch.keys, mirrored, precision)
        loss = loss + config.contrastive_identity * terms["contrastive_identity"]
    return loss, terms


def _contrast(
    network: ContrastiveGenerator, image: Tensor, output: Tensor, keys: Tensor, mirrored: Tensor, precision: str
) -> Tensor:
    """PatchNCE of outputs and their inputs; of the `mirrored` ones, bool B×1×1×1, with features of the mirror image.

    They are mirrored back, so that the places agree (FastCUT's flip equivariance).
    """

    def mirror(x: Tensor) -> Tensor:
        return torch.where(mirrored, x.flip(3), x)

    with autocast(image.device, precision):
        of_output = network.a.features(output)
        places = [drawn_places(keys, layer, x) for layer, x in enumerate(of_output)]
        queries = network.embedded(of_output, places)
        with torch.no_grad():
            of_image = [mirror(x) for x in network.a.features(mirror(image))]
            targets = network.embedded(of_image, places)
    return torch.stack([patch_nce(q, k) for q, k in zip(queries, targets)]).mean()


def drawn_places(keys: Tensor, layer: int, features: Tensor) -> Tensor:
    """Different pixels of features, B×C×H×W, drawn for each image: their numbers in rows, int64, B×N."""
    count = features.shape[2] * features.shape[3]
    drawn = to_device(uniform(keys, _PLACES + layer, count), features.device)
    return drawn.argsort(dim=1)[:, :PATCHES]
