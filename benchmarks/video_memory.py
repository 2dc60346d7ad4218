"""Measures memory and time of the repair of a 4K video without the networks.

    python benchmarks/video_memory.py [--frames 24] [--width 3840] [--codec libx264]

The clip pans over a photograph that comes with scikit-image; each frame has dirt of its own. A detector that finds
nothing and a restorer that fills with white replace the networks, so that the figures are those of the pipeline. Peak
memory is the resident set of the process that repairs, including mapped pages of the file cache. Prints Markdown, and a
hash of the repaired frames, which must stay the same when a change should only affect memory.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


class Nothing:
    """A detector that finds nothing."""

    name, sha256, threshold = "nothing", None, 0.5

    def detect(self, image: np.ndarray, *, tile_px: int, on_event: Any) -> np.ndarray:
        """A mask without damage, H×W."""
        return np.zeros(image.shape[:2], np.float32)

    def adjusted(self, *, threshold: float) -> Nothing:
        """The same detector."""
        return self


def make(path: Path, frames: int, width: int, codec: str) -> None:
    """Write a clip of 16:9 that pans over a photograph, with dirt in each frame."""
    import av
    import cv2
    from skimage import data

    height = width * 9 // 16 // 2 * 2
    photograph = cv2.resize(data.coffee(), (width * 5 // 4, height * 5 // 4), interpolation=cv2.INTER_CUBIC)
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        track = output.add_stream(codec, rate=24)
        context = track.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            frame = photograph[3 * number :][:height, 5 * number :][:, :width].copy()
            for x, y, radius in random.integers((0, 0, 2), (width, height, 12), (40, 3)):
                cv2.circle(frame, (int(x), int(y)), int(radius), (250, 250, 250), -1)
            output.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(track.encode(None))


def repair(source: Path, target: Path) -> tuple[float, float]:
    """Repair a clip. Returns seconds and the peak of memory in GiB."""
    import torch
    from torch import Tensor

    from restore.fix.options import FixOptions
    from restore.fix.plan import plan_fix
    from restore.fix.run import run_fix
    from restore.fix.steps import Models
    from restore.process import reuse_large_blocks
    from restore.restorers.base import ModelRequirements, Restorer

    class White(Restorer):
        name, purpose = "white", "fills holes with white"
        requirements = ModelRequirements(needs_mask=True)

        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            return image.new_ones(image.shape)

    reuse_large_blocks()  # as the command does
    torch.set_num_threads(1)
    options = FixOptions(masks="auto", clean_up=False, overwrite=True)
    started = time.perf_counter()
    summary = run_fix(plan_fix(source, target, options), [Models(White(), None, Nothing())], options)
    assert (summary.done, summary.copied) == (1, 0), summary
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    return time.perf_counter() - started, peak


def hash_of(path: Path) -> str:
    """A hash of all frames."""
    import av

    digest = hashlib.sha256()
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--codec", default="libx264")
    args = parser.parse_args()
    spawned = multiprocessing.get_context("spawn")  # memory of one must not count for the other
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work, "clip.mkv"), Path(work, "out.mkv")
        with spawned.Pool(1) as pool:
            pool.apply(make, (source, args.frames, args.width, args.codec))
        with spawned.Pool(1) as pool:
            seconds, peak = pool.apply(repair, (source, target))
        print("| width | frames | s/frame | peak memory, GiB | frames repaired |\n|---|---|---|---|---|")
        print(f"| {args.width} | {args.frames} | {seconds / args.frames:.2f} | {peak:.2f} | {hash_of(target)} |")


if __name__ == "__main__":
    main()
