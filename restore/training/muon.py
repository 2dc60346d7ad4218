"""Muon for convolution kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import RestoreError


class KernelMuon:
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") on kernels as matrices.

    PyTorch's Muon takes matrices alone. A kernel O×I×H×W becomes the matrix O×(I·H·W) that shares its memory.

    Args:
        kernels: parameters with two dimensions or more, on their device and in their memory format.
        lr: peak learning rate.
        weight_decay: per step, times the learning rate.

    Attributes:
        optimizer: PyTorch's, whose state is saved.

    Raises:
        RestoreError: this version of PyTorch has no Muon.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RestoreError("needs PyTorch 2.9 or newer", where="optimizer.kind = muon", hint="use adamw")
        self._kernels = list(kernels)
        self._matrices = [nn.Parameter(_as_matrix(kernel.detach(), kernel)) for kernel in self._kernels]
        self.optimizer: Any = torch.optim.Muon(self._matrices, lr=lr, weight_decay=weight_decay)

    def step(self) -> None:
        """Update the kernels by their gradients."""
        for matrix, kernel in zip(self._matrices, self._kernels):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, kernel).contiguous()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _as_matrix(values: Tensor, kernel: Tensor) -> Tensor:
    """Values of a kernel's shape as a matrix, in the order in which the kernel lies in memory: for itself a view."""
    if kernel.ndim == 4 and not kernel.is_contiguous():
        values = values.permute(0, 2, 3, 1)
    return values.flatten(1)
