"""The step as one launch: on a GPU, a small step costs more in launches than in arithmetic.

A CUDA graph records what a step launches, once; replaying it costs one launch, whatever the networks (see "CUDA graphs"
in PyTorch's notes on CUDA semantics). Same kernels in the same order: the same numbers, up to what these kernels differ
by from run to run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from restore.data.loader import Batch
from restore.training.step import StepContext, TrainableNetwork, train_step

Step = Callable[..., dict[str, Tensor]]

_WARM_UP_STEPS = 3  # allocators, compilers and cuDNN settle; these are steps like any other


def stepper(
    rules: StepContext, device: torch.device, *, wanted: bool, paused: Callable[[], AbstractContextManager[Any]],
    on_event: Callable[[str], None] = lambda line: None,
) -> Step:  # fmt: skip
    """`train_step`, or on one CUDA device something that does the same in one launch.

    Args:
        rules: of the run.
        device: where it computes.
        wanted: False: `train_step` itself everywhere.
        paused: a context in which nobody else gives work to the device.
        say: told where a step could not be recorded.
    """
    if not wanted or device.type != "cuda" or rules.fabric.world_size > 1:
        return train_step
    return CudaGraphStep(device, paused, on_event)


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    batches: list[Batch]
    terms: dict[str, Tensor]


class CudaGraphStep:
    """Makes steps as `train_step` does, and takes its arguments; from the fourth of a kind on by replaying a graph.

    Kinds differ in whether D plays, whether R1 is paid, and in the shape of the batch. What a step returns is valid
    until the next one.

    Args:
        device, paused, say: see `stepper`.
    """

    def __init__(
        self, device: torch.device, paused: Callable[[], AbstractContextManager[Any]], on_event: Callable[[str], None]
    ) -> None:
        self._device, self._paused, self._on_event = device, paused, on_event
        self._stream = torch.cuda.Stream(device)
        self._made: Counter[tuple] = Counter()
        self._recordings: dict[tuple, _Recording] = {}
        self._pool: Any = None
        self._gave_up = False

    def __call__(
        self,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        batches: list[Batch],
        rules: StepContext,
        *,
        d_steps: int = 1,
        penalise: bool = True,
    ) -> dict[str, Tensor]:
        """See `train_step`."""
        if self._gave_up:
            return train_step(g, d, batches, rules, d_steps=d_steps, penalise=penalise)
        pays = penalise and d is not None and rules.loss.r1 > 0
        kind = (d is not None, pays, d_steps, len(batches), batches[0].clean.shape)
        if kind not in self._recordings:
            if self._made[kind] < _WARM_UP_STEPS:
                self._made[kind] += 1
                return self._aside(lambda: train_step(g, d, batches, rules, d_steps=d_steps, penalise=pays))
            recording = self._record(g, d, batches, rules, d_steps, pays)
            if recording is None:
                return train_step(g, d, batches, rules, d_steps=d_steps, penalise=pays)
            self._recordings[kind] = recording
        recording = self._recordings[kind]
        for own, batch in zip(recording.batches, batches):
            torch._foreach_copy_(_floats(own), _floats(batch))
            own.keys.copy_(batch.keys)
        recording.graph.replay()
        return dict(recording.terms)

    def _aside(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run a step on the stream that will be recorded, so that what it leaves behind belongs to that."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            terms = step()
        here.wait_stream(self._stream)
        return terms

    def _record(
        self,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        batches: list[Batch],
        rules: StepContext,
        d_steps: int,
        penalise: bool,
    ) -> _Recording | None:
        own = [Batch(*(t.clone() for t in (b.damaged, b.mask, b.clean, b.keys))) for b in batches]
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                self._paused(),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                terms = train_step(g, d, own, rules, d_steps=d_steps, penalise=penalise)
        except RuntimeError as error:
            self._gave_up = True
            for player in (g, d):
                if player is not None:
                    player.start_again()
            memory = isinstance(error, torch.OutOfMemoryError)
            reason = "there is no memory for it" if memory else " ".join(str(error).split())[:120]
            self._recordings.clear()
            self._on_event(f"steps are launched kernel by kernel, since they cannot be recorded (cuda_graph): {reason}")
            return None
        self._pool = graph.pool()
        return _Recording(graph, own, terms)


def _floats(batch: Batch) -> list[Tensor]:
    return [batch.damaged, batch.mask, batch.clean]
