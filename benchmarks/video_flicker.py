"""Measures how much drawn flicker `--deflicker` removes from moving scenes, and how it changes scenes without flicker.

    python benchmarks/video_flicker.py PHOTOGRAPHS [--frames 30] [--height 144] [--flicker 0.08] [--grain 4]

Scenes are those of `video_steady.py`, and a fade to black. Flicker is a random gain for each frame, another gain with a
quarter of its standard deviation for each channel, and an offset. It is measured as the jumps of the mean of each
channel from frame to frame relative to those of the scene without flicker, in levels of 255 (root mean square).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from video_steady import scenes

from restore.images import find_images, read_rgb8
from restore.video.deflicker import deflickered, small_of

#: Scenes are darker by this, so that there is room for flicker below white.
_ROOM = 0.75


def flickering(frames: list[np.ndarray], size: float, random: np.random.Generator) -> list[np.ndarray]:
    """Frames with a gain and an offset of their own."""
    out = []
    for frame in frames:
        gain = 1 + random.normal(0, size) + random.normal(0, size / 4, 3)
        out.append(np.clip(frame * gain + random.normal(0, size / 8, 3), 0, 1).astype(np.float32))
    return out


def evened(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Frames without their flicker, rounded to 8 bits, as the given ones are."""
    found = deflickered((frame, small_of(frame)) for frame in frames)
    return [frame if tone is None else in_8_bits(tone.to_unit(frame)) for frame, tone in found]


def in_8_bits(frame: np.ndarray) -> np.ndarray:
    """A frame as 8 bits hold it."""
    return (np.rint(frame * 255) / 255).astype(np.float32)


def jumps(frames: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """See above."""
    errors = [(frame - true).mean(axis=(0, 1)) for frame, true in zip(frames, truth, strict=True)]
    return 255 * float(np.sqrt(np.mean(np.diff(errors, axis=0) ** 2)))


def psnr(frames: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Over all frames, in dB."""
    error = float(np.mean([np.mean((frame - true) ** 2) for frame, true in zip(frames, truth, strict=True)]))
    return -10 * float(np.log10(error)) if error else float("inf")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--height", type=int, default=144)
    parser.add_argument("--flicker", type=float, default=0.08)
    parser.add_argument("--grain", type=float, default=0)
    args = parser.parse_args()
    photographs = [read_rgb8(args.photographs / name) for name in find_images(args.photographs)[:5]]
    made = scenes(photographs, args.frames, (args.height, args.height * 4 // 3))
    random = np.random.default_rng(0)
    print("| scene | flicker | after | removed | PSNR, flickering | after | without flicker, to itself |")
    print("|---|---|---|---|---|---|---|")
    for name, frames in {**made, "fade": made["pan"]}.items():
        truth = [in_8_bits(frame * np.float32(_ROOM / 255)) for frame in frames]
        if name == "fade":
            truth = [in_8_bits(frame * (1 - number / len(truth))) for number, frame in enumerate(truth)]
        grain = [random.normal(0, args.grain / 255, frame.shape).astype(np.float32) for frame in truth]
        truth = [in_8_bits(np.clip(frame + own, 0, 1)) for frame, own in zip(truth, grain)]
        before = [in_8_bits(frame) for frame in flickering(truth, args.flicker, random)]
        after = evened(before)
        was, now, same = jumps(before, truth), jumps(after, truth), psnr(evened(truth), truth)
        to_itself = "equal" if same == float("inf") else f"{same:.1f}"
        scores = f"{psnr(before, truth):.1f} | {psnr(after, truth):.1f} | {to_itself}"
        print(f"| {name} | {was:.2f} | {now:.2f} | {was / now:.0f} times | {scores} |", flush=True)


if __name__ == "__main__":
    main()
