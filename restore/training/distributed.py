"""What several processes of one run say to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from restore.errors import RestoreError

T = TypeVar("T")


def on_rank_zero(fabric: Fabric, action: Callable[[], T]) -> T | None:
    """Do something in the process that leads, and let the others know whether it went well.

    Raises:
        RestoreError: it did not; in the others, which say nothing of it, with the same exit code.
    """
    done, failed = None, None
    if fabric.is_global_zero:
        try:
            done = action()
        except RestoreError as error:
            failed = error
    if fabric.world_size > 1:
        code = fabric.broadcast(failed.exit_code if failed is not None else 0)
        if code and not fabric.is_global_zero:
            raise RestoreError("the process that leads has stopped", exit_code=code)
    if failed is not None:
        raise failed
    return done


def sync_buffers(fabric: Fabric, *networks: torch.nn.Module) -> None:
    """Give running statistics, which each process takes of its own images, the mean over all of them."""
    buffers = [b for network in networks for b in network.buffers() if b.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    mean = fabric.all_reduce(torch.cat([b.detach().flatten() for b in buffers]), reduce_op="mean")
    assert isinstance(mean, torch.Tensor)
    for buffer, values in zip(buffers, mean.split([b.numel() for b in buffers])):
        buffer.copy_(values.view_as(buffer))


def mean_over_processes(fabric: Fabric, terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Scalars averaged over all processes, in one exchange, and fetched in one go."""
    together = torch.stack([terms[name].float() for name in terms])
    if fabric.world_size > 1:
        mean = fabric.all_reduce(together, reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        together = mean
    return dict(zip(terms, together.tolist()))


def any_rank(fabric: Fabric, here: bool) -> bool:
    """Whether something holds in any process."""
    if fabric.world_size == 1:
        return here
    return bool(fabric.all_reduce(torch.tensor(float(here), device=fabric.device), reduce_op="sum"))
