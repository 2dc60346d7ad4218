"""Which device and which precision a machine is best used with. Asked once, said once."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import RestoreError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(wish: str = "auto") -> torch.device:
    """`auto` (the first CUDA GPU, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        RestoreError: no such device on this machine.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    kind, _, number = wish.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind == "mps" and not number:
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise RestoreError("this machine has no MPS device", where=f"device {wish}", hint="use auto or cpu")
    if kind == "cuda" and (not number or number.isdigit()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) < count:
            return torch.device("cuda", int(number or 0))
        found = f"{count} CUDA device(s) found" if count else "no CUDA device found"
        raise RestoreError(found, where=f"device {wish}", hint="use auto or cpu; `restore doctor` shows what is there")
    raise RestoreError("no such device", where=f"device {wish}", hint="use auto, cpu, cuda, cuda:N or mps")


def pick_devices(wish: str = "auto") -> list[torch.device]:
    """One device, or several of one kind that share the work.

    Args:
        wish: as `pick_device` takes it, several of these with commas between, or `cuda:all`. `cpu,cpu` is allowed: two
            pictures at a time, on half of the cores each.

    Raises:
        RestoreError: no such device, one GPU named twice, or devices of different kinds.
    """
    if wish == "cuda:all":
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [pick_device("cuda")]
    parts = wish.split(",")
    if len(parts) == 1:
        return [pick_device(wish)]
    devices = [pick_device(part.strip()) for part in parts]
    if len({device.type for device in devices}) > 1:
        raise RestoreError("only devices of one kind share a batch", where=f"device {wish}", hint="name one kind")
    for number, device in enumerate(devices):
        if device.type != "cpu" and device in devices[:number]:
            raise RestoreError(f"{device} is named twice", where=f"device {wish}", hint="name each device once")
    return devices


def usable_cpus() -> int:
    """Processors that this process may keep busy: its affinity, its container's quota and OMP_NUM_THREADS heeded."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    if quota is not None:
        limits.append(max(1, math.ceil(quota)))
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        limits.append(int(wanted))
    return min(limits)


def limit_threads() -> None:
    """Let the network use as many threads as there are processors for it; more only wait for each other.

    PyTorch heeds affinity and OMP_NUM_THREADS by itself, but not the quota of a container.
    """
    if torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def _cgroup_cpus(root: Path) -> float | None:
    """How many processors' time a container may use, by either version of control groups; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        share = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or none of these files
        return None
    return share if share > 0 else None


def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere fp32 is faster."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return any(bool(capabilities.get(name)) for name in ("amx_tile", "amx_bf16", "avx512_bf16"))
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(probe() for probe in probes if probe is not None)


def pick_precision(wish: str, device: torch.device) -> str:
    """`auto` becomes the fastest of `fp32`, `bf16`, `fp16` that is safe on the device; anything else is checked.

    Raises:
        RestoreError: an unknown precision, or fp16 on a CPU.
    """
    if wish not in PRECISIONS:
        raise RestoreError("no such precision", where=f"precision {wish}", hint=f"use {', '.join(PRECISIONS)}")
    if wish == "fp16" and device.type == "cpu":
        raise RestoreError("fp16 is not for CPUs", where="precision fp16", hint="use auto, bf16 or fp32")
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and cpu_has_fast_bf16():
        return "bf16"
    return "fp32"


AUTOCAST_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that runs a network in `fp32` (no casting), `bf16` or `fp16`."""
    return torch.autocast(device.type, AUTOCAST_DTYPE[precision], enabled=precision != "fp32")


# How much memory is free, in bytes.


_UNKNOWN = 4 << 30  # what a computer of today can be trusted to have


def free_on_device(device: torch.device) -> int:
    """Free memory of a CUDA GPU or of MPS; of the CPU, `free_in_ram`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return free_in_ram()


def free_in_ram() -> int:
    """Memory that this process may still take without swapping: of the machine, or of its container where less."""
    free = [_of_machine()]
    control = Path("/sys/fs/cgroup")
    limit, used = _number(control / "memory.max"), _number(control / "memory.current")
    if limit is not None and used is not None:
        # what the page cache holds can be had back
        cached = _of_table(control / "memory.stat", "inactive_file") or 0
        free.append(limit - used + cached)
    return max(0, min(free))


def _of_machine() -> int:
    available = _of_table(Path("/proc/meminfo"), "MemAvailable:")
    if available is not None:
        return available * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return _UNKNOWN


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux, or "max"
        return None


def _of_table(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


# From memory to the device without a wait.


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
