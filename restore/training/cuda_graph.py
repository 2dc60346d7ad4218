"""Training steps as CUDA graphs: on a GPU, a small step costs more in kernel launches than in arithmetic.

A CUDA graph records the kernels of a step once; replaying it costs one launch (see "CUDA graphs" in PyTorch's notes on
CUDA semantics). The kernels and their order are the same, so results differ no more than between two runs of the
same kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from restore.data.loader import Batch
from restore.training.step import StepContext, train_step
from restore.training.steps import STEPS, Step
from restore.training.trainable_network import TrainableNetwork

_WARM_UP_STEPS = 3  # until allocators, compilers and cuDNN have settled; these are steps of the run, too


def make_stepper(
    context: StepContext,
    device: torch.device,
    *,
    cuda_graph: bool,
    paused: Callable[[], AbstractContextManager[Any]],
    on_event: Callable[[str], None] = lambda line: None,
) -> Step:
    """The step of the task, or in place of `train_step` on a single CUDA device a `CudaGraphStep`.

    Args:
        context: of the run.
        device: of the run.
        cuda_graph: False: never a `CudaGraphStep`.
        paused: a context in which no other thread launches kernels.
        on_event: called if a step cannot be recorded.
    """
    step = STEPS[context.task]
    if not cuda_graph or device.type != "cuda" or context.fabric.world_size > 1 or step is not train_step:
        return step
    return CudaGraphStep(device, paused, on_event)


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    batches: list[Batch]
    terms: dict[str, Tensor]


class CudaGraphStep:
    """`train_step`, from the fourth step of a kind on by replaying a graph.

    Kinds differ in whether D has joined, whether R1 is applied, and in the shape of the batch. The returned terms are
    valid until the next step.

    Args:
        device, paused, on_event: see `make_stepper`.
    """

    def __init__(
        self, device: torch.device, paused: Callable[[], AbstractContextManager[Any]], on_event: Callable[[str], None]
    ) -> None:
        self._device, self._paused, self._on_event = device, paused, on_event
        self._stream = cast(Any, torch.cuda.Stream)(device)  # untyped in PyTorch
        self._steps: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool: Any = None
        self._failed = False

    def __call__(
        self,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        batches: list[Batch],
        context: StepContext,
        *,
        d_batches: Sequence[list[Batch]] = (),
        apply_r1: bool = True,
    ) -> dict[str, Tensor]:
        """See `Step`."""
        if self._failed:
            return train_step(g, d, batches, context, d_batches=d_batches, apply_r1=apply_r1)
        r1 = apply_r1 and d is not None and context.loss.r1 > 0
        kind = (d is not None, r1, len(d_batches), len(batches), batches[0].clean.shape)
        if kind not in self._recordings:
            if self._steps[kind] < _WARM_UP_STEPS:
                self._steps[kind] += 1
                return self._on_own_stream(lambda: train_step(g, d, batches, context, d_batches=d_batches, apply_r1=r1))
            recording = self._record(g, d, batches, context, d_batches, r1)
            if recording is None:
                return train_step(g, d, batches, context, d_batches=d_batches, apply_r1=r1)
            self._recordings[kind] = recording
        recording = self._recordings[kind]
        for own, batch in zip(recording.batches, _flat(batches, d_batches)):
            torch._foreach_copy_(_float_tensors(own), _float_tensors(batch))
            own.keys.copy_(batch.keys)
        recording.graph.replay()
        return dict(recording.terms)

    def _on_own_stream(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run a step on the stream that is recorded later, so that the memory it allocates belongs to that stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = step()
        current.wait_stream(self._stream)
        return terms

    def _record(
        self,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        batches: list[Batch],
        context: StepContext,
        d_batches: Sequence[list[Batch]],
        apply_r1: bool,
    ) -> _Recording | None:
        # A graph always reads from the same addresses: batches are copied there before each replay.
        own, own_d = _copied(batches), [_copied(parts) for parts in d_batches]
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                self._paused(),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                terms = train_step(g, d, own, context, d_batches=own_d, apply_r1=apply_r1)
        except RuntimeError as error:
            self._failed = True
            for network in (g, d):
                if network is not None:
                    network.discard_step()
            no_memory = isinstance(error, torch.OutOfMemoryError)
            reason = "out of memory" if no_memory else " ".join(str(error).split())[:120]
            self._recordings.clear()
            self._on_event(f"steps cannot be recorded as a CUDA graph, so they run kernel by kernel: {reason}")
            return None
        self._pool = graph.pool()
        return _Recording(graph, _flat(own, own_d), terms)


def _copied(parts: list[Batch]) -> list[Batch]:
    return [batch.map(torch.clone) for batch in parts]


def _flat(batches: list[Batch], d_batches: Sequence[list[Batch]]) -> list[Batch]:
    return [*batches, *(batch for parts in d_batches for batch in parts)]


def _float_tensors(batch: Batch) -> list[Tensor]:
    return [x for x in (batch.damaged, batch.mask, batch.clean, batch.condition, batch.degraded) if x is not None]
