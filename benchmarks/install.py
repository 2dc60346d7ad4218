"""Compares ways of installing: the size of the download and on the disk, and the time of the first repair.

    python benchmarks/install.py                          # pip install ., with the extras cpu, onnx and serve
    python benchmarks/install.py --extras "" cpu --wheels /tmp/wheels
    python benchmarks/install.py --python .venv/bin/python --extras ""     # no installation: only the repairs

Every installation has its own virtual environment, which is removed at the end. Wheels are downloaded once (`--wheels`
keeps them) and installed from there, so the time of an installation depends on the disk, not on the network. The
columns of the table:

- download: size of all wheels, and of PyTorch with NVIDIA's libraries and Triton; - on disk: size of the whole
  environment, and of PyTorch with the same libraries;
- first repair: `restore fix` of one small image, with nothing compiled before; again: the same command once more;
- served: from the start of `restore serve` to the answer with the repaired image (the extra serve).

Seconds are on the clock, and in brackets of all processor cores together, which other programs disturb less.

The benchmark installs the wheels that the package index has for this system; on Linux, these are the CUDA build of
PyTorch. `--index` adds another index, such as that of the CPU builds. Repairs run on the CPU (`--device cpu`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
#: How the names of PyTorch's wheels and of the libraries that only it needs start; so do their folders.
OF_TORCH = ("torch", "functorch", "nvidia", "triton", "cuda")
PORT = 18573
SIDE_PX = 256


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", nargs="+", default=["", "cpu", "onnx", "serve"], help="as in .[EXTRAS]; '': none")
    parser.add_argument("--wheels", type=Path, help="a folder that keeps the wheels; default: a temporary one")
    parser.add_argument("--index", help="the address of a further package index")
    parser.add_argument("--python", type=Path, help="measure this environment, and install nothing")
    options = parser.parse_args()
    columns = ("pip install", "download, MB", "of that PyTorch", "on disk, MB", "of that PyTorch", "install, s")
    columns += ("first repair, s", "again, s", "served, s")
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    with tempfile.TemporaryDirectory(prefix="install-") as name:
        folder = Path(name)
        wheels = options.wheels or folder / "wheels"
        for extras in options.extras:
            if options.python is not None:
                cells = ["-"] * 5
                python = options.python
            else:
                python, cells = installed(folder / "venv", wheels, extras, options.index)
            cells += repaired(python, folder / "repairs")
            cells.append(served(python, folder) if "serve" in extras else "-")
            print(f"| {f'`.[{extras}]`' if extras else '`.`'} | {' | '.join(cells)} |", flush=True)
            shutil.rmtree(folder / "venv", ignore_errors=True)


def installed(place: Path, wheels: Path, extras: str, index: str | None) -> tuple[Path, list[str]]:
    """Install into a fresh environment. Returns its Python, and the cost of the installation."""
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    further = ["--extra-index-url", index] if index else []
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(PROJECT)], check=True)
    (own,) = wheels.glob("restore_toolkit-*.whl")
    what = f"{own}[{extras}]" if extras else str(own)
    subprocess.run([*pip, "wheel", "--no-cache-dir", "-w", str(wheels), *further, what], check=True)
    before, report = used_mb(place, ""), place / "report.json"
    started = now()
    subprocess.run(
        [*pip, "install", "--no-index", "--find-links", str(wheels), "--report", str(report), what], check=True
    )
    seconds = since(started)
    names = [one["download_info"]["url"].rpartition("/")[2] for one in json.loads(report.read_text())["install"]]
    sizes = {name: (wheels / name).stat().st_size / 1e6 for name in map(urllib.request.url2pathname, names)}
    of_torch = sum(size for name, size in sizes.items() if is_of_torch(name))
    disk, disk_torch = used_mb(place, "") - before, used_mb(place, "torch")
    return python, [*(f"{size:.0f}" for size in (sum(sizes.values()), of_torch, disk, disk_torch)), seconds]


def is_of_torch(name: str) -> bool:
    """Whether a wheel or a folder in site-packages is PyTorch or a library that only PyTorch needs."""
    return name.lower().startswith(OF_TORCH)


def used_mb(place: Path, share: str) -> float:
    """The size of an environment, or of PyTorch's share of it."""
    (packages,) = place.glob("lib/python*/site-packages") if os.name != "nt" else (place / "Lib/site-packages",)
    roots = [one for one in packages.iterdir() if is_of_torch(one.name)] if share else [place]
    files = (file for root in roots for file in ((root, *root.rglob("*")) if root.is_dir() else (root,)))
    return sum(file.lstat().st_size for file in files if file.is_file()) / 1e6


def repaired(python: Path, folder: Path) -> list[str]:
    """The seconds of `restore fix` on one image: the first time, and once more."""
    folder.mkdir(exist_ok=True)
    image, cache = folder / "scan.png", folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    noise = f"numpy.random.default_rng(0).integers(0, 255, ({SIDE_PX}, {SIDE_PX}, 3), numpy.uint8)"
    subprocess.run([python, "-c", f"import cv2, numpy; cv2.imwrite({str(image)!r}, {noise})"], check=True)
    seconds = []
    for _ in range(2):
        started = now()
        command = [python, "-m", "restore.cli", "fix", image, folder / "out.png", "--overwrite", "--device", "cpu"]
        subprocess.run(command, check=True, env=alone(cache), capture_output=True, cwd=folder)
        seconds.append(since(started))
    return seconds


def served(python: Path, folder: Path) -> str:
    """The seconds from the start of a server to the answer to a request."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="scan.png"\r\n\r\n'
    body += (folder / "repairs" / "scan.png").read_bytes() + b"\r\n--x--\r\n"
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/fix", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    started = now()
    command = [python, "-m", "restore.cli", "serve", "--port", str(PORT), "--device", "cpu", "--warm", "photo"]
    server = subprocess.Popen(command, env=alone(folder / "repairs/cache"), cwd=folder, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    assert answer.read(4) == b"\x89PNG"
                    return since(started)
            except urllib.error.URLError:  # it does not listen yet
                if server.poll() is not None or time.perf_counter() - started[0] > 120:
                    raise
                time.sleep(0.05)
    finally:
        server.terminate()
        server.wait()


def now() -> tuple[float, float]:
    """The clock, and the processor seconds of the processes that have ended."""
    used = os.times()
    return time.perf_counter(), used.children_user + used.children_system


def since(start: tuple[float, float]) -> str:
    """The seconds that have passed, by the clock and of the processors."""
    clock, cores = (end - begin for end, begin in zip(now(), start))
    return f"{clock:.1f} ({cores:.1f})" if cores else f"{clock:.1f}"


def alone(cache: Path) -> dict[str, str]:
    """The environment's variables without this process's packages, and with a cache of its own."""
    kept: dict[str, Any] = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "RESTORE_CACHE": str(cache)}


if __name__ == "__main__":
    sys.exit(main())
