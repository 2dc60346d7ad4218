"""Communication between the processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from restore.errors import RestoreError

T = TypeVar("T")


def on_rank_zero(fabric: Fabric, action: Callable[[], T]) -> T | None:
    """Call a function on rank 0, and make all processes fail if it fails.

    Returns:
        What it returned; None on other ranks.

    Raises:
        RestoreError: it failed. Other ranks raise an error with the same exit code.
    """
    done, failed = None, None
    if fabric.is_global_zero:
        try:
            done = action()
        except RestoreError as error:
            failed = error
    if fabric.world_size > 1:
        # Without this, the other ranks would wait for rank 0 in their next exchange until it times out.
        code = fabric.broadcast(failed.exit_code if failed is not None else 0)
        if code and not fabric.is_global_zero:
            raise RestoreError("rank 0 has failed", exit_code=code)
    if failed is not None:
        raise failed
    return done


def sync_buffers(fabric: Fabric, *networks: torch.nn.Module) -> None:
    """Average running statistics over all processes; each takes them from its own images."""
    buffers = [b for network in networks for b in network.buffers() if b.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    # In one tensor, because each exchange waits for the slowest process.
    mean = fabric.all_reduce(torch.cat([b.detach().flatten() for b in buffers]), reduce_op="mean")
    assert isinstance(mean, torch.Tensor)
    for buffer, values in zip(buffers, mean.split_with_sizes([b.numel() for b in buffers])):
        buffer.copy_(values.view_as(buffer))


def mean_over_processes(fabric: Fabric, terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Average scalars over all processes. One exchange and one transfer from the device for all of them."""
    stacked = torch.stack([terms[name].float() for name in terms])
    if fabric.world_size > 1:
        mean = fabric.all_reduce(stacked, reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        stacked = mean
    return dict(zip(terms, stacked.tolist()))


def any_rank(fabric: Fabric, here: bool) -> bool:
    """Whether a condition holds in any process."""
    if fabric.world_size == 1:
        return here
    return bool(fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum"))
