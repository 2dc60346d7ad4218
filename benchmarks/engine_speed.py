"""Compares the engines on this CPU: seconds, memory, time to the first result, and difference from PyTorch.

    python benchmarks/engine_speed.py --quick         # a few minutes: small images, three rounds
    python benchmarks/engine_speed.py                 # 512² and 12 megapixels, medians of seven: two hours on two cores
    python benchmarks/engine_speed.py --fix           # and the whole command, on twelve photographs
    python benchmarks/engine_speed.py --int8 photo=photo-int8.onnx inpaint=inpaint-int8.onnx

Twenty minutes on two cores, with everything but the detector's large image:

    python benchmarks/engine_speed.py --rounds 3 --large-rounds 1 --large-models photo inpaint \\
        --fix --fix-rounds 1 --int8 photo=photo-int8.onnx inpaint=inpaint-int8.onnx

Run it on an otherwise idle machine; OMP_NUM_THREADS limits the threads. For each model, every engine and precision has
its own process. The processes run the same image in turn, so that a change of the machine's speed affects all of them.
Seconds are medians, by the clock and (in brackets) of all processor cores together, which other programs disturb less.
The first run of each size is not counted, unless it is the only one. Ratios compare with PyTorch in the same precision
(int8: with bf16 where bf16 is fast, else with fp32).

- first result: from the start of the process to the first repaired image of 64 pixels; cold: with nothing compiled
  before; warm: with the files that the cold start has cached.
- memory: the peak of the process while it repairs the large image.
- difference from PyTorch in fp32 on the small image, in levels of 255 (of probability for the detector).

Models, engines and precisions that are not available are left out. Prints Markdown, each line as soon as it is
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GRAIN = 4 / 255
MODELS = ("photo", "inpaint", "detector")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256² and 0.5 megapixels, three rounds")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino", "onnx"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument(
        "--int8", nargs="+", default=[], metavar="MODEL=FILE", help="int8 ONNX files of `restore export`"
    )
    parser.add_argument("--side", type=int, help="of the small image; default 512")
    parser.add_argument("--megapixels", type=float, help="of the large image; default 12; 0: none")
    parser.add_argument("--rounds", type=int, help="with the small image; default 7")
    parser.add_argument("--large-rounds", type=int, help="with the large image; default 3")
    parser.add_argument("--large-models", nargs="+", default=list(MODELS), choices=MODELS, help="with the large image")
    parser.add_argument("--fix", action="store_true", help="also measure `restore fix`")
    parser.add_argument("--fix-rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "ENGINE", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    for name, quick, full in (("side", 256, 512), ("megapixels", 0.5, 12.0), ("rounds", 3, 7), ("large_rounds", 1, 3)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="engine-speed-") as folder:
        for model in options.models:
            measure(model, options, Path(folder))
        if options.fix:
            measure_commands(options, Path(folder))


def variants(model: str, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """The variants to compare: (model or file, engine, precision)."""
    from restore.devices import cpu_has_fast_bf16

    precisions = [one for one in options.precisions if one == "fp32" or cpu_has_fast_bf16()]
    found = [
        (model, engine, one) for engine in options.engines for one in precisions if (engine, one) != ("onnx", "bf16")
    ]
    files = [text.partition("=")[2] for text in options.int8 if text.partition("=")[0] == model]
    return found + [(file, engine, "int8") for file in files for engine in options.engines if engine != "torch"]


def measure(model: str, options: argparse.Namespace, folder: Path) -> None:
    """Compare the engines on one model, and print a table."""
    programs: list[Program] = []
    for source, engine, precision in variants(model, options):
        cache = folder / f"{model}-{engine}-{precision}"
        try:
            cold = Program(source, engine, precision, cache)
            cold.close()
            programs.append(Program(source, engine, precision, cache, cold=cold.first))
        except RuntimeError as error:
            print(f"{model}, {engine}, {precision}: left out: {error}\n", flush=True)
    large = round((options.megapixels * 1e6 * 4 / 3) ** 0.5)
    images = [("small", options.side, options.side, options.rounds)]
    if options.megapixels and model in options.large_models:
        images.append(("large", round(large * 3 / 4), large, options.large_rounds))
    for size, height, width, rounds in images:
        uncounted = int(rounds > 1)
        for number in range(uncounted + rounds):
            for program in programs:
                reply = program.ask(height=height, width=width, save=str(program.output) if size == "small" else None)
                if number >= uncounted:
                    program.runs[size].append((reply["seconds"], reply["cpu_seconds"]))
                program.peak_mb = reply["peak_mb"]
    for program in programs:
        program.close()
    by = {(program.engine, program.precision): program for program in programs}
    tile = programs[0].tile_px if programs else 0
    shown = f" and {options.megapixels:g} megapixels, {f'in tiles of {tile}' if tile else 'whole'}"
    shown = shown if len(images) > 1 else ""
    print(f"## {model}: {options.side}²{shown}\n")
    print(
        "| engine | precision | small, s | times as fast | large, s | times as fast | first result, cold | warm "
        "| memory, MB | largest difference | mean |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for program in programs:
        base = "bf16" if program.precision == "int8" and ("torch", "bf16") in by else program.precision
        against = by.get(("torch", "fp32" if base == "int8" else base))
        cells = [program.engine, program.precision]
        for size in ("small", "large"):
            cells += [seconds_of(program, size), ratio_of(against, program, size)]
        largest, mean = difference(program, by.get(("torch", "fp32")))
        cells += [f"{program.cold:.1f}", f"{program.first:.1f}", f"{program.peak_mb:.0f}", largest, mean]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def seconds_of(program: Program, size: str) -> str:
    """Medians on the clock and of the cores."""
    runs = program.runs[size]
    if not runs:
        return "-"
    return f"{statistics.median(r[0] for r in runs):.2f} ({statistics.median(r[1] for r in runs):.2f})"


def ratio_of(base: Program | None, program: Program, size: str) -> str:
    """How many times as fast as the other: by the clock, and in brackets by the cores."""
    if base is None or not program.runs[size]:
        return "-"
    ratios = [
        statistics.median(r[i] for r in base.runs[size]) / statistics.median(r[i] for r in program.runs[size])
        for i in (0, 1)
    ]
    return f"{ratios[0]:.2f} ({ratios[1]:.2f})"


def difference(program: Program, exact: Program | None) -> tuple[str, str]:
    """The largest and the mean difference from PyTorch in fp32, in levels of 255."""
    import numpy as np

    if exact is None or not exact.output.exists() or not program.output.exists():
        return "-", "-"
    found = np.abs(np.load(program.output) - np.load(exact.output)) * 255
    return f"{found.max():.4f}", f"{found.mean():.5f}"


class Program:
    """A process with one model, one engine and one precision.

    Raises:
        RuntimeError: it cannot be opened.
    """

    def __init__(self, source: str, engine: str, precision: str, cache: Path, cold: float = 0.0) -> None:
        self.engine, self.precision, self.cold = engine, precision, cold
        self.output = cache.with_suffix(".npy")
        self.runs: dict[str, list[tuple[float, float]]] = {"small": [], "large": []}
        self.peak_mb, self.tile_px = 0.0, 0
        started = time.time()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", source, engine, precision],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "RESTORE_CACHE": str(cache)},
        )  # fmt: skip
        try:
            self.ask(height=64, width=64, save=None)
        except RuntimeError:
            self._process.wait()
            raise
        self.first = time.time() - started

    def ask(self, **request: Any) -> dict[str, Any]:
        """Run an image."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "error" in reply:
            raise RuntimeError(reply["error"])
        self.tile_px = reply["tile_px"]
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def work(source: str, engine: str, precision: str) -> None:
    """The process: answer requests until standard input ends."""
    from restore.process import limit_thread_spinning, reuse_large_blocks

    limit_thread_spinning()
    reuse_large_blocks()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    import numpy as np
    import torch

    from restore.devices import limit_threads
    from restore.errors import RestoreError
    from restore.restorers.base import run_restorer

    limit_threads()
    how: dict[str, Any] = {"device": "cpu", "precision": "auto" if precision == "int8" else precision, "engine": engine}
    detects = source == "detector"
    try:
        model: Any
        if detects:
            from restore.restorers.detector import open_detector

            model = open_detector(source, **how)
        else:
            from restore.restorers.registry import open_restorer

            model = open_restorer(source, **how)
    except RestoreError as error:
        answer({"error": str(error)})
        return
    drawn: dict[tuple[int, int], tuple[Any, Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        height, width = size = request["height"], request["width"]
        if size not in drawn:
            drawn[size] = photograph(height, width)
        image, mask = drawn[size]
        tile_px = model.auto_tile_px(height, width)
        forget_peak()
        clock, cores = time.perf_counter(), time.process_time()
        if detects:
            out = model.probability(image, tile_px=tile_px)
        else:
            tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
            hole = torch.from_numpy(mask[None]) if model.requirements.needs_mask else None
            out = run_restorer(model, tensor, hole, tile_px, lambda line: None).numpy()
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cores
        if request["save"]:
            np.save(request["save"], out)
        answer({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb(), "tile_px": tile_px})


def photograph(height: int, width: int) -> tuple[Any, Any]:
    """H×W×3 in [0, 1], with some grain; and a mask of thin strokes, which `inpaint` fills by its network alone."""
    import cv2
    import numpy as np
    from skimage import data

    random = np.random.default_rng(0)
    large = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_CUBIC) / 255
    image = (large + random.normal(0, GRAIN, large.shape)).clip(0, 1).astype(np.float32)
    mask = np.zeros((height, width), np.float32)
    for _ in range(6):
        start, end = (tuple(int(side * share) for side, share in zip((width, height), random.random(2))) for _ in "ab")
        cv2.line(mask, start, end, 1.0, 2)
    return image, mask


def forget_peak() -> None:
    """Let the peak of this process's memory start anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """The peak of this process's memory since then; 0 if unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return 0.0


def measure_commands(options: argparse.Namespace, folder: Path) -> None:
    """Measure `restore fix` with each engine in turn on the same photographs, each after a run that is not counted."""
    import cv2
    import numpy as np

    scans = folder / "scans"
    scans.mkdir()
    sizes = np.geomspace(0.05, 0.4, 4) if options.quick else np.geomspace(1, 12, 12)
    for number, megapixels in enumerate(sizes):
        width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
        image, _ = photograph(round(width * 3 / 4), width)
        pixels = (image[..., ::-1] * 255).round().astype(np.uint8)
        cv2.imwrite(str(scans / f"{number:02}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    runs = variants("photo", options)
    small = folder / "one.jpg"
    small.write_bytes((scans / "00.jpg").read_bytes())
    ended: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for number in range(1 + options.fix_rounds):
        for model, engine, precision in list(runs):
            # With one photograph alone, the networks are compiled, and the files come into memory.
            for what, source in (("one", small), ("all", scans)) if number else (("one", small),):
                command = [sys.executable, "-m", "restore.cli", "fix", source, f"{folder}/{what}-{engine}-{precision}/"]
                command += ["--overwrite", "--device", "cpu", "--model", model, "--engine", engine]
                command += [] if precision == "int8" else ["--precision", precision]
                try:
                    result = run_alone(command, folder / "commands")
                except RuntimeError as error:
                    print(f"{engine}, {precision}: left out: {error}\n", flush=True)
                    runs.remove((model, engine, precision))
                    break
                if number:
                    ended.setdefault((engine, precision, what), []).append(result)
    total = float(sum(sizes))
    half = "bf16" if ("torch", "bf16", "all") in ended else "fp32"
    print(f"## `restore fix`, the whole command: {len(sizes)} photographs, {total:.1f} megapixels\n")
    print("| engine | precision | s | megapixels/s | times as fast | memory, MB | one photograph, s |")
    print("|---|---|---|---|---|---|---|")
    for _, engine, precision in runs:
        (clock, cores, memory), (one, one_cores, _) = (medians(ended[engine, precision, w]) for w in ("all", "one"))
        base = ended.get(("torch", half if precision == "int8" else precision, "all"))
        by_torch = None if base is None else medians(base)
        ratio = "-" if by_torch is None else f"{by_torch[0] / clock:.2f} ({by_torch[1] / cores:.2f})"
        print(f"| {engine} | {precision} | {clock:.1f} ({cores:.1f}) | {total / clock:.2f} | {ratio} ", end="")
        print(f"| {memory:.0f} | {one:.1f} ({one_cores:.1f}) |", flush=True)


def run_alone(command: list[Any], cache: Path) -> tuple[float, float, float]:
    """Run a command: seconds on the clock and of the cores, and the peak of its largest process's memory in MB.

    Raises:
        RuntimeError: it failed.
    """
    started = time.perf_counter()
    environment = {**os.environ, "RESTORE_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = process.stderr.read().strip().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def medians(runs: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Of each number."""
    clock, cores, memory = (statistics.median(values) for values in zip(*runs))
    return clock, cores, memory


def machine() -> str:
    """Processor, threads and versions."""
    from restore.devices import cpu_has_fast_bf16, usable_cpus
    from restore.environment import package_versions

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        flags = next((line for line in lines if line.startswith("flags")), "").split()
        known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        name += f" ({', '.join(flag for flag in known if flag in flags)})"
    except OSError:
        pass
    versions = package_versions()
    packages = ", ".join(f"{p} {versions[p]}" for p in ("torch", "openvino", "onnxruntime") if versions.get(p))
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    fast = "fast bf16" if cpu_has_fast_bf16() else "no fast bf16"
    return f"{name}, {usable_cpus()} threads, {fast}, {load}; {packages}"


if __name__ == "__main__":
    main()
