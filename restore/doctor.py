"""What `restore doctor` prints: everything that a report of a fault should hold, and what a newcomer asks first."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import torch

from restore import __version__
from restore.checkpoints import shipped_weights
from restore.devices import cpu_has_fast_bf16, pick_device, pick_precision
from restore.metrics.perceptual import lpips_status

PACKAGES = (
    "torch", "torchvision", "kornia", "opencv-python", "scikit-image", "lpips",
    "pyvips", "pyvips-binary", "pillow", "numpy", "lightning-fabric", "safetensors", "typer",
    "spandrel", "spandrel_extra_arches",
)  # fmt: skip


def examine() -> list[tuple[str, str]]:
    """Rows of (what, found): versions, devices, processor features, weights and LPIPS backbones."""
    device = pick_device("auto")
    rows = [
        ("restore", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        *((name, _version(name)) for name in PACKAGES),
        ("processor", f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"),
        ("fast bf16 on it", "yes" if cpu_has_fast_bf16() else "no: fp32 is used"),
        ("threads", str(torch.get_num_threads())),
        ("CUDA", _cuda()),
        ("MPS", "yes" if torch.backends.mps.is_available() else "no"),
        ("default", f"{device}, {pick_precision('auto', device)}"),
    ]
    rows += [(f"weights {name}", f"{path.stat().st_size / 1e6:.1f} MB") for name, path in shipped_weights().items()]
    rows += [(f"LPIPS {b.net}", f"{'at hand' if b.at_hand else 'not at hand'} ({b.cache})") for b in lpips_status()]
    return rows


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "no"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}: {', '.join(names)}"
