"""Which device and which precision a machine is best used with. Asked once, said once."""

from __future__ import annotations

import torch

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
