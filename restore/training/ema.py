"""The running average of the weights: what is validated, kept and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn

from restore.models.network import RestorationNetwork


class Ema:
    """Exponential moving average of a network's parameters; buffers (BatchNorm's statistics) are copied.

    The decay starts low, min(decay, (1 + step) / (10 + step)), so that the first steps' noise is soon forgotten.

    Args:
        model: the network to follow; it is copied once.
        decay: share of the old average kept per step.
        from_trained: the network was trained before, so that its first weights are worth keeping: no low start.
    """

    def __init__(self, model: RestorationNetwork, decay: float, *, from_trained: bool = False) -> None:
        self.decay, self.from_trained = decay, from_trained
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after `step` (counted from 0)."""
        decay = self.decay if self.from_trained else min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        if buffers := list(model.buffers()):
            torch._foreach_copy_(list(self.model.buffers()), buffers)
