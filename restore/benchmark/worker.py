"""A process that runs one model and nothing else, so that time and memory are the model's alone; and its other end.

Both speak over pipes: a line of JSON, then the bytes that it announces. The process ends when nobody speaks any more.
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
    """What a model made of one picture.

    Attributes:
        pixels: uint8, H×W×3, rounded.
        seconds: from handing the picture over to having the result, both in main memory.
        peak_bytes: the most memory that the process has held so far, Python and PyTorch with it.
        idle_bytes: what it held before the first picture, with the model loaded.
        gpu_bytes: the most that PyTorch's tensors have taken on the GPU so far; None without one.
        notes: what went another way than planned.
    """

    pixels: np.ndarray
    seconds: float
    peak_bytes: int
    idle_bytes: int
    gpu_bytes: int | None
    notes: tuple[str, ...] = ()


class Worker:
    """The process with one model. To be closed.

    Args:
        given: the model's name or path.
        device, precision: as for `open_restorer`.
        tile_px: largest side of a tile; 0: whole pictures.
    """

    def __init__(self, given: str, *, device: str, precision: str, tile_px: int) -> None:
        self._given = given
        package = Path(__file__).resolve().parents[2]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        # A session of its own: Ctrl-C is for the parent, which then closes the pipes.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from restore.benchmark.worker import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self._ask({"model": given, "device": device, "precision": precision, "tile_px": tile_px})

    def run(self, image: Tensor, mask: Tensor | None) -> WorkerResult:
        """Have a picture restored.

        Args:
            image: float32, 1×3×H×W.
            mask: float32, 1×1×H×W, or None.

        Raises:
            RestoreError: exit code 1: the model failed on it, or the process died of it.
        """
        height, width = image.shape[-2:]
        body = image.contiguous().numpy().tobytes() + (b"" if mask is None else mask.contiguous().numpy().tobytes())
        answer = self._ask({"height": height, "width": width, "masked": mask is not None}, body)
        shape = (answer["height"], answer["width"], 3)
        pixels = np.frombuffer(_read(self._stdout, shape[0] * shape[1] * 3), np.uint8).reshape(shape)
        return WorkerResult(
            pixels, answer["seconds"], answer["peak_bytes"], answer["idle_bytes"], answer["gpu_bytes"],
            tuple(answer["notes"]),
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process, whatever it is doing."""
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

    def _ask(self, question: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n" + body)
            self._process.stdin.flush()
            line = self._stdout.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = "there may not be enough memory" if code == -9 else None
            raise RestoreError(f"its process {how}", where=self._given, hint=hint, exit_code=1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RestoreError(answer["error"], where=self._given, exit_code=1)
        return answer


def serve() -> None:
    """The process's side, until standard input ends."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    limit_threads()
    with suppress(BrokenPipeError):
        _converse(stdin, stdout)


def _converse(stdin: BinaryIO, stdout: BinaryIO) -> None:
    def answer(values: dict[str, Any], body: bytes = b"") -> None:
        stdout.write(json.dumps(values).encode() + b"\n" + body)
        stdout.flush()

    order = json.loads(stdin.readline())
    try:
        restorer = open_restorer(order["model"], device=order["device"], precision=order["precision"])
    except RestoreError as error:
        return answer({"error": str(error)})
    answer({"ready": True})
    idle_bytes, warm = held_bytes(), False
    while line := stdin.readline():
        question = json.loads(line)
        height, width = question["height"], question["width"]
        image = _floats(stdin, 3, height, width)
        mask = _floats(stdin, 1, height, width) if question["masked"] else None
        try:
            if not warm:  # libraries load and kernels are chosen at the first call
                part = (..., slice(0, _WARM_PX), slice(0, _WARM_PX))
                _restored(restorer, image[part], None if mask is None else mask[part], 0, [])
                warm = True
            notes: list[str] = []
            started = time.perf_counter()
            out = _restored(restorer, image, mask, order["tile_px"], notes)
            seconds = time.perf_counter() - started
            if not bool(out.isfinite().all()):
                raise RestoreError("model output contains NaN or Inf", hint="try --precision fp32")
            pixels = out[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        except RestoreError as error:
            answer({"error": str(error)})
            continue
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"})
            continue
        gpu = torch.cuda.max_memory_allocated(restorer.device) if restorer.device.type == "cuda" else None
        facts = {"height": pixels.shape[0], "width": pixels.shape[1], "seconds": seconds, "notes": notes}
        memory = {"peak_bytes": peak_bytes(), "idle_bytes": idle_bytes, "gpu_bytes": gpu}
        answer(facts | memory, pixels.numpy().tobytes())
    return None


@torch.inference_mode()
def _restored(restorer: Restorer, image: Tensor, mask: Tensor | None, tile_px: int, notes: list[str]) -> Tensor:
    """The restorer called directly, so that values beyond [0, 1] reach it; in tiles where that is asked for."""
    needs = restorer.requirements
    mask = mask if needs.needs_mask else None
    return run_tiled(
        lambda tile, hidden: restorer(tile, hidden, prepared=True),
        restorer.prepare(image, mask),
        tile_px=tile_px,
        overlap_px=needs.overlap_px,
        scale=needs.scale,
        multiple=needs.multiple,
        on_smaller_tile=lambda tile: notes.append(f"out of memory; retried with {tile} px tiles"),
    )


def _floats(stream: BinaryIO, channels: int, height: int, width: int) -> Tensor:
    data = bytearray(_read(stream, channels * height * width * 4))
    return torch.frombuffer(data, dtype=torch.float32).reshape(1, channels, height, width)


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise RestoreError("its process ended in the middle of an answer", exit_code=1)
    return data


def peak_bytes() -> int:
    """The most memory that this process has held.

    From Linux's own record where there is one: `getrusage` begins with what the parent held when it started this.
    """
    recorded = _status("VmHWM")
    if recorded is not None:
        return recorded
    try:
        import resource
    except ImportError:  # Windows has no such record
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held_bytes() -> int:
    """What this process holds now, or where the system does not say, the most that it has held."""
    return _status("VmRSS") or peak_bytes()


def _status(name: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:")), None)
    except OSError:
        return None
