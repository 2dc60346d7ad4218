"""What `restore doctor` prints: everything that a report of a fault should hold, and what a newcomer asks first."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.checkpoints import shipped_weights
from restore.devices import cpu_has_fast_bf16, pick_device, pick_precision
from restore.metrics.lpips import lpips_status

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
        *((name, _version(name) or "not installed") for name in PACKAGES),
        ("processor", f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"),
        ("fast bf16 on it", "yes" if cpu_has_fast_bf16() else "no: fp32 is used"),
        ("threads", str(torch.get_num_threads())),
        ("CUDA", _cuda()),
        ("MPS", "yes" if torch.backends.mps.is_available() else "no"),
        ("default", f"{device}, {pick_precision('auto', device)}"),
    ]
    rows += [(f"weights {name}", f"{path.stat().st_size / 1e6:.1f} MB") for name, path in shipped_weights().items()]
    rows += [
        (f"LPIPS {b.net}", f"{'available' if b.in_cache else 'not downloaded'} ({b.cache})") for b in lpips_status()
    ]
    return rows


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "no"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}: {', '.join(names)}"


# What a run was made with, for `environment.json`: enough to make it again, or to see why that fails.


_RECORDED_PACKAGES = ("torchvision", "numpy", "kornia", "opencv-python", "lpips", "lightning-fabric", "safetensors")
_GIT_SECONDS = 10  # a huge tree on a slow disk is not worth waiting for


def environment(device: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """Versions, machine, the device and precision that `auto` comes to here, and the git revision.

    Args:
        device, precision: as the config has them.

    Raises:
        RestoreError: this machine has no such device.
    """
    place = pick_device(device)
    return {
        "restore": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in _RECORDED_PACKAGES},
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "device": str(place),
        "precision": precision if precision == "tf32" else pick_precision(precision, place),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_revision(),
    }


def git_revision(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit of a working directory, and whether tracked files differ from it; None where there is no git.

    Args:
        folder: None: the current directory.

    Returns:
        `{"commit": hex, "changed": bool}`, or None.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(folder: Path | None, *arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    # An exported GIT_DIR (inside a hook, say) would speak of another repository than this folder's.
    own = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    try:
        done = subprocess.run(
            command, cwd=folder, env=own, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
