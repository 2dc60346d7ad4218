"""From memory to the device without a wait."""

from __future__ import annotations

import torch
from torch import Tensor

_STAGED_BYTES = 1 << 16  # up to here CUDA takes a copy of ordinary memory before the call returns


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; on CUDA without waiting for what the device is doing.

    Args:
        tensor: on the CPU, or on the device already.
        device: any.
    """
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor.pin_memory() if tensor.nbytes > _STAGED_BYTES else tensor).to(device, non_blocking=True)
