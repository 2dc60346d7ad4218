"""The frames of a video, in the order of display and with their times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from restore.errors import RestoreError
from restore.video.probe import VideoFacts, opened


@dataclass
class TimedFrame:
    """A frame and when it is shown.

    Attributes:
        frame: PyAV's; its planes may be shared with the decoder until `make_writable`.
        number: from 0, in the order of display.
        pts: when it is shown, in the time base of its track.
    """

    frame: Any
    number: int
    pts: int


def read_frames(
    path: str | os.PathLike[str],
    facts: VideoFacts,
    *,
    planes: str | None = None,
    deinterlace: bool = False,
    decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
    on_event: Callable[[str], None] = lambda line: None,
) -> Iterator[TimedFrame]:
    """All frames of a video.

    Args:
        path: of the file.
        facts: of the same file.
        planes: the pixel format to return frames in; None: their own.
        deinterlace: make whole frames of interlaced ones.
        decoding: makes a context in which a frame is decoded, which limits the time that it takes.
        on_event: called at the end with lines about what is wrong with the file.

    Raises:
        RestoreError: exit code 1; a frame cannot be decoded, or has another size than the first.
        OSError: the file cannot be read.
    """
    corrupt = moved = number = 0
    last: int | None = None
    step = max(1, round(1 / (facts.rate * facts.time_base)))
    with opened(path) as container:
        stream = container.streams[facts.stream]
        stream.thread_type = "AUTO"
        decoded = _decoded(container, stream, decoding)
        for frame in _deinterlaced(decoded, stream, facts) if deinterlace else decoded:
            if (frame.width, frame.height) != (facts.width, facts.height):
                raise RestoreError(
                    f"frames change their size, from {facts.width}×{facts.height} to {frame.width}×{frame.height}",
                    where=path,
                    exit_code=1,
                )
            corrupt += bool(frame.is_corrupt)
            pts = frame.pts
            if pts is not None and frame.time_base and frame.time_base != facts.time_base:
                pts = round(pts * frame.time_base / facts.time_base)
            if pts is None:
                pts = 0 if last is None else last + step
            elif last is not None and pts <= last:
                moved += 1
                pts = last + 1
            if planes is not None and frame.format.name != planes:
                frame = as_planes(frame, planes)
            yield TimedFrame(frame, number, pts)
            number, last = number + 1, pts
    if corrupt:
        on_event(f"{corrupt} frame{'s'[: corrupt != 1]} of the video are damaged; FFmpeg has filled what is missing")
    if moved:
        on_event(
            f"{moved} frame{'s'[: moved != 1]} came out of order in time, and are shown right after the one before"
        )


def _decoded(container: Any, stream: Any, decoding: Callable[[], AbstractContextManager[None]]) -> Iterator[Any]:
    for packet in container.demux(stream):
        with decoding():
            frames = packet.decode()
        yield from frames


def _deinterlaced(frames: Iterator[Any], stream: Any, facts: VideoFacts) -> Iterator[Any]:
    """One whole frame for each interlaced one, by FFmpeg's `bwdif`; progressive frames stay as they are."""
    import av

    graph = av.filter.Graph()
    parity = "tff" if facts.top_first else "bff"
    nodes = (
        graph.add_buffer(template=stream, time_base=facts.time_base),
        graph.add("bwdif", f"mode=send_frame:parity={parity}:deint=all"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()

    def pulled() -> Iterator[Any]:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for frame in frames:
        graph.vpush(frame)
        yield from pulled()
    graph.vpush(None)
    yield from pulled()


def as_planes(frame: Any, planes: str) -> Any:
    """The frame in another pixel format with the same values."""
    same = frame.reformat(format=planes, src_color_range=frame.color_range, dst_color_range=frame.color_range)
    same.pts, same.time_base = frame.pts, frame.time_base
    return same


def seconds_of(pts: int, time_base: Fraction) -> float:
    """A time in seconds."""
    return float(pts * time_base)
