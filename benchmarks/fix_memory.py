"""Measures memory and time of the command `restore fix` over the size of the image.

    python benchmarks/fix_memory.py [--megapixels 12 50 100 400 900] [--model MODEL] [--format tif|png|jpg]

Each image is a photograph that comes with scikit-image, repeated up to the size. Without `--model`, the network is
small and has random weights, so that the figures are those of the pipeline rather than of the network. Peak memory is
the resident set of the process, including mapped pages of the file cache. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import pyvips
import torch

from restore.checkpoints import Description, save_weights
from restore.models.registry import build_generator


def small_network(path: Path) -> None:
    """Write weights of a network with 0.03 GMACs at 256²."""
    torch.manual_seed(0)
    args = {"widths": [4, 8], "blocks": [1, 1], "mask": False}
    model = build_generator("unet", args).eval()
    image = torch.rand(1, 3, 128, 128)
    about = Description(
        builder="unet", args=args, purpose="a small network", needs_mask=False, multiple=2, minimum=2,
        overlap_px=model.measure_overlap_px(image, None),
    )  # fmt: skip
    save_weights(path, model.state_dict(), about)


def image(path: Path, megapixels: float) -> None:
    """Write a 3:2 image of this size to a file."""
    from skimage import data

    photo = pyvips.Image.new_from_array(data.coffee())
    height = int((megapixels * 1e6 / 1.5) ** 0.5)
    width = int(height * 1.5)
    image = photo.replicate(-(-width // photo.width), -(-height // photo.height)).crop(0, 0, width, height)
    image.copy(interpretation="srgb").write_to_file(str(path))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12, 50, 100, 400, 900])
    parser.add_argument("--model")
    parser.add_argument("--format", default="tif", choices=("tif", "png", "jpg"))
    args = parser.parse_args()
    print("| megapixels | seconds | s/megapixel | peak memory, GB |\n|---|---|---|---|", flush=True)
    for megapixels in args.megapixels:
        with tempfile.TemporaryDirectory() as work:
            model = args.model or str(Path(work) / "small.safetensors")
            if args.model is None:
                small_network(Path(model))
            source = Path(work) / f"in.{args.format}"
            image(source, megapixels)
            target = str(Path(work) / f"out.{args.format}")
            command = [sys.executable, "-m", "restore.cli", "fix", str(source), target, "--model", model]
            start = time.perf_counter()
            process = os.posix_spawn(sys.executable, command, os.environ)
            _, status, used = os.wait4(process, 0)
            seconds = time.perf_counter() - start
            if status:
                raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
            peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
            print(f"| {megapixels:g} | {seconds:.1f} | {seconds / megapixels:.3f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
