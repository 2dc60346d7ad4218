"""Schedule-free AdamW: no schedule, and weights that are averaged on the way (Defazio et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import RestoreError

_COUNTERS = ("k", "weight_sum", "lr_max")  # what the optimizer keeps beside its tensors


def open_schedule_free(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of the package `schedulefree`.

    Raises:
        RestoreError: the package is not installed, or β₁ is 0.
    """
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError as error:
        raise RestoreError(
            "needs the package schedulefree",
            where="optimizer.kind = schedule-free",
            hint='pip install "restore-toolkit[schedule-free]"',
        ) from error
    if betas[0] == 0:
        raise RestoreError("schedule-free needs β₁ above 0", where=f"optimizer.betas = {list(betas)}")
    optimizer: torch.optim.Optimizer = AdamWScheduleFree(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    # The network always holds the weights at which gradients are taken. Switching to the averages and back, as the
    # package intends for validation, would round them.
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def averaged_weights(optimizer: torch.optim.Optimizer) -> list[Tensor] | None:
    """The averages that are validated and exported, in the order of the parameters; None for another optimizer."""
    if not is_schedule_free(optimizer):
        return None
    averages = []
    with torch.no_grad():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                z = optimizer.state[parameter].get("z")  # missing before the first step
                # y = (1 - β₁) z + β₁ x, of which y are the network's weights and x the averages (eq. 1)
                averages.append(parameter if z is None else parameter.lerp(z, 1 - 1 / group["betas"][0]))
    return averages


def is_schedule_free(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is from `open_schedule_free`."""
    return "weight_sum" in optimizer.defaults


def counters(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Plain values that an exact resume needs beside the tensors."""
    return {name: optimizer.param_groups[0][name] for name in _COUNTERS} if is_schedule_free(optimizer) else {}
