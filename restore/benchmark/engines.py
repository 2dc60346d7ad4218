"""How fast each engine runs a network on this machine's CPU: for `restore doctor --bench`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from restore.devices import cpu_has_fast_bf16, pick_precision
from restore.engines.choice import OTHERS, TITLES, candidates, how_to_install, is_installed
from restore.errors import RestoreError
from restore.restorers.base import Restorer
from restore.restorers.registry import open_restorer

_SIDE_PX = 512
_ROUNDS = 5
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class EngineSpeed:
    """How long an engine takes in a precision: the median of several runs, in seconds for a million pixels."""

    engine: str
    precision: str
    seconds_per_megapixel: float

    def compared_with(self, others: Sequence[EngineSpeed]) -> str:
        """How many times as fast it is as PyTorch in the precision that PyTorch is fastest in."""
        by_torch = min(one.seconds_per_megapixel for one in others if one.engine == "torch")
        return f"{by_torch / self.seconds_per_megapixel:.2f} x"


def measure_engines(
    model: str = "photo", *, side_px: int = _SIDE_PX, rounds: int = _ROUNDS, on_event: Callable[[str], None]
) -> list[EngineSpeed]:
    """Run a model by every engine that is installed, in every precision that is fast here, in turn.

    Args:
        model: a name, or the path of its weights.
        side_px: of the image.
        rounds: runs of each, after a first one that is not counted.
        on_event: called with a line if an engine cannot run it.
    """
    precisions = ("fp32", "bf16") if cpu_has_fast_bf16() else ("fp32",)
    image = torch.rand(1, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
    runs: list[tuple[Restorer, list[float]]] = []
    for engine in ("torch", *(name for name in OTHERS if is_installed(name))):
        for precision in precisions if engine != "onnx" else ("fp32",):
            try:
                restorer = open_restorer(model, device="cpu", precision=precision, engine=engine, on_event=on_event)
            except RestoreError as error:
                on_event(str(error))
                continue
            restorer(image)
            runs.append((restorer, []))
    for _ in range(rounds):
        for restorer, seconds in runs:
            started = time.perf_counter()
            restorer(image)
            seconds.append(time.perf_counter() - started)
    return [
        EngineSpeed(str(one.engine), one.precision, statistics.median(seconds) / side_px**2 * 1e6)
        for one, seconds in runs
    ]


def advice(speeds: Sequence[EngineSpeed]) -> list[str]:
    """What `--engine auto` takes, and what to install to be faster."""
    precision = pick_precision("auto", _CPU)
    chosen = candidates("auto", precision, _CPU)[0]
    lines = [f"On the CPU, --engine auto --precision auto takes {TITLES[chosen]} in {precision}."]
    if not is_installed("openvino"):
        lines.append(f"{TITLES['openvino']} is mostly faster: {how_to_install('openvino')}")
    fastest = min(speeds, key=lambda one: one.seconds_per_megapixel)
    if (fastest.engine, fastest.precision) != (chosen, precision):
        lines.append(f"Fastest here: --engine {fastest.engine} --precision {fastest.precision}")
    return lines
