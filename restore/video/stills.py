"""One frame of a video as an image, for reports."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.video.colors import colors_of
from restore.video.probe import VideoFacts, opened, probe
from restore.video.read import as_planes

Still = npt.NDArray[np.uint8]


def still_of(path: str | os.PathLike[str], seconds: float | None = None) -> tuple[Still, VideoFacts]:
    """A frame of a video, H×W×3, sRGB, upright, and the facts of the video.

    Args:
        path: of the video.
        seconds: from its beginning on; None, or behind its end: in its middle.

    Raises:
        RestoreError: exit code 1; no frame can be read.
        OSError: the file cannot be read.
    """
    facts = probe(path)
    colors, _ = colors_of(facts)
    within = seconds is not None and seconds <= facts.seconds
    at = Fraction(seconds if within and seconds is not None else facts.seconds / 2).limit_denominator(1000)
    with opened(path) as container:
        frame = _frame_at(container, container.streams[facts.stream], at)
    if frame is None:
        raise RestoreError("the video holds no frame", where=path, exit_code=1)
    if frame.format.name != colors.planes:
        frame = as_planes(frame, colors.planes)
    deep = np.rot90(colors.to_rgb(frame), facts.quarter_turns)
    return np.ascontiguousarray((deep.astype(np.uint32) + 128) // 257).astype(np.uint8), facts


def _frame_at(container: Any, stream: Any, at: Fraction) -> Any:
    """The first frame from a time on, or the last of all; None: there is none."""
    start = (stream.start_time or 0) * stream.time_base
    if at:
        container.seek(int((start + at) / stream.time_base), stream=stream)
    last = None
    for frame in container.decode(stream):
        last = frame
        if frame.pts is None or frame.pts * (frame.time_base or stream.time_base) >= start + at:
            break
    return last
