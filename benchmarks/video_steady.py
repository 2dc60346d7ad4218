"""Compares repairs of film damage in moving scenes: with the help of neighboring frames, and frame by frame.

    python benchmarks/video_steady.py PHOTOGRAPHS OUT [--frames 12] [--height 180] [--scenes pan,zoom] [--grain 4]
        [--lpips squeezenet1_1.safetensors]

Scenes are made from photographs: a pan, a zoom, an object that moves, a cut, a still. Each frame gets damage of its
own: lines, specks and hairs of `configs/damage/film.yaml`, without its blur and noise. Scores compare with the
undamaged frames. Inside the damage, they are PSNR, LPIPS and the temporal error, the mean absolute error of the
difference between successive frames that are aligned along the motion of the scene. For clean scenes, they are the PSNR
to themselves and the marked share.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from restore.degradations.pipeline import degradation_from
from restore.fix.options import FixOptions
from restore.fix.plan import plan_fix
from restore.fix.run import run_fix
from restore.fix.run_models import open_models
from restore.hashed_random import keys
from restore.metrics.lpips import Lpips, open_lpips

LINES = {"name": "line-scratch", "probability": 0.5, "angle": 90, "outlier": 0, "dashed": 0.1, "dotted": 0}
LONG = {"count": [1, 3], "width": [1, 5], "length": [400, 1200], "spread": 1, "opacity": [0.08, 0.5], "bright": 0.4}
SHORT = {"count": [1, 20], "width": [0.6, 2.5], "length": [10, 200], "spread": 2, "bright": 0.5}
DAMAGE = {
    "steps": [
        LINES | LONG,
        LINES | SHORT,
        {"name": "speck", "count": [2, 120], "bright": 0.35, "light": [0.85, 1], "width": [1.2, 7]},
        {"name": "hair", "probability": 0.6, "count": [1, 6], "length": [15, 220]},
    ]
}


def scenes(photographs: list[np.ndarray], frames: int, size: tuple[int, int]) -> dict[str, list[np.ndarray]]:
    """Frames of each scene, H×W×3, uint8."""
    high, wide = size
    made = {}
    for number, name in enumerate(("pan", "zoom", "object", "cut", "still")):
        one, other = photographs[number % len(photographs)], photographs[(number + 1) % len(photographs)]
        out = []
        for t in range(frames):
            if name == "pan":
                out.append(window(one, 20 + 2.7 * t, 15 + 0.9 * t, 1.0, size))
            elif name == "zoom":
                out.append(window(one, 40, 40, 1 + 0.012 * t, size))
            elif name == "cut":
                out.append(window(one if t < frames // 2 else other, 20 + 1.5 * t, 20, 1.0, size))
            elif name == "object":
                frame = window(one, 20 + 0.5 * t, 20, 1.0, size)
                patch = window(other, 0, 0, 1.0, (high // 3, wide // 4))
                x = 10 + int(4 * t)
                frame[high // 3 : high // 3 + patch.shape[0], x : x + patch.shape[1]] = patch
                out.append(frame)
            else:
                out.append(window(one, 30, 30, 1.0, size))
        made[name] = out
    return made


def window(photograph: np.ndarray, x: float, y: float, zoom: float, size: tuple[int, int]) -> np.ndarray:
    """A part of a photograph that begins at (x, y)."""
    high, wide = size
    matrix = np.array([[1 / zoom, 0, x], [0, 1 / zoom, y]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photograph, matrix, (wide, high), flags=flags, borderMode=cv2.BORDER_REFLECT)


def write(path: Path, frames: list[np.ndarray]) -> None:
    """Write a video without loss."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        track = output.add_stream("ffv1", rate=24)
        track.codec_context.width, track.codec_context.height = frames[0].shape[1], frames[0].shape[0]
        track.codec_context.pix_fmt = "bgr0"
        for frame in frames:
            output.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(track.encode(None))


def read(path: Path) -> list[np.ndarray]:
    """The frames of a video."""
    import av

    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def psnr(a: list[np.ndarray], b: list[np.ndarray], where: list[np.ndarray] | None = None) -> float:
    """PSNR in dB over all frames, or over the pixels that are marked."""
    square = [(x.astype(float) - y) ** 2 for x, y in zip(a, b)]
    if where is not None:
        values = np.concatenate([s[w] for s, w in zip(square, where)])
    else:
        values = np.concatenate([s.ravel() for s in square])
    return float(10 * np.log10(255**2 / max(values.mean(), 1e-9)))


def perceptual(lpips: Lpips, out: list[np.ndarray], truth: list[np.ndarray], where: list[np.ndarray]) -> float:
    """LPIPS inside the damage, the mean over frames that have any."""
    values = []
    for frame, true, marked in zip(out, truth, where):
        if marked.any():
            pair = [torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255 for x in (frame, true)]
            _, score = lpips.scores(*pair, torch.from_numpy(marked[None, None]).float())
            assert score is not None
            values.append(float(score))
    return float(np.mean(values))


def moved(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A frame moved along a flow."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return cv2.remap(frame.astype(np.float32), x + flow[:, :, 0], y + flow[:, :, 1], cv2.INTER_LINEAR)


def temporal_error(out: list[np.ndarray], truth: list[np.ndarray], where: list[np.ndarray]) -> float:
    """Mean of |difference of successive outputs - that of the truth|, along the truth's motion, in damage of either."""
    errors = []
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for t in range(len(truth) - 1):
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in truth[t : t + 2]]
        flow = flow_of.calc(gray[0], gray[1], None)
        area = where[t] | (moved(where[t + 1].astype(np.uint8), flow) > 0)
        own = out[t].astype(np.float32) - moved(out[t + 1], flow)
        true = truth[t].astype(np.float32) - moved(truth[t + 1], flow)
        errors.append(np.abs(own - true)[area].ravel())
    return float(np.concatenate(errors).mean())


def main() -> None:
    """Make the scenes, repair and score them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--height", type=int, default=180)
    parser.add_argument("--scenes", default="pan,zoom,object,cut,still")
    parser.add_argument("--model", default="inpaint")
    parser.add_argument("--grain", type=float, default=0.0, help="noise of the film in each frame, levels of 255")
    parser.add_argument("--lpips", type=Path, help="weights of the backbone, SqueezeNet; default: no LPIPS")
    args = parser.parse_args()
    lpips = None if args.lpips is None else open_lpips("squeeze", args.lpips)
    size = (args.height, args.height * 4 // 3)
    files = sorted(args.photographs.iterdir())[:: max(1, len(list(args.photographs.iterdir())) // 6)]
    images = []
    for file in files:
        image = cv2.imread(str(file))
        if image is not None:
            scale = 1.6 * args.height / min(image.shape[:2])
            images.append(
                cv2.cvtColor(
                    cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB
                )
            )
    noise = np.random.default_rng(0)
    torch.set_num_threads(1)
    degrade = degradation_from(DAMAGE, "film marks")
    rows = []
    made = {k: v for k, v in scenes(images, args.frames, size).items() if k in args.scenes.split(",")}
    for number, (name, truth) in enumerate(made.items()):
        if args.grain:
            truth = [
                np.clip(f + noise.normal(0, args.grain, (*size, 1)), 0, 255).round().astype(np.uint8) for f in truth
            ]
        clean = torch.from_numpy(np.stack(truth)).permute(0, 3, 1, 2).float() / 255
        damaged, mask = degrade(clean, keys(0, number, last=torch.arange(len(truth))))
        damaged = [(f.permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8) for f in damaged]
        where = [m[0].numpy() > 0 for m in mask]
        write(args.out / f"{name}_damaged.mkv", damaged)
        write(args.out / f"{name}_clean.mkv", truth)
        row = {"scene": name, "damaged": psnr(damaged, truth, where), "share": float(np.mean(where))}
        for steady in (False, True):
            for kind in ("damaged", "clean"):
                if kind == "clean" and not steady:
                    continue
                options = FixOptions(masks="auto", overwrite=True, steady=steady, log=args.out / "log.jsonl")
                target = args.out / f"{name}_{kind}_{'steady' if steady else 'frames'}.mkv"
                plan = plan_fix(args.out / f"{name}_{kind}.mkv", target, options)
                (args.out / "log.jsonl").unlink(missing_ok=True)
                summary = run_fix(plan, open_models(args.model, options), options)
                assert summary.done, summary.failed
                record = json.loads((args.out / "log.jsonl").read_text().splitlines()[-1])
                out = read(target)
                if kind == "clean":
                    row |= {"clean_psnr": psnr(out, truth), "clean_marked": record["mask_coverage"]}
                else:
                    row[f"psnr_{'steady' if steady else 'frames'}"] = psnr(out, truth, where)
                    row[f"temporal_{'steady' if steady else 'frames'}"] = temporal_error(out, truth, where)
                    if lpips is not None:
                        row[f"lpips_{'steady' if steady else 'frames'}"] = perceptual(lpips, out, truth, where)
                    row[f"marked_{'steady' if steady else 'frames'}"] = record["mask_coverage"]
        rows.append(row)
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)
    print("mean", {k: round(float(np.mean([row[k] for row in rows])), 3) for k in rows[0] if k != "scene"})


if __name__ == "__main__":
    main()
