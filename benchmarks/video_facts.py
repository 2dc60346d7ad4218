"""Compares the output of ffprobe for twelve clips before and after a repair.

    python benchmarks/video_facts.py PHOTOGRAPHS OUT [--clips pan,turned]

The programs `ffmpeg` and `ffprobe` must be installed. `ffmpeg` makes the clips from photographs: pan, zoom, a moving
object, cuts; 8 and 10 bits; constant and variable frame rates; turned; with pixels that are not square; interlaced;
with sound, subtitles and chapters. A mask marks a part of every frame, which is filled. Prints every fact that differs,
the times of frames among them, and whether sound and subtitles have the same packets. Values that any new encoding
changes are not compared: bit rates, sizes and tags of encoders.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from video_steady import scenes

from restore.fix.options import FixOptions
from restore.fix.plan import plan_fix
from restore.fix.run import run_fix
from restore.fix.run_models import open_models

BT709 = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
SOUND = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds}"
#: Name -> scene, suffix, inputs besides the frames, options of the output.
CLIPS: dict[str, tuple[str, str, str, str]] = {
    "pan": ("pan", ".mp4", "", f"-c:v libx264 -pix_fmt yuv420p {BT709}"),
    "zoom_10_bits": ("zoom", ".mkv", "", f"-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=error {BT709}"),
    "object": ("object", ".mkv", "", "-c:v ffv1 -pix_fmt yuv422p10le"),
    "cut_variable_rate": (
        "cut", ".mp4", "",
        "-c:v libx264 -pix_fmt yuv420p -vf select=not(eq(mod(n\\,5)\\,3)) -fps_mode vfr",
    ),
    "variable_rate_10_bits": (
        "pan", ".mkv", "",
        "-c:v libx264 -pix_fmt yuv422p10le -vf select=not(eq(mod(n\\,4)\\,1)) -fps_mode vfr "
        "-colorspace bt2020nc -color_primaries bt2020 -color_trc bt2020-10 -color_range tv",
    ),
    "turned": ("zoom", ".mp4", "", "-c:v libx264 -pix_fmt yuv420p"),
    "upside_down": ("object", ".mov", "", "-c:v prores_ks -profile:v 3 -pix_fmt yuv422p10le"),
    "sound": ("pan", ".mp4", SOUND, "-c:v libx264 -pix_fmt yuv420p -c:a aac"),
    "subtitles": ("cut", ".mkv", SOUND + " -i {words} -i {chapters} -map_metadata 3",
                  "-map 0 -map 1 -map 2 -c:v libx264 -pix_fmt yuv420p -c:a flac -c:s srt"),
    "interlaced": (
        "pan", ".mkv", "",
        "-c:v libx264 -pix_fmt yuv420p -flags +ildct+ilme -x264-params tff=1 -field_order tt",
    ),
    "wide_pixels": ("still", ".ts", "", "-c:v mpeg2video -pix_fmt yuv420p -q:v 3 -vf setsar=16/15"),
    "full_range": ("object", ".webm", "", "-c:v libvpx-vp9 -pix_fmt yuv420p -color_range pc -colorspace bt709"),
}  # fmt: skip
#: Turned by the container, without encoding again; in degrees.
TURNS = {"turned": 90, "upside_down": 180}
#: Facts that a new encoding changes.
LEFT_OUT = frozenset((
    "bit_rate", "max_bit_rate", "size", "encoder", "filename", "probe_score", "extradata_size", "profile", "level",
    "has_b_frames", "refs", "codec_tag", "codec_tag_string", "is_avc", "nal_length_size", "bits_per_raw_sample",
    "closed_captions", "film_grain", "vendor_id", "nb_read_packets", "DURATION",
    "initial_padding", "buffer_size", "vbv_delay", "ENCODER",
))  # fmt: skip


def make(name: str, frames: list[np.ndarray], out: Path) -> Path:
    """Write a clip."""
    _, suffix, inputs, options = CLIPS[name]
    folder = out / "frames" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number:04d}.png"), frame[:, :, ::-1])
    (out / "words.srt").write_text("1\n00:00:00,100 --> 00:00:00,600\nA walk to the harbor\n\n")
    (out / "chapters.txt").write_text(
        ";FFMETADATA1\ntitle=My reel\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=One\n"
    )
    places = {"seconds": len(frames) / 24, "words": out / "words.srt", "chapters": out / "chapters.txt"}
    clip = out / f"{name}{suffix}"
    first = out / f"{name}_upright{suffix}" if name in TURNS else clip
    ffmpeg = ["ffmpeg", "-v", "error", "-y"]
    run(
        [
            *ffmpeg,
            "-framerate",
            "24",
            "-i",
            f"{folder}/%04d.png",
            *inputs.format(**places).split(),
            *options.split(),
            first,
        ]
    )
    if name in TURNS:
        run([*ffmpeg, "-i", first, "-c", "copy", "-metadata:s:v", f"rotate={TURNS[name]}", clip])
    return clip


def run(command: list[Any]) -> str:
    """The output of a program."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def facts(clip: Path) -> dict[str, Any]:
    """All facts by their paths, with the times of all frames."""
    told = json.loads(
        run(["ffprobe", "-v", "error", "-show_format", "-show_streams", "-show_chapters", "-of", "json", clip])
    )
    found: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                if key not in LEFT_OUT:
                    add(f"{path}.{key}", one)
        elif isinstance(value, list):
            found[f"{path}.count"] = len(value)
            for number, one in enumerate(value):
                add(f"{path}[{number}]", one)
        else:
            found[path] = value

    add("", told)
    shown = json.loads(
        run(
            [
                "ffprobe",
                "-v",
                "error",
                "-select_streams",
                "v",
                "-show_entries",
                "frame=pts_time",
                "-of",
                "json",
                clip,
            ]
        )
    )
    times = [float(frame["pts_time"]) for frame in shown["frames"]]
    found["frames"] = len(times)
    found["times"] = [round(time - times[0], 4) for time in times]
    for kind in ("a", "s"):
        packets = run(
            ["ffprobe", "-v", "error", "-select_streams", kind, "-show_entries", "packet=pts_time,size,data_hash",
             "-show_data_hash", "sha256", "-of", "compact", clip]
        )  # fmt: skip
        found[f"packets of {kind}"] = packets
    return found


def main() -> None:
    """Make the clips, repair and compare them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--clips", default=",".join(CLIPS))
    parser.add_argument("--model", default="telea")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = (144, 192)
    args.out.mkdir(parents=True, exist_ok=True)
    files = sorted(args.photographs.iterdir())[:2]
    photographs = [
        cv2.resize(cv2.imread(str(file)), (320, 240), interpolation=cv2.INTER_AREA)[:, :, ::-1] for file in files
    ]
    made = scenes([np.ascontiguousarray(one) for one in photographs], args.frames, size)
    different = 0
    for name in args.clips.split(","):
        clip = make(name, made[CLIPS[name][0]], args.out)
        upright = size[::-1] if TURNS.get(name, 0) % 180 else size
        mask = np.zeros(upright, np.uint8)
        mask[20:40, 30:60] = 255
        cv2.imwrite(str(args.out / f"{name}_mask.png"), mask)
        target = args.out / f"{name}_repaired{clip.suffix}"
        options = FixOptions(masks=args.out / f"{name}_mask.png", overwrite=True)
        summary = run_fix(plan_fix(clip, target, options), open_models(args.model, options), options)
        if summary.failed:
            print(name, "FAILED:", summary.failed[0].reason)
            different += 1
            continue
        before, after = facts(clip), facts(target)
        changed = {
            key: (before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)
        }
        different += bool(changed)
        print(name, f"{len(before)} facts,", "all equal" if not changed else f"DIFFERENT: {changed}", *summary.warnings)
    print(f"{len(args.clips.split(','))} clips, {different} with different facts")


if __name__ == "__main__":
    main()
