"""A process that runs one model and nothing else, so that measured time and memory are the model's alone.

Parent and process exchange messages over pipes: a line of JSON, then the bytes that it announces. The process ends
when its standard input closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from restore.devices import limit_threads
from restore.errors import RestoreError
from restore.restorers.base import Restorer
from restore.restorers.registry import open_restorer
from restore.tiling import run_tiled

_WARM_PX = 128


@dataclass(frozen=True)
class WorkerResult:
    """One restored image.

    Attributes:
        pixels: uint8, H×W×3, rounded.
        seconds: from the image in main memory to the result in main memory.
        cpu_seconds: of all processors in this time, which other programs hardly change.
        peak_bytes: peak memory of the process so far, including Python and PyTorch.
        idle_bytes: memory of the process with the model loaded, before the first image.
        gpu_bytes: peak memory of PyTorch's tensors on the GPU so far; None without a GPU.
        notes: deviations from the plan, such as smaller tiles.
    """

    pixels: np.ndarray
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    idle_bytes: int
    gpu_bytes: int | None
    notes: tuple[str, ...] = ()


class Worker:
    """A process with one model. Call `close` after use.

    Args:
        model: name or path of the model.
        device, precision: as for `open_restorer`.
        engine: what runs its network; None: it has none.
        tile_px: maximum tile side; 0: whole images.
    """

    def __init__(self, model: str, *, device: str, precision: str, engine: str | None, tile_px: int) -> None:
        self._model = model
        package = Path(__file__).resolve().parents[2]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        # A new session, so that Ctrl-C reaches only the parent, which then closes the process.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from restore.benchmark.worker import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self._ask(
            {"model": model, "device": device, "precision": precision, "engine": engine or "auto", "tile_px": tile_px}
        )

    def run(self, image: Tensor, mask: Tensor | None) -> WorkerResult:
        """Restore an image.

        Args:
            image: float32, 1×3×H×W.
            mask: float32, 1×1×H×W, or None. Pixels outside the mask are kept.

        Raises:
            RestoreError: exit code 1; the model failed, or the process died.
        """
        height, width = image.shape[-2:]
        body = image.contiguous().numpy().tobytes() + (b"" if mask is None else mask.contiguous().numpy().tobytes())
        reply = self._ask({"height": height, "width": width, "masked": mask is not None}, body)
        shape = (reply["height"], reply["width"], 3)
        pixels = np.frombuffer(_read(self._stdout, shape[0] * shape[1] * 3), np.uint8).reshape(shape)
        return WorkerResult(
            pixels, reply["seconds"], reply["cpu_seconds"], reply["peak_bytes"], reply["idle_bytes"],
            reply["gpu_bytes"], tuple(reply["notes"]),
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    @property
    def _stdout(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _ask(self, request: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n" + body)
            self._process.stdin.flush()
            line = self._stdout.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = "it may have run out of memory" if code == -9 else None
            raise RestoreError(f"the worker process {how}", where=self._model, hint=hint, exit_code=1)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RestoreError(reply["error"], where=self._model, exit_code=1)
        return reply


def serve() -> None:
    """The main function of the process: answer requests until standard input closes."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with replies
    limit_threads()
    with suppress(BrokenPipeError):
        _answer_requests(stdin, stdout)


def _answer_requests(stdin: BinaryIO, stdout: BinaryIO) -> None:
    def reply(values: dict[str, Any], body: bytes = b"") -> None:
        stdout.write(json.dumps(values).encode() + b"\n" + body)
        stdout.flush()

    settings = json.loads(stdin.readline())
    try:
        restorer = open_restorer(
            settings["model"], device=settings["device"], precision=settings["precision"], engine=settings["engine"]
        )
    except RestoreError as error:
        return reply({"error": str(error)})
    reply({"ready": True})
    idle_bytes, warm = resident_bytes(), False
    while line := stdin.readline():
        request = json.loads(line)
        height, width = request["height"], request["width"]
        image = _floats(stdin, 3, height, width)
        mask = _floats(stdin, 1, height, width) if request["masked"] else None
        try:
            if not warm:  # the first call loads libraries and selects kernels, which is not measured
                part = (..., slice(0, _WARM_PX), slice(0, _WARM_PX))
                _restored(restorer, image[part], None if mask is None else mask[part], 0, [])
                warm = True
            notes: list[str] = []
            started, cpu_started = time.perf_counter(), time.process_time()
            out = _restored(restorer, image, mask, settings["tile_px"], notes)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            if not bool(out.isfinite().all()):
                raise RestoreError("model output contains NaN or Inf", hint="try --precision fp32")
            pixels = out[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        except RestoreError as error:
            reply({"error": str(error)})
            continue
        except Exception as error:
            reply({"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"})
            continue
        gpu = torch.cuda.max_memory_allocated(restorer.device) if restorer.device.type == "cuda" else None
        size = {"height": pixels.shape[0], "width": pixels.shape[1]}
        stats = size | {"seconds": seconds, "cpu_seconds": cpu_seconds, "notes": notes}
        memory = {"peak_bytes": peak_bytes(), "idle_bytes": idle_bytes, "gpu_bytes": gpu}
        reply(stats | memory, pixels.numpy().tobytes())
    return None


@torch.inference_mode()
def _restored(restorer: Restorer, image: Tensor, mask: Tensor | None, tile_px: int, notes: list[str]) -> Tensor:
    """Call the restorer directly, so that values outside [0, 1] reach it; in tiles if requested.

    Restorers without a mask channel repair the whole image, and pixels outside the mask are restored afterwards.
    """
    needs = restorer.requirements
    out = run_tiled(
        lambda tile, hole: restorer(tile, hole, prepared=True),
        restorer.prepare(image, mask),
        tile_px=tile_px,
        overlap_px=needs.overlap_px,
        scale=needs.scale,
        multiple=needs.multiple,
        on_smaller_tile=lambda tile: notes.append(f"out of memory; retried with {tile} px tiles"),
    )
    if mask is not None and not needs.needs_mask:
        out = torch.where(mask > 0, out, image)
    return out


def _floats(stream: BinaryIO, channels: int, height: int, width: int) -> Tensor:
    data = bytearray(_read(stream, channels * height * width * 4))
    return torch.frombuffer(data, dtype=torch.float32).reshape(1, channels, height, width)


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise RestoreError("the worker process ended in the middle of a reply", exit_code=1)
    return data


def peak_bytes() -> int:
    """Peak memory of this process.

    Linux's own record is preferred: `getrusage` starts from the memory of the parent when it forked.
    """
    high_water = _status("VmHWM")
    if high_water is not None:
        return high_water
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """Current memory of this process, or its peak memory on systems without /proc."""
    return _status("VmRSS") or peak_bytes()


def _status(name: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:")), None)
    except OSError:
        return None
