"""How much memory is free, in bytes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

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
