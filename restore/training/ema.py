"""The exponential moving average of the weights, which is validated and exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from restore.models.base import RestorationNetwork


class Ema:
    """Exponential moving average of a network's parameters. Buffers (BatchNorm statistics) are copied.

    The decay starts low, min(decay, (1 + step) / (10 + step)), so that the initial weights are soon forgotten.

    Args:
        model: the network to average. It is copied once.
        decay: weight of the previous average per step.
        from_trained: `model` has been trained before: no low start.
    """

    def __init__(self, model: RestorationNetwork, decay: float, *, from_trained: bool = False) -> None:
        self.decay, self.from_trained = decay, from_trained
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int, weights: list[Tensor] | None = None) -> None:
        """Include the weights after a step, counted from 0.

        Args:
            model: the network.
            step: from 0.
            weights: averages of its parameters, in their order, which an optimizer keeps itself. They are taken as they
                are. None: the parameters are averaged here.
        """
        decay = self.decay if self.from_trained else min(self.decay, (1 + step) / (10 + step))
        if weights is not None:
            decay = 0.0
        # One call for all parameters: a loop over hundreds of small tensors costs more than a small step.
        torch._foreach_lerp_(list(self.model.parameters()), weights or list(model.parameters()), 1 - decay)
        if buffers := list(model.buffers()):
            torch._foreach_copy_(list(self.model.buffers()), buffers)
