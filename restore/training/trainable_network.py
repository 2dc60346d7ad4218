"""A network in training: with its optimizer, and with what a skipped step must not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from restore.training.muon import KernelMuon


@dataclass
class TrainableNetwork:
    """A network with its optimizer and gradient scaler.

    Attributes:
        network: the module itself, which is saved and averaged. Also used for passes that are differentiated twice,
            which compiled code does not support.
        compiled: the same, compiled if the config says so. For passes that give no gradients to its own parameters.
        forward: the same, wrapped for several processes. For passes that give gradients to its own parameters.
        optimizer: AdamW of its parameters. The fused variant skips steps with NaN or Inf on the device itself, so the
            CPU need not wait for the gradient.
        scaler: loss scaler; enabled with fp16.
        clip_norm: maximum gradient norm, or None.
        scales: whether the scaler is enabled.
        kernels: Muon of the kernels, which `optimizer` then leaves out; or None.
        skipped: int64[2] on the device: number of skipped steps, in total and since the last step that was not.
    """

    network: nn.Module
    compiled: Callable[..., Any]
    forward: Any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    clip_norm: float | None = None
    scales: bool = False
    kernels: KernelMuon | None = None
    skipped: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    def step(self) -> Tensor:
        """Apply the accumulated gradients, unless they contain NaN or Inf; returns their norm before clipping."""
        if self.scales:
            self.scaler.unscale_(self.optimizer)
        # Of all gradients, also without clipping: it is logged, and shows NaN and Inf in one number.
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.clip_norm, norm, foreach=True)
        bad = (~norm.isfinite()).to(self.skipped.dtype)
        self.skipped.copy_(torch.stack([self.skipped[0] + bad, (self.skipped[1] + 1) * bad]))
        if self.scales:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.optimizer.defaults.get("fused"):
            # Set by GradScaler otherwise: the fused kernel makes no update if `found_inf` is 1.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bad:
            self.optimizer.step()
        if self.kernels is not None and not bad:
            self.kernels.step()
        self.network.zero_grad(set_to_none=True)  # zeros would cost a pass over memory
        return norm

    def count_as_one_step(self, before: Tensor) -> None:
        """Count the updates since `before`, a copy of `skipped`, as one step: skipped in a row if the last one was."""
        some, last = self.skipped[0] > before[0], self.skipped[1] > 0
        self.skipped.copy_(torch.stack([before[0] + some, (before[1] + 1) * last]))

    def discard_step(self) -> None:
        """Discard the gradients of an interrupted step."""
        self.network.zero_grad(set_to_none=True)
        if self.scales:
            self.scaler.update(self.scaler.get_scale())

    @property
    def is_recordable(self) -> bool:
        """Whether a step can be recorded as a CUDA graph: the optimizer itself skips steps with NaN or Inf."""
        return self.kernels is None and bool(self.optimizer.defaults.get("fused"))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of all optimizers: with `rate`, the learning rate of the step, and `full_rate`, its peak."""
        more = [] if self.kernels is None else self.kernels.optimizer.param_groups
        return [*self.optimizer.param_groups, *more]

    def float_buffers(self) -> list[Tensor]:
        """The buffers that forward passes change: running statistics, singular vectors."""
        return [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]


@contextmanager
def buffers_unless_skipped(trained: list[TrainableNetwork]) -> Iterator[None]:
    """Undo what a step did to the buffers if it was skipped: NaN or Inf would stay in running statistics for good."""
    buffers = [buffer for network in trained for buffer in network.float_buffers()]
    before = _flatten(buffers) if buffers else None
    skipped_before = torch.stack([network.skipped[0] for network in trained])
    yield
    if before is not None:
        skipped = (torch.stack([network.skipped[0] for network in trained]) > skipped_before).any()
        after = torch.where(skipped, before, _flatten(buffers))
        sizes = [buffer.numel() for buffer in buffers]
        torch._foreach_copy_(buffers, [v.view_as(b) for v, b in zip(after.split_with_sizes(sizes), buffers)])


def _flatten(tensors: list[Tensor]) -> Tensor:
    """A copy of all values in one tensor."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
