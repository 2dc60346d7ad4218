"""Measures how much is found of line scratches that stay for many frames, and how much else is marked.

    python benchmarks/video_lines.py PHOTOGRAPHS [--frames 16] [--height 360] [--speed 1.5] [--grain 0]

Each photograph becomes a clip that pans over it, and one that stands still. Scratches are drawn over all frames at
their columns: 1 to 5 pixels wide, bright or dark, slowly drifting, over 50 to 100 % of the height. Prints the marked
share of their pixels; the share of frames in which a scratch is marked over more than half of its length; the marked
pixels outside of scratches, per frame pixel; and the marked share of the clips without scratches. No network is used,
so all marks come from the comparison of frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from video_steady import window

from restore.video.temporal import steadily


def scratches(frames: list[np.ndarray], random: np.random.Generator) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Frames with scratches, and for each frame the pixels of each scratch."""
    high, wide = frames[0].shape[:2]
    drawn = []
    for _ in range(int(random.integers(1, 4))):
        drawn.append(
            {
                "x": random.uniform(0.1, 0.9) * wide,
                "drift": random.uniform(-0.2, 0.2),
                "lean": random.uniform(-0.01, 0.01),
                "width": random.uniform(1, 5) * max(1, high / 720),
                "level": random.choice([-1, 1]) * random.uniform(12, 70),
                "rows": sorted([random.uniform(0, 0.25), random.uniform(0.75, 1)]),
            }
        )
    out, where = [], []
    y, x = np.mgrid[:high, :wide].astype(np.float32)
    for number, frame in enumerate(frames):
        damaged, own = frame.astype(np.float32), []
        for one in drawn:
            center = one["x"] + one["drift"] * number + 0.4 * np.sin(number * 1.3) + one["lean"] * (y - high / 2)
            cover = np.clip(one["width"] / 2 + 0.5 - np.abs(x - center), 0, 1)
            cover *= (y >= one["rows"][0] * high) & (y <= one["rows"][1] * high)
            level = one["level"] * random.uniform(0.8, 1.2)
            damaged += cover[:, :, None] * level
            own.append(cover > 0.3)
        out.append(np.clip(damaged, 0, 255).round().astype(np.uint8))
        where.append(own)
    return out, where


def masks_of(frames: list[np.ndarray]) -> list[np.ndarray]:
    """The masks of frames."""
    found = steadily(iter(frames), lambda frame: frame.astype(np.uint16) * 257, lambda rgb: None)
    return [one.mask for one in found]


def main() -> None:
    """Make the clips and score their masks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--speed", type=float, default=1.5, help="of the pan, pixels per frame")
    parser.add_argument("--grain", type=float, default=0.0, help="noise of the film in each frame, levels of 255")
    args = parser.parse_args()
    files = [file for path in args.photographs for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    random, rows = np.random.default_rng(0), []
    for file in files:
        photograph = cv2.imread(str(file))
        if photograph is None:
            continue
        scale = 1.5 * args.height / min(photograph.shape[:2])
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        size = (args.height, args.height * 16 // 9)
        for name, speed in (("pan", args.speed), ("still", 0.0)):
            clean = [window(photograph, 20 + speed * t, 15 + 0.2 * speed * t, 1.0, size) for t in range(args.frames)]
            noise = [random.normal(0, args.grain, (*size, 1)) for _ in clean]
            clean = [np.clip(a + b, 0, 255).round().astype(np.uint8) for a, b in zip(clean, noise)]
            damaged, where = scratches(clean, random)
            marked = masks_of(damaged)
            hit = [[(mask & one).sum() / max(1, one.sum()) for one in own] for mask, own in zip(marked, where)]
            near = [cv2.dilate(np.any(own, axis=0).astype(np.uint8), np.ones((3, 9))) > 0 for own in where]
            rows.append(
                {
                    "clip": f"{file.stem} {name}",
                    "found": float(np.mean(hit)),
                    "frames": float(np.mean(np.array(hit) > 0.5)),
                    "beside": float(np.mean([(mask & ~one).mean() for mask, one in zip(marked, near)])),
                    "clean": float(np.mean([mask.mean() for mask in masks_of(clean)])),
                }
            )
            print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
    for name in ("pan", "still"):
        own = [row for row in rows if row["clip"].endswith(name)]
        print(name, {key: round(float(np.mean([row[key] for row in own])), 5) for key in list(rows[0])[1:]})


if __name__ == "__main__":
    main()
