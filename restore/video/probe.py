"""What a video file holds: the facts of its video track that must be the same in the output."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from restore.errors import RestoreError
from restore.images import NotAnImage, UnsupportedFile
from restore.images.decoder_output import DamagedFile

#: Transfer functions of HDR, by their code points (ITU-T H.273, table 3).
_HDR = {16: "PQ", 18: "HLG"}
#: The display matrix of frames that are upright.
_UPRIGHT = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
#: Values of `AVFieldOrder`.
PROGRESSIVE = (0, 1)
#: `AVFieldOrder` with the top field first.
_TOP_FIRST = (2, 5)


@dataclass(frozen=True)
class VideoFacts:
    """The facts of a video that a repair keeps.

    Attributes:
        width, height: of the stored frames, before they are turned upright.
        codec: FFmpeg's name of it.
        profile: of the codec; None: unknown.
        pix_fmt: FFmpeg's name of the pixel format.
        time_base: the unit of times, in seconds.
        rate: average frames per second.
        sample_aspect: width of a pixel by its height; None: unknown.
        color_range, color_primaries, color_trc, colorspace: the code points of H.273; 2 (range: 0) is unknown.
        field_order: of `AVFieldOrder`.
        matrix: the display matrix, nine integers; None: there is none.
        frames: their number as the file says; 0: unknown.
        seconds: its length; 0: unknown.
        stream: the index of the video track in the file.
        bit_rate: of the video track; 0: unknown.
        container: FFmpeg's name of the file's format.
    """

    width: int
    height: int
    codec: str
    profile: str | None
    pix_fmt: str
    time_base: Fraction
    rate: Fraction
    sample_aspect: Fraction | None
    color_range: int
    color_primaries: int
    color_trc: int
    colorspace: int
    field_order: int
    matrix: tuple[int, ...] | None
    frames: int
    seconds: float
    stream: int
    bit_rate: int
    container: str
    notes: tuple[str, ...] = field(default=())

    @property
    def interlaced(self) -> bool:
        """Whether frames hold two fields of different times."""
        return self.field_order not in PROGRESSIVE

    @property
    def top_first(self) -> bool:
        """Whether the upper field of an interlaced frame is the earlier one."""
        return self.field_order in _TOP_FIRST

    @property
    def quarter_turns(self) -> int:
        """How often a frame is turned counterclockwise by 90° to be upright, 0 to 3; 0 also for mirrored ones."""
        turns = {(0, 65536): 1, (-65536, 0): 2, (0, -65536): 3}
        if self.matrix is None or self._mirrored:
            return 0
        # The matrix turns points, with y down: a point (1, 0) goes to the first two values.
        return {1: 3, 3: 1, 2: 2, 0: 0}[turns.get((self.matrix[0], self.matrix[1]), 0)]

    @property
    def _mirrored(self) -> bool:
        assert self.matrix is not None
        a, b, _, c, d = self.matrix[:5]
        return a * d - b * c < 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """(H, W) of an upright frame."""
        turned = self.quarter_turns % 2
        return (self.width, self.height) if turned else (self.height, self.width)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a video to read. Errors of FFmpeg become errors of this package.

    Raises:
        DamagedFile: it cannot be read as a video.
        OSError: the file itself cannot be read.
    """
    import av

    av.logging.set_level(None)
    with ffmpeg_errors(path):
        container = av.open(os.fspath(path), metadata_errors="surrogateescape")
        try:
            yield container
        finally:
            container.close()


@contextmanager
def ffmpeg_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of FFmpeg into errors of this package, or of the system."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise _as_ours(error, path) from error


def _as_ours(error: Any, path: str | os.PathLike[str]) -> Exception:
    import av

    if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        return DamagedFile(f"the video cannot be decoded: {error.strerror}", where=path, exit_code=1)
    if isinstance(error, OSError) and error.errno and error.errno > 0 and error.errno < 200:
        return OSError(error.errno, os.strerror(error.errno), os.fspath(path))
    return RestoreError(f"FFmpeg failed: {error.strerror}", where=path, exit_code=1)


def track_of(container: Any) -> Any:
    """The video track of an open video: the first that is no cover.

    Raises:
        NotAnImage: there is none.
    """
    import av

    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    for stream in container.streams.video:
        if not stream.disposition & covers:
            return stream
    raise NotAnImage("this file holds no video track")


def probe(path: str | os.PathLike[str]) -> VideoFacts:
    """The facts of a video.

    Raises:
        RestoreError: exit code 1; it is damaged, holds no video, or one that cannot be kept right, such as HDR.
        OSError: it cannot be read.
    """
    with opened(path) as container:
        stream = track_of(container)
        context = stream.codec_context
        if context is None:
            raise UnsupportedFile("the codec of this video is unknown", where=path, exit_code=1)
        field_order = context.field_order  # decoding changes it
        frame = next(iter(container.decode(stream)), None)
        if frame is None:
            raise DamagedFile("the video holds no frame", where=path, exit_code=1)
        trc = frame.color_trc if context.color_trc in (0, 2) else context.color_trc
        notes = []
        if trc in _HDR:
            raise UnsupportedFile(
                f"this is an HDR video ({_HDR[trc]}), which the networks would wash out",
                where=path,
                hint="convert it to SDR first",
                exit_code=1,
            )
        if field_order in PROGRESSIVE and frame.interlaced_frame:
            field_order = 2
            notes.append("the video is interlaced, but does not say which field is first: the upper one is assumed")
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, 1000000)
        return VideoFacts(
            width=frame.width,
            height=frame.height,
            codec=context.codec.canonical_name,
            profile=context.profile,
            pix_fmt=frame.format.name,
            time_base=stream.time_base,
            rate=Fraction(rate),
            sample_aspect=stream.sample_aspect_ratio or context.sample_aspect_ratio or None,
            color_range=context.color_range or frame.color_range,
            color_primaries=context.color_primaries,
            color_trc=context.color_trc,
            colorspace=context.colorspace,
            field_order=field_order,
            matrix=_display_matrix(frame),
            frames=stream.frames,
            seconds=float(duration),
            stream=stream.index,
            bit_rate=context.bit_rate or 0,
            container=container.format.name,
            notes=tuple(notes),
        )


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The nine integers that turn a frame upright; None: it is."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = struct.unpack("=9i", bytes(data))
    return None if matrix == _UPRIGHT else matrix
