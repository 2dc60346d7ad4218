"""PatchNCE: a patch of the output must resemble the patch of the input at its place more than other patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
"""τ of Park et al. 2020, equation 2."""
PATCHES = 256
"""Patches of each image and layer (appendix C.1); all of them if there are fewer."""


def patch_nce(queries: Tensor, keys: Tensor) -> Tensor:
    """The loss of Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image Translation", equations 2 and 3.

    Args:
        queries: float32, B×N×C of unit length: N patches of each output.
        keys: the same places of its input, which get no gradient. The other places of the same image are the negatives.

    Returns:
        The mean cross-entropy of telling each patch's own place from all N.
    """
    logits = queries @ keys.detach().transpose(1, 2) / TEMPERATURE
    own = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), own.flatten())
