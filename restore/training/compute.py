"""How a run computes: threads, precision and memory format. Chosen when it begins, kept when it resumes."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from restore.devices import autocast, pick_precision, threads_for_load, usable_cpus
from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.training.config import TrainConfig

#: Another precision or memory format than the usual one has to save this share of its time: bits of a run should not
#: depend on the noise of a measurement.
_LEAST_GAIN = 0.1
_LEAST_STEPS = 100  # a shorter run would not make up for the timing
_TIMED_PIXELS = 1 << 15  # of the images that are timed, but at least one image
_TIMED_PASSES = 2  # after one that warms up


@dataclass(frozen=True)
class ComputeSettings:
    """How a run computes.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`, for autocast.
        channels_last: memory format of networks and activations; else contiguous.
    """

    precision: str
    channels_last: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """For the networks."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return self.precision + (" channels last" if self.channels_last else "")


def set_precision(config: TrainConfig, device: torch.device) -> str:
    """The precision for autocast: `fp32`, `bf16` or `fp16`; tf32 is fp32 with other CUDA flags.

    Sets PyTorch's process-wide CUDA flags. Callers restore them with `restore.devices.restored_cuda_flags`.

    Raises:
        RestoreError: the device does not support the precision.
    """
    if config.precision == "tf32" and device.type != "cuda":
        raise RestoreError("needs an NVIDIA GPU", where="precision = tf32", hint="use auto")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.benchmark = True  # pays, because all batches have one size
    return "fp32" if config.precision == "tf32" else pick_precision(config.precision, device)


def usual_settings(precision: str, device: torch.device) -> ComputeSettings:
    """The settings for a precision without a measurement.

    Tensor cores and half precision are fastest in channels_last; float32 on a CPU is slower in it on some processors.
    """
    return ComputeSettings(precision, device.type == "cuda" or precision in ("bf16", "fp16"))


def choose_settings(
    config: TrainConfig,
    fabric: Fabric,
    generator: RestorationNetwork,
    on_event: Callable[[str], None] = lambda line: None,
) -> ComputeSettings:
    """Choose how a run computes, and set PyTorch's threads and CUDA flags; see `set_precision`.

    On a CPU, the threads are those of the config, else of OMP_NUM_THREADS, else those with which the run in the folder
    began, else as many as the load of the machine allows. `precision: auto` is the fastest that is safe, by timing the
    generator; a run in the folder keeps its own, and a short run takes the usual one.

    Args:
        config: of the run; `out` may hold an earlier part of it.
        fabric: devices and processes.
        generator: on the CPU, for the timing; it is not changed.
        on_event: called with a line about the choice.

    Raises:
        RestoreError: the device does not support the precision.
    """
    usual = usual_settings(set_precision(config, fabric.device), fabric.device)
    if fabric.device.type != "cpu":
        return usual
    before = recorded(config.out)
    if fabric.world_size == 1:  # several processes have divided the processors among them
        threads = _choose_threads(config, before)
        most = torch.get_num_threads()
        torch.set_num_threads(threads)
        if threads < most and config.threads is None:
            why = "as when the run began" if "threads" in before else "because other programs keep processors busy"
            on_event(f"{threads} of {most} threads, {why}; threads={most} uses all")
    keeps_precision = "precision" in before
    if config.task == "generation":  # too small for a gain
        return usual
    if config.precision != "auto" or (config.total_steps < _LEAST_STEPS and not keeps_precision):
        return usual
    chosen = usual
    if fabric.is_global_zero:
        if keeps_precision:
            half = before["precision"] != "fp32"
            chosen = ComputeSettings(before["precision"], before.get("channels_last", half))
        else:
            costs = time_candidates(generator, candidates(usual), config)
            chosen = fastest(usual, costs)
            listed = ", ".join(f"{way} {seconds:.2g}" for way, seconds in costs.items())
            on_event(f"{chosen}, by processor seconds of a forward and a backward pass: {listed}")
    return fabric.broadcast(chosen)


def recorded(out: Path | None) -> dict[str, Any]:
    """`threads`, `precision` and `channels_last` of the run in a folder, from its `environment.json`.

    Empty without a run, or if it ran on a GPU. Earlier versions did not record `channels_last`.
    """
    try:
        found = json.loads((out / "environment.json").read_text()) if out is not None else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or found.get("device") != "cpu":
        return {}
    kinds = {"threads": int, "precision": str, "channels_last": bool}
    known = {name: found[name] for name, kind in kinds.items() if isinstance(found.get(name), kind)}
    if known.get("precision") not in ("fp32", "bf16"):
        known.pop("precision", None)
    return known


def _choose_threads(config: TrainConfig, before: Mapping[str, Any]) -> int:
    if config.threads is not None:
        return config.threads
    if os.environ.get("OMP_NUM_THREADS") or "threads" not in before:
        return threads_for_load()
    return min(int(before["threads"]), torch.get_num_threads(), usable_cpus())


def candidates(usual: ComputeSettings) -> list[ComputeSettings]:
    """The settings that are timed on a CPU, the usual ones first.

    bf16 is left out if oneDNN has no kernels for it: the general ones take a hundred times as long.
    """
    has_bf16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: usual.precision == "bf16")
    precisions = ("fp32", "bf16") if has_bf16() else ("fp32",)
    found = [ComputeSettings(precision, last) for precision in precisions for last in (False, True)]
    return [usual, *(other for other in found if other != usual)]


def fastest(usual: ComputeSettings, seconds: Mapping[ComputeSettings, float]) -> ComputeSettings:
    """The settings with the least time, if they save a tenth of the time of the usual ones; else these."""
    best = min(seconds, key=lambda way: seconds[way])
    return best if seconds[best] < (1 - _LEAST_GAIN) * seconds[usual] else usual


def time_candidates(
    generator: RestorationNetwork, ways: list[ComputeSettings], config: TrainConfig
) -> dict[ComputeSettings, float]:
    """Processor seconds of a forward and a backward pass of the generator, with one thread.

    The time of one thread hardly depends on what other programs do meanwhile.
    """
    side, threads = config.data.patch // generator.scale, torch.get_num_threads()
    count = max(1, min(config.data.batch, _TIMED_PIXELS // side**2))
    shape = (count, config.data.image_channels + config.data.condition_channels, side, side)
    image = torch.linspace(0, 1, math.prod(shape)).reshape(shape)
    mask = (image[:, :1] > 0.5).float() if generator.takes_mask else None
    found: dict[ComputeSettings, float] = {}
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout
            for way in ways:
                network = copy.deepcopy(generator).to(memory_format=way.memory_format)
                times = []
                for _ in range(1 + _TIMED_PASSES):
                    start = time.thread_time()
                    with autocast(torch.device("cpu"), way.precision):
                        output = network(image, mask)
                    output.float().mean().backward()
                    network.zero_grad(set_to_none=True)
                    times.append(time.thread_time() - start)
                found[way] = min(times[1:])
    finally:
        torch.set_num_threads(threads)
    return found
