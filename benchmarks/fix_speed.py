"""Measures the speed of `restore fix`, beside its network alone and beside a common loop.

    python benchmarks/fix_speed.py [--count 100] [--max-megapixels 12] [--folder DIR] [--model photo] [--device auto]

Repairs photographs of 1 to 12 megapixels as JPEG: those that come with scikit-image, enlarged and with added grain, so
that they take as long to decode and encode as files from a camera, or those of a folder of JPEG and PNG files. Three
programs are measured, each in its own process:

- `restore fix`, from listing the folder to the synced files; imports and opening the model are measured separately.
- its network alone: the same pixels, decoded beforehand, through the same restorer with the same tiles.
- a common loop that reads with OpenCV, runs the network in fp32 and writes with OpenCV, one file after the other;
  whole images if memory allows, otherwise tiles of 1024 pixels.

Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GRAIN = 4.0  # 8-bit levels
USUAL_TILE_PX = 1024
BYTES_PER_PIXEL = 4096  # of the network, in fp32


def make_pictures(options: argparse.Namespace) -> dict[str, object]:
    """`--count` photographs from 1 megapixel to the largest, in even steps of the ratio, in mixed order."""
    import cv2
    import numpy as np
    from skimage import data

    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    random = np.random.default_rng(0)
    options.folder.mkdir(parents=True)
    sizes = np.geomspace(1, options.max_megapixels, options.count)
    for number, megapixels in enumerate(random.permutation(sizes)):
        photo = photos[number % len(photos)]
        factor = (megapixels * 1e6 / (photo.shape[0] * photo.shape[1])) ** 0.5
        size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
        large = cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC)[..., ::-1]
        grainy = large + random.normal(0, GRAIN, large.shape).astype(np.float32)
        target = options.folder / f"{number:03}.jpg"
        cv2.imwrite(str(target), grainy.clip(0, 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return {}


def network_alone(options: argparse.Namespace) -> dict[str, object]:
    """Seconds in the restorer, over all images; decoding and everything else are not counted."""
    from restore.devices import limit_threads
    from restore.fix.steps import repair
    from restore.images import read_image
    from restore.restorers.registry import open_restorer
    from restore.tiling import auto_tile

    limit_threads()
    restorer = open_restorer(options.model, device=options.device, precision=options.precision)
    tile = auto_tile(1 << 20, 1 << 20, device=restorer.device, overlap_px=restorer.requirements.overlap_px)
    seconds = pixels = 0.0
    for path in sorted(options.folder.iterdir()):
        shown = read_image(path).to_srgb()
        started = time.monotonic()
        repair(restorer, shown, None, tile_px=tile)
        seconds += time.monotonic() - started
        pixels += shown.shape[0] * shown.shape[1]
    place = f"{restorer.device}, {restorer.precision}"
    return {"seconds": seconds, "megapixels": pixels / 1e6, "how": f"{place}, tiles of {tile}"}


def usual_way(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of the common loop: read, run the network in fp32, write, one file after the other."""
    import cv2
    import numpy as np

    from restore.fix.steps import repair
    from restore.restorers.registry import open_restorer
    from restore.tiling import free_memory

    restorer = open_restorer(options.model, device=options.device, precision="fp32")
    room = free_memory(restorer.device) // 2
    options.out.mkdir()
    tiled = 0
    started = time.monotonic()
    for path in sorted(options.folder.iterdir()):
        pixels = cv2.imread(str(path))[..., ::-1].astype(np.float32) / np.float32(255)
        fits = pixels.shape[0] * pixels.shape[1] * BYTES_PER_PIXEL < room
        tiled += not fits
        repaired = repair(restorer, pixels, None, tile_px=0 if fits else USUAL_TILE_PX)
        cv2.imwrite(str(options.out / path.name), (repaired[..., ::-1] * 255).round().astype(np.uint8))
    return {"seconds": time.monotonic() - started, "how": f"{restorer.device}, fp32, {tiled} in tiles"}


def whole_command(options: argparse.Namespace) -> dict[str, object]:
    """`restore fix`, as a user runs it; its own clock starts when everything is imported and opened."""
    command = [
        sys.executable, "-m", "restore.cli", "fix", str(options.folder), str(options.out), "--json",
        "--model", options.model, "--device", options.device, "--precision", options.precision,
    ]  # fmt: skip
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    summary = json.loads(process.stdout.read())
    _, _, usage = os.wait4(process.pid, 0)
    if summary["exit_code"] != 0:
        raise SystemExit(f"the command failed: {summary['failed']}")
    start_up = time.monotonic() - started - summary["seconds"]
    return {"seconds": summary["seconds"], "peak_kb": usage.ru_maxrss, "how": f"{start_up:.1f} s of start-up apart"}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "pictures": make_pictures,
    "network": network_alone,
    "usual": usual_way,
}


def in_own_process(part: str, options: argparse.Namespace, folder: Path, out: Path) -> dict[str, object]:
    """One part, so that its peak of memory is its own."""
    command = [
        sys.executable, __file__, "--part", part, "--folder", str(folder), "--out", str(out), "--model", options.model,
        "--device", options.device, "--precision", options.precision, "--count", str(options.count),
        "--max-megapixels", str(options.max_megapixels),
    ]  # fmt: skip
    # As the command has its threads wait; the usual way leaves that as it is.
    environment = os.environ | ({"GOMP_SPINCOUNT": "1000"} if part == "network" else {})
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout)


def main() -> None:
    """Run the three ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="photographs to make")
    parser.add_argument("--max-megapixels", type=float, default=12.0, help="of the largest")
    parser.add_argument("--folder", type=Path, help="repair these images instead")
    parser.add_argument("--model", default="photo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-usual", action="store_true", help="leave out the usual way, which takes longest")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        facts = PARTS[options.part](options)
        print(json.dumps(facts | {"peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
        return
    with tempfile.TemporaryDirectory(prefix="restore-speed-") as scratch:
        folder = options.folder or Path(scratch, "in")
        if options.folder is None:
            in_own_process("pictures", options, folder, Path(scratch))
        options.folder = folder
        options.out = Path(scratch, "fixed")
        ways = {
            "`restore fix`": lambda: whole_command(options),
            "its network alone": lambda: in_own_process("network", options, folder, Path(scratch)),
            "the usual way": lambda: in_own_process("usual", options, folder, Path(scratch, "usual")),
        }
        if options.no_usual:
            del ways["the usual way"]
        rows = {}
        for name, measure in ways.items():
            rows[name] = measure()
            print(f"{name}: {rows[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
        print_tables(rows, count=sum(1 for _ in folder.iterdir()))


def print_tables(rows: dict[str, dict[str, object]], count: int) -> None:
    """Print the three programs and their ratios."""
    seconds = {name: float(str(facts["seconds"])) for name, facts in rows.items()}
    megapixels = float(str(rows["its network alone"]["megapixels"]))
    print(f"{count} images, {megapixels:.1f} megapixels\n")
    print("| | seconds | images/s | megapixels/s | peak memory | |\n|---|---|---|---|---|---|")
    for name, facts in rows.items():
        speed = f"{seconds[name]:.1f} | {count / seconds[name]:.2f} | {megapixels / seconds[name]:.2f}"
        print(f"| {name} | {speed} | {int(str(facts['peak_kb'])) / 1e6:.2f} GB | {facts['how']} |")
    whole = seconds["`restore fix`"]
    print(f"\nThe whole command takes {whole / seconds['its network alone']:.2f} times its network alone", end="")
    usual = seconds.get("the usual way")
    print("." if usual is None else f"; the usual way takes {usual / whole:.2f} times the whole command.")


if __name__ == "__main__":
    main()
