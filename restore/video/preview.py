"""A short video that shows frames before and after their repair, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from restore.video.colors import RGB16, FrameColors
from restore.video.encode import EncodedPacket, EncoderSettings, SegmentEncoder, add_track
from restore.video.probe import VideoFacts
from restore.video.write import Times, decoding_delay, timed


def write_preview(
    target: Path,
    facts: VideoFacts,
    colors: FrameColors,
    settings: EncoderSettings,
    pairs: Iterable[tuple[int, RGB16, RGB16]],
) -> None:
    """Write frames before and after their repair side by side, without sound. Without frames, nothing is written.

    Args:
        target: the file; an existing one is replaced.
        facts: of the video.
        colors: how its frames hold color.
        settings: of the encoder.
        pairs: the time of each frame, in the time base of the video, and its pixels before and after, both upright.

    Raises:
        RestoreError, OSError: it cannot be written.
    """
    import av

    high, wide = facts.upright_size
    aspect = facts.sample_aspect
    if aspect and facts.quarter_turns % 2:
        aspect = 1 / aspect
    facts = replace(facts, width=2 * wide, height=high, matrix=None, field_order=1, sample_aspect=aspect)
    encoder = SegmentEncoder(settings, facts, 0, interlaced=False)
    packets: list[EncodedPacket] = []
    pts: list[int] = []
    for time, before, after in pairs:
        pts.append(time)
        both = np.hstack([before, after])
        frame = av.VideoFrame(facts.width, facts.height, colors.planes)
        for plane in frame.planes:
            plane.update(b"\xff" * plane.buffer_size)  # of alpha, if it has any
        colors.write(frame, both ^ np.uint16(1), both)  # "before", every pixel was another
        packets += encoder.add(frame)
    packets += encoder.finish()
    if not pts:
        return
    times = Times(pts, max(1, round(1 / (facts.rate * facts.time_base))))
    delay = decoding_delay(packet.number for packet in packets)
    with av.open(os.fspath(target), "w", format=settings.container) as output:
        track = add_track(output, settings, facts, interlaced=False)
        output.start_encoding()
        for packet in timed(iter(packets), times, delay, track, facts):
            output.mux(packet)
