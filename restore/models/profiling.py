"""The computational cost of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_macs(forward: Callable[[], object]) -> int:
    """Multiply-accumulate operations of one forward pass: of convolutions and matrix products, nothing else."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops()) // 2
