"""Tiny videos, made by PyAV, and what an independent reader says of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

#: What a repair must leave as it is, of all that ffprobe tells about a video track.
FACTS = (
    "codec_name", "width", "height", "pix_fmt", "sample_aspect_ratio", "display_aspect_ratio", "color_range",
    "color_space", "color_transfer", "color_primaries", "field_order", "r_frame_rate", "avg_frame_rate", "time_base",
    "start_pts", "duration_ts", "nb_frames", "disposition", "side_data_list",
)  # fmt: skip


def moving(frames: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """A smooth pattern that moves a pixel with each frame, H×W×3, uint16, clear of black and white."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = []
    for number in range(frames):
        waves = [np.sin((x + number + seed) / (7 + c)) * np.cos((y + 3 * c) / 9) for c in range(3)]
        channels.append(((np.stack(waves, axis=2) * 0.3 + 0.5) * 65535).astype(np.uint16))
    return channels


def as_frame(rgb: np.ndarray, pix_fmt: str, colorspace: int = 1, color_range: int = 1) -> Any:
    frame = av.VideoFrame.from_ndarray(rgb.astype(np.uint16), format="rgb48le")
    return frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)


def make_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    matrix: Sequence[int] | None = None,
    sample_aspect: Fraction | None = None,
    colors: tuple[int, int, int, int] = (1, 1, 1, 1),
    sound: str | None = None,
    metadata: dict[str, str] | None = None,
    chapters: list[Any] | None = None,
    interlaced: bool = False,
) -> Path:
    """Write a video. `colors`: range, primaries, transfer and matrix, by their code points."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_base = time_base or Fraction(1, rate)
    with av.open(str(path), "w", options=container_options or {}) as output:
        track = output.add_stream(codec, rate=rate, options=options or {})
        height, width = images[0].shape[:2]
        context = track.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = width, height, pix_fmt, time_base
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = colors
        context.thread_count = 1
        track.time_base = time_base
        if sample_aspect:
            context.sample_aspect_ratio = sample_aspect
        if matrix:
            track.set_display_matrix(matrix)
        if codec == "prores_ks":
            context.field_order = 1  # else its container says nothing, and a decoder finds out
        if interlaced:
            context.field_order = 2
            context.flags |= (1 << 18) | (1 << 29)
        audio = output.add_stream(sound, rate=48000) if sound else None
        output.metadata.update(metadata or {})
        if chapters:
            output.set_chapters(chapters)
        for number, image in enumerate(images):
            frame = as_frame(image, pix_fmt, color_range=colors[0] or 1)
            frame.pts, frame.time_base = (pts[number] if pts else number), time_base
            output.mux(track.encode(frame))
        output.mux(track.encode(None))
        if audio is not None:
            wave = np.sin(np.arange(48000 * len(images) // rate) / 20).astype(np.float32)[None]
            for start in range(0, wave.shape[1], 960):
                part = av.AudioFrame.from_ndarray(np.repeat(wave[:, start : start + 960], 1, 0), "fltp", "mono")
                part.sample_rate, part.pts = 48000, start
                output.mux(audio.encode(part))
            output.mux(audio.encode(None))
    return path


def planes_of(path: Path) -> list[list[np.ndarray]]:
    """The planes of all frames."""
    frames = []
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            kind = np.uint8 if max(one.bits for one in frame.format.components) <= 8 else np.uint16
            frames.append(
                [
                    np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].copy()
                    for plane in frame.planes
                ]
            )
    return frames


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as video:
        return [frame.pts * frame.time_base for frame in video.decode(video=0)]


def packets_of(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """The packets of the tracks of a kind, with their times."""
    with av.open(str(path)) as video:
        streams = [stream for stream in video.streams if stream.type == kind]
        return [(bytes(one), one.pts * one.time_base) for one in video.demux(streams) if one.size]


def facts_of(path: Path) -> dict[str, Any]:
    """What ffprobe says of the video track."""
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe")
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-select_streams", "v:0", "-of", "json", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stream = json.loads(told.stdout)["streams"][0]
    return {name: stream.get(name) for name in FACTS}
