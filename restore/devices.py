"""Devices, precision, threads and memory of the machine. Other modules query them only through this one."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import RestoreError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTOCAST_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# Device and precision


def pick_device(spec: str = "auto") -> torch.device:
    """The device that a name stands for.

    Args:
        spec: `auto` (the first CUDA GPU, else Apple's MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        RestoreError: this machine has no such device.
    """
    if spec == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    kind, _, number = spec.partition(":")
    if kind == "cpu" and not number:
        return torch.device("cpu")
    if kind == "mps" and not number:
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise RestoreError("this machine has no MPS device", where=f"device {spec}", hint="use auto or cpu")
    if kind == "cuda" and (not number or number.isdigit()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) < count:
            return torch.device("cuda", int(number or 0))
        found = f"{count} CUDA device(s) found" if count else "no CUDA device found"
        raise RestoreError(found, where=f"device {spec}", hint="use auto or cpu; `restore doctor` lists the devices")
    raise RestoreError("no such device", where=f"device {spec}", hint="use auto, cpu, cuda, cuda:N or mps")


def pick_devices(spec: str = "auto") -> list[torch.device]:
    """One device, or several of one kind that share the work.

    Args:
        spec: a name for `pick_device`, several of them separated by commas, or `cuda:all`. `cpu,cpu` is allowed: two
            images at a time, on half of the cores each.

    Raises:
        RestoreError: no such device, one GPU named twice, or devices of different kinds.
    """
    if spec == "cuda:all":
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [pick_device("cuda")]
    parts = spec.split(",")
    if len(parts) == 1:
        return [pick_device(spec)]
    devices = [pick_device(part.strip()) for part in parts]
    if len({device.type for device in devices}) > 1:
        raise RestoreError("only devices of one kind share a batch", where=f"device {spec}", hint="name one kind")
    for number, device in enumerate(devices):
        if device.type != "cpu" and device in devices[:number]:
            raise RestoreError(f"{device} is named twice", where=f"device {spec}", hint="name each device once")
    return devices


def pick_precision(spec: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is the fastest of them that is safe on the device.

    Raises:
        RestoreError: an unknown precision, or fp16 on a CPU.
    """
    if spec not in PRECISIONS:
        raise RestoreError("no such precision", where=f"precision {spec}", hint=f"use {', '.join(PRECISIONS)}")
    if spec == "fp16" and device.type == "cpu":
        raise RestoreError("CPUs do not support fp16", where="precision fp16", hint="use auto, bf16 or fp32")
    if spec != "auto":
        return spec
    if device.type == "cuda":
        # Emulated bf16 is slower than fp16, which every CUDA GPU has.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and cpu_has_fast_bf16():
        return "bf16"
    return "fp32"


def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere fp32 is faster."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return any(bool(capabilities.get(name)) for name in ("amx_tile", "amx_bf16", "avx512_bf16"))
    # Before PyTorch 2.8 there are only private probes.
    probes = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(probe() for probe in probes if probe is not None)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that runs a network in `fp32` (no casting), `bf16` or `fp16`."""
    return torch.autocast(device.type, AUTOCAST_DTYPE[precision], enabled=precision != "fp32")


@contextmanager
def restored_cuda_flags() -> Iterator[None]:
    """Restore PyTorch's process-wide CUDA flags (TF32, cuDNN's benchmark) after a block, or a decorated function."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


# Processors


def usable_cpus() -> int:
    """Processors that this process may keep busy, within its affinity, its container's quota and OMP_NUM_THREADS."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    quota = _cgroup_cpus(_CGROUP)
    if quota is not None:
        limits.append(max(1, math.ceil(quota)))
    variable = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if variable.isdecimal() and int(variable) > 0:
        limits.append(int(variable))
    return min(limits)


def limit_threads() -> None:
    """Let PyTorch use no more threads than there are processors for it; more would only wait for each other.

    PyTorch heeds affinity and OMP_NUM_THREADS by itself, but not the quota of a container.
    """
    if torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def threads_for_load() -> int:
    """How many threads suit a network in training: one for each processor that is idle now, but at least half of them.

    The threads of a network wait for each other after every layer. One that shares its processor with another program
    delays them all: beside one busy process on two processors, a training step took 0.40 s with two threads, and
    0.22 s with one.

    Returns:
        From 1 to `torch.get_num_threads()`; this and `usable_cpus()` if the load is unknown (not Linux), or
        OMP_NUM_THREADS is set.
    """
    most = min(torch.get_num_threads(), usable_cpus())
    idle = None if os.environ.get("OMP_NUM_THREADS") else idle_cpus()
    return most if idle is None else max(1, most // 2, min(most, round(idle)))


def idle_cpus(seconds: float = 0.1, windows: int = 5) -> float | None:
    """How many processors of this process's affinity are idle; None if unknown.

    The most idle of several short windows counts: a program that works for a moment must not decide on the threads of a
    run, and with them on the rounding of its weights.
    """
    most: float | None = None
    for _ in range(windows):
        before, start = _idle_seconds(), time.perf_counter()
        time.sleep(seconds)
        after, elapsed = _idle_seconds(), time.perf_counter() - start
        if before is None or after is None:
            return None
        most = max(most or 0.0, (after - before) / elapsed)
    return most


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads after a block, or a decorated function."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


_STAT = Path("/proc/stat")


def _idle_seconds() -> float | None:
    """Seconds that the processors of this process's affinity have been idle since the start of the machine."""
    try:
        names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [row for line in _STAT.read_text().splitlines() if (row := line.split()) and row[0] in names]
        # After the name: user, nice, system, idle, waiting for a disk.
        return sum(int(row[4]) + int(row[5]) for row in rows) / os.sysconf("SC_CLK_TCK") if rows else None
    except (OSError, ValueError, AttributeError):  # not Linux
        return None


_CGROUP = Path("/sys/fs/cgroup")


def _cgroup_cpus(root: Path) -> float | None:
    """How many processors' time a container may use, by either version of control groups; None without a limit."""
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or none of these files
        return None
    return cpus if cpus > 0 else None


# Memory


_MEMINFO = Path("/proc/meminfo")
#: Installed memory if the system does not report it (Windows): a conservative guess.
_ASSUMED_RAM = 4 << 30

#: Messages of PyTorch's allocators, CUDA, MPS and oneDNN when memory runs out. Only CUDA's error has its own class.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process can still allocate on a device; for a CPU see `free_ram`."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return free_ram()


def free_ram() -> int:
    """Bytes that this process can still allocate without swapping: of the machine, or of its container if less.

    The page cache counts as free, as in Linux's MemAvailable: it is given up when memory is needed.
    """
    available = _table_entry(_MEMINFO, "MemAvailable:")
    machine = installed_ram() // 2 if available is None else available * 1024
    limit, used, reclaimable = _cgroup_memory(_CGROUP)
    return max(0, machine if limit is None else min(machine, limit - used + reclaimable))


def installed_ram() -> int:
    """Bytes of memory that the machine has, or its container may use."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        machine = _ASSUMED_RAM
    limit, _, _ = _cgroup_memory(_CGROUP)
    return machine if limit is None else min(machine, limit)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of whatever class and device, means that an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in message for phrase in _OUT_OF_MEMORY)


def _cgroup_memory(root: Path) -> tuple[int | None, int, int]:
    """Bytes that a container may use (None: no limit), uses, and could reclaim from its page cache."""
    if (root / "memory.max").exists():
        limit, used, table, entry = root / "memory.max", root / "memory.current", root / "memory.stat", "inactive_file"
    else:  # version 1
        memory = root / "memory"
        limit, used = memory / "memory.limit_in_bytes", memory / "memory.usage_in_bytes"
        table, entry = memory / "memory.stat", "total_inactive_file"
    limit_bytes, used_bytes = _number(limit), _number(used)
    if limit_bytes is None or used_bytes is None:
        return None, 0, 0
    return limit_bytes, used_bytes, _table_entry(table, entry) or 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not Linux, or "max"
        return None


def _table_entry(file: Path, name: str) -> int | None:
    """The number in the line of a file that starts with a name; None if there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


# Copies to a device


#: Up to this size CUDA takes a copy of pageable memory before the call returns; pinning would cost more.
_STAGED_BYTES = 1 << 16


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; on CUDA without waiting for the device's current work.

    Args:
        tensor: on the CPU, or on the device already.
        device: any.
    """
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor.pin_memory() if tensor.nbytes > _STAGED_BYTES else tensor).to(device, non_blocking=True)
