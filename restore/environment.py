"""Versions and hardware: for `restore doctor`, and for the `environment.json` of runs and benchmarks."""

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
from restore.checkpoints import named_weights
from restore.devices import cpu_has_fast_bf16, pick_device, pick_precision
from restore.engines.cache import cache_folder, stored_bytes
from restore.engines.choice import OTHERS, candidates, how_to_install, is_installed
from restore.metrics.lpips import lpips_status

#: Packages whose versions are reported. torch is first because it decides most results.
PACKAGES = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "opencv-python", "opencv-python-headless", "pillow",
    "pyvips", "pyvips-binary", "lpips", "safetensors", "lightning-fabric", "matplotlib", "typer",
    "spandrel", "spandrel_extra_arches", "openvino", "onnxruntime", "onnx", "onnxscript",
)  # fmt: skip

_GIT_TIMEOUT_SECONDS = 10  # `git status` takes long in a huge tree on a slow disk


def examine() -> list[tuple[str, str]]:
    """Rows of (property, value) for bug reports: versions, devices, processor, weights and LPIPS backbones."""
    device = pick_device("auto")
    rows = [
        ("restore", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        *((name, version or "not installed") for name, version in package_versions().items()),
        ("processor", _processor()),
        ("fast bf16 on CPU", "yes" if cpu_has_fast_bf16() else "no, fp32 is used"),
        ("threads", str(torch.get_num_threads())),
        ("CUDA", f"{torch.version.cuda}: {', '.join(_gpus())}" if torch.cuda.is_available() else "no"),
        ("MPS", "yes" if torch.backends.mps.is_available() else "no"),
        ("default", f"{device}, {pick_precision('auto', device)}, {default_engine()}"),
        *((f"engine {name}", "installed" if is_installed(name) else how_to_install(name)) for name in OTHERS),
        ("compiled networks", f"{stored_bytes() / 1e6:.1f} MB in {cache_folder() or 'no folder'}"),
    ]
    rows += [(f"weights {name}", f"{path.stat().st_size / 1e6:.1f} MB") for name, path in named_weights().items()]
    rows += [
        (f"LPIPS {b.net}", f"{'available' if b.in_cache else 'not downloaded'} ({b.cache})") for b in lpips_status()
    ]
    return rows


def default_engine() -> str:
    """What `auto` tries first on the default device."""
    device = pick_device("auto")
    return candidates("auto", pick_precision("auto", device), device)[0]


def environment(device: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """Everything needed to repeat a run, or to see why that fails, as plain values.

    Args:
        device, precision: as in the config; `auto` is resolved.

    Raises:
        RestoreError: this machine has no such device.
    """
    place = pick_device(device)
    versions = package_versions()
    return {
        "restore": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: version for name, version in versions.items() if version is not None},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": _gpus(),
        "device": str(place),
        "precision": precision if precision == "tf32" else pick_precision(precision, place),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_revision(),
    }


def package_versions() -> dict[str, str | None]:
    """The version of each of `PACKAGES`; None: it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _processor() -> str:
    return f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def git_revision(folder: Path | None = None) -> dict[str, Any] | None:
    """The commit of a working directory, and whether tracked files differ from it.

    Args:
        folder: None: the current directory.

    Returns:
        `{"commit": hex, "changed": bool}`; None outside a git repository, or without git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": None if changes is None else bool(changes)}


def _git(folder: Path | None, *arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    # Hooks export GIT_DIR, which may point to another repository than this folder.
    variables = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
